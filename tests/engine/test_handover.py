"""One model takes over from another while it plays."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.engine import Engine
from rtsep.engine.handover import FADE_S
from rtsep.errors import EngineError, ModelFileError, ModelNotFoundError, UsageError
from tests.engine.conftest import Audio, noise, read_frames
from tests.support.graphs import make_delay_model

RATE = 48_000
GAINS = (0.5, 0.25, 0.125, 0.125)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hop 128, latency 160: 5.3 ms less of each than `slow`."""
    return make_delay_model(tmp_path_factory.mktemp("quick") / "quick.onnx", hop=128, latency=160, gains=GAINS)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("slow") / "slow.onnx", hop=1024, latency=3000, gains=GAINS)


def play(audio: Audio, tmp_path: Path, models: list[Path], **settings: object) -> tuple[Audio, list[int], list[int]]:
    """Play ``audio`` [T, C] in real time, changing the model each second; returns what is heard, latencies, hops."""
    source, out = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(source, audio, RATE, subtype="FLOAT")
    latencies, hops = [], []
    backend = FileConfig(str(source), str(out), blocksize=128, realtime=True)
    with Engine(models[0], backend=backend, **settings) as engine:  # type: ignore[arg-type]
        for number, model in enumerate(models):
            if number:
                engine.change_model(model)
            hops.append(engine.info.hop_samples)
            latencies.append(engine.latency().total_samples)
            at = engine.position_samples
            deadline = time.monotonic() + 20.0
            while engine.position_samples < at + 0.7 * RATE and time.monotonic() < deadline:
                time.sleep(0.01)
        stats = engine.stats()
    assert stats.late_hops == stats.fallback_hold_hops == stats.fallback_dry_hops == stats.silent_samples == 0
    assert stats.latency_changes == len(models) - 1
    return read_frames(out), latencies, hops


@pytest.mark.parametrize("muted", [(), ("drums",)])
def test_each_model_plays_in_its_place_and_only_the_fade_lies_between(
    quick: Path, slow: Path, tmp_path: Path, muted: tuple[str, ...]
) -> None:
    audio = noise(8 * RATE, seed=3)
    order = [quick, slow, quick]
    heard, latencies, hops = play(audio, tmp_path, order, mute=muted)
    assert hops == [128, 1024, 128]
    assert latencies[0] == latencies[2] < latencies[1] - 2000
    left = np.float32(1 - GAINS[0] if muted else 1)
    at = 0  # what was heard before this frame is accounted for
    for number, latency in enumerate(latencies):
        right = np.abs(heard[latency:] - left * audio[: len(heard) - latency]).max(axis=1) < 1e-6
        first = at + int(np.argmax(right[at - latency :])) if number else latency
        if number:
            assert first - at == round(FADE_S * RATE)
        wrong = np.flatnonzero(~right[first - latency :])
        at = first + int(wrong[0]) if number < 2 else len(heard)
        assert at - first > 0.5 * RATE
    assert not wrong.size  # to the end of what was heard


def test_no_click_is_heard(quick: Path, slow: Path, tmp_path: Path) -> None:
    seconds = np.arange(8 * RATE) / RATE
    sine = 0.5 * np.sin(2 * np.pi * 220 * seconds).astype(np.float32)
    heard, latencies, _ = play(np.stack([sine, sine], 1), tmp_path, [quick, slow, quick], mute=("drums",))
    body = heard[latencies[1] + 10 :]
    # A click is a step in the curve or in its slope: more than the signal's own, and more than the fade can bring.
    own = 0.5 * (2 * np.pi * 220 / RATE) ** 2
    assert np.abs(np.diff(body, n=2, axis=0)).max() < 1.3 * own


def test_faders_moved_meanwhile_hold_and_the_meters_go_on(quick: Path, slow: Path) -> None:
    with Engine(quick, backend=DummyConfig(source="sine"), mute=["bass"]) as engine:
        engine.change_model(slow)
        engine.set_gain("drums", -6.0)
        assert engine.settings.mute[1]
        hops, deadline = engine.stats().hops, time.monotonic() + 10.0
        while not (engine.meters().peak[0] > 0 and engine.stats().hops > hops + 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.meters().peak[0] > 0
        assert engine.stats().hop_times.period_ms == pytest.approx(1024 / 48)


def test_what_cannot_take_over_is_refused_and_the_music_goes_on(
    quick: Path, slow: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_delay_model(tmp_path / "other.onnx", stems=("vocals", "rest"), gains=(0.5, 0.5))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with Engine(quick, backend=DummyConfig(source="sine")) as engine:
        before = engine.latency()
        for model, error, words in (
            (other, UsageError, "stems vocals, rest.*rtsep run"),
            (broken, ModelFileError, "broken.onnx"),
            ("nothing-like-it", ModelNotFoundError, "nothing-like-it"),
        ):
            with pytest.raises(error, match=words):
                engine.change_model(model)
        hops, deadline = engine.stats().hops, time.monotonic() + 10.0
        while engine.stats().hops < hops + 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.stats().hops >= hops + 20
        assert engine.latency() == before
    with (
        Engine(quick, backend=DummyConfig(source="sine"), tap=True) as engine,
        pytest.raises(UsageError, match="notes or a take"),
    ):
        engine.change_model(slow)


def test_an_engine_that_dies_meanwhile_is_an_error_not_a_hang(quick: Path, slow: Path) -> None:
    engine = Engine(quick, backend=DummyConfig(source="sine"))
    engine.start()
    try:
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError):
            engine.change_model(slow)
    finally:
        engine.stop()
