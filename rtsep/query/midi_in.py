"""Notes that somebody plays: a MIDI input port as a queue of beginnings and ends."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_NOTE_OFF, _NOTE_ON, _CONTROL = 0x80, 0x90, 0xB0
_SUSTAIN, _ALL_SOUND_OFF, _ALL_NOTES_OFF = 64, 120, 123
_PERCUSSION = 9


@dataclass(frozen=True)
class PlayedNote:
    """A key that went down or came up.

    Attributes
    ----------
    on : bool
    pitch : int
        MIDI note number.
    velocity : int
        1 to 127; 0 for an end.
    """

    on: bool
    pitch: int
    velocity: int = 0


class Keys:
    """What MIDI messages do to keys: sustain pedal, all notes off, note-ons of velocity 0. Channel 10 is left out."""

    def __init__(self) -> None:
        self._down: set[int] = set()
        self._sustained: set[int] = set()
        self._pedal = False

    def take(self, message: Sequence[int]) -> list[PlayedNote]:
        """Return what a message begins and ends."""
        if len(message) < 3 or (message[0] & 0x0F) == _PERCUSSION:
            return []
        kind, number, value = message[0] & 0xF0, message[1], message[2]
        if kind == _NOTE_ON and value:
            ended = [PlayedNote(False, number)] if number in self._down | self._sustained else []
            self._down.add(number)
            self._sustained.discard(number)
            return [*ended, PlayedNote(True, number, value)]
        if kind in (_NOTE_ON, _NOTE_OFF):
            if number not in self._down:
                return []
            self._down.discard(number)
            if self._pedal:
                self._sustained.add(number)
                return []
            return [PlayedNote(False, number)]
        if kind == _CONTROL and number == _SUSTAIN:
            self._pedal = value >= 64
            return [] if self._pedal else self._end(self._sustained)
        if kind == _CONTROL and number in (_ALL_NOTES_OFF, _ALL_SOUND_OFF):
            return self._end(self._sustained) + self._end(self._down)
        return []

    def _end(self, keys: set[int]) -> list[PlayedNote]:
        ended = [PlayedNote(False, pitch) for pitch in sorted(keys)]
        keys.clear()
        return ended


class MidiInput:
    """An open MIDI input; context manager.

    Parameters
    ----------
    port : str
        ``virtual``, or part of a port's name; see ``rtsep midi list``.
    client_name : str
        What other programs see.
    listener : callable, optional
        Called with each `PlayedNote` in the port's thread, instead of queueing it.

    Attributes
    ----------
    name : str
        Of the port.

    Raises
    ------
    DeviceError
        There is no such port, or no MIDI system.
    """

    def __init__(
        self, port: str, client_name: str = "rtsep-midi", listener: Callable[[PlayedNote], object] | None = None
    ) -> None:
        from rtsep.notes.ports import open_input

        self._notes: queue.SimpleQueue[PlayedNote] = queue.SimpleQueue()
        self._give = listener or self._notes.put
        self._keys = Keys()
        self._handle, self.name, _ = open_input(port, client_name)
        self._handle.set_callback(self._hear)

    def read(self) -> list[PlayedNote]:
        """Return what was played since the last call; without a listener."""
        notes = []
        while not self._notes.empty():
            notes.append(self._notes.get_nowait())
        return notes

    def close(self) -> None:
        """Close the port."""
        self._handle.cancel_callback()
        self._handle.delete()

    def __enter__(self) -> MidiInput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear(self, event: tuple[Sequence[int], float], _data: Any = None) -> None:
        for note in self._keys.take(event[0]):
            self._give(note)
