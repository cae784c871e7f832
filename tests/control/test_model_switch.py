"""The model of a running engine as a parameter."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.cli.keys import Desk
from rtsep.control.model_switch import PATH, add_model_switch
from rtsep.control.registry import Registry, engine_registry
from rtsep.engine import Engine
from rtsep.zoo.registry import list_models, resolve
from tests.support.graphs import make_delay_model


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def registry_of(engine: Engine, said: list[str]) -> Registry:
    registry = engine_registry(engine)
    add_model_switch(registry, engine, said.append)
    return registry


def test_a_key_changes_to_the_next_model_and_back() -> None:
    said: list[str] = []
    with Engine("low", backend=DummyConfig(source="noise")) as engine:
        registry = registry_of(engine, said)
        names = registry.parameter(PATH).choices
        assert set(names) == {e.name for e in list_models() if e.info.stems == engine.info.stems}
        first = registry.get(PATH)
        desk = Desk(engine, registry=registry)
        desk.press("t")
        second = registry.get(PATH)
        assert second != first
        assert second in desk.said
        registry.set(PATH, first)  # the last wish counts, whatever was begun
        registry.set(PATH, second)
        wait_for(lambda: engine.info.name == second)
        assert engine.model_path == resolve(str(second))
        registry.set(PATH, first)
        wait_for(lambda: engine.info.name == first)
    assert said == []


def test_what_is_not_possible_is_said_and_the_value_goes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    gone = make_delay_model(tmp_path / "gone.onnx", hop=256, latency=0, name="gone")
    with Engine(gone, backend=DummyConfig(source="noise")) as engine:
        registry = registry_of(engine, said)
        gone.write_bytes(b"no model any more")
        registry.set(PATH, "openunmix-low")
        wait_for(lambda: engine.info.name == "openunmix-low")
        registry.set(PATH, "gone")
        wait_for(lambda: bool(said))
        wait_for(lambda: registry.get(PATH) == "openunmix-low")
    assert "gone" in said[0]


def test_where_stems_are_given_out_there_is_no_such_parameter() -> None:
    with Engine("low", backend=DummyConfig(source="noise"), tap=True) as engine:
        registry = registry_of(engine, [])
        assert PATH not in registry
        desk = Desk(engine, registry=registry)
        desk.press("t")
        assert "stays" in desk.said
