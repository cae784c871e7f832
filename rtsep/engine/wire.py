"""Messages between control and engine process: pickled dictionaries behind a length, over pipes.

Both ends are our own processes on one machine, connected by pipes nobody else can open; pickle is safe there.
"""

from __future__ import annotations

import pickle
import struct
import threading
from typing import IO, Any

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
