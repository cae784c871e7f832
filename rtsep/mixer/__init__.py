"""Strips, ramps, meters and the limiter. Importing this package loads no NumPy; the names below do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsep.mixer.meters import Meters
    from rtsep.mixer.mixer import Mixer
    from rtsep.mixer.settings import MixerSettings

__all__ = ["Meters", "Mixer", "MixerSettings"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        module = {"Meters": "meters", "Mixer": "mixer", "MixerSettings": "settings"}[name]
        return getattr(import_module(f"rtsep.mixer.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
