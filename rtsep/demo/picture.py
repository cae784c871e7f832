"""The picture of the demonstration: spectrograms before and after, drawn with Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rtsep.errors import AudioFileError

Audio = NDArray[np.float32]

WIDTH, HEIGHT = 1600, 1120
_LEFT, _RIGHT, _TOP, _GAP, _BOTTOM = 110, 150, 90, 80, 130
_LOW_HZ, _HIGH_HZ = 60.0, 16000.0
_RANGE_DB = 75.0
_FFT = 4096
_INK, _PAPER, _FAINT, _MARK = (25, 28, 36), (255, 255, 255), (120, 126, 138), (255, 255, 255)
# Dark to bright with steadily rising lightness, so that it also reads in grey.
_COLOURS = np.array([(8, 8, 22), (40, 17, 84), (98, 20, 110), (160, 40, 100), (215, 72, 70), (246, 127, 34),
                     (251, 191, 54), (252, 253, 191)], float)  # fmt: skip
_TICKS_HZ = (100, 200, 500, 1000, 2000, 5000, 10000)


def spectrogram(
    audio: Audio, samplerate: int, width: int, height: int, top_db: float | None = None
) -> NDArray[np.float64]:
    """Level in dB ``[height, width]``, low frequencies at the bottom, on a logarithmic axis from 60 Hz to 16 kHz."""
    mono = audio.mean(axis=0)
    window = np.hanning(_FFT)
    starts = np.linspace(0, max(0, len(mono) - 1), width).astype(int)
    padded = np.pad(mono, _FFT // 2)
    power = np.empty((width, _FFT // 2 + 1))
    for a in range(0, width, 256):  # columns in portions: all frames at once would be a hundred megabytes
        frames = np.stack([padded[s : s + _FFT] for s in starts[a : a + 256]])
        power[a : a + 256] = np.abs(np.fft.rfft(frames * window)) ** 2
    edges = _LOW_HZ * (_HIGH_HZ / _LOW_HZ) ** (np.arange(height + 1) / height)
    bins = edges * _FFT / samplerate
    total = np.concatenate([np.zeros((width, 1)), np.cumsum(power, axis=1)], axis=1)
    # The mean power between two edges, by interpolating the running sum: smooth at the bottom, complete at the top.
    at = np.clip(bins + 0.5, 0, total.shape[1] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, total.shape[1] - 1)
    summed = total[:, low] + (at - low) * (total[:, high] - total[:, low])
    mean = np.diff(summed, axis=1) / np.maximum(np.diff(at), 1e-9)
    level = 10 * np.log10(np.maximum(mean, 1e-12))
    return np.asarray(level.T[::-1] - (level.max() if top_db is None else top_db))


def draw(
    path: str | Path,
    before: Audio,
    after: Audio,
    samplerate: int,
    mute_s: float,
    caption: list[str],
    muted: str = "vocals",
) -> None:
    """Write the picture as PNG.

    Parameters
    ----------
    path : path
    before, after : arrays [C, T]
        In time with each other.
    samplerate : int
    mute_s : float
        When the stem was muted, in seconds.
    caption : list of str
        Lines under the picture; two fit.
    muted : str
        Name of the stem.

    Raises
    ------
    AudioFileError
        The file cannot be written.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    pen = ImageDraw.Draw(image)
    big, medium, small = (ImageFont.load_default(size) for size in (30, 22, 18))
    width = WIDTH - _LEFT - _RIGHT
    height = (HEIGHT - _TOP - _GAP - _BOTTOM) // 2
    seconds = before.shape[1] / samplerate
    pen.text((_LEFT, 18), f"{muted} muted at {mute_s:.1f} s", fill=_INK, font=big)
    loudest = _loudest(before, samplerate, width, height)
    mark = _LEFT + round(mute_s / seconds * width)
    for row, (title, audio) in enumerate((("input", before), ("output", after))):
        top = _TOP + row * (height + _GAP)
        level = spectrogram(audio, samplerate, width, height, loudest)
        image.paste(Image.fromarray(_paint(level)), (_LEFT, top))
        pen.rectangle((_LEFT - 1, top - 1, _LEFT + width, top + height), outline=_INK)
        pen.text((_LEFT, top - 30), title, fill=_INK, font=medium)
        _frequency_axis(pen, small, top, height)
        _time_axis(pen, small, top + height, width, seconds, label=row == 1)
        for y in range(top, top + height, 14):
            pen.line((mark, y, mark, min(y + 7, top + height)), fill=_MARK, width=3)
    pen.text((mark + 10, _TOP - 32), f"{muted} muted", fill=_INK, font=medium, anchor="la")
    pen.line((mark, _TOP - 32, mark, _TOP), fill=_INK, width=3)
    _colour_bar(image, pen, small, height)
    for i, line in enumerate(caption[:2]):
        pen.text((_LEFT, HEIGHT - 62 + 28 * i), line, fill=_INK, font=medium)
    try:
        image.save(path, format="PNG", optimize=True)
    except OSError as error:
        raise AudioFileError(f"{path} cannot be written: {error.strerror or error}.") from error


def _loudest(audio: Audio, samplerate: int, width: int, height: int) -> float:
    absolute = spectrogram(audio, samplerate, width, height, 0.0)
    return float(np.percentile(absolute, 99.9))


def _paint(level: NDArray[np.float64]) -> NDArray[np.uint8]:
    place = np.clip(1 + level / _RANGE_DB, 0, 1) * (len(_COLOURS) - 1)
    low = np.minimum(place.astype(int), len(_COLOURS) - 2)
    part = (place - low)[..., None]
    return np.asarray(_COLOURS[low] * (1 - part) + _COLOURS[low + 1] * part, np.uint8)


def _frequency_axis(
    pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, top: int, height: int
) -> None:
    for hz in _TICKS_HZ:
        y = top + height - round(height * np.log(hz / _LOW_HZ) / np.log(_HIGH_HZ / _LOW_HZ))
        pen.line((_LEFT - 8, y, _LEFT - 1, y), fill=_INK, width=2)
        text = f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"
        pen.text((_LEFT - 14, y), text, fill=_INK, font=font, anchor="rm")


def _time_axis(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    y: int,
    width: int,
    seconds: float,
    label: bool,
) -> None:
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1e9) if seconds / s <= 12)
    for k in range(int(seconds / step + 1e-9) + 1):
        x = _LEFT + round(k * step / seconds * width)
        pen.line((x, y, x, y + 7), fill=_INK, width=2)
        pen.text((x, y + 10), f"{k * step:g}", fill=_INK, font=font, anchor="ma")
    if label:
        pen.text((_LEFT + width, y + 34), "seconds", fill=_FAINT, font=font, anchor="ra")


def _colour_bar(
    image: Image.Image, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, height: int
) -> None:
    x = WIDTH - _RIGHT + 36
    ramp = np.repeat(np.linspace(0, -_RANGE_DB, height)[:, None], 22, axis=1)
    image.paste(Image.fromarray(_paint(ramp)), (x, _TOP))
    pen.rectangle((x - 1, _TOP - 1, x + 22, _TOP + height), outline=_INK)
    for db in range(0, int(_RANGE_DB) + 1, 15):
        y = _TOP + round(db / _RANGE_DB * height)
        pen.line((x + 22, y, x + 28, y), fill=_INK, width=2)
        pen.text((x + 33, y), f"-{db} dB" if db else "0 dB", fill=_INK, font=font, anchor="lm")
