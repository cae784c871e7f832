"""The report is what the figures say: nothing typed by hand, nothing hidden."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.record import ROOT
from benchmarks.report import Book, goals, page, readme_part
from rtsep.errors import FiguresError
from rtsep.figures import Figure, Run, to_line
from rtsep.zoo.registry import read_info, resolve

RUN = Run(
    "r", "abc", {"cpu": "A", "cores": 2, "load": 0.1, "realtime": True}, {"onnxruntime": "1"}, 0,
    "2026-01-01T00:00:00+00:00", "python -m benchmarks run --full",
)  # fmt: skip
LOW = read_info(resolve("low")).name
COST = Figure(
    "r", "peers", "separation", {"system": LOW, "in": "ONNX Runtime"}, "CPU s/s", "lower", 0.0471, [0.0469, 0.0473],
    facts={"note": "rtsep", "latency_ms": 23.2, "parameters": 1},
)  # fmt: skip
PEER = replace(
    COST, parameters={"system": "HS-TasNet", "in": "PyTorch"}, value=0.913, rounds=[0.913],
    facts={"note": "PyTorch, random weights", "latency_ms": 23.2, "parameters": 1},
)  # fmt: skip
RATIO = Figure(
    "r", "peers", "times the cost", {"peer": "HS-TasNet, PyTorch", "model": LOW}, "times", "higher", 19.4,
    [19.1, 19.6], facts={"peer_latency_ms": 23.2, "latency_ms": 23.2},
)  # fmt: skip
ABSENT = Figure("r", "cuda", "hop", {}, "", "neither", None, note="no CUDA provider")


def book(tmp_path: Path, *figures: Figure, run: Run = RUN, name: str = "a.jsonl") -> Book:
    (tmp_path / name).write_text("".join(to_line(entry) + "\n" for entry in (run, *figures)))
    return Book(sorted(tmp_path.glob("*.jsonl")))


def test_figures_come_out_with_their_spread_and_what_is_missing_is_said(tmp_path: Path) -> None:
    text = page(book(tmp_path, COST, PEER, RATIO, ABSENT))
    assert "0.0471 (0.0469 to 0.0473)" in text
    assert "19.4 (19.1 to 19.6)" in text
    assert "no CUDA provider" in text
    assert "was busy" not in text
    assert text.count("Not measured.") >= 5


def test_a_busy_machine_is_named_and_keeps_out_of_the_readme(tmp_path: Path) -> None:
    quiet = readme_part(book(tmp_path, COST, PEER, RATIO))
    assert quiet is not None
    assert any("19.4" in line for line in quiet)
    busy = book(tmp_path, COST, PEER, RATIO, run=replace(RUN, machine={**RUN.machine, "load": 3.2}))
    assert "The machine was busy" in page(busy)
    assert readme_part(busy) is None


def test_the_newest_run_counts(tmp_path: Path) -> None:
    later = replace(RUN, run="s", date="2026-02-01T00:00:00+00:00")
    book(tmp_path, COST, run=RUN, name="z.jsonl")
    found = book(tmp_path, replace(COST, run="s", value=0.5, rounds=[0.5]), run=later, name="a.jsonl")
    assert [f.value for f in found.find("peers", "separation")] == [0.5]


def test_goals_say_by_how_much_they_are_missed(tmp_path: Path) -> None:
    met = "\n".join(goals(book(tmp_path, RATIO)))
    assert "| 19.4 times, 19.1 to 19.6; 23.2 against 23.2 ms | met |" in met
    assert "not measured for 30 minutes" in met
    missed = "\n".join(goals(book(tmp_path, replace(RATIO, value=5.0, rounds=[4.0, 6.0]))))
    assert "missed by a factor of 2.50" in missed
    trip = Figure(
        "r", "round_trip", "total", {"model": LOW, "period": 128, "signal": "noise"}, "ms", "lower", 34.67,
        facts={"samplerate": 48000},
    )  # fmt: skip
    late = Figure(
        "r", "deadlines", "late hops", {"load": "cpu hogs", "minutes": 30.0}, "hops", "lower", 2.0,
        facts={"realtime": True, "stalls": 3, "longest_stall_ms": 20.0},
    )  # fmt: skip
    said = "\n".join(goals(book(tmp_path, trip, late)))
    assert "missed by 20.7 ms" in said
    assert "the machine itself stopped 3 times, for 20.0 ms" in said


def test_the_command_writes_page_and_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for name, value in (("PAGE", tmp_path / "p.md"), ("PICTURES", tmp_path / "pictures"), ("README", readme)):
        monkeypatch.setattr(report, name, value)
    book(tmp_path, COST, PEER, RATIO)
    assert report.main(argparse.Namespace(files=[tmp_path / "a.jsonl"])) == 0
    assert (tmp_path / "pictures" / "sdr.svg").read_text().count(LOW) >= 1
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "19.4" in text
    assert "old" not in text
    report.main(argparse.Namespace(files=[tmp_path / "a.jsonl"]))
    assert readme.read_text() == text
    monkeypatch.setattr(report, "RESULTS", tmp_path / "none")
    with pytest.raises(FiguresError, match="make bench-quick"):
        report.main(argparse.Namespace(files=[]))


def test_the_committed_page_is_made_of_the_committed_figures() -> None:
    paths = sorted((ROOT / "benchmarks" / "results").glob("*.jsonl"))
    assert sum(path.stat().st_size for path in paths) < 300_000
    assert all(path.stat().st_size < 100_000 for path in (ROOT / "docs" / "performance").glob("*"))
    assert (ROOT / "docs" / "performance.md").read_text() == page(Book(paths)), "run: make report"
