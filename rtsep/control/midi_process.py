"""The process that listens to MIDI controllers: ``python -m rtsep.control.midi_process``, started by `MidiIn` alone.

python-rtmidi hangs with the interpreter locked when its JACK server dies, so it may take this process down and no
other. What it hears goes up the pipe, the last value of each control every few milliseconds; beats go up in between.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from rtsep.engine.wire import Wire
from rtsep.errors import DeviceLostError, RtsepError
from rtsep.notes.jack import JackWatch, Reconnector
from rtsep.notes.ports import open_input

PORT_NAME = "control"
BEAT_S = 0.25
_TURN_S = 0.004
_HUNG_S = 5
"""After this long without a turn of the loop the kernel ends this process, whoever else has gone."""
_MOST = 4096
_NOTES_PER_TURN = 256
_LONGEST = 3
_OLD_NAME_S = 1.0


class MidiProcess:
    """One run, from configuration to the end of the pipe."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._heard: collections.deque[bytes] = collections.deque(maxlen=_MOST)
        self._arrived = threading.Event()
        self._over = threading.Event()
        self._dropped = 0
        self._jack_port = ""
        self._sources: Reconnector | None = None

    def run(self) -> int:
        """Return the exit code. Sends ``ready``, ``heard`` and ``beat``; ``error`` if it has to end."""
        first = self._wire.receive()
        if first is None or first["kind"] != "configure":
            return 1
        self._guard()
        try:
            handle, name, watch = self._open(first)
        except RtsepError as error:
            self._wire.send("error", type=type(error).__name__, message=str(error), code=error.exit_code)
            return error.exit_code
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        handle.set_callback(self._hear)
        self._wire.send("ready", name=name)
        try:
            self._loop(watch)
        except DeviceLostError as error:
            self._wire.send("error", type=type(error).__name__, message=str(error), code=error.exit_code)
            return error.exit_code
        handle.close_port()
        return 0

    def _open(self, first: dict[str, Any]) -> tuple[Any, str, JackWatch | None]:
        """Open the port; on JACK with the name and the connections of the process whose place this one takes."""
        watch, before = self._watch(first["client_name"]), first["before"]
        taken: list[str] = []
        try:
            if watch is not None:
                if before:
                    watch.wait_until_gone(before["jack_port"], _OLD_NAME_S)
                taken = watch.ports(f":{PORT_NAME}$")
            handle, name, api = open_input(first["port"], first["client_name"], PORT_NAME)
        except RtsepError:
            if watch is not None:
                watch.close()
            raise
        if watch is not None and api != "JACK":
            watch.close()
            watch = None
        if watch is not None:
            mine = [port for port in watch.ports(f":{PORT_NAME}$") if port not in taken]
            self._jack_port = mine[0] if mine else f"{first['client_name']}:{PORT_NAME}"
            wanted = before.get("sources", []) + before.get("missing", [])
            self._sources = Reconnector(watch, self._jack_port, wanted, listens=True)
            if first["port"] == "virtual":
                name = self._jack_port
        return handle, name, watch

    def _beat(self) -> None:
        facts: dict[str, Any] = {}
        if self._sources is not None:
            present = self._sources.look()
            facts = {"jack_port": self._jack_port, "sources": present, "missing": self._sources.missing}
        self._wire.send("beat", dropped=self._dropped, facts=facts)

    def _loop(self, watch: JackWatch | None) -> None:
        beat_at = 0.0
        while not self._over.is_set():
            self._guard()
            if self._arrived.wait(BEAT_S):
                time.sleep(_TURN_S)  # what a fast hand sends meanwhile is one value
                self._arrived.clear()
                messages, lost = last_values(self._take())
                self._dropped += lost
                if messages:
                    self._wire.send("heard", messages=messages)
            if watch is not None and watch.server_gone:
                raise DeviceLostError("The JACK server ended")
            now = time.monotonic()
            if now - beat_at >= BEAT_S:
                beat_at = now
                self._beat()

    def _take(self) -> list[bytes]:
        found = []
        while self._heard:
            found.append(self._heard.popleft())
        return found

    def _hear(self, event: tuple[Sequence[int], float], _data: Any = None) -> None:
        """In rtmidi's thread."""
        if len(event[0]) <= _LONGEST:
            if len(self._heard) == _MOST:
                self._dropped += 1
            self._heard.append(bytes(event[0]))
            self._arrived.set()

    def _listen(self) -> None:
        while self._wire.receive() is not None:
            pass
        self._over.set()
        self._arrived.set()

    @staticmethod
    def _guard() -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, _HUNG_S)  # caught by nobody: it ends this process

    @staticmethod
    def _watch(client_name: str) -> JackWatch | None:
        with contextlib.suppress(OSError, AttributeError):
            return JackWatch(f"{client_name}-watch")
        return None


def last_values(messages: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Keep the last value of each controller, wheel and pressure, in the order of these; and all notes, up to a limit.

    Returns
    -------
    list of bytes, int
        What is left, and how many notes were too many.
    """
    kept: dict[object, bytes] = {}
    notes = lost = 0
    for i, message in enumerate(messages):
        kind = message[0] & 0xF0 if message else 0
        if kind in (0x80, 0x90):
            notes += 1
            if notes > _NOTES_PER_TURN:
                lost += 1
                continue
            key: object = i
        else:
            key = message[:2] if kind == 0xB0 else message[:1]
        kept.pop(key, None)
        kept[key] = message
    return list(kept.values()), lost


def main() -> None:
    """Take the pipes, run, and end without waiting for a driver that hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for whoever started us
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    code = 1
    try:
        code = MidiProcess(Wire(sys.stdin.buffer, events)).run()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
