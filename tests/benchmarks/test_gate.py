"""The gate counts what a hop costs, lets what is the same pass and stops what is dearer."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gate import can_count, instructions, judge, keep, spread_of
from benchmarks.record import ROOT, Recorder
from rtsep.figures import Figure, Run, read_figures
from tests.support.graphs import make_delay_model

RUN = Run("r", "c", {"cpu": "A"}, {"onnxruntime": "1"}, 0, "2026-01-01T00:00:00+00:00", "x")


def figure(name: str, *rounds: float, figure: str = "hop over reference") -> Figure:
    return Figure("r", "gate", figure, {"model": name}, "times", "lower", sorted(rounds)[len(rounds) // 2], [*rounds])


def gate(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "gate", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_counted_instructions_are_the_same_again_and_a_dearer_hop_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not can_count():
        assert not os.environ.get("CI"), "valgrind and cc are needed: apt install valgrind gcc"
        pytest.skip("valgrind, its header or cc is not there: apt install valgrind gcc")
    models = [
        str(make_delay_model(tmp_path / f"{name}.onnx", ballast=ballast))
        for name, ballast in (("first", 4), ("again", 4), ("dearer", 5))
    ]
    recorder = Recorder(tmp_path / "now.jsonl")
    instructions(recorder, models)
    (first,) = [f for f in recorder.figures if f.parameters == {"model": "first"}]
    assert first.value is not None
    assert first.value > 4 * 64 * 256 * 256 / 64
    before = [replace(first, parameters={"model": name}) for name in ("first", "again", "dearer")]
    assert judge(recorder.figures, recorder.run, before, [recorder.run]) == ["dearer"]
    assert "dearer: " in capsys.readouterr().out


def test_a_hop_that_takes_twice_the_time_fails_the_command(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", ballast=10)
    words = ("--by", "ratio", "--models", model, "--baseline", tmp_path / "baseline.jsonl")
    missing = gate(*words)
    assert missing.returncode == 1
    assert "baseline.jsonl cannot be read" in missing.stderr
    assert gate("--update", *words).returncode == 0
    make_delay_model(model, ballast=60)
    failed = gate(*words)
    assert failed.returncode == 1, failed.stdout
    assert "TOO DEAR" in failed.stdout
    assert "gate --update" in failed.stdout


def test_the_spread_of_both_is_allowed_beyond_ten_percent(capsys: pytest.CaptureFixture[str]) -> None:
    quiet, noisy = figure("m", 1.0, 1.0, 1.0, 1.0), figure("m", 0.9, 1.0, 1.0, 1.1)
    assert spread_of(quiet) == 0
    grown = figure("m", 1.12, 1.12, 1.12, 1.12)
    assert judge([grown], RUN, [quiet], [RUN]) == ["m"]
    assert judge([grown], RUN, [noisy], [RUN]) == []
    assert judge([figure("new", 1.0)], RUN, [quiet], [RUN]) == []
    assert "not in the baseline" in capsys.readouterr().out
    elsewhere = replace(RUN, machine={"cpu": "B"})
    assert judge([grown], elsewhere, [quiet], [RUN]) == []
    assert "of A; ratios of B differ" in capsys.readouterr().out
    counted = [replace(f, figure="instructions") for f in (grown, quiet)]
    assert judge(counted[:1], elsewhere, counted[1:], [RUN]) == ["m"]
    # What a count is above the least one was something else's.
    disturbed = replace(counted[1], rounds=[1.3, 1.0, 1.01, 1.4, 1.2])
    assert spread_of(disturbed) == pytest.approx(0.01)
    assert judge([disturbed], RUN, counted[1:], [RUN]) == []


def test_updating_keeps_the_other_way_and_other_models(tmp_path: Path) -> None:
    count, ratio = "instructions", "hop over reference"
    for name, model in ((count, "m"), (ratio, "m"), (count, "n"), (count, "m")):
        recorder = Recorder(tmp_path / "now.jsonl")
        recorder.put("gate", name, 1.0, "times", parameters={"model": model}, rounds=[1.0])
        keep(recorder, tmp_path / "baseline.jsonl")
    runs, figures = read_figures(tmp_path / "baseline.jsonl")
    found = sorted((f.figure, f.parameters["model"]) for f in figures)
    assert found == [(ratio, "m"), (count, "m"), (count, "n")]
    assert len(runs) == 3
    assert figures[0].run == recorder.run.run


def test_every_shipped_model_is_guarded() -> None:
    from rtsep.zoo import list_models

    _, figures = read_figures(ROOT / "benchmarks" / "baseline.jsonl")
    guarded = {f.parameters["model"] for f in figures if f.figure == "instructions"}
    assert {entry.name for entry in list_models()} <= guarded, "run: python -m benchmarks gate --update"
