"""A piano roll as a picture: one lane a stem, time to the right, pitch upwards, loud notes bright."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from rtsep.errors import AudioFileError
from rtsep.query.notes import Note
from rtsep.query.smf import pitch_name

_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 110, 20, 16, 46, 34
_ROW, _DRUM_ROW, _ROWS_LEAST = 7, 16, 13
_BACKGROUND, _LANE, _BLACK_KEY, _OCTAVE, _TEXT = "#12161c", "#1b212a", "#161b22", "#39424f", "#c9d1d9"
_COLOURS = ((255, 138, 101), (100, 181, 246), (129, 199, 132), (240, 98, 146), (255, 213, 79), (149, 117, 205))
_BLACK_KEYS = (1, 3, 6, 8, 10)
DRUM_NAMES = {35: "kick", 36: "kick", 38: "snare", 40: "snare", 42: "closed hat", 44: "pedal hat", 46: "open hat"}
DRUM_NAMES |= {41: "low tom", 43: "low tom", 45: "mid tom", 47: "mid tom", 48: "high tom", 50: "high tom"}
DRUM_NAMES |= {49: "crash", 51: "ride", 57: "crash", 59: "ride"}


def piano_roll(
    path: str | Path,
    tracks: Mapping[str, Sequence[Note]],
    seconds: float,
    *,
    drums: Sequence[str] = (),
    width: int = 1400,
) -> None:
    """Draw notes into a PNG file.

    Parameters
    ----------
    path : path
        Ends in ``.png``.
    tracks : mapping of str to sequence of Note
        A lane each, from top to bottom; one without notes is shown empty.
    seconds : float
        Length of the time axis; above 0.
    drums : sequence of str
        Tracks with one row a drum rather than one a pitch.
    width : int
        Pixels, 400 or more.

    Raises
    ------
    AudioFileError
        The file cannot be written.
    """
    rows = {name: _rows(notes, name in drums) for name, notes in tracks.items()}
    heights = {name: _DRUM_ROW if name in drums else _ROW for name in tracks}
    height = _TOP + _BOTTOM + sum(len(r) * heights[name] + _GAP for name, r in rows.items())
    image = Image.new("RGB", (max(400, width), height), _BACKGROUND)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    scale = (image.width - _LEFT - _RIGHT) / max(seconds, 1e-3)  # pixels a second
    top = _TOP
    for index, (name, notes) in enumerate(tracks.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        pen.text((12, top), f"{name}", font=font, fill=colour)
        pen.text((_LEFT, top), f"{len(notes)} notes" if notes else "no notes", font=font, fill=_TEXT)
        top += 20
        row = heights[name]
        _lane(pen, font, top, rows[name], image.width, row, drum=name in drums)
        for note in notes:
            y = top + (len(rows[name]) - 1 - rows[name].index(note.pitch)) * row
            x = _LEFT + note.start_s * scale
            end = max(x + 1.5, _LEFT + note.end_s * scale - 1)
            shade = 0.45 + 0.55 * note.velocity / 127
            pen.rectangle((x, y + 1, end, y + row - 1), fill=tuple(round(part * shade) for part in colour))
        top += len(rows[name]) * row + _GAP - 20
    step = _step(seconds)
    for tick in range(int(seconds / step) + 1):
        x = _LEFT + tick * step * scale
        pen.line((x, _TOP + 18, x, height - _BOTTOM), fill=_OCTAVE)
        pen.text((x, height - _BOTTOM + 6), f"{tick * step:g}", font=font, fill=_TEXT, anchor="ma")
    pen.text((image.width - _RIGHT, height - 18), "seconds", font=font, fill=_TEXT, anchor="ra")
    try:
        image.save(path, "PNG")
    except (OSError, ValueError) as error:
        raise AudioFileError(f"The picture {path} cannot be written: {error}.") from error


def _rows(notes: Sequence[Note], drum: bool) -> list[int]:
    """MIDI numbers of a lane's rows, from the bottom up."""
    pitches = sorted({note.pitch for note in notes})
    if drum and pitches:
        return pitches
    if not pitches:
        return list(range(60, 60 + _ROWS_LEAST))
    middle, count = (pitches[0] + pitches[-1]) / 2, max(_ROWS_LEAST, pitches[-1] - pitches[0] + 3)
    first = max(0, math.floor(middle - (count - 1) / 2))
    return list(range(first, first + count))


def _lane(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    top: int,
    rows: Sequence[int],
    width: int,
    row: int,
    *,
    drum: bool,
) -> None:
    bottom = top + len(rows) * row
    pen.rectangle((_LEFT, top, width - _RIGHT, bottom), fill=_LANE)
    for index, pitch in enumerate(rows):
        y = bottom - (index + 1) * row
        if drum:
            pen.text((_LEFT - 8, y + row / 2), DRUM_NAMES.get(pitch, str(pitch)), font=font, fill=_TEXT, anchor="rm")
            continue
        if pitch % 12 in _BLACK_KEYS:
            pen.rectangle((_LEFT, y, width - _RIGHT, y + row), fill=_BLACK_KEY)
        if pitch % 12 == 0:
            pen.line((_LEFT, y + row, width - _RIGHT, y + row), fill=_OCTAVE)
            pen.text((_LEFT - 8, y + row / 2), pitch_name(pitch), font=font, fill=_TEXT, anchor="rm")


def _step(seconds: float) -> float:
    """Seconds between two marks: some ten of them, at 1, 2 or 5 times a power of ten."""
    rough = max(seconds, 1e-3) / 10
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
