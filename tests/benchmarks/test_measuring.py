"""The instruments themselves, against signals and graphs whose answer is known."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cuda
from benchmarks.__main__ import BENCHMARKS, BY_NAME_ONLY
from benchmarks.batch import BoundModel
from benchmarks.control_latency import first_changes, pair
from benchmarks.device_clock import DeviceClock
from benchmarks.graph_costs import graph_costs
from benchmarks.hop import timed
from benchmarks.loads import LOADS, load
from benchmarks.note_latency import matched, material
from benchmarks.record import ROOT, Recorder
from export.wrap import to_onnx
from rtsep.audio.backends import DummyConfig
from rtsep.engine import Engine
from rtsep.figures import Figure, read_figures
from tests.export.tiny import TinyMasks
from tests.support.graphs import make_delay_model

DELAY = 700


def moved_fader(starts: list[int], length: int = 96_000) -> tuple[np.ndarray, np.ndarray]:
    """Noise [T, C], and what a fader made of it that moves in ramps of 240 samples, `DELAY` later."""
    played = (0.1 * np.random.default_rng(0).standard_normal((length, 2))).astype(np.float32)
    gain, now = np.ones(length), 1.0
    for number, start in enumerate(starts):
        then = 0.5 if number % 2 == 0 else 0.7
        gain[start : start + 240] = np.linspace(now, then, 240)
        gain[start + 240 :] = now = then
    heard = np.zeros((length + DELAY, 2), np.float32)
    heard[DELAY:] = played * gain[:, None].astype(np.float32)
    return played, heard


def test_the_first_sample_a_fader_changes_is_found() -> None:
    starts = [10_000, 20_000, 33_333]
    found = first_changes(*moved_fader(starts), DELAY)
    assert len(found) == 3
    # Samples near 0 say nothing of a ratio: the next one that does is at most a few later.
    assert all(0 <= at - start - DELAY < 12 for at, start in zip(found, starts, strict=True))
    assert first_changes(*moved_fader([]), DELAY) == []


def test_moves_meet_the_change_after_them_and_a_lost_one_is_left_out() -> None:
    assert pair([1.0, 2.0, 3.0], [1.02, 3.03]) == pytest.approx([0.02, 0.03])
    assert pair([1.0, 1.1, 1.2], [1.02, 1.22]) == pytest.approx([0.02, 0.02])
    assert pair([1.0, 1.1], [1.12, 1.13]) == pytest.approx([0.12, 0.03])  # slow, but in order


def test_notes_meet_their_onsets_once() -> None:
    truth, got = [(1.0, 60), (2.0, 62)], [(1.1, 60), (1.11, 60), (2.5, 62)]
    assert matched(truth, got, 0.1, any_pitch=False) == pytest.approx([0.1])
    assert matched([(1.0, 60)], [(1.1, 61)], 0.1, any_pitch=False) == []
    assert matched([(1.0, 60)], [(1.1, 61)], 0.1, any_pitch=True) == pytest.approx([0.1])


def test_plucked_notes_begin_where_they_are_said_to() -> None:
    audio, truth = material("other", 3.0, seed=1)
    assert len(truth) >= 6
    for onset, _ in truth:
        at = round(onset * 48_000)
        assert np.abs(audio[:, at : at + 480]).max() > 0.02
    assert np.array_equal(material("other", 3.0, seed=1)[0], audio)


def test_the_device_clock_agrees_with_the_device(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx")
    with Engine(model, backend=DummyConfig(blocksize=480)) as engine:
        clock = DeviceClock(engine, 2.0)
        deadline = time.monotonic() + 20
        # The device cannot be ahead of its clock, and at some moment is behind by no more than a block and a look.
        while True:
            behind = time.monotonic() - clock.captured_s(engine.position_samples)
            assert behind > -0.02
            if behind < 0.06:
                break
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_costs_of_a_graph_are_those_that_were_put_in(tmp_path: Path) -> None:
    costs = graph_costs(make_delay_model(tmp_path / "m.onnx", ballast=3, latency=512, hop=512))
    assert costs.macs == 3 * 64 * 256 * 256
    assert costs.weight_bytes == 4 * (256 * 256 + 4)
    assert costs.state_bytes == 2 * 4 * (2 * 512 + 64 * 256)
    assert costs.audio_bytes == 4 * (2 * 512 + 4 * 2 * 512)
    assert len(costs.products) == 3


def test_a_bound_model_carries_its_states_for_every_stream(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "m.onnx", hop=64, latency=64, batch="B")
    bound = BoundModel(path.read_bytes(), 3)
    rng = np.random.default_rng(0)
    hops = [rng.standard_normal((3, 2, 64)).astype(np.float32) for _ in range(5)]
    out = [bound.step(hop)["stems"].copy() for hop in hops]
    assert not out[0].any()
    for before, stems in zip(hops, out[1:], strict=False):
        assert stems.shape == (3, 4, 2, 64)
        np.testing.assert_array_equal(stems.sum(axis=1), before)


def test_a_graph_exported_for_two_streams_gives_each_what_a_graph_for_one_does() -> None:
    model = TinyMasks().eval()
    one, two = (BoundModel(to_onnx(model, batch).SerializeToString(), batch) for batch in (1, 2))
    rng = np.random.default_rng(0)
    hops = [(0.1 * rng.standard_normal((1, 2, 64))).astype(np.float32) for _ in range(6)]
    expected = [one.step(hop)["stems"].copy() for hop in hops]
    for number, hop in enumerate(hops):
        both = two.step(np.concatenate([hop, 0 * hop]))["stems"]
        np.testing.assert_allclose(both[:1], expected[number], atol=1e-6)
        assert not both[1].any()


def test_what_is_measured_on_a_gpu_runs_on_a_cpu_and_says_how_many_streams_are_in_time(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=512, batch="B")
    recorder = Recorder(tmp_path / "now.jsonl")
    for streams in (1, 2):
        bound = BoundModel(model.read_bytes(), streams)
        parameters = {"model": "m", "streams": streams, "precision": "fp32", "cuda_graph": False}
        cuda.one(recorder, bound, str(model), parameters, {"gpu": "none"}, "quick")
    assert [f.figure for f in recorder.figures] == ["back to back", "paced"] * 2
    assert all(f.percentiles is not None and f.percentiles["count"] == 200 for f in recorder.figures)

    def taking(streams: int, milliseconds: float) -> Figure:
        figure = next(f for f in recorder.figures if f.figure == "paced" and f.parameters["streams"] == streams)
        return replace(figure, percentiles={**(figure.percentiles or {}), "p99.9": milliseconds})

    ((parameters, most, _),) = cuda.largest([taking(1, 5.0), taking(2, 50.0)])
    assert parameters == {"model": "m", "precision": "fp32", "cuda_graph": False}
    assert most == 1
    assert cuda.largest([taking(1, 50.0)])[0][1] == 0


def test_paced_calls_are_as_far_apart_as_hops() -> None:
    at: list[float] = []
    times, _ = timed(lambda hop: at.append(time.perf_counter()), [np.zeros(1)], 50, 0.004)
    assert len(times) == 50
    assert len(at) == 51  # one to warm up
    assert np.mean(np.diff(at[1:])) >= 0.0039
    assert (times >= 0).all()


@pytest.mark.parametrize("name", LOADS)
def test_every_load_begins_and_ends(tmp_path: Path, name: str) -> None:
    with load(name, tmp_path):
        time.sleep(0.2)
        if name == "disk":
            deadline = time.monotonic() + 30
            while not (tmp_path / "written").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_every_benchmark_says_what_it_measures() -> None:
    for name in BENCHMARKS:
        assert (ROOT / "benchmarks" / f"{name}.py").read_text().startswith('"""')
    assert set(BY_NAME_ONLY) <= set(BENCHMARKS)


def test_the_command_measures_and_names_what_is_unknown(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks", "run", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    out = tmp_path / "figures.jsonl"
    done = run("--quick", "--only", "scaling", "--only", "cuda", "-o", str(out))
    assert done.returncode == 0, done.stderr
    runs, figures = read_figures(out)
    assert "--only scaling" in runs[0].command
    assert {f.parameters["stems"] for f in figures if f.figure == "mixing"} == {1, 4, 16}
    assert [f for f in figures if f.benchmark == "cuda"]
    wrong = run("--only", "hops")
    assert wrong.returncode == 2
    assert "round_trip" in wrong.stderr
