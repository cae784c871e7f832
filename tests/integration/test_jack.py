"""The engine on a real JACK server, between real clients: what is computed is what is measured."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.devices import find_device, list_devices
from rtsep.engine import Engine
from rtsep.engine.stats import EngineStats
from rtsep.errors import DeviceBusyError, DeviceLostError, DeviceNotFoundError
from tests.integration.jack import (
    JackServer,
    cpu_hogs,
    jack_server,
    lags,
    need_tools,
    write_noise,
)
from tests.support.graphs import make_delay_model
from tests.support.stalls import MachineStalls, machine_stalls

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    need_tools()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("m") / "m.onnx", hop=512, latency=700)


def measured(found: list[int]) -> set[int]:
    """Return the lags seen; on a crowded machine JACK itself may lose a cycle in a few of the segments."""
    seen = [lag for lag in found if lag != -1]
    assert len(seen) >= 0.7 * len(found), found
    return set(seen)


def record_through(
    server: JackServer, folder: Path, seconds: float, during: object = None
) -> tuple[np.ndarray, np.ndarray]:
    """Play noise into rtsep and return (sent, received), [T] each, recorded side by side by jack_capture."""
    write_noise(folder / "noise.wav", seconds + 4)
    server.play(folder / "noise.wav")
    capture = server.capture(folder / "capture.wav", seconds, "ecasound:out_1", "rtsep:out_0")
    if callable(during):
        during()
    both = server.captured(capture, folder / "capture.wav", seconds)
    return both[:, 0], both[:, 1]


@pytest.mark.parametrize(("period", "hop", "slack"), [(128, 512, 1), (64, 512, 2), (256, 441, 1), (512, 512, 1)])
def test_the_round_trip_is_the_computed_sum_to_the_sample(tmp_path: Path, period: int, hop: int, slack: int) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=hop, latency=700)
    with jack_server(period=period) as server, Engine(model, slack_hops=slack) as engine:
        report = engine.latency()
        assert report["device in"].samples == period
        assert engine.stats().block == period
        sent, received = record_through(server, tmp_path, 3.0)
    # Between clients there is no converter: what the capture sees is the stream's part of the sum.
    found = lags(sent, received, expected=report.stream_samples)
    assert len(found) > 15
    assert measured(found) == {report.stream_samples}


def test_a_cable_from_out_to_in_returns_after_the_total(model: Path, tmp_path: Path, server: JackServer) -> None:
    impulse = np.zeros((48_000, 2), np.float32)
    impulse[24_000] = 0.9
    soundfile.write(tmp_path / "impulse.wav", impulse, 48_000, subtype="FLOAT")
    with Engine(model) as engine:
        server.command("jack_connect", "rtsep:out_0", "rtsep:in_0")
        capture = server.capture(tmp_path / "capture.wav", 1.6, "rtsep:out_0")
        server.play(tmp_path / "impulse.wav")
        heard = server.captured(capture, tmp_path / "capture.wav", 1.6)[:, 0]
        total = engine.latency().total_samples
    at = np.flatnonzero(np.abs(heard) > 0.5)
    assert len(at) >= 5
    assert set(np.diff(at).tolist()) == {total}


def test_after_a_stopped_process_the_latency_is_what_it_was(model: Path, tmp_path: Path, server: JackServer) -> None:
    with Engine(model) as engine:

        def freeze() -> None:
            time.sleep(2.0)
            os.kill(engine.pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(engine.pid, signal.SIGCONT)

        sent, received = record_through(server, tmp_path, 5.0, freeze)
        expected, stats = engine.latency().stream_samples, engine.stats()
    found = lags(sent, received, expected=expected)
    assert measured(found[:15]) == {expected}
    assert measured(found[-15:]) == {expected}
    assert stats.xruns.total > 0


def test_after_the_ring_ran_dry_rtmixer_is_armed_again_and_the_latency_is_what_it_was(
    model: Path, tmp_path: Path, server: JackServer
) -> None:
    with Engine(model) as engine:

        def stall() -> None:
            time.sleep(2.0)
            engine.inject("both", 0.3)

        sent, received = record_through(server, tmp_path, 5.0, stall)
        expected, stats = engine.latency().stream_samples, engine.stats()
    assert stats.ring_underruns >= 1
    assert stats.rearms >= 1
    found = lags(sent, received, expected=expected)
    assert measured(found[:15]) == {expected}
    assert measured(found[-15:]) == {expected}
    # The gap itself: silence where even the fallback could not be written.
    assert 0.25 * 48_000 < stats.silent_samples < 0.5 * 48_000


def test_a_late_worker_is_covered_without_a_gap(model: Path, tmp_path: Path, server: JackServer) -> None:
    with Engine(model) as engine:

        def stall() -> None:
            time.sleep(1.5)
            engine.inject("worker", 0.3)

        sent, received = record_through(server, tmp_path, 4.0, stall)
        expected, stats = engine.latency().stream_samples, engine.stats()
    assert stats.late_hops >= 20
    assert stats.silent_samples == 0
    assert measured(lags(sent, received, expected=expected)) == {expected}


def assert_on_time(stats: EngineStats, stalls: MachineStalls) -> None:
    """No hop late and no underrun, apart from what the machine did to every real-time thread on it."""
    # A pause of all of a core takes the hop being computed and those that come in meanwhile.
    allowed = stalls.count * (2 + int(stalls.longest_ms / stats.hop_times.period_ms))
    assert stats.late_hops <= allowed, (stats, stalls)
    assert stats.ring_underruns <= stalls.count, (stats, stalls)
    assert stats.fallback_hops <= 2 * allowed, (stats, stalls)


def test_no_hop_is_late_with_both_cores_busy(model: Path, server: JackServer) -> None:
    with Engine(model) as engine:
        time.sleep(0.5)
        if not engine.stats().realtime:
            pytest.skip("real-time scheduling is not allowed here; run as root or set rtprio in limits.conf")
        with machine_stalls() as stalls, cpu_hogs(2):
            time.sleep(6.0)
        stats = engine.stats()
    assert stats.hops > 500
    assert_on_time(stats, stalls)


def test_hops_as_short_as_a_block_have_the_time_that_the_latency_counts(tmp_path: Path, server: JackServer) -> None:
    short = make_delay_model(tmp_path / "short.onnx", hop=128, latency=256)
    with Engine(short) as engine:
        time.sleep(0.5)
        if not engine.stats().realtime:
            pytest.skip("real-time scheduling is not allowed here; run as root or set rtprio in limits.conf")
        before = engine.stats()
        with machine_stalls() as stalls:
            time.sleep(4.0)
        after = engine.stats()
        late = engine.late_hops()
    hops = after.hops - before.hops
    assert hops > 1000
    # Hops that begin between two blocks were late two times of three; a stall of the machine takes a handful.
    assert after.late_hops - before.late_hops <= 0.02 * hops + 10 * stalls.count, (after, stalls, late)


@pytest.mark.parametrize("seconds", [5.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_no_hop_is_late_while_idle(model: Path, server: JackServer, seconds: float) -> None:
    with machine_stalls() as stalls, Engine(model) as engine:
        time.sleep(seconds)
        stats = engine.stats()
    assert stats.hops == pytest.approx(seconds * 48_000 / 512, rel=0.1)
    assert_on_time(stats, stalls)


def test_a_killed_server_is_a_lost_device_within_two_seconds(model: Path, tmp_path: Path, server: JackServer) -> None:
    engine = Engine(model, record=tmp_path / "record.wav")
    engine.start()
    time.sleep(1.0)
    server.process.kill()
    began = time.monotonic()
    with pytest.raises(DeviceLostError, match="delivered nothing"):
        engine.wait(8.0)
    assert time.monotonic() - began < 2.0 + 2.0  # two seconds to notice, at most two to leave a hung driver
    pid = engine.pid
    engine.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    info = soundfile.info(tmp_path / "record.wav")
    assert info.frames > 0.8 * 48_000
    assert (tmp_path / "record.wav").stat().st_size == 94 + info.frames * 8


def test_a_larger_period_while_running_is_followed(model: Path, tmp_path: Path, server: JackServer) -> None:
    with Engine(model) as engine:
        before = engine.latency()
        time.sleep(0.5)
        server.command("jack_bufsize", "256")
        time.sleep(1.0)
        after, stats = engine.latency(), engine.stats()
        assert stats.latency_changes == 1
        # Blocks of two sizes were seen, so no common divisor is counted on: 256 + (512 - 1) instead of 128 + 384.
        assert after.stream_samples == before.stream_samples + 255
        sent, received = record_through(server, tmp_path, 2.0)
    found = lags(sent, received, expected=after.stream_samples)
    assert measured(found) == {after.stream_samples}


def test_devices_are_listed_and_found(server: JackServer) -> None:
    # In a process of its own: PortAudio looks for servers when it starts.
    import subprocess
    import sys

    program = (
        "from rtsep.audio.devices import find_device, list_devices\n"
        "print(*list_devices(), sep='\\n'); print(find_device('syst', 'input').name)\n"
        # ALSA's `jack`, which is there with libasound2-plugins, must not win.
        "print(find_device(None, 'input').hostapi, find_device(None, 'output').hostapi, sep='; ')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "system, JACK Audio Connection Kit (2 in, 2 out)" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["system", "JACK Audio Connection Kit; JACK Audio Connection Kit"]
    assert callable(find_device)
    assert callable(list_devices)


def test_an_unknown_device_and_a_wrong_rate_are_named(model: Path, server: JackServer) -> None:
    with pytest.raises(DeviceNotFoundError, match="rtsep devices"), Engine(model, input_device="scarlett"):
        pass
    with pytest.raises(DeviceBusyError, match="44100 Hz"), Engine(model, samplerate=44_100):
        pass


def test_an_explicit_blocksize_works_too(model: Path, tmp_path: Path, server: JackServer) -> None:
    with Engine(model, blocksize=256) as engine:
        report = engine.latency()
        assert engine.stats().block == 256
        sent, received = record_through(server, tmp_path, 2.0)
    found = lags(sent, received, expected=report.stream_samples)
    # PortAudio adds a host block of its own for any explicit size; it reports it, and the report shows it.
    (lag,) = measured(found)
    assert report.stream_samples <= lag <= report.total_samples
