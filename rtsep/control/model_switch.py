"""Which model plays, as a parameter: keys, OSC and MIDI controllers can change it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rtsep.control.parameter import Parameter
from rtsep.errors import RtsepError

if TYPE_CHECKING:
    from rtsep.control.registry import Registry
    from rtsep.engine.engine import Engine

PATH = "engine/model"


class ModelSwitch:
    """Changes the model of an engine in the background.

    Parameters
    ----------
    engine : Engine
        Started.
    models : dict of str to path
        By name; the present one among them.
    tell : callable
        Gets a sentence when a change was not possible.
    """

    def __init__(self, engine: Engine, models: dict[str, Path], tell: Callable[[str], object]) -> None:
        self._engine, self._models, self._tell = engine, models, tell
        self._wanted: str | None = None
        self._lock = threading.Lock()

    def read(self) -> str:
        """Return the name of the model that plays, or is about to."""
        return self._wanted or self._engine.info.name

    def write(self, name: str) -> None:
        """Change to another model; returns at once. The last wish of several counts."""
        with self._lock:
            begun, self._wanted = self._wanted is not None, name
        if not begun:
            threading.Thread(target=self._change, name="model-switch", daemon=True).start()

    def _change(self) -> None:
        while True:
            name = self.read()
            try:
                if name != self._engine.info.name:
                    self._engine.change_model(self._models[name])
            except RtsepError as error:
                self._tell(str(error))
                name = ""
            with self._lock:
                if not name or self._wanted == name:
                    self._wanted = None
                    return


def add_model_switch(registry: Registry, engine: Engine, tell: Callable[[str], object]) -> None:
    """Add the parameter, where there are shipped models to change to and no stems are given out at a fixed delay."""
    from rtsep.zoo.registry import list_models

    info = engine.info
    models = {entry.name: entry.path for entry in list_models() if _fits(entry.path, engine)}
    models[info.name] = engine.model_path
    if engine.tap_path is not None or len(models) < 2:
        return
    switch = ModelSwitch(engine, models, tell)
    parameter = Parameter(PATH, "choice", default=info.name, choices=tuple(models), label="model")
    registry.add(parameter, switch.read, lambda value: switch.write(str(value)))


def _fits(path: Path, engine: Engine) -> bool:
    from rtsep.zoo.registry import read_info

    info = read_info(path)
    return info.stems == engine.info.stems and info.channels == engine.info.channels
