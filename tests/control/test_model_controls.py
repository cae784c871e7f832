"""Controls of a model as parameters, when another model takes over: those of the old one go, the new one's come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.cli.keys import Desk
from rtsep.console.live import Console
from rtsep.control.midi_map import MidiControl, MidiMap, MidiMapping
from rtsep.control.osc import OscServer
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from rtsep.errors import UsageError
from rtsep.mixer.faders import ConditionFaders
from tests.console.conftest import Page, open_socket
from tests.control.test_osc import Client
from tests.support.condition_graphs import make_condition_model
from tests.support.graphs import make_delay_model

LEVEL = "control/level"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Without a control, with one, and with another of the same name."""
    folder = tmp_path_factory.mktemp("models")
    wider = {"name": "level", "shape": [], "default": [3], "minimum": 1, "maximum": 4, "meaning": "gain", "labels": []}
    return {
        "plain": make_delay_model(folder / "plain.onnx", name="plain"),
        "level": make_delay_model(folder / "level.onnx", control=True, name="level"),
        "wider": make_delay_model(folder / "wider.onnx", control=True, name="wider", controls=[wider]),
    }


@pytest.fixture
def engine(models: dict[str, Path]) -> Iterator[Engine]:
    with Engine(models["level"], backend=DummyConfig(source="noise")) as running:
        yield running


def test_parameters_follow_the_model(engine: Engine, models: dict[str, Path]) -> None:
    registry = engine_registry(engine)
    news: list[Any] = []
    registry.subscribe(on_table=lambda what, parameter: news.append((what, parameter.path, parameter.highest)))
    registry.set(LEVEL, 0.5)
    registry.set("stem/vocals/gain_db", -3.0)
    engine.change_model(models["wider"])
    registry.poll()
    assert news == [("removed", LEVEL, 2.0), ("added", LEVEL, 4.0)]
    assert registry.get(LEVEL) == 3.0, "the new model began with its own default"
    assert registry.set(LEVEL, 3.5) == 3.5
    news.clear()
    engine.change_model(models["plain"])
    with pytest.raises(UsageError, match="no control"):
        registry.set(LEVEL, 2.0)
    registry.poll()
    assert news == [("removed", LEVEL, 4.0)]
    engine.change_model(models["level"], {"level": 1.5})
    registry.poll()
    assert registry.get(LEVEL) == 1.5
    assert registry.get("stem/vocals/gain_db") == -3.0


def test_midi_says_once_what_the_model_has_not_and_goes_on_when_it_has(engine: Engine, models: dict[str, Path]) -> None:
    registry = engine_registry(engine)
    said: list[str] = []
    mapping = MidiMapping.make(MidiControl.parse("ch1 cc7"), registry.parameter(LEVEL), "jump")
    midi_map = MidiMap(registry, [mapping], said.append)
    midi_map.take(bytes((0xB0, 7, 64)))
    assert registry.get(LEVEL) == 1.0
    engine.change_model(models["plain"])
    registry.poll()
    for value in (10, 20, 30):
        midi_map.take(bytes((0xB0, 7, value)))
    assert len(said) == 1
    assert f"ch1 cc7 moves {LEVEL}" in said[0]
    engine.change_model(models["level"])
    registry.poll()
    midi_map.take(bytes((0xB0, 7, 127)))
    assert registry.get(LEVEL) == 2.0
    assert len(said) == 1
    assert midi_map.mappings == [mapping]


def test_osc_says_so_and_is_told_of_what_comes(engine: Engine, models: dict[str, Path]) -> None:
    registry = engine_registry(engine)
    with OscServer(registry, port=0) as osc:
        client = Client(osc)
        client.send("/rtsep/subscribe")
        client.hears(f"/rtsep/{LEVEL}")
        client.drain()
        engine.change_model(models["plain"])
        registry.poll()
        client.send(f"/rtsep/{LEVEL}", 0.5)
        (why,) = client.hears("/rtsep/error")
        assert "no parameter" in why
        engine.change_model(models["wider"])
        registry.poll()
        assert client.hears(f"/rtsep/{LEVEL}") == [3.0]
        client.close()


def test_a_page_follows(engine: Engine, models: dict[str, Path]) -> None:
    registry = engine_registry(engine)
    with Console(engine, registry) as console, open_socket(console) as socket:
        page = Page(socket)
        assert page.hello["about"]["model"] == "level"
        engine.change_model(models["wider"])
        page.wait_for("table", lambda table: table["removed"] == [LEVEL])
        added = page.wait_for("table", lambda table: table["added"])["added"]
        assert [(entry["path"], entry["value"], entry["highest"]) for entry in added] == [(LEVEL, 3.0, 4.0)]
        assert page.wait_for("about")["model"] == "wider"
        with open_socket(console) as late:
            assert Page(late).hello["about"]["model"] == "wider"


def test_instruments_go_with_the_condition_and_keys_say_so(tmp_path: Path) -> None:
    condition = make_condition_model(tmp_path / "condition.onnx")
    without = make_delay_model(tmp_path / "without.onnx", stems=("selected", "rest"))
    with Engine(condition, backend=DummyConfig(source="noise"), solo=["selected"]) as engine:
        faders = ConditionFaders(engine.info)
        registry = engine_registry(engine, faders=faders)
        desk = Desk(engine, faders, registry)
        desk.selected = desk.stems.index("vocals")
        desk.press("m")
        assert registry.get("stem/vocals/mute") is True
        engine.change_model(condition)  # the same again: what the faders say still holds
        registry.poll()
        assert list(engine.control_values("condition")) == [1, 1, 1, 0]
        engine.change_model(without)
        registry.poll()
        assert "stem/vocals/mute" not in registry
        assert "stem/selected/mute" in registry
        desk.press("m")
        assert "no parameter 'stem/vocals/mute'" in desk.said
