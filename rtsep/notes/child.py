"""A port process as its parent sees it: started, heard, ended."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Any

from rtsep.engine.wire import error_of, start_child
from rtsep.errors import MidiSystemError, RtsepError


class PortChild:
    """One port process and the threads that hear it.

    Parameters
    ----------
    configuration : dict
        What `rtsep.notes.port_process` is told first.

    Attributes
    ----------
    ready : dict or None
        What it said when its port was open.
    error : RtsepError or None
        Why it could not go on.
    ended : bool
        It has ended all notes and closed its port.

    Raises
    ------
    OSError
        The process cannot be started.
    """

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.began = time.monotonic()
        self.ready: dict[str, Any] | None = None
        self.error: RtsepError | None = None
        self.ended = False
        self._heard: collections.deque[dict[str, Any]] = collections.deque(maxlen=64)
        self._talk: collections.deque[str] = collections.deque(maxlen=20)
        self.process, self.wire = start_child("rtsep.notes.port_process")
        self._listener = threading.Thread(target=self._listen, name="midi-events", daemon=True)
        self._listener.start()
        threading.Thread(target=self._overhear, name="midi-talk", daemon=True).start()
        self.wire.send("configure", **configuration)

    def news(self) -> list[dict[str, Any]]:
        """Return what it said since the last call, apart from its beginning and its end."""
        found = []
        while self._heard:
            found.append(self._heard.popleft())
        return found

    def kill(self) -> None:
        """End it at once, and take its last words."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._listener.join(1.0)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                pipe.close()  # type: ignore[union-attr]

    def obituary(self) -> str:
        """Say how it ended."""
        code = self.process.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        last = " ".join(self._talk)[-300:]
        return f"The MIDI port process died ({how})." + (f" Its last words: {last}" if last else "")

    def _listen(self) -> None:
        while (message := self.wire.receive()) is not None:
            if message["kind"] == "ready":
                self.ready = message
            elif message["kind"] == "error":
                self.error = error_of(message, MidiSystemError)
            elif message["kind"] == "ended":
                self.ended = True
            else:
                self._heard.append(message)

    def _overhear(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream, contextlib.suppress(OSError, ValueError):
            for line in stream:
                self._talk.append(line.decode(errors="replace").strip())
