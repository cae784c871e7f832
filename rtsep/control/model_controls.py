"""What a model itself lets one move, as parameters that come and go with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtsep.control.parameter import Parameter, Value, gain_parameter, part_of_path, switch_parameter
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.contract import ControlSpec
    from rtsep.control.registry import Registry
    from rtsep.engine.engine import Engine
    from rtsep.mixer.faders import ConditionFaders

_MOST_UNNAMED = 16
"""Controls with more elements than this, and no labels for them, are set by other means than by hand (a score)."""


def control_paths(control: ControlSpec) -> list[str]:
    """Return the paths of a model's control: one per element, by its label where there is one."""
    path = f"control/{part_of_path(control.name)}"
    if not control.shape:
        return [path]
    names = control.labels or tuple(str(i) for i in range(len(control.default)))
    return [f"{path}/{part_of_path(name)}" for name in names]


class ModelControls:
    """Keeps the parameters of the playing model's controls in a registry.

    Parameters
    ----------
    registry : Registry
    engine : Engine
        Started.
    faders : ConditionFaders, optional
        Whose control has strips instead of parameters, while the model has it.
    """

    def __init__(self, registry: Registry, engine: Engine, faders: ConditionFaders | None = None) -> None:
        self._registry, self._engine, self._faders = registry, engine, faders
        self._lock = threading.Lock()
        self._model = -1
        self._shown: dict[str, ControlSpec] = {}

    def look(self) -> None:
        """Follow the model, if it is another one by now. Any thread. UsageError when the engine is not started."""
        model = self._engine.models_played
        if model == self._model or not self._lock.acquire(blocking=False):
            return
        try:
            self._follow({control.name: control for control in self._engine.info.controls})
            self._model = model
        finally:
            self._lock.release()

    def _follow(self, controls: dict[str, ControlSpec]) -> None:
        registry, engine, faders = self._registry, self._engine, self._faders
        if faders is not None:
            if controls.get(faders.control.name) == faders.control:
                del controls[faders.control.name]
                if self._model >= 0:  # the faders stand where they did, and so does what they mean
                    engine.set_control(faders.control.name, faders.values())
            else:
                for stem in faders.settings.stems:
                    for name in ("gain_db", "mute", "solo"):
                        _take_out(registry, f"stem/{part_of_path(stem)}/{name}")
                self._faders = None
        gone = [name for name, control in self._shown.items() if controls.get(name) != control]
        for path in [path for name in gone for path in control_paths(self._shown.pop(name))]:
            _take_out(registry, path)
        for name, control in controls.items():
            if name not in self._shown:
                _add_control(registry, engine, control)
        self._shown = controls


def add_instrument(registry: Registry, engine: Engine, faders: ConditionFaders, stem: str) -> None:
    """Add gain, mute and solo of an instrument that is an element of the condition; nothing is above 0 dB."""
    path, settings = f"stem/{part_of_path(stem)}", faders.settings
    i = settings.index(stem)

    def then(setter: Callable[[], None]) -> None:
        setter()
        engine.set_control(faders.control.name, faders.values())

    registry.add(
        gain_parameter(f"{path}/gain_db", f"{stem} gain", 0.0),
        lambda: min(float(settings.gain_db[i]), 0.0),
        lambda value: then(lambda: settings.set_gain(stem, float(value))),
    )
    registry.add(
        switch_parameter(f"{path}/mute", f"{stem} mute"),
        lambda: bool(settings.mute[i]),
        lambda value: then(lambda: settings.set_mute(stem, bool(value))),
    )
    registry.add(
        switch_parameter(f"{path}/solo", f"{stem} solo"),
        lambda: bool(settings.solo[i]),
        lambda value: then(lambda: settings.set_solo(stem, bool(value))),
    )


def _add_control(registry: Registry, engine: Engine, control: ControlSpec) -> None:
    paths = control_paths(control)
    if (len(paths) > _MOST_UNNAMED and not control.labels) or control.minimum == control.maximum:
        return
    for i, path in enumerate(paths):

        def read(i: int = i) -> Value:
            values = engine.control_values(control.name)
            if values.shape != control.shape:  # another model's, which `look` has yet to find
                raise UsageError(f"The model has no control {control.name!r} of that shape any more.")
            # What float32 made of 0.1 is not what was set; seven digits are all it holds.
            return min(max(float(f"{values.flat[i]:.7g}"), control.minimum), control.maximum)

        def write(value: Value, i: int = i) -> None:
            values = engine.control_values(control.name)
            if values.shape != control.shape:
                raise UsageError(f"The model has no control {control.name!r} of that shape any more.")
            values.flat[i] = float(value)
            engine.set_control(control.name, values)

        label = path.removeprefix("control/").replace("/", " ")
        registry.add(
            Parameter(path, "float", control.minimum, control.maximum, control.default[i], label=label), read, write
        )


def _take_out(registry: Registry, path: str) -> None:
    if path in registry:
        registry.remove(path)
