"""What a separator, a room, a microphone and a codec do to an instrument's signal, in numpy on mono audio at 16 kHz.

Everything is a function of the generator that is passed in. Nothing here moves onsets: rooms and filters begin with
the direct sound, and masks are applied with zero phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.signal import butter, sosfilt

from models.data.readers import Audio

SAMPLERATE = 16000
_WINDOW, _HOP = 1024, 256


@dataclass(frozen=True)
class Degradation:
    """Chances and ranges.

    Attributes
    ----------
    bleed, mask, equaliser, room, noise, clipping, lowpass : float
        Chances of each.
    bleed_db : tuple of float
        Level of the other instruments against the target's, RMS against RMS.
    noise_db : tuple of float
        Noise against full scale, where there is noise.
    level_db : tuple of float
        RMS of the whole against full scale.
    """

    bleed: float = 0.6
    mask: float = 0.45
    equaliser: float = 0.6
    room: float = 0.5
    noise: float = 0.5
    clipping: float = 0.08
    lowpass: float = 0.2
    bleed_db: tuple[float, float] = (-30.0, -6.0)
    noise_db: tuple[float, float] = (-75.0, -42.0)
    level_db: tuple[float, float] = (-36.0, -12.0)

    @classmethod
    def none(cls) -> Degradation:
        """Only the level changes."""
        return cls(bleed=0, mask=0, equaliser=0, room=0, noise=0, clipping=0, lowpass=0)


def rms(audio: Audio) -> float:
    """Root mean square of the louder half of the blocks of 100 ms: rests do not count."""
    size = SAMPLERATE // 10
    if len(audio) < size:
        return float(np.sqrt(np.mean(np.square(audio)) + 1e-12))
    blocks = np.square(audio[: len(audio) // size * size].reshape(-1, size)).mean(1)
    return float(np.sqrt(np.sort(blocks)[len(blocks) // 2 :].mean() + 1e-12))


def degrade(target: Audio, bleed: Audio | None, config: Degradation, rng: np.random.Generator) -> Audio:
    """Return ``target`` ``[T]`` as it would come out of a separator, with some of ``bleed`` ``[T]`` in it."""
    audio = target
    if rng.random() < config.equaliser:
        audio = equalise(audio, rng)
    if rng.random() < config.room:
        audio = reverberate(audio, rng)
    level = rms(audio)
    if bleed is not None and rng.random() < config.bleed and level > 1e-4:
        other = bleed * (level / max(rms(bleed), 1e-4))
        if rng.random() < config.mask:
            # A mask lets most of the target through and cuts the others down, with errors of its own.
            audio = separate(audio, other * np.float32(10 ** (rng.uniform(-6, 6) / 20)), rng)
        else:
            audio = audio + other * np.float32(10 ** (rng.uniform(*config.bleed_db) / 20))
    if rng.random() < config.lowpass:
        audio = sosfilt(butter(4, rng.uniform(2800, 7200), fs=SAMPLERATE, output="sos"), audio).astype(np.float32)
    return finish(audio, config, rng)


def finish(audio: Audio, config: Degradation, rng: np.random.Generator) -> Audio:
    """Bring to a level, clip, add noise."""
    wanted = 10 ** (rng.uniform(*config.level_db) / 20)
    audio = audio * np.float32(wanted / max(rms(audio), 1e-4))
    if rng.random() < config.clipping:
        limit = np.float32(wanted * rng.uniform(1.2, 3.0))
        audio = np.clip(audio, -limit, limit)
    peak = float(np.abs(audio).max())
    if peak > 0.99:
        audio = audio * np.float32(0.99 / peak)
    if rng.random() < config.noise:
        audio = audio + coloured_noise(len(audio), rng) * np.float32(10 ** (rng.uniform(*config.noise_db) / 20))
    return audio.astype(np.float32)


def coloured_noise(samples: int, rng: np.random.Generator) -> Audio:
    """White to brown noise ``[T]`` with an RMS of 1."""
    spectrum = rfft(rng.standard_normal(samples).astype(np.float32))
    slope = rng.uniform(0, 1)  # 0 white, 0.5 pink, 1 brown
    spectrum *= (np.arange(len(spectrum), dtype=np.float32) + 20.0) ** np.float32(-slope)
    noise = irfft(spectrum, samples)
    return (noise / max(float(np.sqrt(np.mean(np.square(noise)))), 1e-9)).astype(np.float32)


def equalise(audio: Audio, rng: np.random.Generator) -> Audio:
    """Two peak filters of up to 8 dB (R. Bristow-Johnson's audio EQ cookbook) and now and then a high-pass."""
    sections = []
    for _ in range(2):
        gain = 10 ** (rng.uniform(-8, 8) / 40)
        omega = 2 * np.pi * np.exp(rng.uniform(np.log(80), np.log(6000))) / SAMPLERATE
        alpha = np.sin(omega) / (2 * rng.uniform(0.4, 1.5))
        ends = [1 + alpha * gain, -2 * np.cos(omega), 1 - alpha * gain]
        below = [1 + alpha / gain, -2 * np.cos(omega), 1 - alpha / gain]
        sections.append(np.array(ends + below) / below[0])
    if rng.random() < 0.2:
        sections.append(butter(2, rng.uniform(40, 200), "high", fs=SAMPLERATE, output="sos")[0])
    return sosfilt(np.array(sections), audio).astype(np.float32)


def reverberate(audio: Audio, rng: np.random.Generator) -> Audio:
    """Decaying noise, darker towards its end: a room of 0.15 to 0.9 s, 6 to 24 dB under the direct sound."""
    decay = int(rng.uniform(0.15, 0.9) * SAMPLERATE)
    room = rng.standard_normal(decay).astype(np.float32) * 10 ** (-3 * np.arange(decay, dtype=np.float32) / decay)
    room = sosfilt(butter(1, rng.uniform(2000, 7000), fs=SAMPLERATE, output="sos"), room)
    late = int(rng.uniform(0.002, 0.02) * SAMPLERATE)
    room = np.pad(room, (late, 0))
    room *= 10 ** (rng.uniform(-24, -6) / 20) / np.sqrt(np.sum(np.square(room)))
    size = 1 << (len(audio) + len(room)).bit_length()
    wet = irfft(rfft(audio, size) * rfft(room.astype(np.float32), size), size)[: len(audio)]
    return (audio + wet).astype(np.float32)


def separate(target: Audio, other: Audio, rng: np.random.Generator) -> Audio:
    """Take ``target`` out of ``target + other`` with an imperfect mask.

    The ratio mask of the two magnitudes, blurred, with random errors that last a few frames and some bands, a floor,
    and now and then made nearly binary: holes, swallowed tails and musical noise, as separators leave them.
    """
    a, b = _stft(target), _stft(other)
    power_a, power_b = np.abs(a) ** 2, np.abs(b) ** 2
    exponent = rng.choice([0.5, 1.0, 2.0], p=[0.4, 0.45, 0.15])
    mask = (power_a**exponent) / (power_a**exponent + power_b**exponent + 1e-9)
    frames, bins = mask.shape
    field = rng.standard_normal((frames // 6 + 2, bins // 12 + 2)).astype(np.float32)
    field = np.repeat(np.repeat(field, 6, axis=0)[:frames], 12, axis=1)[:, :bins]
    mask = np.clip(mask + rng.uniform(0, 0.22) * field, rng.choice([0.0, 0.02, 0.1]), 1.0)
    if rng.random() < 0.5:
        mask[1:] = 0.5 * (mask[1:] + mask[:-1])
    return _istft((a + b) * mask.astype(np.float32), len(target))


_ANALYSIS = np.sqrt(np.hanning(_WINDOW + 1)[:-1]).astype(np.float32)


def _stft(audio: Audio) -> NDArray[np.complex64]:
    padded = np.pad(audio, (_WINDOW, _WINDOW + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    return rfft(frames * _ANALYSIS, axis=1)


def _istft(spectrum: NDArray[np.complex64], samples: int) -> Audio:
    frames = irfft(spectrum, _WINDOW, axis=1) * (_ANALYSIS / 2)  # four overlapping squared sines add to 2
    ratio = _WINDOW // _HOP
    blocks = frames.reshape(len(frames), ratio, _HOP)
    out = np.zeros((len(frames) + ratio, _HOP), np.float32)
    for i in range(ratio):
        out[i : i + len(frames)] += blocks[:, i]
    return out.reshape(-1)[_WINDOW : _WINDOW + samples].astype(np.float32)
