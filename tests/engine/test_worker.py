"""Worker, timeline and backend in one process, with the clock left out: any sizes, always the same bits."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtsep.audio.backends.clocked import ClockedBackend
from rtsep.chain import HopChain
from rtsep.engine.config import EngineConfig
from rtsep.engine.runner import ChainRunner, choose_rate
from rtsep.engine.stats import BINS, COUNTERS, INDEX
from rtsep.engine.timeline import Timeline
from rtsep.engine.worker import Worker
from rtsep.inference.session import StreamingSession
from rtsep.latency import plan_latency
from rtsep.mixer.mixer import Mixer
from tests.engine.conftest import Audio, noise, offline
from tests.support.graphs import make_delay_model


class Heard:
    """A sink with the writer's interface that keeps what the device played."""

    def __init__(self) -> None:
        self.blocks: list[Audio] = []

    def write(self, frames: Audio) -> None:
        self.blocks.append(frames.copy())

    def close(self) -> None:
        pass


def play(
    model: Path, audio: Audio, *, block: int, slack: int = 1, samplerate: int = 48_000, **settings: Any
) -> tuple[Audio, Worker]:
    """Run `audio` through a whole engine without a clock; return what the device heard and the worker."""
    fed = 0

    def source(out: Audio) -> int:
        nonlocal fed
        count = min(len(out), len(audio) - fed)
        out[:count] = audio[fed : fed + count]
        fed += count
        return count

    heard = Heard()
    channels = audio.shape[1]
    backend = ClockedBackend(
        source,
        samplerate,
        channels,
        max(2, channels),
        block,
        paced=False,
        frames=len(audio),
        writer=heard,  # type: ignore[arg-type]
    )
    with StreamingSession(model, provider="cpu") as session:
        rate = choose_rate(samplerate, session.info.samplerates)
        mixer = Mixer(session.info.stems, session.info.channels, rate)
        mixer.settings.apply(**settings)
        runner = ChainRunner(HopChain(session, mixer), samplerate, rate, channels=channels)
        counters, histogram = np.zeros(len(COUNTERS), np.int64), np.zeros(BINS, np.int64)
        worker = Worker(backend, runner, EngineConfig(slack_hops=slack, realtime=False), counters, histogram)
        worker.start()
        deadline = time.monotonic() + 30
        while not backend.finished:
            assert worker.failure.error is None, worker.failure.error
            assert time.monotonic() < deadline, "stuck"
            time.sleep(0.001)
        assert worker.stop(5.0)
        assert backend.stop(5.0)
    for name in ("late_hops", "fallback_hold_samples", "fallback_dry_samples", "silent_samples", "rearms"):
        assert counters[INDEX[name]] == 0, name
    return np.concatenate(heard.blocks), worker


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=st.integers(1, 1500),
    hop=st.sampled_from([16, 64, 100, 147, 441, 512, 1024]),
    latency=st.sampled_from([0, 1, 63, 512, 1500]),
    slack=st.integers(0, 3),
    frames=st.integers(1, 6000),
)
def test_faders_at_zero_give_the_input_at_the_reported_latency_for_any_sizes(
    tmp_path: Path, block: int, hop: int, latency: int, slack: int, frames: int
) -> None:
    path = tmp_path / f"m-{hop}-{latency}.onnx"
    if not path.exists():
        make_delay_model(path, hop=hop, latency=latency)
    audio = noise(frames)
    heard, worker = play(path, audio, block=block, slack=slack)
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    assert len(heard) == frames + shift
    assert not heard[:shift].any()
    np.testing.assert_array_equal(heard[shift:], audio)


@pytest.mark.parametrize("block", [64, 300, 512])
def test_live_is_offline_bit_for_bit(model: Path, block: int) -> None:
    audio = noise(20_000)
    mix: dict[str, Any] = {
        "mute": ("vocals",),
        "gain": {"drums": -7.3, "bass": 3.1},
        "pan": {"other": 0.4},
        "master_db": -2.0,
    }
    heard, worker = play(model, audio, block=block, **mix)
    assert worker.plan is not None
    expected = offline(model, audio, **mix)
    queue = worker.plan.queue_samples
    length = min(len(expected), len(heard) - queue)
    assert length > 19_000
    np.testing.assert_array_equal(heard[queue : queue + length], expected[:length])
    assert not np.array_equal(heard[queue + 700 : queue + length], audio[: length - 700])


@pytest.mark.parametrize("samplerate", [8000, 22050, 32000, 88200, 96000, 192000])
def test_other_rates_arrive_at_the_reported_latency(model: Path, samplerate: int) -> None:
    frames = samplerate
    times = np.arange(frames) / samplerate
    burst = np.sin(2 * np.pi * 600 * times) * np.exp(-(((times - 0.3) / 0.02) ** 2))
    audio = np.stack([burst, -0.5 * burst], axis=1).astype(np.float32)
    heard, worker = play(model, audio, block=256, samplerate=samplerate)
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    assert worker.plan.report["resampler in"].samples > 0
    # The band edge of the resamplers is far away from the burst: it comes back as it was.
    np.testing.assert_allclose(heard[shift : shift + frames], audio, atol=2e-3)
    before = np.abs(heard[shift - 8 : shift - 8 + frames] - audio).max()
    assert before > 0.02, "the comparison would not notice a shift"


