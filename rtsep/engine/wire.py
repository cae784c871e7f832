"""Our own processes and the messages between them: pickled dictionaries behind a length, over pipes.

Both ends are our own processes on one machine, connected by pipes nobody else can open; pickle is safe there.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from rtsep import errors
from rtsep.errors import RtsepError

_LENGTH = struct.Struct("<I")
LONGEST = 16 << 20


class Wire:
    """One direction or both.

    Parameters
    ----------
    reader, writer : binary files, unbuffered or flushed here
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer
        self._lock = threading.Lock()

    def send(self, kind: str, **values: Any) -> bool:
        """Send one message; False when the other side is gone. Any thread; may block while the pipe is full."""
        data = pickle.dumps({"kind": kind, **values})
        try:
            with self._lock:
                self._writer.write(_LENGTH.pack(len(data)) + data)
                self._writer.flush()
        except (OSError, ValueError):
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, blocking; None at the end of the connection."""
        head = self._exactly(_LENGTH.size)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > LONGEST:
            return None
        data = self._exactly(length)
        if data is None:
            return None
        message: dict[str, Any] = pickle.loads(data)
        return message

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                part = self._reader.read(count - len(data))
            except (OSError, ValueError):
                return None
            if not part:
                return None
            data += part
        return data


def start_child(module: str) -> tuple[subprocess.Popen[bytes], Wire]:
    """Start one of our own processes, ``python -m module``, with a wire to its stdin and stdout. OSError.

    A session of its own keeps the terminal's Ctrl+C away from it; its stdin ends when we do.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return process, Wire(process.stdout, process.stdin)


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Kill a process if it still runs, wait for its end, and close its pipes. More than once is fine."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()


def child_environment() -> dict[str, str]:
    """The environment for our processes: no JACK server is started by asking, and the package is found."""
    environment = dict(os.environ)
    environment.setdefault("JACK_NO_START_SERVER", "1")
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (root, environment.get("PYTHONPATH", "")) if p)
    return environment


def error_of(message: dict[str, Any], otherwise: type[RtsepError] = errors.EngineError) -> RtsepError:
    """Return the error that a message of kind ``error`` tells of; `otherwise` where its type is unknown."""
    kind = getattr(errors, message["type"], otherwise)
    error: RtsepError = kind(message["message"])
    if message.get("details"):
        error.add_note(message["details"])
    return error
