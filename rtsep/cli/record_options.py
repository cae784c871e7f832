"""The option of ``rtsep run`` for the record button, and what it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.cli import common

if TYPE_CHECKING:
    from rtsep.control.registry import Registry
    from rtsep.engine.engine import Engine
    from rtsep.notes.live import LiveNotes
    from rtsep.takes.live import LiveTakes

F = TypeVar("F", bound=Callable[..., Any])


def record_options(function: F) -> F:
    """Add ``--takes``, which `open_takes` is given."""
    return click.option(
        "--takes",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("takes"),
        show_default=True,
        help="Folder for what the record button (key R, record/on) records: a folder a take.",
    )(function)


def open_takes(folder: Path, engine: Engine, registry: Registry, notes: LiveNotes | None) -> LiveTakes:
    """Add ``record/on`` to the registry, and return what it moves; to be closed before notes and engine."""
    from rtsep.control.record import add_record
    from rtsep.takes.live import LiveTakes

    quiet = common.is_quiet()

    def say(text: str) -> None:  # in a thread that knows nothing of this command
        if not quiet:
            click.echo(text, err=True)

    takes = LiveTakes(engine, folder, notes, say)
    add_record(registry, takes)
    return takes


def takes_summary(takes: LiveTakes | None) -> dict[str, Any]:
    """What ``--json`` and ``--stats`` say of the takes."""
    state = None if takes is None else takes.state
    if state is None or not (state.done or state.error):
        return {}
    done = [{"folder": str(folder), "seconds": round(seconds, 3)} for folder, seconds in state.done]
    return {"takes": {"done": done, "error": state.error}}
