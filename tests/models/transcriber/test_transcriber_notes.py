"""The reference decoder, scores, and tuning of thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from models.data.transcription import rolls_of
from models.transcriber.decoder import Thresholds, decode
from models.transcriber.scoring import Matches, match, total, tune

PITCHES = tuple(range(21, 109))
LIMITS = Thresholds(onset=0.5, on=0.5, off=0.3)


def posteriors(notes: np.ndarray, frames: int = 400, midi: tuple[int, ...] = PITCHES) -> dict[str, np.ndarray]:
    rolls = rolls_of(notes, frames, midi)
    return {name: rolls[name] for name in ("onset", "frame", "velocity")}


def test_perfect_posteriors_give_the_notes_back() -> None:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0.1, 3.2, 20)) + 0.06 * np.arange(20) / 20
    notes = np.array([[s, s + rng.uniform(0.1, 0.5), rng.integers(30, 100), rng.integers(30, 127)] for s in starts])
    found = decode(**posteriors(notes), thresholds=LIMITS, kind="polyphonic", midi_notes=PITCHES)
    assert match(notes, found, "polyphonic", 10).f1 > 0.97
    pair = found[np.argmin(np.abs(found[:, 0] - notes[0, 0]) + (found[:, 2] != notes[0, 2]))]
    assert pair[1] == pytest.approx(notes[0, 1], abs=0.015)
    assert pair[3] == pytest.approx(notes[0, 3], abs=1)


def test_a_repeated_note_ends_the_one_before() -> None:
    notes = np.array([[0.5, 1.0, 60, 80], [1.0, 1.5, 60, 90]])
    found = decode(**posteriors(notes), thresholds=LIMITS, kind="polyphonic", midi_notes=PITCHES)
    assert len(found) == 2
    assert found[0, 1] <= found[1, 0] + 0.011


def test_one_voice_never_holds_two_notes_and_hears_a_change_without_attack() -> None:
    notes = np.array([[0.3, 0.8, 60, 80], [0.8, 1.3, 64, 80], [1.6, 2.0, 62, 80]])
    given = posteriors(notes)
    given["onset"][75:90] = 0  # legato
    found = decode(**given, thresholds=LIMITS, kind="monophonic", midi_notes=PITCHES)
    assert found[:, 2].tolist() == [60, 64, 62]
    assert found[1, 0] == pytest.approx(0.8, abs=0.02)
    assert (found[1:, 0] >= found[:-1, 1] - 0.011).all()


def test_silence_gives_no_notes() -> None:
    empty = {name: np.zeros((100, 88), np.float32) for name in ("onset", "frame", "velocity")}
    for kind in ("polyphonic", "monophonic"):
        assert decode(**empty, thresholds=LIMITS, kind=kind, midi_notes=PITCHES).shape == (0, 4)


def test_hihats_count_as_one() -> None:
    reference = np.array([[0.5, 0.55, 42, 0], [1.0, 1.05, 38, 0]])
    estimate = np.array([[0.51, 0.56, 46, 9], [1.0, 1.05, 36, 9]])
    assert match(reference, estimate, "drums", 50) == Matches(2, 2, 1)
    assert total([Matches(2, 2, 1), Matches(2, 0, 0)]).f1 == pytest.approx(1 / 3)
    assert match(np.zeros((0, 4)), np.zeros((0, 4)), "drums", 50).f1 == 1.0


def test_thresholds_are_chosen_where_false_peaks_fall_out() -> None:
    rng = np.random.default_rng(1)
    notes = np.array([[s, s + 0.3, 60 + i % 5, 80] for i, s in enumerate(np.arange(0.2, 3.6, 0.25))])
    given = posteriors(notes)
    for _ in range(60):
        given["onset"][rng.integers(400), rng.integers(88)] = 0.3
        given["frame"][rng.integers(400)] = np.maximum(given["frame"][rng.integers(400)], 0.3)
    limits = tune([(given, notes)], "polyphonic", PITCHES)
    assert limits.onset > 0.3 or limits.on > 0.3
    assert limits.off < limits.on
