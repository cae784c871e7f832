"""Scores: what sounds when, and that it is set for the hop it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import MidiFileError, UsageError
from rtsep.query.notes import Note
from rtsep.query.score import Score, ScoreReader, hop_time, read_score
from rtsep.query.smf import write_midi
from rtsep.zoo.registry import read_info
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import HOP, LOWEST, PITCHES, RATE


def test_a_note_sounds_from_its_start_to_before_its_end() -> None:
    score = Score([Note(0.5, 1.0, 60, 64), Note(1.0, 2.0, 60, 64), Note(0.75, 1.5, 64, 64), Note(0.75, 1.0, 64, 9)])
    times = (-1.0, 0.0, 0.5, 0.74, 0.75, 0.999, 1.0, 1.49, 1.5, 1.999, 2.0, 99.0)
    expected = [(), (), (60,), (60,), (60, 64), (60, 64), (60, 64), (60, 64), (60,), (60,), (), ()]
    assert [score.sounding(time) for time in times] == expected


def test_the_files_notes_are_moved_and_kept_in_range(family: Path, tmp_path: Path) -> None:
    info = read_info(family)
    write_midi(tmp_path / "a.mid", {"a": [Note(1.0, 2.0, 60, 64), Note(0.0, 1.0, 15, 64)], "b": [Note(0, 3, 72, 64)]})
    score = read_score(tmp_path / "a.mid", info, track=2, offset_s=-0.5)
    assert score.notes == [Note(0.5, 1.5, 60, 64)]
    assert score.remarks == ["1 notes outside A0 (21) to C8 (108) were left out: 1 x Eb0 (15)."]
    assert len(read_score(tmp_path / "a.mid", info).notes) == 2
    write_midi(tmp_path / "low.mid", {"a": [Note(0.0, 1.0, 15, 64)]})
    with pytest.raises(MidiFileError, match="no note is within"):
        read_score(tmp_path / "low.mid", info)


def test_models_that_read_no_score_are_named(tmp_path: Path) -> None:
    info = read_info(make_delay_model(tmp_path / "m.onnx", control=True, notes=True))
    with pytest.raises(UsageError, match=r"test-delay reads no score: .* has level"):
        read_score(tmp_path / "none.mid", info)


def test_controls_are_set_once_for_each_change(family: Path) -> None:
    info, calls = read_info(family), []
    score = Score([Note(0.1, 0.2, LOWEST, 64), Note(0.2, 0.3, LOWEST + PITCHES - 1, 64)])
    reader = ScoreReader(score, info, lambda name, values: calls.append((name, np.array(values))))
    assert [name for name, _ in calls] == ["score", "score_weight"]
    assert not calls[0][1].any()
    assert calls[1][1] == 1.0
    calls.clear()
    for hop in range(40):
        reader.at(hop_time(info, hop, RATE))
    pitches = [np.flatnonzero(values).tolist() for _, values in calls]
    assert pitches == [[0], [PITCHES - 1], []]


def test_a_hop_stands_for_the_middle_of_its_stems(family: Path) -> None:
    info = read_info(family)
    assert info.latency_samples == HOP
    assert hop_time(info, 1, RATE) == pytest.approx(0.5 * HOP / RATE)
    assert hop_time(info, 5, RATE, delay_samples=80) == pytest.approx(4.0 * HOP / RATE)
