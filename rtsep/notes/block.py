"""Memory that MIDI output and port process share, and that a killed port process leaves to the next one.

A file mapped by both (`rtsep.mapped`). Single elements of 8 bytes; only the port process writes, one at a time.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from rtsep.mapped import make_mapped_file, map_file
from rtsep.notes.ledger import MARKS, Marks

COUNTERS = ("sent", "late", "dropped", "coalesced")
_TEXT = 8192
_CELLS = 2 + len(COUNTERS)  # heartbeat, which text, counters
_BYTES = 8 * (_CELLS + MARKS) + 2 * _TEXT


class MidiBlock:
    """The mapped block.

    Parameters
    ----------
    path : path, optional
        Of an existing block to attach to; a new one is made when left out.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = make_mapped_file("rtsep-midi-", _BYTES) if path is None else Path(path)
        self._map = map_file(self.path)
        whole = memoryview(self._map)
        self._heartbeat = whole[:8].cast("d")
        self._numbers = whole[8 : 8 * _CELLS].cast("q")
        self.marks = Marks(whole[8 * _CELLS : 8 * (_CELLS + MARKS)].cast("d"))
        self._texts = whole[8 * (_CELLS + MARKS) :]

    @property
    def heartbeat_s(self) -> float:
        """When the port process last went round its loop, in seconds of `time.monotonic`; 0.0 before."""
        return self._heartbeat[0]

    @heartbeat_s.setter
    def heartbeat_s(self, now: float) -> None:
        self._heartbeat[0] = now

    def count(self, name: str, value: int) -> None:
        """Add to a counter of `COUNTERS`."""
        if value:
            self._numbers[1 + COUNTERS.index(name)] += value

    def counter(self, name: str) -> int:
        """Return a counter of `COUNTERS`; they go on counting when the process is a new one."""
        return self._numbers[1 + COUNTERS.index(name)]

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Store a small JSON document. Two places take turns, so that a kill in the middle leaves the older one."""
        data = json.dumps(facts).encode()
        if len(data) + 4 > _TEXT:
            return
        place = 1 - self._numbers[0] % 2
        self._texts[place * _TEXT : place * _TEXT + 4 + len(data)] = len(data).to_bytes(4, "little") + data
        self._numbers[0] = place

    def facts(self) -> dict[str, Any]:
        """Return the document; empty before the first."""
        start = self._numbers[0] % 2 * _TEXT
        length = int.from_bytes(self._texts[start : start + 4], "little")
        with contextlib.suppress(ValueError):
            found = json.loads(bytes(self._texts[start + 4 : start + 4 + length]))
            if isinstance(found, dict):
                return found
        return {}

    def unlink(self) -> None:
        """Remove the name; mappings stay usable."""
        with contextlib.suppress(OSError):
            self.path.unlink()
