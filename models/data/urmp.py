"""Reader of URMP, the University of Rochester Multi-Modal Music Performance data set (Li et al., 2019).

A piece is a folder ``<number>_<title>_<instrument>_<instrument>...``; for each player k it holds
``AuSep_<k>_<instrument>_<number>_<title>.wav`` and ``Notes_<k>_<instrument>_<number>_<title>.txt`` with lines of onset
in seconds, pitch in Hz and duration in seconds. ``15_Surprise`` writes ``tbt`` where a trombone (``tbn``) plays.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from models.data.notes import Note, NotedStem, checked
from models.data.readers import DataError

INSTRUMENTS = {
    "vn": "violin",
    "va": "viola",
    "vc": "cello",
    "db": "double-bass",
    "fl": "flute",
    "ob": "oboe",
    "cl": "clarinet",
    "sax": "saxophone",
    "bn": "bassoon",
    "tpt": "trumpet",
    "hn": "french-horn",
    "tbn": "trombone",
    "tba": "tuba",
}
_MISSPELT = {"tbt": "tbn"}
_PIECE = re.compile(r"\d+_[^_]+(_[a-z]+)+")
_AUDIO = re.compile(r"AuSep_(?P<player>\d+)_(?P<code>[a-z]+)_.+\.wav")


def find_urmp(root: Path) -> list[NotedStem]:
    """Read all pieces under a folder; audio is opened later.

    Raises
    ------
    DataError
        No piece is there, an instrument is unknown, or notes are missing or unreadable.
    """
    stems = []
    for folder in sorted(f for f in root.iterdir() if f.is_dir() and _PIECE.fullmatch(f.name)):
        for audio in sorted(folder.glob("AuSep_*.wav")):
            name = _AUDIO.fullmatch(audio.name)
            if name is None:
                raise DataError(f"{audio} is not named AuSep_<k>_<instrument>_<number>_<title>.wav.")
            code = _MISSPELT.get(name["code"], name["code"])
            if code not in INSTRUMENTS:
                raise DataError(f"{audio}: instrument {code!r} is none of {', '.join(INSTRUMENTS)}.")
            # By the player's number: within a piece the instrument's name may be spelt in two ways.
            notes = sorted(folder.glob(f"Notes_{name['player']}_*.txt"))
            if len(notes) != 1:
                raise DataError(f"{folder} has {len(notes)} files Notes_{name['player']}_*.txt; expected one.")
            stems.append(NotedStem(folder.name, INSTRUMENTS[code], audio, _read_notes(notes[0])))
    if not stems:
        raise DataError(f"no URMP pieces in {root}; expected folders such as 01_Jupiter_vn_vc with AuSep_*.wav.")
    return stems


def _read_notes(path: Path) -> tuple[Note, ...]:
    notes = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            onset, pitch_hz, duration = (float(field) for field in line.split())
            midi = round(69 + 12 * math.log2(pitch_hz / 440.0))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: expected onset, pitch in Hz, duration; got {line!r}.") from error
        notes.append(Note(onset, onset + duration, midi))
    return checked(path, notes)
