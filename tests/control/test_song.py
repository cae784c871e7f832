"""A file as input through the registry and the keys, while it plays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.cli.display import frame
from rtsep.cli.keys import SONG_KEYS, Desk
from rtsep.control.registry import Registry, engine_registry
from rtsep.control.song import GROUP, LOOP, LOOP_FROM, LOOP_TO, PLAYING, POSITION, SPEED, add_song
from rtsep.engine import Engine
from rtsep.errors import UsageError
from tests.support.graphs import make_delay_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("m") / "m.onnx", hop=512, latency=700)


@pytest.fixture
def engine(model: Path, tmp_path: Path) -> Iterator[Engine]:
    soundfile.write(tmp_path / "song.flac", np.zeros((60 * 48_000, 2), np.float32), 48_000)
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(tmp_path / "song.flac"))) as running:
        yield running


@pytest.fixture
def registry(engine: Engine) -> Registry:
    registry = engine_registry(engine)
    add_song(registry, engine)
    return registry


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_parameters_move_the_file(engine: Engine, registry: Registry) -> None:
    assert registry.set(POSITION, 30.0) == 30.0
    until(lambda: 30.1 < float(registry.get(POSITION)) < 32.0)
    assert registry.set(SPEED, 0.5) == 0.5
    registry.set(LOOP_TO, 40.0)
    registry.set(LOOP_FROM, 38.0)
    registry.set(LOOP, True)
    assert engine.song_loop == (True, 38.0, 40.0)
    registry.set(POSITION, 39.9)
    until(lambda: float(registry.get(POSITION)) < 39.5)
    assert float(registry.get(POSITION)) >= 38.0
    for path, value, match in (
        (POSITION, 61.0, "0 to 60 s"),
        (LOOP_FROM, 41.0, "A has to come before B"),
        (LOOP_TO, 38.01, "too short"),
        (SPEED, 3.0, "0.5 to 1.5"),
    ):
        with pytest.raises(UsageError, match=match):
            registry.set(path, value)
    assert engine.song_loop == (True, 38.0, 40.0)


def test_every_parameter_is_in_the_documents(registry: Registry) -> None:
    paths = {path for path in registry.parameters if path.startswith(GROUP)}
    for name in ("control.md", "input.md"):
        text = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"`(input/[a-z_]+)`", text)) == paths


def test_keys_move_the_file(engine: Engine, registry: Registry) -> None:
    desk = Desk(engine, registry=registry)
    desk.press(" ")
    assert registry.get(PLAYING) is False
    assert desk.said == "Paused."
    assert any("of 1:00.0   PAUSED" in line for line in frame(engine, desk))
    registry.set(POSITION, 20.0)
    until(lambda: engine.song_position_s == 20.0)
    desk.press(".")
    until(lambda: engine.song_position_s == 25.0)
    desk.press("[")
    desk.press(",")
    until(lambda: engine.song_position_s == 20.0)
    desk.press("]")
    assert "A has to come before B" in desk.said
    desk.press(".")
    desk.press(".")
    desk.press("]")
    assert engine.song_loop == (True, 25.0, 30.0)
    desk.press("o")
    assert engine.song_loop == (False, 25.0, 30.0)
    desk.press(" ")
    assert engine.song_playing
    registry.set(POSITION, 58.0)
    desk.press(".")
    until(lambda: not engine.running)  # the end of the file


def test_keys_without_a_file_say_what_to_start_with(model: Path) -> None:
    with Engine(model, backend=DummyConfig()) as engine:
        desk = Desk(engine)
        for key in SONG_KEYS:
            desk.press(key)
        desk.press(" ")
        assert "--input-file" in desk.said
