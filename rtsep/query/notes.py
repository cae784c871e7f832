"""Notes out of posteriors, causally: what turns a model's note outputs into note-on and note-off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError

Posterior = NDArray[np.floating[Any]]


@dataclass(frozen=True, order=True)
class Note:
    """A note in time.

    Parameters
    ----------
    start_s, end_s : float
        In seconds; the end is after the start.
    pitch : int
        MIDI note number, 0 to 127.
    velocity : int
        1 to 127.
    """

    start_s: float
    end_s: float
    pitch: int
    velocity: int


@dataclass(frozen=True, order=True)
class Bend:
    """How far a sound is from the pitch of its note.

    Parameters
    ----------
    time_s : float
        From when on, in seconds.
    semitones : float
        Above the note; negative below.
    """

    time_s: float
    semitones: float


def add_bend(bends: list[Bend], time_s: float, semitones: float, begins: bool) -> None:
    """Add a bend behind others.

    One that a note `begins` with also takes away those that are not before it: a note may be known later than it began,
    and until then the note before it was thought to bend.
    """
    while begins and bends and bends[-1].time_s >= time_s:
        bends.pop()
    bends.append(Bend(time_s, semitones))


@dataclass(frozen=True)
class NoteEvent:
    """The beginning or the end of a note.

    Parameters
    ----------
    kind : {"on", "off"}
    pitch : int
        MIDI note number.
    velocity : int
        1 to 127; 0 for an end.
    frame : int
        Frame of the posteriors at which it happened, counted from 0. It is earlier than the frame in which the event
        is given out, since a note must last before it is believed and be gone before it ends.
    """

    kind: Literal["on", "off"]
    pitch: int
    velocity: int
    frame: int


@dataclass(frozen=True)
class TrackerSettings:
    """When a note begins and ends.

    Parameters
    ----------
    on, off : float
        A note begins where its frame posterior reaches `on`, and ends where it stays below `off`; 0 < off <= on <= 1.
    onset : float
        Where a sounding note's onset posterior rises to this, it is struck again.
    minimum_frames : int
        Frames a note must last to be given out; 1 or more. The delay of a note-on.
    release_frames : int
        Frames the posterior must stay below `off` for the note to end; 1 or more.

    Raises
    ------
    UsageError
        When a value is outside what is said above.
    """

    on: float = 0.5
    off: float = 0.3
    onset: float = 0.5
    minimum_frames: int = 4
    release_frames: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on <= 1:
            raise UsageError(f"Thresholds must be 0 < off <= on <= 1; got on {self.on}, off {self.off}.")
        if not 0 < self.onset <= 1:
            raise UsageError(f"The onset threshold must be above 0 and at most 1; got {self.onset}.")
        for name in ("minimum_frames", "release_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}.")


@dataclass
class _Open:
    """A note that was given out and has not ended."""

    below_since: int | None = None
    below: int = 0


@dataclass
class _Candidate:
    """A note that has begun and must last before it is given out."""

    start: int
    closes: int | None
    """Frame at which the posterior of the open note of the same pitch fell, when it did."""
    age: int = 0
    velocity: float = 0.0


class NoteTracker:
    """Turn posteriors into events, frame by frame, with no look-ahead.

    Every note-on is followed by exactly one note-off of its pitch, later in `frame`, before the next note-on of that
    pitch; after `finish` nothing sounds. In monophonic mode that holds for all pitches together.

    Parameters
    ----------
    lowest_midi : int
        Pitch of the first posterior.
    settings : TrackerSettings
    monophonic : bool
        For models that give one class a frame, what is missing to 1 being silence: only the pitch with the largest
        frame posterior counts, and the thresholds hold for its share of itself and silence. Where the model wavers
        between two pitches it is sure that there is one.
    """

    def __init__(self, lowest_midi: int, settings: TrackerSettings | None = None, *, monophonic: bool = False) -> None:
        self.lowest_midi, self.monophonic = lowest_midi, monophonic
        self.settings = settings or TrackerSettings()
        self.frame = 0
        """The next frame."""
        self._open: dict[int, _Open] = {}
        self._candidates: dict[int, _Candidate] = {}
        self._onset_before: Posterior | None = None

    def push(self, onset: Posterior, frame: Posterior, velocity: Posterior) -> list[NoteEvent]:
        """Take the posteriors ``[P]`` of one frame, each 0 to 1; return what is now known to have happened.

        NaN counts as 0.
        """
        s, now = self.settings, self.frame
        events: list[NoteEvent] = []
        level = np.nan_to_num(np.asarray(frame, np.float64))
        if self.monophonic and level.size:
            best = int(level.argmax())
            likeliest, silence = float(level[best]), max(0.0, 1.0 - float(level.sum()))
            level = np.zeros(level.size)
            level[best] = likeliest / max(likeliest + silence, 1e-9)
        onset = np.nan_to_num(np.asarray(onset, np.float64))
        before = self._onset_before if self._onset_before is not None else np.zeros_like(onset)
        struck = (onset >= s.onset) & (before < s.onset)
        self._onset_before = onset

        for p in sorted({*self._open, *self._candidates, *np.flatnonzero(level >= s.on).tolist()}):
            self._look_at(p, float(level[p]), bool(struck[p]), float(np.nan_to_num(velocity[p])), events)
        self.frame = now + 1
        return events

    def finish(self) -> list[NoteEvent]:
        """End everything that sounds, and start anew at frame 0."""
        events: list[NoteEvent] = []
        for p in list(self._open):
            self._end(p, self.frame, events)
        self._candidates.clear()
        self._onset_before, self.frame = None, 0
        return events

    def _look_at(self, p: int, level: float, struck: bool, velocity: float, events: list[NoteEvent]) -> None:
        s, note, candidate = self.settings, self._open.get(p), self._candidates.get(p)
        if candidate is not None and level < s.off:
            del self._candidates[p]
            candidate = None
        elif candidate is None and level >= s.on and (note is None or struck):
            candidate = self._candidates[p] = _Candidate(self.frame, closes=None if note is None else note.below_since)
        if note is not None and level >= s.off:
            note.below_since, note.below = None, 0
        elif note is not None:
            note.below_since = self.frame if note.below_since is None else note.below_since
            note.below += 1
            if note.below >= s.release_frames:
                self._end(p, note.below_since, events)
        if candidate is not None:
            candidate.age += 1
            candidate.velocity = max(candidate.velocity, velocity)
            if candidate.age >= s.minimum_frames:
                del self._candidates[p]
                self._begin(p, candidate, events)

    def _begin(self, p: int, candidate: _Candidate, events: list[NoteEvent]) -> None:
        if p in self._open:
            self._end(p, candidate.start if candidate.closes is None else candidate.closes, events)
        if self.monophonic:
            for other in list(self._open):
                since = self._open[other].below_since
                self._end(other, candidate.start if since is None else min(since, candidate.start), events)
        velocity = min(127, max(1, round(127 * candidate.velocity)))
        events.append(NoteEvent("on", p + self.lowest_midi, velocity, candidate.start))
        self._open[p] = _Open()

    def _end(self, p: int, frame: int, events: list[NoteEvent]) -> None:
        del self._open[p]
        events.append(NoteEvent("off", p + self.lowest_midi, 0, frame))


def pair(events: Iterable[NoteEvent], seconds: Callable[[int], float], end_s: float) -> list[Note]:
    """Return the notes of `events`, by start.

    Parameters
    ----------
    events : iterable of NoteEvent
        In the order a `NoteTracker` gave them, its `finish` included.
    seconds : callable
        From frame to seconds.
    end_s : float
        Notes are cut to 0 .. `end_s`; what lies outside is left out.
    """
    began: dict[int, NoteEvent] = {}
    notes = []
    for event in events:
        if event.kind == "on":
            began[event.pitch] = event
            continue
        on = began.pop(event.pitch)
        start, end = max(0.0, seconds(on.frame)), min(end_s, seconds(event.frame))
        if end > start:
            notes.append(Note(start, end, event.pitch, on.velocity))
    return sorted(notes)
