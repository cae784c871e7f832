"""A MIDI file as a score that a model reads along with the audio."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rtsep.errors import UsageError
from rtsep.query.notes import Note
from rtsep.query.queries import FloatArray
from rtsep.query.smf import read_midi, within

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo, NotesSpec

CONTROL, WEIGHT = "score", "score_weight"
"""Names of the controls: the notes that sound now, and how far they replace the model's own transcription."""


class Score:
    """Which notes sound when.

    Parameters
    ----------
    notes : sequence of Note
        In seconds of the audio.

    Attributes
    ----------
    remarks : list of str
        What was left out when it was read, a sentence each.
    """

    def __init__(self, notes: Sequence[Note], remarks: Sequence[str] = ()) -> None:
        self.notes, self.remarks = sorted(notes), list(remarks)
        changes = sorted(
            [(note.start_s, 1, note.pitch) for note in notes] + [(note.end_s, -1, note.pitch) for note in notes]
        )
        self._times: list[float] = [-np.inf]
        self._sounding: list[tuple[int, ...]] = [()]
        count: Counter[int] = Counter()
        for time, change, pitch in changes:
            count[pitch] += change
            now = tuple(sorted(+count))
            if time == self._times[-1]:
                self._sounding[-1] = now
            else:
                self._times.append(time)
                self._sounding.append(now)

    def sounding(self, seconds: float) -> tuple[int, ...]:
        """Return the pitches that sound at a time of the audio; a note does at its start and not at its end."""
        return self._sounding[bisect_right(self._times, seconds) - 1]


def read_score(
    path: str | os.PathLike[str], info: ModelInfo, *, track: int | None = None, offset_s: float = 0.0
) -> Score:
    """Read a MIDI file as a score for a model.

    Parameters
    ----------
    path : path
    info : ModelInfo
        Of the model.
    track : int, optional
        Track of the file, from 1; all when left out.
    offset_s : float
        How much later than the audio the file begins, in seconds.

    Raises
    ------
    UsageError
        The model reads no score.
    MidiFileError
        As `rtsep.query.smf.read_midi`; or no note is within the model's range.
    """
    notes = reads_score(info)
    found = within(read_midi(path, track), notes.lowest_midi, notes.highest_midi, os.fspath(path))
    moved = [Note(n.start_s + offset_s, n.end_s + offset_s, n.pitch, n.velocity) for n in found.notes]
    return Score(moved, found.remarks)


class ScoreReader:
    """Sets a model's score as time goes on.

    Parameters
    ----------
    score : Score
    info : ModelInfo
        Of the model.
    set_control : callable
        Takes the name of a control and its values, as `StreamingSession.set_control` and `Engine.set_control`.

    Raises
    ------
    UsageError
        The model reads no score.
    """

    def __init__(self, score: Score, info: ModelInfo, set_control: Callable[[str, float | FloatArray], object]) -> None:
        self._score, self._spec, self._set = score, reads_score(info), set_control
        self._last: tuple[int, ...] = ()
        set_control(CONTROL, np.zeros(self._spec.pitches, np.float32))
        set_control(WEIGHT, 1.0)

    def at(self, seconds: float) -> None:
        """Set what sounds at a time of the audio; does nothing when it is what sounded before."""
        self.set(self._score.sounding(seconds))

    def set(self, pitches: Iterable[int]) -> None:
        """Set what sounds, as MIDI numbers; those outside the model's range are left out."""
        now = tuple(p for p in pitches if self._spec.lowest_midi <= p <= self._spec.highest_midi)
        if now == self._last:
            return
        self._last = now
        roll = np.zeros(self._spec.pitches, np.float32)
        roll[[pitch - self._spec.lowest_midi for pitch in now]] = 1.0
        self._set(CONTROL, roll)


def hop_time(info: ModelInfo, hop: int, samplerate: int, delay_samples: float = 0.0) -> float:
    """Return the middle of the audio, in seconds, that the stems of a hop belong to: the time of its score.

    Parameters
    ----------
    hop : int
        Number of the hop, from 0.
    samplerate : int
        The rate the model runs at.
    delay_samples : float
        By which the audio came late to the model (a resampler), at `samplerate`.
    """
    return ((hop + 0.5) * info.hop_samples - info.latency_samples - delay_samples) / samplerate


def reads_score(info: ModelInfo) -> NotesSpec:
    """Return the notes that a model reads; UsageError when it reads no score."""
    shapes = {control.name: control.shape for control in info.controls}
    if info.notes is None or shapes.get(CONTROL) != (info.notes.pitches,) or shapes.get(WEIGHT) != ():
        have = ", ".join(shapes) or "none"
        raise UsageError(
            f"The model {info.name} reads no score: it needs the controls {CONTROL} and {WEIGHT} and has {have}."
        )
    return info.notes
