"""The record button, as a parameter: ``record/on`` begins and ends a take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtsep.control.parameter import Parameter

if TYPE_CHECKING:
    from rtsep.control.registry import Registry
    from rtsep.takes.live import LiveTakes

GROUP = "record/"
"""What the path begins with; a setup does not keep it."""
ON = f"{GROUP}on"


def add_record(registry: Registry, takes: LiveTakes) -> None:
    """Add the parameter. It goes back to off when a take cannot be written."""
    registry.add(
        Parameter(ON, "bool", default=False, label="record"),
        lambda: takes.on,
        lambda value: takes.start() if value else takes.stop(),
    )


def press(registry: Registry, source: str) -> str:
    """Turn the button over, and return what there is to say about it. UsageError."""
    if ON not in registry:
        return "There is nothing to record with."
    return "Recording." if registry.toggle(ON, source) else "The take ends."