def test_mono_input_reaches_both_channels(model: Path) -> None:
    audio = noise(5000, channels=1)
    heard, worker = play(model, audio, block=128)
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    np.testing.assert_array_equal(heard[shift:], np.repeat(audio, 2, axis=1))


def test_a_mono_model_hears_the_mean_and_plays_on_both(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "mono.onnx", hop=256, latency=100, channels=1)
    audio = noise(5000)
    heard, worker = play(path, audio, block=128, solo=["vocals"])
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    for channel in (0, 1):
        np.testing.assert_allclose(heard[shift:, channel], 0.5 * audio.mean(axis=1), atol=1e-7)


def test_nan_from_the_device_is_silence(model: Path) -> None:
    audio = noise(5000)
    audio[1000:1003] = np.nan
    audio[2000, 0] = np.inf
    heard, worker = play(model, audio, block=128)
    assert worker.plan is not None
    assert np.isfinite(heard).all()
    clean = np.where(np.isfinite(audio), audio, 0.0)
    np.testing.assert_array_equal(heard[worker.plan.report.total_samples :], clean)


def test_a_loop_back_impulse_returns_once_every_total_latency(model: Path) -> None:
    impulse = np.zeros((12_000, 2), np.float32)
    impulse[500] = 0.5
    fed = 0

    def source(out: Audio) -> int:
        nonlocal fed
        count = min(len(out), len(impulse) - fed)
        out[:count] = impulse[fed : fed + count]
        fed += count
        return count

    heard = Heard()
    backend = ClockedBackend(
        source,
        48_000,
        2,
        2,
        128,
        paced=False,
        loopback=True,
        frames=len(impulse),
        writer=heard,  # type: ignore[arg-type]
    )
    with StreamingSession(model, provider="cpu") as session:
        runner = ChainRunner(HopChain(session, Mixer(session.info.stems, 2, 48_000)), 48_000, 48_000)
        counters, histogram = np.zeros(len(COUNTERS), np.int64), np.zeros(BINS, np.int64)
        worker = Worker(backend, runner, EngineConfig(realtime=False), counters, histogram)
        worker.start()
        while not backend.finished:
            time.sleep(0.001)
        worker.stop(5.0)
        backend.stop(5.0)
    assert worker.plan is not None
    report = worker.plan.report
    at = np.flatnonzero(np.concatenate(heard.blocks)[:, 0])
    assert len(at) >= 5
    assert at[0] == 500 + report.stream_samples
    assert set(np.diff(at).tolist()) == {report.total_samples}


@pytest.mark.parametrize(
    ("device", "native", "chosen"),
    [
        (48000, (44100, 48000), 48000),
        (96000, (44100, 48000), 48000),
        (88200, (44100, 48000), 44100),
        (22050, (44100, 48000), 44100),
        (32000, (44100, 48000), 44100),
        (192000, (44100,), 44100),
    ],
)
def test_the_models_rate_is_the_best_of_its_native_ones(device: int, native: tuple[int, ...], chosen: int) -> None:
    assert choose_rate(device, native) == chosen


def test_the_worker_allocates_no_arrays_while_it_runs(model: Path) -> None:
    """Per hop only small Python objects; an array of a hop (4 kB) a hop would show a hundredfold."""
    import tracemalloc

    backend = ClockedBackend(lambda block: len(block), 48_000, 2, 2, 128, paced=False)
    with StreamingSession(model, provider="cpu") as session:
        runner = ChainRunner(HopChain(session, Mixer(session.info.stems, 2, 48_000)), 48_000, 48_000)
        counters, histogram = np.zeros(len(COUNTERS), np.int64), np.zeros(BINS, np.int64)
        worker = Worker(backend, runner, EngineConfig(realtime=False), counters, histogram)
        worker.start()
        try:
            wait_for_hops(counters, 100)
            tracemalloc.start()
            hops = int(counters[INDEX["hops"]])
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            wait_for_hops(counters, hops + 300)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            worker.stop(5.0)
            backend.stop(5.0)
    assert after - before < 32_000
    assert peak - before < 64_000


def wait_for_hops(counters: Any, count: int) -> None:
    deadline = time.monotonic() + 30
    while counters[INDEX["hops"]] < count:
        assert time.monotonic() < deadline, "stuck"
        time.sleep(0.001)


@given(blocks=st.integers(0, 50), block=st.integers(1, 3000), position=st.integers(0, 100_000))
def test_a_boundary_is_where_the_next_block_begins(blocks: int, block: int, position: int) -> None:
    backend: Any = SimpleNamespace(
        captured=blocks * block, block=block, samplerate=8000, input_channels=1, output_channels=1
    )
    plan = plan_latency(samplerate=8000, block=block, hop=512, model_latency=0)
    timeline = Timeline(backend, 1, plan, 512, np.zeros(len(COUNTERS), np.int64))
    boundary = timeline.boundary(position)
    assert boundary % block == 0
    assert position <= boundary < position + block
