"""Plugins of an engine on a real JACK server: what they do is in the recording, and a bad one does not stop it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.engine import Engine
from rtsep.errors import PluginError
from rtsep.plugins import MASTER, PluginSpec
from tests.integration.jack import INSTALL, JackServer, jack_server, lags, missing_tools
from tests.support.graphs import make_delay_model
from tests.support.vst3 import build_bundle

pytestmark = pytest.mark.integration

RATE = 48_000
MAXIM = Path("/usr/lib/vst3/ZaMaximX2.vst3")


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    missing = missing_tools() + ([] if MAXIM.exists() else ["zam-plugins"])
    if missing or not sys.platform.startswith("linux"):
        text = f"{', '.join(missing)} not installed; run: {INSTALL} zam-plugins"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEP_PLUGIN_CACHE", str(tmp_path / "plugins.json"))


@pytest.fixture
def server() -> Iterator[JackServer]:
    with jack_server(RATE) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vocals are half of the input."""
    return make_delay_model(tmp_path_factory.mktemp("m") / "m.onnx", hop=512, latency=700)


def record_tone(
    server: JackServer, folder: Path, seconds: float, during: Callable[[], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Play a tone into rtsep and return what was sent and what came out, [T] each, recorded side by side."""
    wave = 0.5 * np.sin(2 * np.pi * 220 / RATE * np.arange(int((seconds + 6) * RATE)))
    soundfile.write(folder / "tone.wav", np.stack([wave, wave], 1).astype(np.float32), RATE, subtype="FLOAT")
    server.play(folder / "tone.wav")
    capture = server.capture(folder / "capture.wav", seconds, "ecasound:out_1", "rtsep:out_0")
    time.sleep(1.0)  # the recording is to begin with the sound as it was; nothing is late if it takes longer
    during()
    both = server.captured(capture, folder / "capture.wav", seconds)
    return both[:, 0], both[:, 1]


def levels(audio: np.ndarray) -> np.ndarray:
    """RMS over 50 ms each."""
    size = RATE // 20
    return np.sqrt(np.mean(audio[: len(audio) // size * size].reshape(-1, size) ** 2, axis=1))


def worst_click(audio: np.ndarray) -> float:
    return float(np.abs(np.diff(audio.astype(np.float64), 2)).max())


def test_a_plugin_added_while_it_plays_is_heard_in_the_recording_without_a_click(
    server: JackServer, model: Path, tmp_path: Path
) -> None:
    with Engine(model, slack_hops=4) as engine:
        sent, received = record_tone(
            server, tmp_path, 3.0, lambda: engine.set_chain("vocals", [PluginSpec("Gain", {"gain_db": -120.0})])
        )
        late = engine.stats().late_hops
    full, half = 0.5 / np.sqrt(2), 0.25 / np.sqrt(2)
    begin = int(np.argmax(levels(received) > full - 0.01)) * (RATE // 20)  # from where on the tone plays
    sent, received = sent[begin:], received[begin:]
    level = levels(received)
    assert abs(level[1] - full) < 0.01
    assert abs(level[-8] - half) < 0.01
    # From the one to the other within 50 ms: at most two windows are neither.
    between = np.count_nonzero((np.abs(level - full) > 0.01) & (np.abs(level - half) > 0.01))
    assert between <= 2, level
    if not late:  # what covers a late hop is the delayed input, and may jump
        assert worst_click(received[4800:-4800]) < 4 * worst_click(sent[4800:-4800]) + 1 / 960


def test_the_latency_of_real_plugins_is_in_the_sum_and_in_the_recording(
    server: JackServer, model: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    noise = (0.05 * rng.standard_normal((8 * RATE, 2))).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, RATE, subtype="FLOAT")
    maxim = PluginSpec(str(MAXIM))
    with Engine(model, chains={"vocals": [maxim], MASTER: [maxim]}) as engine:
        report = engine.latency()
        assert report["plugins"].samples == 960
        server.play(tmp_path / "noise.wav")
        capture = server.capture(tmp_path / "capture.wav", 3.0, "ecasound:out_1", "rtsep:out_0")
        both = server.captured(capture, tmp_path / "capture.wav", 3.0)
    found = [lag for lag in lags(both[:, 0], both[:, 1], expected=report.stream_samples) if lag != -1]
    assert len(found) > 10
    assert set(found) == {report.stream_samples}


def test_bad_plugins_do_not_stop_the_audio(server: JackServer, model: Path, tmp_path: Path) -> None:
    crash = build_bundle(tmp_path, "Crash", "-DCRASH_AT_LOAD")
    bad = PluginSpec(str(build_bundle(tmp_path, "Bad")))
    errors: list[str] = []
    with Engine(model, slack_hops=4) as engine:

        def try_bad_ones() -> None:
            with pytest.raises(PluginError, match="crashed"):
                engine.set_chain("vocals", [PluginSpec(str(crash))])
            for fault in (1.0, 3.0):  # NaN, and one that never returns
                engine.set_chain("vocals", [bad])
                engine.set_plugin_parameter("vocals", 0, "fault", fault)
                until = time.monotonic() + 15
                while engine.chains["vocals"][0].fault is None and time.monotonic() < until:
                    time.sleep(0.01)
                errors.append(str(engine.chains["vocals"][0].fault))

        _, received = record_tone(server, tmp_path, 12.0, try_bad_ones)
        assert engine.running
    assert "NaN" in errors[0]
    assert "hung" in errors[1]
    assert np.isfinite(received).all()
    level = levels(received)
    assert level[int(np.argmax(level > 0.2)) :].min() > 0.2, "the tone never stops"
