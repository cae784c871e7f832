"""Notes out of a transcriber's posteriors: one state machine a pitch, with no look-ahead beyond the posteriors'."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError
from rtsep.notes.transcriber_info import DialPosition, Kind

Posterior = NDArray[np.floating[Any]]

CONFIRM_FRAMES = 1
"""Frames after an onset's peak that it takes to see that it was the peak."""

# Overtones that an onset is easily mistaken for: octave, twelfth, two octaves, two and a third.
_OVERTONES = (12, 19, 24, 28)
_LOUD = 0.85  # velocity, of 1, that a stem's loud notes are brought to
_FORGET = 0.995  # a note, of what counts as loud


@dataclass(frozen=True)
class TrackedEvent:
    """The beginning or the end of a note.

    Attributes
    ----------
    kind : {"on", "off"}
    pitch, velocity : int
        MIDI; velocity 0 for an end.
    moment : float
        When, in frames: frame f lasts from f to f + 1. An onset is placed by the parabola through its peak.
    """

    kind: Literal["on", "off"]
    pitch: int
    velocity: int
    moment: float


@dataclass(frozen=True)
class StemTrackerSettings:
    """How posteriors become notes; frames are those of the transcriber (10 ms).

    Parameters
    ----------
    onset : float
        A note begins at a peak of its onset posterior of at least this, 0 to 1, if the frame posterior is `on` or more
        there or in the next frame (drums: in any case).
    on, off : float
        A sounding note ends where its frame posterior stays below `off`. A note without a clear onset begins where
        the frame posterior stays at `on` or above for `soft_frames`; 0 < off <= on <= 1.
    rearm : float
        A pitch can begin again once its onset posterior fell below this part of `onset`, 0 to 1.
    refractory_frames : int
        Least distance of two beginnings of one pitch.
    release_frames : int
        Frames below `off` until the end; 1 or more.
    hold_frames : int
        A note lasts at least this long: the frame posterior rises after the onset's.
    longest_frames : int
        After this a note is ended whatever the posterior says.
    soft_frames : int
        See `on`; 0: a note needs an onset.
    neighbour, overtone, undertone : float
        An onset is taken for a by-product when one a semitone beside it, one that it is an overtone of, or one an
        octave above it is stronger by more than this factor within `together_frames`; 0 to 1, 0 switches it off.
    together_frames : int
    polyphony : int
        Notes at once; the oldest ends for a new one. 1 is monophonic: then a change of pitch without an onset also
        begins a note, after `glide_frames`.
    glide_frames : int
    gate_frames : int
        For drums: every note ends after this many frames; 0: notes end by their frame posterior.

    Raises
    ------
    UsageError
        A value is outside what is said above.
    """

    onset: float = 0.5
    on: float = 0.5
    off: float = 0.3
    rearm: float = 0.7
    refractory_frames: int = 5
    release_frames: int = 3
    hold_frames: int = 4
    longest_frames: int = 1500
    soft_frames: int = 0
    neighbour: float = 0.6
    overtone: float = 0.35
    undertone: float = 0.0
    together_frames: int = 3
    polyphony: int = 12
    glide_frames: int = 6
    gate_frames: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on <= 1:
            raise UsageError(f"Thresholds must be 0 < off <= on <= 1; got on {self.on}, off {self.off}.")
        for name in ("onset", "rearm"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{name} must be above 0 and at most 1; got {getattr(self, name)}.")
        for name in ("neighbour", "overtone", "undertone"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be 0 to 1; got {getattr(self, name)}.")
        for name in ("refractory_frames", "release_frames", "longest_frames", "polyphony", "glide_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}.")
        for name in ("hold_frames", "soft_frames", "together_frames", "gate_frames"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 or more; got {getattr(self, name)}.")

    @classmethod
    def for_kind(cls, kind: Kind | str, position: DialPosition) -> StemTrackerSettings:
        """Return what suits a kind of transcriber, with the thresholds it was tuned with."""
        own = cls(onset=position.onset, on=position.on, off=position.off)
        if kind == "drums":
            return replace(own, neighbour=0.0, overtone=0.0, gate_frames=5, polyphony=8)
        if kind == "monophonic":
            return replace(own, polyphony=1, soft_frames=8, overtone=0.5)
        return replace(own, overtone=0.8, undertone=0.55)  # chosen by tools/tune_tracker.py


class VelocityScale:
    """Velocities of one stem, such that its loud notes come out loud whatever its level."""

    def __init__(self) -> None:
        self._loudest = 0.0

    def scaled(self, velocity: float) -> int:
        """Return 1 to 127 for a posterior of 0 to 1."""
        self._loudest = max(velocity, _FORGET * self._loudest)
        return min(127, max(1, round(127 * _LOUD * velocity / self._loudest))) if self._loudest > 0 else 64


class StemTracker:
    """Turn the posteriors of one stem into events.

    Every note-on is followed by exactly one note-off of its pitch, not earlier, before the next note-on of that pitch;
    after `release` nothing sounds. Property-tested.

    Parameters
    ----------
    midi_notes : sequence of int
        MIDI number of each posterior, all different.
    settings : StemTrackerSettings

    Notes
    -----
    What follows the frame of an event by more than `CONFIRM_FRAMES` cannot change a beginning with an onset; ends come
    ``release_frames`` after the fact.
    """

    def __init__(self, midi_notes: tuple[int, ...], settings: StemTrackerSettings) -> None:
        self.midi_notes, self.settings = midi_notes, settings
        count = len(midi_notes)
        self._row = {note: row for row, note in enumerate(midi_notes)}
        self._before = np.zeros((2, count))  # onset posteriors of the last frames, the newer first
        self._frame_before, self._velocity_before = np.zeros(count), np.zeros(count)
        self._armed = np.ones(count, bool)
        self._began = np.full(count, -(10**9))  # frame of the last beginning
        self._peak = np.zeros(count)  # onset posterior of the last beginning, for by-products
        self._below = np.zeros(count, np.int64)
        self._soft = np.zeros(count, np.int64)
        self._sounding: dict[int, float] = {}  # row -> moment of its beginning, oldest first
        self._velocity = VelocityScale()
        self.frame = 0
        """The next frame."""

    @property
    def delay_frames(self) -> int:
        """Frames from the moment of a beginning until the end of the step that gives it out, at most.

        Without what the posteriors look ahead.
        """
        return 1 + max(CONFIRM_FRAMES, self.settings.soft_frames)

    @property
    def sounding(self) -> tuple[int, ...]:
        """MIDI numbers that sound, oldest first."""
        return tuple(self.midi_notes[row] for row in self._sounding)

    def push(self, onset: Posterior, frame: Posterior, velocity: Posterior) -> list[TrackedEvent]:
        """Take the posteriors ``[P]`` of one frame, each 0 to 1; return what is now known to have happened.

        NaN counts as 0.
        """
        onset, frame, velocity = (np.nan_to_num(np.asarray(x, np.float64)) for x in (onset, frame, velocity))
        s, now = self.settings, self.frame
        events: list[TrackedEvent] = []
        self._end_what_faded(frame, events)
        sounds = np.maximum(self._frame_before, frame)
        if s.polyphony == 1:
            self._begin_one_voice(onset, sounds, velocity, events)
        else:
            self._begin_at_peaks(onset, sounds, velocity, events)
        self._soft = np.where(frame >= s.on, self._soft + 1, 0)
        if s.soft_frames:
            self._begin_without_onset(frame, velocity, events)
        self._before = np.stack([onset, self._before[0]])
        self._frame_before, self._velocity_before = frame, velocity
        self.frame = now + 1
        return events

    def release(self) -> list[TrackedEvent]:
        """End everything that sounds, now; what was heard before is not taken up again."""
        events: list[TrackedEvent] = []
        for row in list(self._sounding):
            self._end(row, self.frame, events)
        self._armed[:] = False
        self._soft[:] = 0
        return events

    # --- inside -------------------------------------------------------------------------------------------------------

    def _begin_at_peaks(
        self, onset: Posterior, sounds: Posterior, velocity: Posterior, events: list[TrackedEvent]
    ) -> None:
        s, at = self.settings, self.frame - 1
        last, older = self._before
        self._armed |= last < s.rearm * s.onset
        peaks = (last >= s.onset) & (last >= onset) & (last >= older) & self._armed
        peaks &= at - self._began >= s.refractory_frames
        if not s.gate_frames:
            peaks &= sounds >= s.on
        rows = np.flatnonzero(peaks)
        for row in rows[np.argsort(-last[rows], kind="stable")].tolist():
            if not self._is_by_product(row, np.maximum(last, onset), at):
                self._peak[row] = last[row]
                moment = _moment(at, older[row], last[row], onset[row])
                self._begin(row, at, moment, max(self._velocity_before[row], velocity[row]), events)
            self._armed[row] = False

    def _begin_one_voice(
        self, onset: Posterior, sounds: Posterior, velocity: Posterior, events: list[TrackedEvent]
    ) -> None:
        """An attack of any pitch is one of the voice; which pitch, onset and frame posteriors say together."""
        s, at = self.settings, self.frame - 1
        last, older = self._before
        low, peak, high = float(older.max()), float(last.max()), float(onset.max())
        if self._armed.all() or peak < s.rearm * s.onset:
            self._armed[:] = True
        if peak < s.onset or peak < high or peak < low or not self._armed[0]:
            return
        self._armed[:] = False
        row = int((sounds + np.maximum(np.maximum(older, last), onset)).argmax())
        if sounds[row] >= s.on and at - self._began.max() >= s.refractory_frames:
            self._begin(row, at, _moment(at, low, peak, high), max(self._velocity_before[row], velocity[row]), events)

    def _end_what_faded(self, frame: Posterior, events: list[TrackedEvent]) -> None:
        s, now = self.settings, self.frame
        self._below = np.where(frame < s.off, self._below + 1, 0)
        for row in list(self._sounding):
            age = now - int(self._began[row])
            if s.gate_frames:
                if age >= s.gate_frames:
                    self._end(row, now, events)
            elif age >= s.longest_frames:
                self._end(row, now, events)
                self._soft[row] = 0
            elif age >= s.hold_frames and self._below[row] >= s.release_frames:
                self._end(row, now - int(self._below[row]) + 1, events)

    def _is_by_product(self, row: int, onset: Posterior, at: int) -> bool:
        s, own = self.settings, float(onset[row])
        recent = np.where(at - self._began <= s.together_frames, self._peak, 0.0)
        strength = np.maximum(onset, recent)
        note = self.midi_notes[row]
        rivals = [(note + 1, s.neighbour), (note - 1, s.neighbour), (note + 12, s.undertone)]
        rivals += [(note - up, s.overtone) for up in _OVERTONES]
        return any(
            factor and (rival := self._row.get(other)) is not None and own < factor * float(strength[rival])
            for other, factor in rivals
        )

    def _begin_without_onset(self, frame: Posterior, velocity: Posterior, events: list[TrackedEvent]) -> None:
        s, now = self.settings, self.frame
        rows = np.flatnonzero(self._soft >= (s.glide_frames if self._sounding and s.polyphony == 1 else s.soft_frames))
        rows = rows[[row not in self._sounding for row in rows.tolist()]] if rows.size else rows
        if not rows.size:
            return
        row = int(rows[frame[rows].argmax()])
        sounding = next(iter(self._sounding), None)
        if s.polyphony == 1 and sounding is not None and frame[row] <= frame[sounding]:
            return
        if now - self._began[row] >= s.refractory_frames:
            began = max(now - int(self._soft[row]) + 1, int(self._began[row]) + 1)
            if sounding is not None:
                began = max(began, int(self._began[sounding]) + 1)
            self._begin(row, began, began, float(velocity[row]), events)
            self._soft[row] = 0

    def _begin(self, row: int, at: int, moment: float, velocity: float, events: list[TrackedEvent]) -> None:
        if row in self._sounding:
            self._end(row, moment, events)
        while len(self._sounding) >= self.settings.polyphony:
            self._end(next(iter(self._sounding)), moment, events)
        self._sounding[row] = moment
        self._began[row] = at
        self._below[row] = 0
        events.append(TrackedEvent("on", self.midi_notes[row], self._velocity.scaled(velocity), moment))

    def _end(self, row: int, moment: float, events: list[TrackedEvent]) -> None:
        moment = max(moment, self._sounding.pop(row))
        events.append(TrackedEvent("off", self.midi_notes[row], 0, moment))


def peak_shift(before: float, peak: float, after: float) -> float:
    """Frames, -0.5 to 0.5, from a highest value to the peak of the parabola through it and its neighbours."""
    bend = before - 2 * peak + after
    shift = 0.5 * (before - after) / bend if bend < -1e-6 else 0.0
    return min(0.5, max(-0.5, float(shift)))


def _moment(at: int, before: float, peak: float, after: float) -> float:
    """Moment of the peak in frame `at`."""
    return at + 0.5 + peak_shift(before, peak, after)
