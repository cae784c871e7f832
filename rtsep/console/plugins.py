"""What pages do to an engine's plugins, for the control process: in a thread of its own, for loading takes a while."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.errors import RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine
    from rtsep.plugins.catalog import Parameter

_MOST_WAITING = 200
_CURVE = 100
_LATE = ("PitchShift",)
"""Built-in effects that are too late for live use."""


class PluginDesk:
    """Obeys pages.

    Parameters
    ----------
    engine : Engine
        Started.
    tell : callable
        ``tell(kind, **values)``: to the console process.

    Notes
    -----
    A page adds what `offered` names, and nothing by its path; parameters that are files are not for pages either.
    """

    def __init__(self, engine: Engine, tell: Callable[..., object]) -> None:
        self._engine, self._tell = engine, tell
        self._waiting: list[tuple[dict[str, Any], int]] = []
        self._news = threading.Condition()
        self._ended = False
        self._files = _scanned()
        self._told: dict[str, Any] | None = None
        threading.Thread(target=self._run, name="console plugins", daemon=True).start()

    def offered(self) -> list[dict[str, str]]:
        """Names and a few words on what a page can add: built-in effects, and files that a scan found good."""
        from rtsep.plugins.catalog import EFFECTS

        effects = [
            {"name": effect.name, "summary": effect.summary}
            for effect in EFFECTS.values()
            if effect.name not in _LATE and all(parameter.kind != "file" for parameter in effect.parameters)
        ]
        return effects + [{"name": name, "summary": "VST3 or Audio Unit"} for name in sorted(self._files)]

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """The slots of every stem and of the master."""
        return {
            target: [
                {
                    "label": slot.label,
                    "bypass": slot.spec.bypass,
                    "latency_ms": round(1000 * slot.latency_samples / self._rate(target), 2),
                    "fault": slot.fault,
                    "parameters": [
                        _described(parameter, slot.spec.parameters.get(name, parameter.default))
                        for name, parameter in slot.parameters.items()
                        if parameter.kind != "file"
                    ],
                }
                for slot in slots
            ]
            for target, slots in self._engine.chains.items()
        }

    def message(self) -> dict[str, Any]:
        """All that the page needs to know of plugins."""
        return {"chains": self.state(), "offered": self.offered()}

    def put(self, command: dict[str, Any], client: int) -> None:
        """Take what a page wants; of one parameter only the last value matters. Never waits."""
        with self._news:
            if self._waiting and _place(self._waiting[-1][0]) == _place(command) is not None:
                self._waiting[-1] = (command, client)
            elif len(self._waiting) < _MOST_WAITING:
                self._waiting.append((command, client))
            self._news.notify()

    def look(self) -> None:
        """Tell the pages what changed, whoever did it."""
        try:
            state = self.state()
        except RtsepError:
            return
        if state != self._told:
            self._told = state
            self._tell("plugins", plugins=self.message())

    def forget(self) -> None:
        """The console process is a new one: it has been told nothing."""
        self._told = None

    def end(self) -> None:
        """Obey no more."""
        with self._news:
            self._ended = True
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._ended:
                    self._news.wait()
                if self._ended:
                    return
                command, client = self._waiting.pop(0)
            try:
                self._obey(command)
            except RtsepError as error:
                self._told = None  # the page shows what it wanted; it gets what there is
                self._tell("refused", client=client, path="plugins", message=str(error), value=None)
            self.look()

    def _obey(self, command: dict[str, Any]) -> None:
        engine, target, slot = self._engine, str(command["target"]), int(command.get("slot", 0))
        name, value = str(command.get("name", "")), command.get("value")
        do = command["do"]
        if do == "add":
            engine.add_plugin(target, self._spec(name))
        elif do == "remove":
            engine.remove_plugin(target, slot)
        elif do == "move":
            engine.move_plugin(target, slot, int(command.get("to", 0)))
        elif do == "bypass":
            engine.set_plugin_bypass(target, slot, bool(value))
        elif do == "set" and isinstance(value, bool | int | float | str):
            slots = engine.chains.get(target, ())
            if (
                0 <= slot < len(slots)
                and name in slots[slot].parameters
                and slots[slot].parameters[name].kind == "file"
            ):
                raise UsageError(f"{name} is a file: set it with --plugin or in a setup file.")
            engine.set_plugin_parameter(target, slot, name, value)

    def _spec(self, name: str) -> Any:
        from rtsep.plugins.spec import PluginSpec

        if not any(entry["name"] == name for entry in self.offered()):
            raise UsageError(f"The console offers no plugin {name[:60]!r}. See: rtsep plugins list")
        return self._files.get(name) or PluginSpec(name)

    def _rate(self, target: str) -> int:
        from rtsep.plugins.spec import MASTER

        return self._engine.samplerate if target == MASTER else self._engine.model_samplerate


def _place(command: dict[str, Any]) -> tuple[Any, ...] | None:
    """What a command sets; None for those of which every one counts."""
    return (command["target"], command.get("slot"), command.get("name")) if command["do"] == "set" else None


def _scanned() -> dict[str, Any]:
    """Plugins from files that ``rtsep plugins scan`` found good, by the name the page shows."""
    from rtsep.plugins.scan import read_cache
    from rtsep.plugins.spec import PluginSpec

    return {
        f"{Path(path).stem if len(result.names) == 1 else name} ({Path(path).suffix.lstrip('.').upper()})": PluginSpec(
            path, name=name if len(result.names) > 1 else None
        )
        for path, result in read_cache().items()
        if result.ok
        for name, facts in zip(result.names, result.plugins, strict=False)
        if not facts.get("instrument")
    }


def _described(parameter: Parameter, value: Any) -> dict[str, Any]:
    """A parameter as the page's sliders take it, like `rtsep.console.live.described`."""
    found: dict[str, Any] = {
        "path": parameter.name,
        "label": parameter.name.removesuffix(f"_{parameter.unit.lower()}").replace("_", " "),
        "unit": parameter.unit,
        "scale": "linear",
        "default": parameter.default,
        "value": value,
        "kind": {"number": "float", "switch": "bool", "choice": "choice"}[parameter.kind],
    }
    if parameter.kind == "choice":
        found["choices"] = list(parameter.choices)
    if parameter.kind == "number":
        low, high = max(parameter.minimum, -1e6), min(parameter.maximum, 1e6)
        found["lowest"], found["highest"] = low, high
        if parameter.unit == "Hz" and low > 0:
            found["scale"] = "log"
            found["curve"] = [low * math.exp(math.log(high / low) * i / _CURVE) for i in range(_CURVE + 1)]
    return found
