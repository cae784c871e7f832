"""Messages to another process from a thread of their own: whoever hands one over never waits for the pipe."""

from __future__ import annotations

import threading
from typing import Any

from rtsep.engine.wire import Wire

_MOST = 2000


class Courier:
    """Sends over a wire in the order of handing over; values by key replace those that have not gone out yet.

    Parameters
    ----------
    wire : Wire
    kind : str
        Of the messages that carry values, as ``values={key: value}``.

    Attributes
    ----------
    dropped : int
        Messages beyond 2000 waiting ones, for a receiver that takes none: the oldest are dropped.

    Notes
    -----
    Any thread may hand over; nobody waits longer than it takes to append to a list.
    """

    def __init__(self, wire: Wire, kind: str = "values") -> None:
        self._wire, self._kind = wire, kind
        self._messages: list[tuple[str, dict[str, Any]]] = []
        self._values: dict[Any, Any] = {}
        self._news = threading.Condition()
        self._ended = False
        self.dropped = 0
        threading.Thread(target=self._run, name="courier", daemon=True).start()

    def put(self, kind: str, **values: Any) -> None:
        """Hand over one message."""
        with self._news:
            if len(self._messages) >= _MOST:
                del self._messages[0]
                self.dropped += 1
            self._messages.append((kind, values))
            self._news.notify()

    def put_value(self, key: Any, value: Any) -> None:
        """Hand over a value; only the last one of a key matters."""
        with self._news:
            self._values[key] = value
            self._news.notify()

    def end(self) -> None:
        """Send what is waiting and no more."""
        with self._news:
            self._ended = True
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                while not (self._messages or self._values or self._ended):
                    self._news.wait()
                messages, self._messages = self._messages, []
                values, self._values = self._values, {}
                ended = self._ended
            for kind, fields in messages:
                if not self._wire.send(kind, **fields):
                    return
            if values and not self._wire.send(self._kind, values=values):
                return
            if ended:
                return
