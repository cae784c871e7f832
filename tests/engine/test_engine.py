"""The engine as its users see it: a process of its own behind a context manager."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.engine import Engine
from rtsep.errors import (
    AudioFileError,
    EngineError,
    ModelFileError,
    ModelNotFoundError,
    RtsepError,
    StemNotFoundError,
    UsageError,
)
from tests.engine.conftest import Audio, offline, read_frames

Noise = Callable[..., tuple[Path, Audio]]


@pytest.mark.parametrize("realtime", [False, True])
def test_faders_at_zero_give_the_file_later_and_nothing_else(
    model: Path, noise_file: Noise, tmp_path: Path, realtime: bool
) -> None:
    path, audio = noise_file(60_000)
    out, record = tmp_path / "out.wav", tmp_path / "record.wav"
    with Engine(model, backend=FileConfig(str(path), str(out), realtime=realtime), record=record) as engine:
        assert engine.wait(20.0)
        shift = engine.latency().total_samples
        stats = engine.stats()
    heard = read_frames(out)
    assert len(heard) == len(audio) + shift
    assert not heard[:shift].any()
    # Late hops on a crowded machine are covered by the same bits: with nothing muted the fallback is the delayed input.
    np.testing.assert_array_equal(heard[shift:], audio)
    np.testing.assert_array_equal(read_frames(record)[: len(heard)], heard)
    assert stats.hops >= 60_000 // 512
    assert stats.record_lost == 0
    assert engine.exit_error is None
    assert not engine.running


def test_live_in_real_time_is_offline_bit_for_bit(model: Path, noise_file: Noise, tmp_path: Path) -> None:
    path, audio = noise_file(48_000)
    out = tmp_path / "out.wav"
    with Engine(
        model,
        backend=FileConfig(str(path), str(out), blocksize=128, realtime=False),
        mute=["vocals"],
        gain={"bass": -4.0},
        pan={"drums": -0.5},
    ) as engine:
        assert engine.wait(20.0)
        queue = engine.latency().stream_samples - engine.info.latency_samples
    heard = read_frames(out)
    expected = offline(model, audio, mute=["vocals"], gain={"bass": -4.0}, pan={"drums": -0.5})
    length = min(len(expected), len(heard) - queue)
    np.testing.assert_array_equal(heard[queue : queue + length], expected[:length])


def test_controls_act_within_a_few_hops_and_meters_come_back(model: Path) -> None:
    with Engine(model, backend=DummyConfig(source="noise")) as engine:
        assert engine.running
        time.sleep(0.4)
        before = engine.meters()
        assert before.stems == ("drums", "bass", "other", "vocals")
        assert 0.03 < before.rms[0] < 0.07  # half of the noise's 0.1
        engine.set_mute("drums")
        engine.set_gain("bass", -20.0)
        engine.set_pan("other", 0.5)
        engine.set_solo("vocals", False)
        engine.set_master(-6.0)
        time.sleep(1.2)
        after = engine.meters()
        assert after.rms[0] < before.rms[0] / 5
        assert after.rms[1] < 0.01
        assert engine.settings.pan[2] == 0.5
        with pytest.raises(StemNotFoundError, match="Did you mean 'vocals'"):
            engine.set_mute("vocal")
        with pytest.raises(UsageError, match="24 dB"):
            engine.set_gain("bass", 90.0)
        engine.set_bypass()
        time.sleep(0.6)
        assert engine.meters().master_rms == pytest.approx(0.1, rel=0.3)


def test_stats_and_position_move(model: Path) -> None:
    with Engine(model, backend=DummyConfig(source="noise")) as engine:
        time.sleep(1.0)
        stats, position = engine.stats(), engine.position_samples
    assert position == pytest.approx(48_000, rel=0.3)
    assert stats.hops == pytest.approx(position / 512, abs=6)
    assert stats.block == 128
    times = stats.hop_times
    assert 0 < times.p50_ms <= times.p95_ms <= times.p99_ms <= times.p999_ms <= times.max_ms
    assert times.period_ms == pytest.approx(512 / 48)
    assert stats.load == pytest.approx(times.p50_ms / times.period_ms)
    assert stats.ring_fill > 0
    assert engine.stats().hops >= stats.hops


def test_real_time_scheduling_is_reported_as_it_is(model: Path) -> None:
    program = (
        "import os\ntry:\n    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\n    print(1)\n"
        "except (OSError, AttributeError):\n    print(0)\n"
    )
    allowed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for asked in (True, False):
        with Engine(model, backend=DummyConfig(), realtime=asked) as engine:
            time.sleep(0.2)
            assert engine.stats().realtime == (asked and allowed.strip() == "1")


def test_a_recording_without_a_clock_keeps_every_frame(model: Path, noise_file: Noise, tmp_path: Path) -> None:
    # Longer than the recorder's ring: the engine has to wait for the disk.
    path, audio = noise_file(20 * 48_000)
    with Engine(model, backend=FileConfig(str(path), realtime=False), record=tmp_path / "a.wav") as engine:
        assert engine.wait(60.0)
        shift, stats = engine.latency().total_samples, engine.stats()
    assert stats.record_lost == 0
    np.testing.assert_array_equal(read_frames(tmp_path / "a.wav")[shift : shift + len(audio)], audio)


@pytest.mark.parametrize("samplerate", [22_050, 96_000])
def test_a_file_of_another_rate_is_resampled_both_ways(model: Path, tmp_path: Path, samplerate: int) -> None:
    times = np.arange(samplerate) / samplerate
    burst = (0.5 * np.sin(2 * np.pi * 500 * times) * np.exp(-(((times - 0.4) / 0.03) ** 2))).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", np.stack([burst, burst], 1), samplerate, subtype="FLOAT")
    out = tmp_path / "out.wav"
    with Engine(model, backend=FileConfig(str(tmp_path / "in.wav"), str(out), realtime=False)) as engine:
        assert engine.wait(20.0)
        assert engine.samplerate == samplerate
        assert engine.model_samplerate in (44_100, 48_000)
        shift = engine.latency().total_samples
    np.testing.assert_allclose(read_frames(out)[shift:, 0], burst, atol=1e-3)


def test_a_mono_file_and_one_of_six_channels(model: Path, noise_file: Noise, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    path, mono = noise_file(5000, channels=1)
    with Engine(model, backend=FileConfig(str(path), str(out), realtime=False)) as engine:
        engine.wait(20.0)
    np.testing.assert_array_equal(read_frames(out)[-5000:], mono.repeat(2, axis=1))
    path, six = noise_file(5000, channels=6)
    with Engine(model, backend="file", input_device=path, output_device=out, channels=(4, 6)) as engine:
        engine.wait(20.0)
    np.testing.assert_array_equal(read_frames(out)[-5000:], six[:, [3, 5]])


def test_reset_on_demand_is_covered_by_the_fallback(model: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.wav"
    config = DummyConfig(source="noise", duration_s=1.2)
    with Engine(model, backend=config, record=record) as engine:
        time.sleep(0.5)
        engine.reset_model()
        engine.wait(10.0)
        shift, stats = engine.latency().total_samples, engine.stats()
    from rtsep.audio.backends.clocked import dummy_source_samples

    heard = read_frames(record)
    assert stats.model_resets == 1
    np.testing.assert_array_equal(heard[shift:], dummy_source_samples(config, len(heard) - shift))


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"model": "/nowhere/model.onnx"}, ModelNotFoundError, "model"),
        ({"mute": ["vocal"]}, StemNotFoundError, "Did you mean 'vocals'"),
        ({"gain": {"bass": 100.0}}, UsageError, "24 dB"),
        ({"backend": FileConfig("/nowhere.wav")}, AudioFileError, "no such file"),
        ({"backend": FileConfig("")}, UsageError, "needs an input file"),
        ({"record": "/nowhere/a.wav"}, AudioFileError, "cannot be written"),
        ({"backend": DummyConfig(samplerate=200_000)}, UsageError, "192000"),
    ],
)
def test_what_the_engine_process_finds_is_raised_as_what_it_is(
    model: Path, arguments: dict, kind: type[RtsepError], text: str
) -> None:
    everything = {"model": model, "backend": DummyConfig(), **arguments}
    with pytest.raises(kind, match=text), Engine(**everything):
        pass


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError, match=r"m\.onnx"), Engine(tmp_path / "m.onnx", backend=DummyConfig()):
        pass


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"slack_hops": -1}, "slack_hops"),
        ({"threads": 0}, "threads"),
        ({"provider": "tpu"}, "auto, cpu or cuda"),
        ({"backend": "dumy"}, "Did you mean 'dummy'"),
        ({"backend": DummyConfig(), "blocksize": 64}, "blocksize"),
        ({"slack_hop": 1}, "Did you mean 'slack_hops'"),
        ({"backend": "dummy", "output_channels": (1, 2)}, "no setting 'output_channels'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(arguments: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Engine(**{"backend": "dummy", **arguments})


def test_an_engine_is_used_once_and_only_while_started(model: Path) -> None:
    engine = Engine(model, backend=DummyConfig())
    engine.stop()
    assert not engine.running
    assert engine.position_samples == 0
    for call in (engine.stats, engine.latency, engine.meters, lambda: engine.set_mute("drums")):
        with pytest.raises(UsageError, match="not started"):
            call()
    engine.start()
    engine.stop()
    engine.stop()
    with pytest.raises(UsageError, match="started before"):
        engine.start()
    with pytest.raises(EngineError, match="ended"):
        engine.reset_model()


def test_importing_the_engine_loads_neither_numpy_nor_onnxruntime_nor_sounddevice() -> None:
    program = (
        "import sys, rtsep.engine, rtsep.latency, rtsep.audio.backends\n"
        "heavy = 'numpy onnxruntime sounddevice rtmixer soundfile soxr'.split()\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
