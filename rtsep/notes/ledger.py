"""What sounds at the receiver, and the bytes that end it.

Every note-on goes through the `Ledger`; whatever it says sounds is ended by explicit note-offs, because many receivers
ignore "all notes off". `Marks` is the part that outlives the process: a killed one leaves behind what must be ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rtsep.notes.messages import BEND_CENTRE, CHANNELS, MPE_BEND_RANGE, NOTES, NoteMessage, StripMidi

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, PRESSURE, BEND = 0x80, 0x90, 0xB0, 0xC0, 0xD0, 0xE0
SUSTAIN, SOUND_OFF, RESET, NOTES_OFF = 64, 120, 121, 123
RELEASE_VELOCITY = 64

MARKS = CHANNELS * NOTES + CHANNELS
"""Doubles a `Marks` needs."""


def note_off(channel: int, note: int) -> bytes:
    """Channel 0 to 15. A real note-off: a note-on of velocity 0 would mean the same and carry no release velocity."""
    return bytes((NOTE_OFF | channel, note, RELEASE_VELOCITY))


def control(channel: int, number: int, value: int) -> bytes:
    """Return a control change; channel 0 to 15."""
    return bytes((CONTROL | channel, number, value))


def bend(channel: int, value: int) -> bytes:
    """Return a pitch bend; channel 0 to 15, value 0 to 16383, 8192 in the middle."""
    return bytes((BEND | channel, value & 127, value >> 7))


def registered(channel: int, number: int, value: int) -> list[bytes]:
    """Set a registered parameter (RPN) and leave none selected; channel 0 to 15."""
    return [
        control(channel, 101, 0),
        control(channel, 100, number),
        control(channel, 6, value),
        control(channel, 101, 127),
        control(channel, 100, 127),
    ]


class Marks:
    """What the receiver may be holding, in memory that a killed process leaves to the next.

    A note is marked before its note-on is sent. After its note-off was sent the mark holds that time, since a message a
    driver took may be lost when the process dies at once: `suspects` counts it among the sounding ones for a while.

    Parameters
    ----------
    memory : memoryview of float64, optional
        `MARKS` values, zero at first; private memory when left out.
    """

    def __init__(self, memory: memoryview[float] | None = None) -> None:
        self._cells: memoryview[float] = memory if memory is not None else memoryview(bytearray(8 * MARKS)).cast("d")
        if len(self._cells) != MARKS:
            raise ValueError(f"marks need {MARKS} doubles; got {len(self._cells)}")

    def sending(self, message: bytes) -> None:
        """Call before a message is handed to the driver."""
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        if kind == NOTE_ON and message[2]:
            self._cells[channel * NOTES + message[1]] = math.inf
        if kind in (NOTE_ON, BEND):
            self._cells[CHANNELS * NOTES + channel] = 1.0

    def sent(self, message: bytes, now: float) -> None:
        """Call after the driver took a message, with the time."""
        cell = (message[0] & 0x0F) * NOTES + message[1]
        if message[0] & 0xF0 == NOTE_OFF and self._cells[cell]:
            self._cells[cell] = now

    def suspects(self, since: float) -> list[tuple[int, int]]:
        """Return ``(channel 0 to 15, note)`` of what sounds, or was ended later than `since`."""
        cells = self._cells
        return [divmod(cell, NOTES) for cell in range(CHANNELS * NOTES) if cells[cell] and cells[cell] > since]

    def hold(self, notes: Iterable[tuple[int, int]]) -> None:
        """Mark notes as sounding, until their note-off is sent: `suspects` stay so when this process is killed, too."""
        for channel, note in notes:
            self._cells[channel * NOTES + note] = math.inf

    def sounding(self) -> list[tuple[int, int]]:
        """Return ``(channel 0 to 15, note)`` of what was begun and not ended."""
        return [pair for pair in self.suspects(-math.inf) if self._cells[pair[0] * NOTES + pair[1]] == math.inf]

    def used(self) -> list[int]:
        """Channels, 0 to 15, on which a note or a bend was sent."""
        return [channel for channel in range(CHANNELS) if self._cells[CHANNELS * NOTES + channel]]

    def clear(self) -> None:
        """Forget everything: the receiver is another one."""
        for cell in range(MARKS):
            self._cells[cell] = 0.0


@dataclass
class _Voice:
    channel: int
    note: int


class Ledger:
    """Turns note messages into MIDI bytes and knows what sounds. Pure: no clock, no port.

    Parameters
    ----------
    strips : sequence of StripMidi
    marks : Marks, optional
        Channels named there count as used, and notes there are ended by `release` and `panic`.

    Notes
    -----
    Not thread-safe. What the methods return must be sent whole and in order; whoever sends it tells the `Marks`.
    """

    def __init__(self, strips: Sequence[StripMidi], marks: Marks | None = None) -> None:
        self._strips = list(strips)
        self._marks = marks or Marks()
        self._voices: list[dict[int, _Voice]] = [{} for _ in self._strips]
        self._counts: Counter[tuple[int, int]] = Counter()
        self._bends: dict[int, int] = {}
        # MPE: member channels by the time they became free, the longest free first.
        self._free: list[list[int]] = [[c - 1 for c in strip.members] for strip in self._strips]
        self._used: set[int] = set(self._marks.used())

    @property
    def strips(self) -> tuple[StripMidi, ...]:
        return tuple(self._strips)

    def sounding(self) -> dict[tuple[int, int], int]:
        """Return how many voices hold each ``(channel 0 to 15, note)`` that sounds."""
        return dict(self._counts)

    def messages(self, message: NoteMessage) -> list[bytes]:
        """Return what to send for a message; nothing for one that changes nothing."""
        if message.kind == "on":
            return self._on(message)
        if message.kind == "off":
            return self._end(message.stem, message.pitch)
        if message.kind == "bend":
            return self._bend(message)
        return self._press(message)

    # --- notes --------------------------------------------------------------------------------------------------------

    def _on(self, message: NoteMessage) -> list[bytes]:
        stem, strip = message.stem, self._strips[message.stem]
        note = message.pitch + strip.transpose
        if not 0 <= note < NOTES:
            return []
        voices = self._voices[stem]
        out = self._end(stem, message.pitch)
        while len(voices) >= strip.voices:
            out += self._end(stem, next(iter(voices)))
        channel = self._free[stem].pop(0) if strip.mpe_channels else strip.channel - 1
        if self._counts[channel, note]:  # of another strip on the same channel
            out.append(note_off(channel, note))
        self._counts[channel, note] += 1
        voices[message.pitch] = _Voice(channel, note)
        self._used.add(channel)
        if strip.bends:
            out += self._bent(channel, message.bend, strip)
        out.append(bytes((NOTE_ON | channel, note, strip.velocity(message.velocity))))
        return out

    def _end(self, stem: int, pitch: int) -> list[bytes]:
        voice = self._voices[stem].pop(pitch, None)
        if voice is None:
            return []
        if self._strips[stem].mpe_channels:
            self._free[stem].append(voice.channel)
        key = (voice.channel, voice.note)
        self._counts[key] -= 1
        if self._counts[key] > 0:
            return []
        del self._counts[key]
        return [note_off(*key)]

    def _bend(self, message: NoteMessage) -> list[bytes]:
        strip = self._strips[message.stem]
        if not strip.bends:
            return []
        voice = self._voices[message.stem].get(message.pitch)
        return [] if voice is None else self._bent(voice.channel, message.bend, strip)

    def _bent(self, channel: int, semitones: float, strip: StripMidi) -> list[bytes]:
        whole = MPE_BEND_RANGE if strip.mpe_channels else strip.bend_range
        value = max(0, min(2 * BEND_CENTRE - 1, BEND_CENTRE + round(BEND_CENTRE * semitones / whole)))
        if value == self._bends.get(channel, BEND_CENTRE):
            return []
        self._bends[channel] = value
        return [bend(channel, value)]

    def _press(self, message: NoteMessage) -> list[bytes]:
        strip = self._strips[message.stem]
        voices = self._voices[message.stem]
        if not voices:
            return []
        voice = voices.get(message.pitch) if strip.mpe_channels else next(iter(voices.values()))
        return [] if voice is None else [bytes((PRESSURE | voice.channel, message.velocity))]

    # --- all of them --------------------------------------------------------------------------------------------------

    def release(self, stem: int | None = None) -> list[bytes]:
        """End every note of one strip, or of all: note-offs, then pedal up, all notes off and bends to the centre.

        The controllers go to channels that were used and, for one strip, on which no other strip sounds.
        """
        if stem is None:
            out = self._end_all(self._marks.sounding())
            channels: Iterable[int] = self._used
        else:
            out = [message for pitch in list(self._voices[stem]) for message in self._end(stem, pitch)]
            held = {voice.channel for voices in self._voices for voice in voices.values()}
            channels = self._used.intersection(c - 1 for c in self._strips[stem].channels) - held
        for channel in sorted(channels):
            out += [control(channel, SUSTAIN, 0), control(channel, NOTES_OFF, 0), self._centre(channel)]
        return out

    def panic(self, *, every_note: bool = False, suspects: Iterable[tuple[int, int]] = ()) -> list[bytes]:
        """End whatever may sound: note-offs first, then five messages on all 16 channels.

        Parameters
        ----------
        every_note : bool
            A note-off for all 128 notes of every channel that was used since the last time, not only for those known
            to sound.
        suspects : iterable of (channel 0 to 15, note)
            Notes that get a note-off as well, such as `Marks.suspects`.
        """
        more = [*self._marks.sounding(), *suspects]
        if every_note:
            more += [(channel, note) for channel in sorted(self._used) for note in range(NOTES)]
            self._used.clear()
        out = self._end_all(more)
        for channel in range(CHANNELS):
            out += [control(channel, number, 0) for number in (SUSTAIN, NOTES_OFF, SOUND_OFF, RESET)]
            out.append(self._centre(channel))
        return out

    def use_all_channels(self) -> None:
        """Let the next `panic` sweep all 16 channels."""
        self._used.update(range(CHANNELS))

    def _end_all(self, more: Iterable[tuple[int, int]]) -> list[bytes]:
        out = [note_off(*key) for key in dict.fromkeys([*self._counts, *more])]
        self._counts.clear()
        for stem, voices in enumerate(self._voices):
            for voice in voices.values():
                if self._strips[stem].mpe_channels:
                    self._free[stem].append(voice.channel)
            voices.clear()
        return out

    def _centre(self, channel: int) -> bytes:
        self._bends.pop(channel, None)
        return bend(channel, BEND_CENTRE)

    # --- strips -------------------------------------------------------------------------------------------------------

    def setup(self, stem: int | None = None) -> list[bytes]:
        """Return programs, bend ranges and MPE zones of one strip or of all; may be sent again at any time."""
        out: list[bytes] = []
        for strip in self._strips if stem is None else [self._strips[stem]]:
            manager = strip.channel - 1
            if strip.mpe_channels:
                out += registered(manager, 6, strip.mpe_channels)  # MPE configuration message
                for member in strip.members:
                    out += registered(member - 1, 0, MPE_BEND_RANGE)
            elif strip.mono:
                out += registered(manager, 0, strip.bend_range)
            if strip.program is not None:
                out += [bytes((PROGRAM | (channel - 1), strip.program)) for channel in strip.channels]
        return out

    def set_strip(self, stem: int, strip: StripMidi) -> list[bytes]:
        """Change a strip: everything of it is released first."""
        out = self.release(stem)
        old = self._strips[stem]
        if old.mpe_channels and (old.mpe_channels, old.channel) != (strip.mpe_channels, strip.channel):
            out += registered(old.channel - 1, 6, 0)  # the zone ends
        self._strips[stem] = strip
        self._free[stem] = [c - 1 for c in strip.members]
        return out + self.setup(stem)
