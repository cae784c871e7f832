"""What goes wrong while it runs: stalls, lost devices, dead processes. Latency stays, files stay, errors arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.audio.backends.clocked import dummy_source_samples
from rtsep.engine import Engine
from rtsep.errors import AudioFileError, DeviceLostError, EngineError
from tests.engine.conftest import Audio, read_frames
from tests.support.graphs import make_delay_model

Noise = Callable[..., tuple[Path, Audio]]
DUMMY = DummyConfig(source="noise", duration_s=2.0)


def wrong_frames(record: Path, shift: int, config: DummyConfig = DUMMY) -> np.ndarray:
    """Return the positions at which the recording is not the input `shift` frames earlier."""
    heard = read_frames(record)
    expected = np.zeros_like(heard)
    expected[shift:] = dummy_source_samples(config, len(heard) - shift)
    return np.flatnonzero((heard != expected).any(axis=1))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z"


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def test_a_late_worker_is_covered_and_the_latency_stays(model: Path, tmp_path: Path) -> None:
    with Engine(model, backend=DUMMY, record=tmp_path / "a.wav") as engine:
        time.sleep(0.7)
        engine.inject("worker", 0.3)
        engine.wait(10.0)
        stats, shift = engine.stats(), engine.latency().total_samples
    # Nothing is muted: hold and dry are the delayed input itself, so not a bit may differ.
    assert wrong_frames(tmp_path / "a.wav", shift).size == 0
    assert stats.late_hops >= 20
    assert 4 <= stats.fallback_hold_hops <= 8
    assert stats.fallback_dry_hops >= 15
    assert stats.model_resets == 0
    assert stats.silent_samples == 0


def test_a_worker_that_is_very_late_starts_the_model_anew(model: Path, tmp_path: Path) -> None:
    with Engine(model, backend=DUMMY, record=tmp_path / "a.wav", reset_after_s=0.3) as engine:
        time.sleep(0.6)
        engine.inject("worker", 0.6)
        engine.wait(10.0)
        stats, shift = engine.stats(), engine.latency().total_samples
    assert wrong_frames(tmp_path / "a.wav", shift).size == 0
    assert stats.model_resets == 1
    assert stats.hops < 2.0 * 48_000 / 512 - 40


def test_after_the_ring_ran_dry_the_latency_is_what_it_was(model: Path, tmp_path: Path) -> None:
    with Engine(model, backend=DUMMY, record=tmp_path / "a.wav") as engine:
        time.sleep(0.7)
        engine.inject("both", 0.3)
        engine.wait(10.0)
        stats, shift = engine.stats(), engine.latency().total_samples
    assert stats.ring_underruns == 1
    assert stats.rearms >= 1
    wrong = wrong_frames(tmp_path / "a.wav", shift)
    assert 0.25 * 48_000 < wrong.size < 0.4 * 48_000
    assert wrong[-1] - wrong[0] < 0.4 * 48_000, "one gap, and exact again behind it"
    assert stats.silent_samples == pytest.approx(wrong.size, abs=600)
    # The way back is a fade: from silence, and no step larger than the noise itself makes.
    heard = read_frames(tmp_path / "a.wav")
    assert np.abs(heard[wrong[-1] - 235 : wrong[-1] - 200]).max() < 0.15


def test_muted_vocals_do_not_come_back_while_the_worker_is_late(tmp_path: Path) -> None:
    stems = ("other", "vocals")
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=512, stems=stems, gains=(0.25, 0.75))
    with Engine(model, backend=DUMMY, mute=["vocals"], record=tmp_path / "a.wav") as engine:
        time.sleep(0.7)
        engine.inject("worker", 0.5)
        engine.wait(10.0)
        stats = engine.stats()
    assert stats.fallback_dry_hops == 0
    assert stats.fallback_hold_hops >= 30
    heard = read_frames(tmp_path / "a.wav")[4800:]
    level = np.sqrt((heard[: len(heard) // 960 * 960].reshape(-1, 960 * 2) ** 2).mean(axis=1))
    assert level.max() < 0.025 * 1.15
    if stats.silent_samples == 0:  # a machine that stops for longer than the ring lasts leaves silence, counted
        assert level.min() > 0.025 * 0.85
    # No clicks: with a quarter of the noise, sample steps stay within what such noise makes.
    assert np.abs(np.diff(heard, axis=0)).max() < 0.025 * 2**0.5 * 6


def test_a_stalled_device_changes_nothing_but_the_time(model: Path, tmp_path: Path) -> None:
    with Engine(model, backend=DUMMY, record=tmp_path / "a.wav") as engine:
        time.sleep(0.7)
        engine.inject("stall", 0.3)
        engine.wait(10.0)
        stats, shift = engine.stats(), engine.latency().total_samples
    assert wrong_frames(tmp_path / "a.wav", shift).size == 0
    assert stats.xruns.input_overflow == stats.xruns.output_underflow == 1
    assert stats.late_hops == 0


def test_a_stopped_engine_process_goes_on_at_the_same_latency(model: Path, tmp_path: Path) -> None:
    with Engine(model, backend=DUMMY, record=tmp_path / "a.wav") as engine:
        time.sleep(0.7)
        os.kill(engine.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(engine.pid, signal.SIGCONT)
        engine.wait(10.0)
        shift = engine.latency().total_samples
    wrong = wrong_frames(tmp_path / "a.wav", shift)
    assert wrong.size == 0 or wrong[-1] - wrong[0] < 0.4 * 48_000
    assert wrong.size == 0 or wrong[-1] < 1.6 * 48_000


def test_a_model_that_overflows_is_covered(tmp_path: Path, noise_file: Noise) -> None:
    # float32 ends at 3.4e38: a gain of 3e38 on samples beyond 1.2 is infinite.
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=0, stems=("a", "b"), gains=(3e38, -3e38))
    path, audio = noise_file(20_000)
    audio = audio.copy()
    audio[10_000] = 1.5
    soundfile.write(path, audio, 48_000, subtype="FLOAT")
    with Engine(model, backend=FileConfig(str(path), str(tmp_path / "o.wav"), realtime=False)) as engine:
        engine.wait(10.0)
        stats, shift = engine.stats(), engine.latency().total_samples
    assert stats.nonfinite_hops == 1
    assert stats.fallback_hold_samples >= 512
    np.testing.assert_array_equal(read_frames(tmp_path / "o.wav")[shift:], audio)


def test_a_model_that_is_too_slow_does_not_take_the_machine_with_it(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "slow.onnx", hop=128, latency=0, ballast=100)
    config = DummyConfig(source="noise", duration_s=4.0)
    with Engine(model, backend=config, record=tmp_path / "a.wav") as engine:
        wait_until(lambda: engine.stats().hops > 30, 3.0)
        time.sleep(1.2)
        stats = engine.stats()
        engine.wait(10.0)
    assert stats.load > 1.0, "the model must be too slow for this test"
    assert stats.late_hops > 30
    assert not stats.realtime
    # What is heard is the delayed input all the same.
    wrong = wrong_frames(tmp_path / "a.wav", engine.latency().total_samples, config)
    assert wrong.size < 0.1 * 4 * 48_000


def test_a_vanished_device_ends_the_engine_within_two_seconds(model: Path, tmp_path: Path) -> None:
    engine = Engine(model, backend=DummyConfig(source="noise"), record=tmp_path / "a.wav")
    engine.start()
    time.sleep(0.5)
    engine.inject("vanish")
    began = time.monotonic()
    with pytest.raises(DeviceLostError, match="rtsep devices"):
        engine.wait(5.0)
    assert time.monotonic() - began < 2.0
    engine.stop()
    assert isinstance(engine.exit_error, DeviceLostError)
    assert soundfile.info(tmp_path / "a.wav").frames == pytest.approx(24_000, rel=0.5)


def test_leaving_the_with_block_tells_that_the_device_was_lost(model: Path) -> None:
    with pytest.raises(DeviceLostError), Engine(model, backend=DummyConfig(), device_timeout_s=0.4) as engine:  # noqa: PT012
        engine.inject("vanish")
        time.sleep(1.5)


@pytest.mark.parametrize("how", ["abort", "kill"])
def test_a_dead_engine_process_is_an_error_with_a_reason(model: Path, how: str) -> None:
    engine = Engine(model, backend=DummyConfig())
    engine.start()
    if how == "abort":
        engine.inject("crash")
    else:
        os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"signal (6|9)"):
        engine.wait(5.0)
    engine.stop()


def test_sigterm_to_the_engine_process_ends_it_well(model: Path, tmp_path: Path) -> None:
    with Engine(model, backend=DummyConfig(source="noise"), record=tmp_path / "a.wav") as engine:
        time.sleep(0.4)
        os.kill(engine.pid, signal.SIGTERM)
        assert engine.wait(5.0)
    assert soundfile.info(tmp_path / "a.wav").frames > 9600


PARENT = textwrap.dedent(
    """
    import signal, sys, time
    from rtsep.audio.backends import DummyConfig
    from rtsep.engine import Engine
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    with Engine(sys.argv[1], backend=DummyConfig(source="noise"), record=sys.argv[2]) as engine:
        print(engine.pid, flush=True)
        time.sleep(60)
    """
)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_control_process_ends_files_are_finished_and_nobody_is_left(
    model: Path, tmp_path: Path, end: signal.Signals
) -> None:
    record = tmp_path / "a.wav"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, model, record], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.send_signal(end)
        parent.wait(10.0)
        wait_until(lambda: gone(pid), 5.0)
    info = soundfile.info(record)
    assert info.frames > 0.3 * 48_000
    # Closed for good: the header tells all there is.
    assert record.stat().st_size == 94 + info.frames * 8


def test_ctrl_c_reaches_the_whole_terminal_group_and_still_ends_well(model: Path, tmp_path: Path) -> None:
    record = tmp_path / "a.wav"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, model, record],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.4)
        os.killpg(parent.pid, signal.SIGINT)
        _, talk = parent.communicate(timeout=10.0)
    assert b"KeyboardInterrupt" in talk
    wait_until(lambda: gone(pid), 5.0)
    assert record.stat().st_size == 94 + soundfile.info(record).frames * 8


def test_a_full_disk_ends_the_recording_and_is_told(model: Path, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import resource, signal, sys
        from rtsep.audio.backends import DummyConfig
        from rtsep.engine import Engine
        from rtsep.errors import AudioFileError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            with Engine(sys.argv[1], backend=DummyConfig(source="noise", duration_s=1.5), record=sys.argv[2]) as engine:
                engine.wait(10)
        except AudioFileError as error:
            print(error, engine.stats().hops)
            sys.exit(7)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, model, tmp_path / "a.wav"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 7, result.stderr
    assert "cannot be written any further" in result.stdout
    assert int(result.stdout.split()[-1]) > 100, "the sound went on"
    assert soundfile.info(tmp_path / "a.wav").frames == (200_000 - 94) // 8
    assert AudioFileError.exit_code == 1
