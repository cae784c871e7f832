"""How good notes are: onset F1 on compensated times, and notes where there is nothing to hear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mir_eval
import numpy as np

from models.transcriber.decoder import FRAME_SECONDS, Array, Notes, Thresholds, decode

TOLERANCES_MS = (20, 30, 50)
OPEN_HIHAT, HIHAT = 46, 42
ONSET_CHOICES = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8)
ON_CHOICES = (0.1, 0.2, 0.3, 0.45, 0.6)
OFF_RATIO = 0.6  # of the frame threshold
Posteriors = dict[str, Array]
"""``onset``, ``frame``, ``velocity`` ``[N, P]`` of one position of the dial, its latency taken off."""


@dataclass(frozen=True)
class Matches:
    """Counts of notes: in the reference, in the estimate, in both."""

    reference: int
    estimate: int
    hits: int

    @property
    def precision(self) -> float:
        """Share of estimated notes that are there."""
        return self.hits / self.estimate if self.estimate else 0.0

    @property
    def recall(self) -> float:
        """Share of notes that were found."""
        return self.hits / self.reference if self.reference else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 1 when there was nothing and nothing was found."""
        total = self.reference + self.estimate
        return 2 * self.hits / total if total else 1.0


def match(reference: Notes, estimate: Notes, kind: str, tolerance_ms: float) -> Matches:
    """Match notes by onset and pitch (half a semitone) or drum, each at most once (mir_eval); offsets do not count.

    Open and closed hi-hats count as one: the drum recordings do not tell them apart.
    """
    if not len(reference) or not len(estimate):
        return Matches(len(reference), len(estimate), 0)

    def arrays(notes: Notes) -> tuple[np.ndarray, np.ndarray]:
        pitch = np.where(notes[:, 2] == OPEN_HIHAT, HIHAT, notes[:, 2]) if kind == "drums" else notes[:, 2]
        spans = np.column_stack([notes[:, 0], np.maximum(notes[:, 1], notes[:, 0] + 0.01)])
        return spans, 440.0 * 2 ** ((pitch - 69) / 12)

    pairs = mir_eval.transcription.match_notes(
        *arrays(reference), *arrays(estimate), onset_tolerance=tolerance_ms / 1000, offset_ratio=None
    )
    return Matches(len(reference), len(estimate), len(pairs))


def total(matches: Iterable[Matches]) -> Matches:
    """Sum of counts."""
    rows = [(m.reference, m.estimate, m.hits) for m in matches]
    return Matches(*(int(x) for x in np.sum(rows, axis=0))) if rows else Matches(0, 0, 0)


def per_minute(notes: Notes, frames: int) -> float:
    """Notes a minute."""
    return 60 * len(notes) / max(frames * FRAME_SECONDS, 1e-9)


def tune(clips: list[tuple[Posteriors, Notes]], kind: str, midi_notes: tuple[int, ...]) -> Thresholds:
    """Choose the thresholds with the best F1 (50 ms, all notes of all clips together).

    Parameters
    ----------
    clips : list
        Posteriors and true notes of training material; never of held-out recordings.
    """
    best, chosen = -1.0, Thresholds()
    for onset in ONSET_CHOICES:
        for on in ON_CHOICES if kind != "drums" else ON_CHOICES[:1]:
            limits = Thresholds(onset, on, round(OFF_RATIO * on, 3))
            found = total(
                match(notes, decode(p["onset"], p["frame"], p["velocity"], limits, kind, midi_notes), kind, 50)
                for p, notes in clips
            )
            if found.f1 > best:
                best, chosen = found.f1, limits
    return chosen
