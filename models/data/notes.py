"""Recorded stems that come with the notes played in them, as folders of audio beside MIDI files.

``<root>/**/<stem>.wav`` (or another audio suffix) beside ``<stem>.mid``; the folder is the piece, and the stem's name
without digits at its end the instrument: ``duo/violin_2.wav`` is a violin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np
from numpy.typing import NDArray

from models.data.readers import AUDIO_SUFFIXES, DataError

LOWEST_MIDI, HIGHEST_MIDI = 21, 108
REST = 0
FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Note:
    """A note: onset and offset in seconds, MIDI number."""

    onset: float
    offset: float
    midi: int


@dataclass(frozen=True)
class NotedStem:
    """One instrument's recording and its notes.

    Attributes
    ----------
    piece, instrument : str
    path : Path
        Of the audio.
    notes : tuple of Note
        In the order of their onsets.
    """

    piece: str
    instrument: str
    path: Path
    notes: tuple[Note, ...]


def roll_of(notes: Iterable[Note], seconds: float) -> NDArray[np.int64]:
    """MIDI number of the note that sounds in each frame of 10 ms, 0 for none; a later note covers an earlier one."""
    roll = np.full(round(seconds * FRAMES_PER_SECOND), REST, np.int64)
    for note in sorted(notes, key=lambda note: note.onset):
        first = max(0, round(note.onset * FRAMES_PER_SECOND))
        roll[first : max(first, round(note.offset * FRAMES_PER_SECOND))] = note.midi
    return roll


def find_noted_stems(root: Path) -> list[NotedStem]:
    """Read all stems with MIDI files under a folder.

    Raises
    ------
    DataError
        The folder has none, a MIDI file has no audio beside it, or its notes cannot be used.
    """
    stems = []
    for midi in sorted([*root.rglob("*.mid"), *root.rglob("*.midi")]):
        audio = next((f for s in AUDIO_SUFFIXES if (f := midi.with_suffix(s)).is_file()), None)
        if audio is None:
            raise DataError(f"{midi} has no audio beside it; expected {midi.with_suffix(AUDIO_SUFFIXES[0])} or alike.")
        instrument = re.sub(r"[\s_-]*\d+$", "", midi.stem) or midi.stem
        stems.append(NotedStem(str(midi.parent.relative_to(root)), instrument, audio, read_midi(midi)))
    if not stems:
        raise DataError(f"no stems with notes in {root}; expected <stem>.wav beside <stem>.mid.")
    return stems


def read_midi(path: Path) -> tuple[Note, ...]:
    """Notes of all tracks of a Standard MIDI File, in seconds.

    Raises
    ------
    DataError
        The file is broken, has no note, or notes outside :data:`LOWEST_MIDI` to :data:`HIGHEST_MIDI`.
    """
    notes: list[Note] = []
    sounding: dict[tuple[int, int], float] = {}
    now = 0.0
    try:
        for message in mido.MidiFile(path):
            now += message.time
            if message.type not in ("note_on", "note_off"):
                continue
            key = (message.channel, message.note)
            if key in sounding:
                notes.append(Note(sounding.pop(key), now, message.note))
            if message.type == "note_on" and message.velocity:
                sounding[key] = now
    except (OSError, EOFError, ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"{path} is no readable MIDI file ({error or type(error).__name__}); export it again."
        ) from error
    notes += [Note(onset, now, midi) for (_, midi), onset in sounding.items()]  # never ended: at the file's end
    if not notes:
        raise DataError(f"{path} has no notes.")
    return checked(path, notes)


def checked(path: Path, notes: list[Note]) -> tuple[Note, ...]:
    """Return notes by onset; ``DataError`` for those outside the range of the models."""
    outside = sorted({note.midi for note in notes if not LOWEST_MIDI <= note.midi <= HIGHEST_MIDI})
    if outside:
        raise DataError(f"{path} has notes outside MIDI {LOWEST_MIDI} to {HIGHEST_MIDI}: {outside}; transpose it.")
    return tuple(sorted(notes, key=lambda note: (note.onset, note.midi)))
