"""Options of ``rtsep run`` for the web console, and what they start."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.cli import common
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.control.registry import Registry
    from rtsep.engine.engine import Engine
    from rtsep.notes.live import LiveNotes
    from rtsep.takes.live import LiveTakes

F = TypeVar("F", bound=Callable[..., Any])
_PACKAGES = ("starlette", "uvicorn", "websockets")


@dataclass(frozen=True)
class ConsoleOptions:
    """What the options say.

    Parameters
    ----------
    wanted : bool
    host : str
    port : int or None
    """

    wanted: bool
    host: str
    port: int | None

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> ConsoleOptions:
        """Take the values that `console_options` adds out of a command's. UsageError when a package is missing."""
        host, port = options.pop("console_host"), options.pop("console_port")
        wanted = options.pop("console") or host is not None or port is not None
        missing = [name for name in _PACKAGES if wanted and importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"The console needs {', '.join(missing)}; run: pip install 'rtsep[console]'")
        return cls(wanted, host or "127.0.0.1", port)

    @contextmanager
    def open(
        self, engine: Engine, registry: Registry, notes: LiveNotes | None, takes: LiveTakes | None = None
    ) -> Iterator[None]:
        """Serve the page while this lasts, and say where it is. RtsepError when it cannot be."""
        if not self.wanted:
            yield
            return
        from rtsep.console.access import qr_code
        from rtsep.console.live import Console

        def report(text: str) -> None:
            common.talk(f"Note: {text}")

        console = Console(engine, registry, notes, takes, host=self.host, port=self.port, report=report)
        with console:
            common.talk(f"Console  {console.link}")
            if console.token is not None:
                common.talk("         Whoever has this link can move the faders.")
                if sys.stderr.isatty() and (picture := qr_code(console.link)):
                    common.talk(picture)
            yield


def console_options(function: F) -> F:
    """Add ``--console --console-host --console-port``, whose values `ConsoleOptions.take_from` takes."""
    for option in (
        click.option("--console-port", type=click.IntRange(1, 65535), metavar="PORT", help="Where the page is served."),
        click.option(
            "--console-host",
            metavar="ADDRESS",
            help="Let other machines open the page, 0.0.0.0 for all; the link then holds a token.",
        ),
        click.option(
            "--console", is_flag=True, help="Serve a page with faders, meters, notes and spectra; see the link."
        ),
    ):
        function = option(function)
    return function
