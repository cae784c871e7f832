"""The table itself: values, subscribers, threads, parameters that come and go; and the one of a running engine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.control.registry import Parameter, Registry, engine_registry
from rtsep.engine import Engine
from rtsep.errors import EngineError, UsageError
from rtsep.mixer.faders import ConditionFaders
from tests.support.condition_graphs import make_condition_model
from tests.support.graphs import make_delay_model


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(Parameter("stem/vocals/gain_db", "float", -120.0, 24.0, 0.0, "dB", scale="fader"))
    registry.add(Parameter("stem/vocals/mute", "bool", default=False))
    registry.add(Parameter("notes/latency", "choice", default="normal", choices=("tight", "normal", "quality")))
    return registry


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_are_set_by_number_position_and_text(registry: Registry) -> None:
    assert list(registry.parameters) == ["stem/vocals/gain_db", "stem/vocals/mute", "notes/latency"]
    assert registry.set("stem/vocals/gain_db", -6) == -6.0
    assert registry.set_unit("stem/vocals/gain_db", 0.75) == 0.0
    assert registry.set_text("stem/vocals/gain_db", "-3 dB") == -3.0
    assert registry.toggle("stem/vocals/mute") is True
    assert registry.toggle("stem/vocals/mute") is False
    assert registry.toggle("notes/latency") == "quality"
    assert registry.toggle("notes/latency") == "tight"
    assert registry.values() == {
        "stem/vocals/gain_db": -3.0,
        "stem/vocals/mute": False,
        "notes/latency": "tight",
    }
    with pytest.raises(UsageError, match="no switch"):
        registry.toggle("stem/vocals/gain_db")


def test_an_unknown_path_is_named_with_close_ones(registry: Registry) -> None:
    for act in (registry.get, registry.parameter, registry.remove, registry.toggle):
        with pytest.raises(UsageError, match=r"'stem/vocals/gain'.*Did you mean 'stem/vocals/gain_db'.*vocals/mute"):
            act("stem/vocals/gain")
    with pytest.raises(UsageError, match=r"There is: stem/\.\.\., notes/\.\.\.") as error:
        registry.set("x" * 10_000, 1)
    assert len(str(error.value)) < 300


def test_a_value_that_is_refused_changes_nothing_and_tells_nobody(registry: Registry) -> None:
    heard: list[Any] = []
    registry.subscribe(lambda *change: heard.append(change))
    before = registry.values()
    for path, value in (("stem/vocals/gain_db", 25), ("stem/vocals/mute", "on"), ("notes/latency", 1)):
        with pytest.raises(UsageError):
            registry.set(path, value)
    assert registry.values() == before
    assert heard == []


# --- subscribers ------------------------------------------------------------------------------------------------------


def test_subscribers_hear_of_changes_with_their_source_and_only_of_changes(registry: Registry) -> None:
    heard: list[Any] = []
    stop = registry.subscribe(lambda *change: heard.append(change))
    registry.set("stem/vocals/gain_db", -6, "osc:1")
    registry.set("stem/vocals/gain_db", -6.0, "web")
    registry.toggle("notes/latency", "keys")
    stop()
    stop()
    registry.set("stem/vocals/gain_db", 0)
    assert heard == [("stem/vocals/gain_db", -6.0, "osc:1"), ("notes/latency", "quality", "keys")]


def test_a_subscriber_that_raises_is_dropped_and_reported_and_the_others_hear_on() -> None:
    said: list[str] = []
    heard: list[Any] = []
    registry = Registry(said.append)
    registry.add(Parameter("a"))

    def bad(*change: object) -> None:
        raise RuntimeError("broken pipe")

    registry.subscribe(bad)
    registry.subscribe(lambda *change: heard.append(change))
    registry.set("a", 0.5)
    registry.set("a", 0.6)
    assert [value for _, value, _ in heard] == [0.5, 0.6]
    assert len(said) == 1
    assert "RuntimeError: broken pipe" in said[0]


def test_a_subscriber_may_set_and_the_order_of_changes_is_kept(registry: Registry) -> None:
    """Two linked faders: without the queue the second listener would hear the answer before the question."""
    registry.add(Parameter("twin"))
    heard: list[Any] = []

    def link(path: str, value: Any, source: str) -> None:
        if path == "stem/vocals/mute":
            registry.set("twin", float(value), "link")

    registry.subscribe(link)
    registry.subscribe(lambda path, value, source: heard.append((path, value)))
    registry.set("stem/vocals/mute", True)
    assert heard == [("stem/vocals/mute", True), ("twin", 1.0)]


def test_parameters_come_and_go(registry: Registry) -> None:
    heard: list[Any] = []
    registry.subscribe(on_table=lambda what, parameter: heard.append((what, parameter.path)))
    registry.subscribe(lambda path, value, source: heard.append((path, value)))
    kept = {"cutoff": 200.0}
    cutoff = Parameter("plugin/1/cutoff_hz", "float", 20.0, 20_000.0, 200.0, "Hz", scale="log")
    registry.add(cutoff, lambda: kept["cutoff"], lambda value: kept.__setitem__("cutoff", float(value)))
    registry.set("plugin/1/cutoff_hz", 440)
    assert kept == {"cutoff": 440.0}
    registry.remove("plugin/1/cutoff_hz")
    assert heard == [
        ("added", "plugin/1/cutoff_hz"),
        ("plugin/1/cutoff_hz", 440.0),
        ("removed", "plugin/1/cutoff_hz"),
    ]
    assert "plugin/1/cutoff_hz" not in registry
    with pytest.raises(UsageError, match="no parameter"):
        registry.get("plugin/1/cutoff_hz")
    with pytest.raises(UsageError, match="already"):
        registry.add(Parameter("stem/vocals/mute"))


def test_a_change_past_the_registry_is_found_by_poll_and_before_the_next_set() -> None:
    kept = [0.0]
    registry = Registry()
    registry.add(Parameter("a"), lambda: kept[0], lambda value: kept.__setitem__(0, float(value)))
    heard: list[Any] = []
    registry.subscribe(lambda *change: heard.append(change))
    kept[0] = 0.25
    assert registry.get("a") == 0.25
    registry.poll()
    registry.poll()
    kept[0] = 0.5
    registry.set("a", 0.75, "me")
    assert heard == [("a", 0.25, ""), ("a", 0.5, ""), ("a", 0.75, "me")]


def test_a_parameter_whose_value_has_gone_is_removed(registry: Registry) -> None:
    there = [True]

    def read() -> float:
        if not there[0]:
            raise UsageError("The model has no control 'width'.")
        return 0.5

    heard: list[Any] = []
    registry.add(Parameter("control/width"), read, lambda value: None)
    registry.subscribe(on_table=lambda what, parameter: heard.append((what, parameter.path)))
    registry.poll()
    assert heard == []
    there[0] = False
    assert "control/width" not in registry.values()
    registry.poll()
    assert heard == [("removed", "control/width")]
    assert "control/width" not in registry


def test_many_threads_end_with_what_all_subscribers_heard_last(registry: Registry) -> None:
    """Changes are told in their order: the last value a subscriber heard is the value that holds."""
    last: dict[str, Any] = {}
    count = [0]

    def hear(path: str, value: Any, source: str) -> None:
        last[path] = value
        count[0] += 1

    registry.subscribe(hear)
    go = threading.Barrier(4)

    def move(number: int) -> None:
        go.wait()
        for step in range(500):
            registry.set("stem/vocals/gain_db", -(step % 50) - number / 10, str(number))
            if step % 50 == 0:
                path = f"extra/{number}/{step}"
                registry.add(Parameter(path))
                registry.remove(path)

    threads = [threading.Thread(target=move, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive()
    assert count[0] >= 500
    assert last == {"stem/vocals/gain_db": registry.get("stem/vocals/gain_db")}


def test_a_slow_subscriber_does_not_hold_up_reading(registry: Registry) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow(*change: object) -> None:
        inside.set()
        assert leave.wait(20.0)

    registry.subscribe(slow)
    thread = threading.Thread(target=registry.set, args=("stem/vocals/mute", True))
    thread.start()
    assert inside.wait(20.0)
    assert registry.set("stem/vocals/gain_db", -1) == -1.0
    assert registry.get("stem/vocals/mute") is True
    leave.set()
    thread.join(20.0)
    assert not thread.is_alive()


# --- a running engine -------------------------------------------------------------------------------------------------


def test_the_registry_of_a_running_engine_is_the_mixer_itself(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "delay.onnx", hop=512, latency=700, gains=(0.5, 0.25, 0.125, 0.125))
    with Engine(model, backend=DummyConfig(source="noise"), gain={"bass": -3.0}, mute=["drums"]) as engine:
        registry = engine_registry(engine)
        stems = engine.info.stems
        assert list(registry.parameters) == [
            *(f"stem/{stem}/{what}" for stem in stems for what in ("gain_db", "mute", "solo", "pan")),
            *("master/gain_db", "master/bypass", "master/limiter"),
        ]
        assert registry.get("stem/bass/gain_db") == -3.0
        assert registry.get("stem/drums/mute") is True
        registry.set_text("stem/vocals/gain_db", "-12 dB")
        registry.set("stem/vocals/pan", -0.5)
        registry.set("stem/vocals/solo", True)
        registry.set("master/gain_db", -1.0)
        registry.set("master/bypass", True)
        registry.set("master/limiter", True)
        settings = engine.settings
        i = stems.index("vocals")
        assert (settings.gain_db[i], settings.pan[i], settings.solo[i]) == (-12.0, -0.5, 1.0)
        assert (settings.master_db, settings.bypass, settings.limiter) == (-1.0, True, True)
        heard: list[Any] = []
        registry.subscribe(lambda *change: heard.append(change))
        engine.set_mute("vocals")
        registry.poll()
        assert heard == [("stem/vocals/mute", True, "")]


def test_instruments_of_a_condition_have_strips_too(tmp_path: Path) -> None:
    model = make_condition_model(tmp_path / "condition.onnx")
    with Engine(model, backend=DummyConfig(source="noise"), solo=["selected"]) as engine:
        faders = ConditionFaders(engine.info)
        registry = engine_registry(engine, faders=faders)
        assert "stem/vocals/pan" not in registry
        assert "stem/selected/pan" in registry
        assert not [path for path in registry.parameters if path.startswith("control/")]
        registry.set("stem/vocals/mute", True)
        assert faders.values() == [1, 1, 1, 0]
        assert list(engine.control_values("condition")) == [1, 1, 1, 0]
        registry.set("stem/drums/gain_db", -120)
        assert list(engine.control_values("condition")) == [0, 1, 1, 0]
        with pytest.raises(UsageError, match="allowed is -120 to 0 dB"):
            registry.set("stem/drums/gain_db", 1)


def test_controls_of_a_model_are_parameters_by_label(tmp_path: Path) -> None:
    model = make_condition_model(tmp_path / "condition.onnx")
    with Engine(model, backend=DummyConfig(), controls={"condition": [1, 0.1, 1, 1]}) as engine:
        registry = engine_registry(engine)
        assert registry.get("control/condition/bass") == 0.1
        registry.set("control/condition/vocals", 0.25, "osc")
        assert list(engine.control_values("condition")) == pytest.approx([1, 0.1, 1, 0.25])
        heard: list[Any] = []
        registry.subscribe(lambda *change: heard.append(change))
        engine.set_control("condition", [0, 0.1, 1, 0.25])
        registry.poll()
        assert heard == [("control/condition/drums", 0.0, "")]
        # Another model of that kind takes over: what its controls are is what counts from then on.
        engine.change_model(model, {"condition": [1, 1, 0.5, 1]})
        assert registry.get("control/condition/other") == 0.5
        assert registry.set("control/condition/vocals", 0.25) == 0.25
    with pytest.raises(EngineError, match="ended"):
        registry.set("control/condition/vocals", 1.0)
    assert registry.get("control/condition/vocals") == 0.25, "what was refused does not hold"
