"""What an instrument at the other end would hear."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field


@dataclass
class Heard:
    """Messages in the order they came, and what sounds after them: only explicit note-offs end a note."""

    messages: list[bytes] = field(default_factory=list)
    sounding: set[tuple[int, int]] = field(default_factory=set)

    @classmethod
    def of(cls, messages: Iterable[bytes]) -> Heard:
        heard = cls()
        for data in messages:
            heard.messages.append(data)
            kind, key = data[0] & 0xF0, (data[0] & 15, data[1])
            if kind == 0x90 and data[2]:
                heard.sounding.add(key)
            elif kind in (0x80, 0x90):
                heard.sounding.discard(key)
        return heard

    def notes(self, kind: int) -> Iterator[tuple[int, int]]:
        """``(channel from 0, note)`` of all note-ons (0x90) or note-offs (0x80)."""
        return ((data[0] & 15, data[1]) for data in self.messages if data[0] & 0xF0 == kind)


def wait_for(condition: Callable[[], object], seconds: float = 10.0, what: str = "") -> None:
    """Wait until something is true; TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)
