"""The console's page in a real browser."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rtsep.console.live import Console

PATIENCE_S = 30.0


@contextlib.contextmanager
def opened(browser: Any, console: Console, *, quiet: bool = True, **look: Any) -> Iterator[Any]:
    """Open the page of a console; an error in its scripts is an error of the test.

    With `quiet` so is what the browser itself complains of, as lost connections.
    """
    context = browser.new_context(**look)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    if quiet:
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(console.link)
    fader(page).wait_for()
    yield page
    context.close()
    assert not errors


def fader(page: Any, stem: str = "vocals") -> Any:
    """Return the fader of a stem."""
    return page.get_by_role("slider", name=f"{stem} gain")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)
