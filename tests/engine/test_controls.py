"""Controls of a model, live: at the start, while it plays, and wrong ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.cli.display import frame
from rtsep.cli.keys import Desk
from rtsep.engine import Engine
from rtsep.errors import UsageError
from rtsep.mixer.faders import ConditionFaders
from tests.engine.conftest import Audio, read_frames
from tests.support.condition_graphs import make_condition_model

Noise = Callable[..., tuple[Path, Audio]]


@pytest.fixture(scope="module")
def fader_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drums .125, bass .125, other .25, vocals .5 of the input; hop 512, latency 700."""
    return make_condition_model(tmp_path_factory.mktemp("model") / "condition.onnx", latency=700)


def wait_for(reached: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "not reached"
        time.sleep(0.005)


def test_controls_given_at_the_start_hold_from_the_first_hop(
    fader_model: Path, noise_file: Noise, tmp_path: Path
) -> None:
    path, audio = noise_file(30_000)
    out = tmp_path / "out.wav"
    backend = FileConfig(str(path), str(out), realtime=False)
    with Engine(fader_model, backend=backend, solo=["selected"], controls={"condition": [0, 0, 1, 0.5]}) as engine:
        assert engine.wait(20.0)
        shift = engine.latency().total_samples
    np.testing.assert_array_equal(read_frames(out)[shift:], 0.5 * audio)


def test_a_control_moves_while_it_plays(fader_model: Path, tmp_path: Path) -> None:
    """Every hop has one of the two conditions as a whole, in the order in which they were set."""
    record = tmp_path / "record.wav"
    source = DummyConfig(source="noise", samplerate=48_000)
    with Engine(fader_model, backend=source, solo=["selected"], slack_hops=8, record=record) as engine:
        wait_for(lambda: float(engine.meters().rms[0]) > 0.05)
        engine.set_control("condition", [0.0, 0.0, 0.0, 0.0])
        wait_for(lambda: float(engine.meters().rms[0]) < 1e-3)
        engine.set_control("condition", np.float32([1, 1, 0, 0]))
        # The meters follow slowly; a quarter of the noise is what they end at.
        wait_for(lambda: 0.02 < float(engine.meters().rms[0]) < 0.03)
        assert engine.stats().nonfinite_hops == 0
    heard = np.abs(read_frames(record)).max(axis=1)
    heard = heard[np.flatnonzero(heard)[0] :]  # without the latency
    silent = np.flatnonzero(np.convolve(heard == 0, np.ones(512), "valid") == 512)
    assert len(silent), "all faders down is silence"
    assert heard[: silent[0]].max() > 0.2
    assert 0.05 < heard[silent[-1] + 1024 :].max() < 0.2


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("conditions", [1, 1, 1, 1], "Did you mean 'condition'"),
        ("condition", [1, 1, 1], r"has the shape \[4\]"),
        ("condition", [1, 1, 1, 1.01], "got 1.01; allowed is 0.0 to 1.0"),
        ("condition", [1, 1, 1, float("nan")], "got nan"),
        ("condition", "loud", "needs numbers"),
    ],
)
def test_wrong_values_are_refused_before_and_while_it_runs(
    fader_model: Path, name: str, values: Any, message: str
) -> None:
    with Engine(fader_model, backend=DummyConfig()) as engine:
        with pytest.raises(UsageError, match=message):
            engine.set_control(name, values)
        assert not engine.wait(0.1), "the engine plays on"
    refused = Engine(fader_model, backend=DummyConfig(), controls={name: values})
    with pytest.raises(UsageError, match=message):
        refused.start()


def test_before_the_start_there_is_nothing_to_set(fader_model: Path) -> None:
    with pytest.raises(UsageError, match="not started"):
        Engine(fader_model, backend=DummyConfig()).set_control("condition", [1, 1, 1, 1])


def test_keys_move_the_condition_of_a_running_engine(fader_model: Path) -> None:
    with Engine(fader_model, backend=DummyConfig(source="noise"), solo=["selected"]) as engine:
        faders = ConditionFaders(engine.info)
        desk = Desk(engine, faders)
        assert desk.stems == ("drums", "bass", "other", "vocals")
        for key in ("4", "m"):
            desk.press(key)
        assert faders.values() == [1, 1, 1, 0]
        wait_for(lambda: 0.04 < float(engine.meters().rms[0]) < 0.06)
        for key in ("m", "1", "s", "up", "left"):
            desk.press(key)
        assert faders.values() == [1, 0, 0, 0], "a fader cannot go above the whole instrument"
        assert not faders.settings.pan.any()
        assert not engine.settings.mute.any()
        wait_for(lambda: 0.01 < float(engine.meters().rms[0]) < 0.015)
        for _ in range(6):
            desk.press("down")
        assert faders.values() == pytest.approx([10 ** (-6 / 20), 0, 0, 0])
        lines = frame(engine, desk)
        assert len(lines) == 6
        assert lines[0].startswith(">1 drums")
        assert "50 %" in lines[0]
        assert "-6.0" in lines[0]
        assert "  0 %" in lines[3]
        desk.press("b")
        assert engine.settings.bypass
