"""Figures: written, read, refused when wrong, and held against each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.record import Recorder, engine_histogram, histogram, percentiles
from rtsep.cli import main
from rtsep.engine.stats import BINS, bin_of, percentile_ms
from rtsep.errors import FiguresError
from rtsep.figures import Figure, Run, compare, read_figures, to_line

RUN = Run("r", "c", {"cpu": "A", "cores": 2, "load": 0.1}, {"onnxruntime": "1"}, 0, "2026-01-01T00:00:00+00:00", "x")
FIGURE = Figure("r", "hop", "hop time", {"model": "m", "block": 128}, "ms", "lower", 1.0, [0.99, 1.0, 1.01, 1.0, 1.0])


def times(factor: float, **values: Any) -> Figure:
    rounds = [factor * number for number in FIGURE.rounds]
    return replace(FIGURE, **{"value": factor, "rounds": rounds, **values})


def write(path: Path, *entries: Run | Figure) -> Path:
    path.write_text("".join(to_line(entry) + "\n" for entry in entries))
    return path


def test_what_the_recorder_writes_is_read_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new" / "a.jsonl", seed=3, command="x")
    samples = np.random.default_rng(0).lognormal(size=1000)
    put = recorder.put("hop", "time", 1.25, "ms", parameters={"block": 64}, rounds=[1, 1.5], samples=samples)
    recorder.missing("cuda", "hop", "no GPU")
    runs, figures = read_figures(recorder.path)
    assert runs == [recorder.run]
    assert figures == recorder.figures
    assert figures[0] == put
    assert put.percentiles is not None
    assert put.percentiles["count"] == 1000
    assert put.percentiles["p99"] == pytest.approx(np.percentile(samples, 99), rel=1e-4)
    assert put.histogram is not None
    assert sum(put.histogram["counts"]) == 1000
    assert figures[1].value is None
    assert figures[1].note == "no GPU"
    assert {"cpu", "cores", "kernel", "governor", "load", "realtime"} <= set(runs[0].machine)
    assert runs[0].commit


def test_percentiles_are_those_of_the_samples_and_all_alike_have_no_histogram() -> None:
    found = percentiles(range(1, 1001))
    assert found == {"p50": 500.5, "p95": 950.05, "p99": 990.01, "p99.9": 999.0, "max": 1000, "count": 1000}
    assert histogram([2.0, 2.0]) is None
    assert histogram([0.0, 2.0]) is None


def test_histogram_of_the_engine_keeps_every_hop_where_it_was() -> None:
    counts = np.zeros(BINS, np.int64)
    for microseconds in (300, 310, 320, 5000):
        counts[bin_of(microseconds * 1000)] += 1
    found = engine_histogram(counts)
    assert found is not None
    assert sum(found["counts"]) == 4
    assert found["edges"][0] <= 0.3
    assert found["edges"][-1] >= percentile_ms(counts, 100.0) * 0.99
    assert engine_histogram(np.zeros(BINS, np.int64)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2; this version of rtsep reads 1"),
        ({"kind": "note"}, "allowed are run and figure"),
        ({"valeu": 1}, "'valeu'. Did you mean 'value'?"),
        ({"value": "fast"}, "value is 'fast'"),
        ({"rounds": [1, "2"]}, "list of numbers is needed"),
        ({"better": "up"}, "allowed are lower, higher, neither"),
        ({"value": None}, "no value, and no note"),
        ({"percentiles": {"p50": 1}}, "needed are p50, p95, p99, p99.9, max, count"),
        ({"histogram": {"edges": [1, 2], "counts": [1, 2]}}, "needs 3 ascending edges"),
        ({"run": "other"}, "'other', no run of it"),
        ({"unit": None}, "unit is None"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    line = json.dumps({**json.loads(to_line(FIGURE)), **change})
    (tmp_path / "a.jsonl").write_text(f"{to_line(RUN)}\n{line}\n")
    with pytest.raises(FiguresError) as caught:
        read_figures(tmp_path / "a.jsonl")
    assert said in str(caught.value)
    assert "a.jsonl" in str(caught.value)


def test_a_missing_key_a_missing_file_and_an_empty_one_are_errors(tmp_path: Path) -> None:
    short = {key: value for key, value in json.loads(to_line(FIGURE)).items() if key != "unit"}
    (tmp_path / "a.jsonl").write_text(f"{to_line(RUN)}\n{json.dumps(short)}\n")
    with pytest.raises(FiguresError, match="line 2: the key 'unit' is missing"):
        read_figures(tmp_path / "a.jsonl")
    with pytest.raises(FiguresError, match=r"No such file.*rtsep bench --json"):
        read_figures(tmp_path / "none.json")
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(FiguresError, match="holds no figures"):
        read_figures(tmp_path / "b.jsonl")
    (tmp_path / "c.json").write_text('{"schema": 1, "machine": {}}')
    with pytest.raises(FiguresError, match="nothing that rtsep bench --json printed"):
        read_figures(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (times(1.2), "slower"),
        (times(0.8), "faster"),
        (times(1.02), "the same"),
        (times(1.2, rounds=[0.8, 1.0, 1.6]), "the same"),
        (times(1.2, rounds=[1.2]), "unknown"),
        (times(1.2, value=None, rounds=[], note="no GPU"), "unknown"),
    ],
)
def test_verdict_against_the_spread(after: Figure, word: str) -> None:
    assert [verdict.word for verdict in compare([FIGURE], [after])] == [word]


def test_more_is_better_where_the_figure_says_so() -> None:
    rate = replace(FIGURE, better="higher", unit="x real time")
    (verdict,) = compare([rate], [replace(times(1.5), better="higher", unit="x real time")])
    assert verdict.word == "faster"
    assert verdict.ratio == pytest.approx(1.5)
    assert compare([FIGURE], [times(1.0, parameters={"model": "m", "block": 64})]) == []


def test_the_command_prints_verdicts_and_warns_of_another_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "a.jsonl", RUN, FIGURE)
    second = write(tmp_path / "b.jsonl", replace(RUN, machine={"cpu": "B", "cores": 2, "load": 3.0}), times(0.5))
    with pytest.raises(SystemExit) as left:
        main(["bench", "--compare", str(first), str(second)])
    said = capsys.readouterr()
    assert left.value.code == 0
    assert "0.500" in said.out
    assert "1 faster" in said.out
    assert "cpu: A against B" in said.err
    assert "load 0.1 against 3.0" in said.err
    with pytest.raises(SystemExit) as left:
        main(["bench", "--compare", str(first), str(tmp_path / "none"), "--json"])
    assert left.value.code == 1
    assert "rtsep bench --json" in capsys.readouterr().err
