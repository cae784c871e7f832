"""Notes of one voice: the cheapest division of the last frames into notes and rests, decided frame by frame.

Peaks of an onset posterior alone make a poor voice: singers slide into notes, shake them and begin them with
consonants. What a listener hears as notes are stretches of steady pitch. So every frame costs what it is from the
pitch of the note it would belong to, a note costs its beginning (little where an attack is heard), a rest costs
nothing; the division that costs least is found by dynamic programming over the frames that are known, and its first
frame is decided. The idea is that of swift-f0's ``segment_notes`` (a whole recording at once); here it runs in a
window, forward only, with onset posteriors, and what was decided stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError
from rtsep.notes.tracker import CONFIRM_FRAMES, Posterior, TrackedEvent, VelocityScale, peak_shift

_GRID = 4  # pitches a semitone that a note may have
_ENDLESS = 1e9  # cost of what cannot be
_NEAR_FRAMES = 2  # an onset posterior's peak is looked for so far from where a note was found to begin
_CLEAR_ONSET = 0.1  # below it the peak says nothing about the moment
_MARGIN = 8  # frames kept besides those of the window
_QUIET_DB = 3.0
_HEARD = 0.5  # frame posterior of something that sounds
Rows = dict[str, NDArray[np.float64]]
Spoken = tuple[Posterior, Posterior, Posterior, float]
"""``onset``, ``frame``, ``velocity`` [P], 0 to 1, and the momentary pitch: a MIDI number with fractions, 0 for none."""


@dataclass(frozen=True)
class VoiceSettings:
    """How posteriors become the notes of one voice; frames are those of the transcriber (10 ms).

    Parameters
    ----------
    window_frames : int
        Frames after a frame until it is decided; at least the look-ahead and `CONFIRM_FRAMES`.
    note, attack_gain : float
        What a note costs, and how much less with an onset posterior of 1. The unit is a semitone beside the pitch in
        one frame.
    voiced, even : float
        What a frame costs that may be no tone: `voiced` times the log odds against it, by the highest frame posterior;
        a posterior of `even` costs nothing, a higher one less than that.
    quiet, quiet_frames : float, int
        What a dip in level costs, a dB, against the loudest of so many frames on both sides; 0: nothing.
    farthest : float
        Semitones from its pitch from which on a frame costs no more.
    shortest_frames, longest_frames : int
        Of notes. One that reaches the latter ends, and the same sound begins no other.
    forget : float
        How much a note's past pitches still count a frame later, 0 to 1.
    onset_weight, pitch_frames : float, int
        Which pitch a beginning note has: the most of `onset_weight` times its onset posterior and the mean of the
        newest `pitch_frames` frame posteriors.
    keep : float
        Part of an attack's gain that is lost with each of the three frames after it.
    attack : float
        An onset posterior that lets what was ended by force begin again.

    Raises
    ------
    UsageError
        A value is outside what is said above.
    """

    window_frames: int = 13
    note: float = 8.0
    attack_gain: float = 10.0
    voiced: float = 3.0
    even: float = 0.38
    quiet: float = 1.0
    quiet_frames: int = 8
    farthest: float = 1.5
    shortest_frames: int = 4
    longest_frames: int = 1500
    forget: float = 0.95
    onset_weight: float = 0.5
    pitch_frames: int = 1
    keep: float = 0.1
    attack: float = 0.3

    def __post_init__(self) -> None:
        for name in ("window_frames", "shortest_frames", "longest_frames", "pitch_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}.")
        if not 0 < self.even < 1:
            raise UsageError(f"even must be between 0 and 1; got {self.even}.")
        for name in ("note", "attack_gain", "voiced", "quiet", "quiet_frames", "farthest", "onset_weight", "attack"):
            if not 0 <= getattr(self, name) < _ENDLESS:
                raise UsageError(f"{name} must be 0 or more; got {getattr(self, name)}.")
        for name in ("forget", "keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be 0 to 1; got {getattr(self, name)}.")

    @classmethod
    def for_position(cls, name: str) -> VoiceSettings:
        """Return what a position of the dial was tuned to; of the last one for a name that is not of the usual ones."""
        return _TUNED.get(name, _TUNED["quality"])


# Chosen by random search on SSVD recordings and rendered lines of the training material, as they are and degraded
# (docs/transcribers.md); held-out recordings played no part.
_TUNED = {
    "tight": VoiceSettings(
        window_frames=5, note=6.8, attack_gain=15.0, even=0.36, quiet=1.1, onset_weight=0.33, keep=0.23
    ),
    "normal": VoiceSettings(
        window_frames=10,
        note=8.5,
        attack_gain=19.0,
        voiced=3.6,
        quiet=0.9,
        shortest_frames=5,
        forget=0.97,
        onset_weight=0.16,
        pitch_frames=2,
        keep=0.13,
    ),
    "quality": VoiceSettings(
        window_frames=14,
        note=9.9,
        attack_gain=19.0,
        voiced=3.6,
        quiet=0.9,
        shortest_frames=5,
        forget=0.97,
        onset_weight=0.6,
        pitch_frames=2,
        keep=0.13,
    ),
}


class VoiceTracker:
    """Turn the posteriors of one monophonic stem into events.

    Every note-on is followed by exactly one note-off of its pitch, not earlier, before the next note-on; one note
    sounds at most; moments never go back; after `release` nothing sounds. Property-tested.

    Parameters
    ----------
    midi_notes : sequence of int
        MIDI number of each posterior, all different.
    lookaheads : sequence of int
        Of the positions of the transcriber's dial, in frames, ascending.
    position : int
        Of those, the one that notes are wanted at. The positions above it refine what is known of past frames.
    settings : VoiceSettings

    Notes
    -----
    Every frame is decided ``window_frames`` later, however clear it is: a delay that changed from note to note could
    not be taken back, and what the window shows of a note makes fewer mistakes. Not for the audio thread: `push`
    allocates. A step takes some 0.15 ms while something sounds, much less in silence.
    """

    def __init__(
        self, midi_notes: tuple[int, ...], lookaheads: Sequence[int], position: int, settings: VoiceSettings
    ) -> None:
        if list(lookaheads) != sorted(lookaheads) or not 0 <= position < len(lookaheads) or lookaheads[0] < 0:
            raise UsageError(f"Look-aheads must ascend from 0; got {list(lookaheads)}, position {position}.")
        self.midi_notes, self.settings = midi_notes, settings
        self._lookaheads, self._late = list(lookaheads), lookaheads[position]
        self._window = max(settings.window_frames, self._late + CONFIRM_FRAMES)
        # What is known of frame k lies in row k modulo the size, of the highest position that has spoken of it.
        self._size = max(self._window, *lookaheads) + settings.quiet_frames + _MARGIN
        count, lowest = len(midi_notes), min(midi_notes)
        self._rows: Rows = {name: np.zeros((self._size, count)) for name in ("onset", "frame", "velocity")}
        self._onset, self._sure, self._pitch = np.zeros((3, self._size))
        self._level = np.full(self._size, -200.0)
        self._grid = lowest - 0.5 + np.arange((max(midi_notes) - lowest + 1) * _GRID) / _GRID
        self._cost = np.zeros(len(self._grid))  # of the sounding note so far, by pitch
        self._note: int | None = None
        self._began, self._last = -(10**9), 0.0  # frame of the last beginning; moment of the last event
        self._end_of_known = 0  # the first frame that no position has spoken of
        self._next = 0  # the first frame that is not decided
        self._stuck = False  # what is heard was ended and begins no other note
        self._velocity = VelocityScale()
        self.frame = 0
        """The next frame of the chosen position, which is as many frames ago as it looks ahead."""

    @property
    def delay_frames(self) -> int:
        """Frames from the moment of a beginning until the end of the step that gives it out, at most.

        Without what the posteriors look ahead.
        """
        return self._window - self._late + 1 + _NEAR_FRAMES

    @property
    def sounding(self) -> tuple[int, ...]:
        """MIDI number that sounds, if any."""
        return () if self._note is None else (self._note,)

    def push(self, posteriors: Sequence[Spoken], level_db: float) -> list[TrackedEvent]:
        """Take what each position of the dial says in one step; return what is now known to have happened.

        Parameters
        ----------
        posteriors : sequence
            Of each position, for the frame that it speaks of. NaN counts as 0.
        level_db : float
            Of the frame that has just been heard, against full scale.
        """
        now = self.frame
        self._end_of_known = now - self._lookaheads[0] + 1
        self._level[now % self._size] = level_db if np.isfinite(level_db) else -200.0
        for ahead, (onset, frame, velocity, pitch) in zip(self._lookaheads, posteriors, strict=True):
            if now >= ahead:
                self._take(now - ahead, onset, frame, velocity, pitch)
        events: list[TrackedEvent] = []
        while self._next <= now - self._window:
            self._decide(self._next, events)
            self._next += 1
        self.frame = now + 1
        return events

    def release(self) -> list[TrackedEvent]:
        """End what sounds, now; what was heard before is not taken up again."""
        events: list[TrackedEvent] = []
        if self._note is not None:
            self._end(self.frame - self._late, events)
        self._next = max(self._next, self.frame - self._late - CONFIRM_FRAMES)
        self._stuck = bool(self._sure[(self.frame - 1 - self._lookaheads[0]) % self._size] >= _HEARD)
        return events

    # --- what is known ------------------------------------------------------------------------------------------------

    def _take(self, k: int, onset: Posterior, frame: Posterior, velocity: Posterior, pitch: float) -> None:
        row = k % self._size
        for name, values in (("onset", onset), ("frame", frame), ("velocity", velocity)):
            kept = self._rows[name][row]
            np.fmin(np.fmax(values, 0.0, out=kept), 1.0, out=kept)  # of NaN, fmax takes the 0
        frames = self._rows["frame"][row]
        best = int(frames.argmax())
        self._onset[row], self._sure[row] = self._rows["onset"][row].max(), frames[best]
        self._pitch[row] = pitch if pitch > 0 and math.isfinite(pitch) else self.midi_notes[best]

    def _known(self, first: int, last: int) -> NDArray[np.int64]:
        """Rows of the frames from `first` up to `last`, without it, that are known."""
        return np.arange(first, min(last, self._end_of_known)) % self._size

    def _away(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost [W, G] of frames in notes of each pitch, but for whether they are tones."""
        distance = np.abs(self._grid - self._pitch[rows, None])
        return self._sure[rows, None] * np.minimum(distance, self.settings.farthest)

    def _rest(self, first: int, end: int) -> NDArray[np.float64]:
        """Cost [W] of frames in any note: being no tone, and dips in level."""
        s, rows = self.settings, self._known(first, end)
        sure = np.clip(self._sure[rows], 0.01, 0.99)
        cost: NDArray[np.float64] = s.voiced * (np.log((1 - sure) / sure) - math.log((1 - s.even) / s.even))
        if s.quiet and s.quiet_frames:
            reach = s.quiet_frames
            around = np.full(end - first + 2 * reach, -_ENDLESS)  # what is not known is not louder
            earliest = max(0, first - reach)
            around[earliest - first + reach : end - first + reach] = self._level[self._known(earliest, end)]
            loudest = np.lib.stride_tricks.sliding_window_view(around, reach + 1).max(axis=1)
            level = around[reach : reach + end - first]
            dip = np.minimum(loudest[: end - first], loudest[reach : reach + end - first]) - level - _QUIET_DB
            cost += s.quiet * np.maximum(dip, 0.0)
        return cost

    def _start_costs(self, first: int, end: int) -> NDArray[np.float64]:
        """Cost [W] of notes that begin in these frames."""
        s = self.settings
        gain = self._onset[self._known(first, end)].copy()
        if s.keep:
            for back in (1, 2, 3):
                ago = np.arange(first, end) - back
                usable = (ago >= 0) & (ago > self._began + s.shortest_frames)
                lasting = np.where(usable, self._onset[ago % self._size] * (1 - s.keep * back), 0.0)
                np.maximum(gain, lasting, out=gain)
        return s.note - s.attack_gain * gain

    # --- decisions ----------------------------------------------------------------------------------------------------

    def _decide(self, f: int, events: list[TrackedEvent]) -> None:
        """Decide whether a note begins in frame `f`, goes on, or none is there."""
        if self._note is not None and f - self._began >= self.settings.longest_frames:
            self._end(f, events)
            self._stuck = True
        row = f % self._size
        if self._stuck and (self._sure[row] < _HEARD or self._onset[row] >= self.settings.attack):
            self._stuck = False
        sounds, choice = self._note is not None, "rest"
        young = sounds and f - self._began < self.settings.shortest_frames
        if young:
            choice = "on"
        elif sounds or not self._stuck:
            choice = self._cheapest(f)
        if choice == "new":
            self._begin(f, self._likeliest(f), events)
        elif choice == "rest" and sounds:
            self._end(f, events)
        if self._note is not None:
            self._cost = self.settings.forget * self._cost + self._away(self._known(f, f + 1))[0]

    def _cheapest(self, f: int) -> str:
        """Return what the cheapest division makes of frame `f`: ``on`` (the note goes on), ``new`` or ``rest``."""
        sounds = self._note is not None
        rows = self._known(f, self._end_of_known)
        if not sounds and self._sure[rows].max() < 0.2 and self._onset[rows].max() < _CLEAR_ONSET:
            return "rest"
        starts = self._start_costs(f, self._end_of_known)
        costs = self._away(rows) + self._rest(f, self._end_of_known)[:, None]  # [W, G]
        # Rows: the sounding note; one after it; a note from f on; one after that; one after a rest.
        table = np.full((5, len(self._grid)), _ENDLESS)
        going_on, new, rest = _ENDLESS, _ENDLESS, 0.0  # the least so far, by what frame f is
        if sounds:
            table[0], going_on = self._cost - self._cost.min(), 0.0
        for w in range(len(costs)):
            if w == 0:
                table[2] = starts[0]
            else:
                begun = np.array([_ENDLESS, going_on, _ENDLESS, new, rest]) + starts[w]
                np.minimum(table, begun[:, None], out=table)
            table += costs[w]
            least = table.min(axis=1)
            # A rest costs nothing, so what was cheapest before stays so; in frame f it is a matter of the decision.
            if w == 0:
                going_on, new = float(least[0]), float(least[2])
            else:
                going_on = min(going_on, float(least[0]), float(least[1]))
                new, rest = min(new, float(least[2]), float(least[3])), min(rest, float(least[4]))
        if sounds and going_on <= min(new, rest):
            return "on"
        return "new" if new < rest and not self._stuck else "rest"

    def _newest(self, f: int) -> NDArray[np.float64]:
        """Mean [P] of the newest frame posteriors of a note that begins in frame `f`."""
        first = max(f, self._end_of_known - self.settings.pitch_frames)
        newest: NDArray[np.float64] = self._rows["frame"][self._known(first, self._end_of_known)].mean(axis=0)
        return newest

    def _likeliest(self, f: int) -> int:
        """Return the column of the pitch of a note that begins in frame `f`."""
        attack = self._rows["onset"][self._known(max(0, f - 1), f + 3)].max(axis=0)
        return int((self._newest(f) + self.settings.onset_weight * attack).argmax())

    # --- events -------------------------------------------------------------------------------------------------------

    def _begin(self, f: int, column: int, events: list[TrackedEvent]) -> None:
        moment = max(self._moment(f) + self._late, self._last)
        if self._note is not None:
            self._end(moment - self._late, events)
        loudness = float(self._rows["velocity"][self._known(max(0, f - 1), f + 3), column].max())
        self._note, self._began, self._last = self.midi_notes[column], f, moment
        self._cost = np.zeros(len(self._grid))
        events.append(TrackedEvent("on", self._note, self._velocity.scaled(loudness), moment))

    def _end(self, f: float, events: list[TrackedEvent]) -> None:
        assert self._note is not None
        self._last = max(f + self._late, self._last)
        events.append(TrackedEvent("off", self._note, 0, self._last))
        self._note = None

    def _moment(self, f: int) -> float:
        """Moment of a beginning in frame `f`: the peak of the onset posterior nearby, else where the frame begins."""
        first = max(1, f - _NEAR_FRAMES)
        # Its neighbour has to be known as well.
        last = max(first + 1, min(f + _NEAR_FRAMES + 1, self._end_of_known - 1))
        k = first + int(self._onset[self._known(first, last)].argmax())
        before, peak, after = self._onset[[(k - 1) % self._size, k % self._size, (k + 1) % self._size]]
        return float(f) if peak < _CLEAR_ONSET else k + 0.5 + peak_shift(before, peak, after)
