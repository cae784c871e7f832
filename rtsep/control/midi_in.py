"""A MIDI input in a process of its own, started again when it dies."""

from __future__ import annotations

import collections
import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rtsep.engine.wire import Wire, error_of, start_child
from rtsep.errors import MidiSystemError, RtsepError, UsageError
from rtsep.notes.ports import check_name

_START_S, _STOP_S = 10.0, 2.0
_SILENT_S = 3.0
"""A process that has not said anything for so long hangs."""
_AGAIN_S = 1.0
_LOOK_S = 0.05


class _Child:
    """One process and the thread that hears it."""

    def __init__(self, port: str, client_name: str, take: Callable[[bytes], object], before: dict[str, Any]) -> None:
        self.ready: dict[str, Any] | None = None
        self.error: RtsepError | None = None
        self.dropped = 0
        self.facts = before
        """Of its port on JACK, for the process that may have to take its place."""
        self.heard_at = time.monotonic()
        self._take = take
        self._talk: collections.deque[str] = collections.deque(maxlen=10)
        self.process: subprocess.Popen[bytes]
        self.wire: Wire
        self.process, self.wire = start_child("rtsep.control.midi_process")
        self._listener = threading.Thread(target=self._listen, name="midi-in", daemon=True)
        self._listener.start()
        threading.Thread(target=self._overhear, name="midi-in-talk", daemon=True).start()
        self.wire.send("configure", port=port, client_name=client_name, before=before)

    def wait_ready(self, over: threading.Event) -> None:
        """Wait for the open port. RtsepError as the process found it."""
        deadline = time.monotonic() + _START_S
        while self.ready is None and self.process.poll() is None and time.monotonic() < deadline:
            if over.wait(_LOOK_S / 5):
                break
        if self.ready is not None:
            return
        # It may have ended itself before we lost patience.
        hangs = self.process.poll() is None or self.process.poll() == -getattr(signal, "SIGALRM", 0)
        self.end()
        if self.ready is None:
            raise self.error or MidiSystemError(
                f"The MIDI system did not answer within {_START_S:.0f} s. Restart the JACK server, or unset "
                "JACK_DEFAULT_SERVER."
                if hangs
                else f"The process that listens to MIDI died. {' '.join(self._talk)[-300:]} See: rtsep doctor"
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and time.monotonic() - self.heard_at < _SILENT_S

    def end(self) -> None:
        """Let it go: kindly, if it can."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(_STOP_S if self.alive else 0.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join(1.0)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.process.stdout.close()  # type: ignore[union-attr]

    def _listen(self) -> None:
        while (message := self.wire.receive()) is not None:
            self.heard_at = time.monotonic()
            if message["kind"] == "heard":
                for data in message["messages"]:
                    self._take(data)
            elif message["kind"] == "beat":
                self.dropped, self.facts = message["dropped"], message["facts"]
            elif message["kind"] == "ready":
                self.ready = message
            elif message["kind"] == "error":
                self.error = error_of(message, MidiSystemError)

    def _overhear(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream, contextlib.suppress(OSError, ValueError):
            for line in stream:
                self._talk.append(line.decode(errors="replace").strip())


class MidiIn:
    """Hands every MIDI message of a port to a listener; context manager.

    Parameters
    ----------
    port : str
        ``virtual`` (others connect to it), or part of a port's name; see ``rtsep midi list``.
    take : callable
        ``take(message: bytes)``, in a thread of its own; such as `MidiMap.take`. Must not raise.
    report : callable, optional
        Told in a sentence when the port is lost, and when it is back.
    client_name : str
        What other programs see.

    Attributes
    ----------
    name : str
        Of the port.
    respawns : int
        Times the process had to be started again.

    Raises
    ------
    DeviceError
        There is no such port, or no MIDI system that answers.
    UsageError
        `port` is nothing to listen to.

    Notes
    -----
    When the MIDI system dies the port is opened again as soon as it is back, without end. On JACK it is then connected
    again to what it was connected to, and so it is when a controller went and comes back.
    """

    def __init__(
        self,
        port: str,
        take: Callable[[bytes], object],
        report: Callable[[str], object] | None = None,
        client_name: str = "rtsep-control",
    ) -> None:
        check_name(port)
        if port == "null" or port.startswith("log:"):
            raise UsageError(f"{port!r} is nothing to listen to; give virtual or part of a name. See: rtsep midi list")
        self._port, self._take, self._client_name = port, take, client_name
        self._report = report or (lambda text: None)
        self._over = threading.Event()
        self.respawns = 0
        self._dropped_before = 0
        self._child = self._start({})
        assert self._child.ready is not None
        self.name: str = self._child.ready["name"]
        self._watcher = threading.Thread(target=self._watch, name="midi-in-watch", daemon=True)
        self._watcher.start()

    @property
    def alive(self) -> bool:
        """Whether it listens now."""
        return not self._over.is_set() and self._child.ready is not None and self._child.alive

    @property
    def sources(self) -> list[str]:
        """JACK ports that are connected to ours; 0.25 s old, empty elsewhere."""
        return list(self._child.facts.get("sources", []))

    @property
    def missing(self) -> list[str]:
        """JACK ports that were, and are connected again when they are back."""
        return list(self._child.facts.get("missing", []))

    @property
    def dropped(self) -> int:
        """Notes and messages that were too many at once."""
        return self._dropped_before + self._child.dropped

    @property
    def pid(self) -> int:
        """Of the process that listens."""
        return self._child.process.pid

    def close(self) -> None:
        """Close the port and end the process; more than once is fine."""
        self._over.set()
        self._watcher.join(_START_S)
        self._child.end()

    def __enter__(self) -> MidiIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, before: dict[str, Any]) -> _Child:
        child = _Child(self._port, self._client_name, self._take, before)
        child.wait_ready(self._over)
        return child

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            if self._child.alive:
                continue
            self._child.end()
            why = str(self._child.error or "its process ended").rstrip(".")
            self._report(f"MIDI in {self.name} is lost ({why}); trying again.")
            self._dropped_before += self._child.dropped
            self._child.dropped, facts = 0, self._child.facts
            while not self._over.wait(_AGAIN_S):
                try:
                    self._child = self._start(facts)
                except (RtsepError, OSError):
                    continue
                self.respawns += 1
                self._report(f"MIDI in {self.name} is back.")
                break
