"""The device without hardware: it keeps time, loses what a device would lose, and its ring rules are rtmixer's."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.audio.backends import DummyConfig, FileConfig, PortAudioConfig, backend_config
from rtsep.audio.backends.clocked import (
    ClockedBackend,
    dummy_source_samples,
    open_dummy_backend,
    open_file_backend,
)
from rtsep.audio.ring import FrameRing
from rtsep.errors import UsageError


def wait_for(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


@given(st.integers(1, 20), st.lists(st.tuples(st.booleans(), st.integers(0, 25)), max_size=40))
def test_the_ring_is_a_queue_that_never_loses_or_invents(capacity: int, steps: list[tuple[bool, int]]) -> None:
    ring, queue, counter = FrameRing(capacity, 1), [], 0
    for write, count in steps:
        if write:
            frames = np.arange(counter, counter + count, dtype=np.float32)[:, None]
            done = ring.write(frames)
            assert done == min(count, capacity - len(queue))
            queue += list(range(counter, counter + done))
            counter += done
        else:
            out = np.full((count, 1), -1.0, np.float32)
            done = ring.read(out)
            assert done == min(count, len(queue))
            assert out[:done, 0].tolist() == queue[:done]
            queue = queue[done:]
        assert ring.fill == len(queue)
        assert ring.space == capacity - len(queue)


@pytest.mark.parametrize("block", [64, 128, 1024])
def test_the_dummy_keeps_time(block: int) -> None:
    backend = open_dummy_backend(DummyConfig(blocksize=block))
    backend.start()
    began, first = time.monotonic(), backend.captured
    time.sleep(1.0)
    frames, took = backend.captured - first, time.monotonic() - began
    assert backend.stop(1.0)
    assert frames == pytest.approx(took * 48000, abs=0.05 * 48000 + block)


def test_output_runs_dry_once_plays_what_there_was_and_must_be_armed_again() -> None:
    backend = open_dummy_backend(DummyConfig(blocksize=100))
    backend.arm_output(0)
    backend.write(np.ones((250, 2), np.float32))
    backend.start()
    wait_for(lambda: not backend.output_active)
    assert backend.consumed == 250
    backend.write(np.ones((100, 2), np.float32))
    captured = backend.captured
    wait_for(lambda: backend.captured > captured + 500)
    assert backend.consumed == 250
    backend.arm_output(10_000)
    wait_for(lambda: backend.consumed > 0)
    assert backend.output_active
    backend.stop(1.0)


def test_captured_minus_consumed_is_constant_while_output_runs() -> None:
    backend = open_dummy_backend(DummyConfig(blocksize=64))
    backend.start()
    time.sleep(0.05)
    backend.arm_output(40_000)
    wait_for(lambda: backend.consumed > 0)
    offsets = set()
    for _ in range(200):
        captured, consumed = backend.captured, backend.consumed
        if captured == backend.captured:
            offsets.add(captured - consumed)
        time.sleep(0.001)
    backend.stop(1.0)
    # A reading may fall between the two halves of a callback; then it is one block more.
    assert len(offsets) <= 2
    assert max(offsets) - min(offsets) in (0, 64)


def test_a_stalled_device_counts_an_xrun_and_goes_on() -> None:
    backend = open_dummy_backend(DummyConfig())
    backend.start()
    time.sleep(0.05)
    backend.inject("stall", 0.2)
    wait_for(lambda: backend.xruns().total > 0)
    captured = backend.captured
    wait_for(lambda: backend.captured > captured + 4800)
    assert backend.xruns().output_underflow == 1
    backend.stop(1.0)


def test_a_full_input_ring_stops_the_input_until_it_is_armed_again() -> None:
    backend = ClockedBackend(lambda block: len(block), 48000, 2, 2, 4800)
    backend._may_run()  # the thread is not started: callbacks are driven by hand, faster than any clock
    while backend.input_active:
        backend._callback()
    assert backend.captured == 4 * 48000
    backend._callback()
    assert backend.captured == 4 * 48000
    backend.rearm_input()
    assert backend.readable == 0
    backend._callback()
    assert backend.captured == 4 * 48000 + 4800


def test_the_loopback_returns_the_output_one_block_later() -> None:
    config = DummyConfig(source="impulse", impulse_at=10, blocksize=100, loopback=True, duration_s=0.05)
    backend = open_dummy_backend(config)
    backend.arm_output(0)
    backend.write(np.arange(2400, dtype=np.float32)[:, None].repeat(2, axis=1) / 2400)
    for _ in range(24):
        backend._callback()
    heard = np.zeros((2400, 2), np.float32)
    backend.read(heard)
    expected = np.zeros(2400, np.float32)
    expected[100:] = np.arange(2300, dtype=np.float32) / 2400
    expected[10] += 0.5
    np.testing.assert_array_equal(heard[:, 0], expected)


def test_sources_are_reproducible() -> None:
    for source in ("noise", "sine", "silence"):
        config = DummyConfig(source=source, seed=5)
        np.testing.assert_array_equal(dummy_source_samples(config, 1000), dummy_source_samples(config, 1500)[:1000])
    assert dummy_source_samples(DummyConfig(source="noise"), 48000).std() == pytest.approx(0.1, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 500), st.integers(1, 3000), st.integers(0, 700))
def test_the_unpaced_file_device_gives_every_frame_and_the_tail(block: int, frames: int, tail: int) -> None:
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((frames, 2)).astype(np.float32)
    fed = 0

    def source(out: np.ndarray) -> int:
        nonlocal fed
        count = min(len(out), frames - fed)
        out[:count] = audio[fed : fed + count]
        fed += count
        return count

    backend = ClockedBackend(source, 48000, 2, 2, block, paced=False, frames=frames)
    backend.expect_tail(tail)
    backend.arm_output(0)
    backend.start()
    read = []
    while not backend.finished:
        backend.write(np.zeros((block, 2), np.float32))
        part = np.zeros((block, 2), np.float32)
        read.append(part[: backend.read(part)])
        backend.wait(1, 0.001)
    read.append(np.zeros((frames + tail + 2 * block, 2), np.float32))
    read[-1] = read[-1][: backend.read(read[-1])]
    assert backend.stop(1.0)
    everything = np.concatenate(read)
    assert len(everything) >= frames + tail
    assert len(everything) < frames + tail + block
    np.testing.assert_array_equal(everything[:frames], audio)
    assert not everything[frames:].any()


def test_file_channels_are_chosen_from_one(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).standard_normal((1000, 6)).astype(np.float32)
    soundfile.write(tmp_path / "six.wav", frames, 48000, subtype="FLOAT")
    backend = open_file_backend(FileConfig(str(tmp_path / "six.wav"), channels=(6, 2), blocksize=500))
    backend._callback()
    heard = np.zeros((500, 2), np.float32)
    assert backend.read(heard) == 500
    np.testing.assert_array_equal(heard, frames[:500, [5, 1]])
    backend.stop(1.0)
    with pytest.raises(UsageError, match="channels 1 to 6"):
        open_file_backend(FileConfig(str(tmp_path / "six.wav"), channels=(7,)))


def test_a_looping_file_starts_over(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    soundfile.write(tmp_path / "short.wav", frames, 48000, subtype="FLOAT")
    backend = open_file_backend(FileConfig(str(tmp_path / "short.wav"), blocksize=250, loop=True))
    backend._callback()
    heard = np.zeros((250, 2), np.float32)
    backend.read(heard)
    np.testing.assert_array_equal(heard, np.concatenate([frames, frames, frames[:50]]))
    assert not backend.finished
    backend.stop(1.0)


def test_backend_names_and_settings_are_checked() -> None:
    assert backend_config("dummy", blocksize=64) == DummyConfig(blocksize=64)
    assert isinstance(backend_config("portaudio"), PortAudioConfig)
    with pytest.raises(UsageError, match="Did you mean 'dummy'"):
        backend_config("dumy")
    with pytest.raises(UsageError, match="Did you mean 'blocksize'"):
        backend_config("file", blocksze=3)
    for broken in (DummyConfig(blocksize=0), DummyConfig(channels=0), DummyConfig(source="birds")):  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            open_dummy_backend(broken)
