"""A reference decoder: posteriors to notes, with what is known one frame after an onset, and no more.

The host has a tracker of its own (rtsep); this one serves to choose thresholds and to compare models. A note begins
where its onset posterior has a peak above ``onset`` (known one frame later) and its frame posterior reaches ``on``
there or in the next two frames; it ends when that has been below ``off`` for three frames, or at its next onset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAME_SECONDS = 0.01
REFRACTORY = 4  # frames between onsets of one pitch
RELEASE = 3  # frames below `off` before a note ends
LONGEST = 1500  # frames
DRUM_SECONDS = 0.05
VOICE_REFRACTORY = 6  # frames between notes of a monophonic instrument
CHANGED = 4  # frames that another pitch has to be there for a note without an attack
Notes = NDArray[np.float64]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Thresholds:
    """What counts as an onset, as sounding, and as ended; posteriors in 0..1."""

    onset: float = 0.4
    on: float = 0.3
    off: float = 0.2

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thresholds:
        """Build from plain values."""
        return cls(float(values["onset"]), float(values["on"]), float(values["off"]))


def decode(
    onset: Array, frame: Array, velocity: Array, thresholds: Thresholds, kind: str, midi_notes: Sequence[int]
) -> Notes:
    """Return notes ``[n, 4]``: onset s, offset s, MIDI number, velocity 1..127, in the order of their onsets.

    Parameters
    ----------
    onset, frame, velocity : ndarray
        ``[N, P]`` of one position of the dial, its latency already taken off: row 0 is the first 10 ms.
    thresholds : Thresholds
    kind : str
        ``polyphonic``, ``monophonic`` or ``drums``.
    midi_notes : sequence of int
        Along P.
    """
    if kind == "monophonic":
        spans = _one_voice(onset, frame, thresholds)
    else:
        spans = _many_voices(onset, frame, thresholds, kind == "drums")
    notes = []
    for first, at, last, pitch in spans:
        strength = int(np.clip(round(127 * float(velocity[first, pitch])), 1, 127))
        end = at + DRUM_SECONDS if kind == "drums" else max(last * FRAME_SECONDS, at + 2 * FRAME_SECONDS)
        notes.append((at, end, midi_notes[pitch], strength))
    return np.array(sorted(notes), float).reshape(-1, 4)


def peaks(onset: Array, threshold: float) -> list[tuple[int, int]]:
    """Frames and pitches of local maxima above a threshold, in the order of time."""
    before = np.vstack([np.zeros_like(onset[:1]), onset[:-1]])
    after = np.vstack([onset[1:], np.zeros_like(onset[:1])])
    found = np.argwhere((onset >= threshold) & (onset > before) & (onset >= after))
    return [(int(f), int(p)) for f, p in found]


def _moment(onset: Array, f: int, p: int) -> float:
    """Seconds of a peak, from the parabola through it and its neighbours."""
    left = float(onset[f - 1, p]) if f else 0.0
    right = float(onset[f + 1, p]) if f + 1 < len(onset) else 0.0
    middle = float(onset[f, p])
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < -1e-6 else 0.0
    return max(0.0, (f + 0.5 + float(np.clip(shift, -0.5, 0.5))) * FRAME_SECONDS)


def _ends(frame: Array, off: float) -> NDArray[np.int64]:
    """For each frame and pitch, the first frame from there on where it has been below `off` long enough."""
    below = frame < off
    count, pitches = frame.shape
    ends = np.full((count + 1, pitches), count, np.int64)
    run = np.zeros(pitches, np.int64)
    for f in range(count - 1, -1, -1):
        run = np.where(below[f], run + 1, 0)
        ends[f] = np.where(run >= RELEASE, f, ends[f + 1])
    return ends


def _many_voices(onset: Array, frame: Array, limits: Thresholds, drums: bool) -> list[tuple[int, float, int, int]]:
    ends = np.zeros((0, 0), np.int64) if drums else _ends(frame, limits.off)
    latest: dict[int, int] = {}
    spans: list[tuple[int, float, int, int]] = []
    for f, p in peaks(onset, limits.onset):
        before = spans[latest[p]] if p in latest else None
        if before is not None and f - before[0] < REFRACTORY:
            continue
        if not drums and float(frame[f : f + 3, p].max()) < limits.on:
            continue
        if drums:
            last = f + 5
        else:
            # The frame posterior may still be rising at the onset.
            above = np.flatnonzero(frame[f : f + 3, p] >= limits.on)
            last = min(int(ends[f + int(above[0]), p]), f + LONGEST)
        if before is not None and before[2] > f:
            spans[latest[p]] = (before[0], before[1], f, p)
        latest[p] = len(spans)
        spans.append((f, _moment(onset, f, p), last, p))
    return spans


def _one_voice(onset: Array, frame: Array, limits: Thresholds) -> list[tuple[int, float, int, int]]:
    """At most one note at a time; a pitch that takes over without an attack is a note too."""
    strongest = onset.max(axis=1, keepdims=True)
    starts = {f for f, _ in peaks(strongest, limits.onset)}
    spans: list[tuple[int, float, int, int]] = []
    held, began, moment, quiet, other, others = -1, -VOICE_REFRACTORY, 0.0, 0, -1, 0
    for f in range(len(onset)):
        if f in starts and f - began >= VOICE_REFRACTORY:
            evidence = frame[f : f + 3].max(axis=0) + onset[max(0, f - 1) : f + 2].max(axis=0)
            p = int(evidence.argmax())
            if float(frame[f : f + 3, p].max()) >= limits.on:
                if held >= 0:
                    spans.append((began, moment, f, held))
                held, began, moment, quiet, others = p, f, _moment(strongest, f, 0), 0, 0
                continue
        best = int(frame[f].argmax())
        if best != held and frame[f, best] >= max(limits.on, 0.4) and f - began >= 3:
            others = others + 1 if best == other else 1
            other = best
            if others >= CHANGED and f - began >= VOICE_REFRACTORY:
                first = f - CHANGED + 1
                if held >= 0:
                    spans.append((began, moment, first, held))
                held, began, moment, quiet, others = best, first, first * FRAME_SECONDS, 0, 0
        else:
            others = 0
        if held >= 0:
            quiet = quiet + 1 if frame[f, held] < limits.off else 0
            if (quiet >= RELEASE and others == 0) or f - began >= LONGEST:
                spans.append((began, moment, f - quiet + 1, held))
                held = -1
    if held >= 0:
        spans.append((began, moment, len(onset), held))
    return spans
