"""What goes to the MIDI side: which channel a stem has, and the notes it plays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rtsep.errors import UsageError

PERCUSSION_CHANNEL = 10
CHANNELS, NOTES = 16, 128
BEND_CENTRE = 8192
MPE_BEND_RANGE = 48
_DRUMS = ("drum", "percussion", "beat kit")

Kind = Literal["on", "off", "bend", "pressure"]


@dataclass(frozen=True)
class StripMidi:
    """How one stem is played over MIDI.

    Parameters
    ----------
    name : str
        Of the stem; not empty.
    channel : int
        1 to 16; 10 is percussion. With `mpe_channels` the manager channel of the zone: 1 (lower) or 16 (upper).
    program : int, optional
        General MIDI program from 0 to 127, sent when the port opens and when something connects to it; None sends none.
    transpose : int
        Semitones, -127 to 127. Notes that leave 0 to 127 by it are not played.
    velocity_curve : float
        Exponent, 0.1 to 10: ``127 * (velocity / 127) ** velocity_curve``. 1 changes nothing, less is louder.
    bend_range : int
        Semitones a full pitch bend means, 1 to 96. Sent to the receiver (RPN 0) where bends are played.
    mono : bool
        One note at a time, and pitch bends are played. Without it (and without MPE) bends are left out: they would bend
        every note of the channel.
    polyphony : int
        Notes that may sound at once, 1 to 128; one more ends the oldest. `mono` means 1.
    mpe_channels : int
        0, or the member channels of an MPE zone, 1 to 15: each note gets a channel, and a bend, of its own.

    Raises
    ------
    UsageError
        A value is outside what is said above.
    """

    name: str
    channel: int
    program: int | None = None
    transpose: int = 0
    velocity_curve: float = 1.0
    bend_range: int = 2
    mono: bool = False
    polyphony: int = 16
    mpe_channels: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise UsageError("The name of a MIDI strip is empty; give it the name of its stem.")
        who = f"MIDI of {self.name!r}"
        _check(who, "channel", self.channel, 1, CHANNELS)
        if self.program is not None:
            _check(who, "program", self.program, 0, 127)
        _check(who, "transpose", self.transpose, -127, 127)
        if not 0.1 <= self.velocity_curve <= 10:
            raise UsageError(f"{who}: velocity_curve must be 0.1 to 10; got {self.velocity_curve}.")
        _check(who, "bend_range", self.bend_range, 1, 96)
        _check(who, "polyphony", self.polyphony, 1, NOTES)
        _check(who, "mpe_channels", self.mpe_channels, 0, CHANNELS - 1)
        if self.mpe_channels and self.channel not in (1, CHANNELS):
            raise UsageError(f"{who}: an MPE zone is managed on channel 1 or 16; got channel {self.channel}.")
        if self.mpe_channels and self.mono:
            raise UsageError(f"{who}: mono and mpe_channels={self.mpe_channels} exclude each other; choose one.")

    @property
    def members(self) -> tuple[int, ...]:
        """The channels notes are played on, 1 to 16."""
        if not self.mpe_channels:
            return (self.channel,)
        if self.channel == 1:
            return tuple(range(2, 2 + self.mpe_channels))
        return tuple(range(CHANNELS - 1, CHANNELS - 1 - self.mpe_channels, -1))

    @property
    def channels(self) -> tuple[int, ...]:
        """All channels it uses, 1 to 16."""
        return (self.channel, *self.members) if self.mpe_channels else (self.channel,)

    @property
    def bends(self) -> bool:
        """Whether pitch bends are played."""
        return self.mono or self.mpe_channels > 0

    @property
    def voices(self) -> int:
        """Notes that may sound at once."""
        return 1 if self.mono else min(self.polyphony, self.mpe_channels or NOTES)

    def velocity(self, velocity: int) -> int:
        """Return a velocity, 1 to 127, after the curve."""
        return max(1, min(127, round(127.0 * math.pow(velocity / 127, self.velocity_curve))))


@dataclass(frozen=True)
class NoteMessage:
    """The beginning, the end or a change of a note.

    Parameters
    ----------
    due_s : float
        When to send it, in seconds of `time.monotonic`.
    stem : int
        Index of the strip, from 0.
    kind : {"on", "off", "bend", "pressure"}
        ``pressure`` is channel pressure, with its value in `velocity`.
    pitch : int
        MIDI note number before transposition, 0 to 127. With MPE it says which note bends.
    velocity : int
        1 to 127 for ``on``, 0 to 127 for ``pressure``; not used otherwise.
    bend : float
        Semitones from `pitch`, -96 to 96. An ``on`` carries the bend the note begins with.

    Raises
    ------
    UsageError
        A value is outside what is said above.
    """

    due_s: float
    stem: int
    kind: Kind
    pitch: int = 0
    velocity: int = 64
    bend: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"A note message is one of {', '.join(get_args(Kind))}; got {self.kind!r}.")
        if not abs(self.due_s) < 1e12:
            raise UsageError(f"due_s must be seconds of time.monotonic(); got {self.due_s}.")
        if self.stem < 0:
            raise UsageError(f"The stem of a note message must be 0 or more; got {self.stem}.")
        _check("A note message", "pitch", self.pitch, 0, NOTES - 1)
        if self.kind in ("on", "pressure"):
            _check(f"A note message ({self.kind})", "velocity", self.velocity, int(self.kind == "on"), 127)
        if not abs(self.bend) <= 96:
            raise UsageError(f"A note message: bend must be -96 to 96 semitones; got {self.bend}.")

    def pack(self) -> tuple[Any, ...]:
        """Return the fields in order, which is what crosses to the port process."""
        return (self.due_s, self.stem, self.kind, self.pitch, self.velocity, self.bend)


def default_strips(stems: Sequence[str]) -> tuple[StripMidi, ...]:
    """Give each stem a channel and a General MIDI program: drums channel 10, the others 1, 2, ... by order.

    Parameters
    ----------
    stems : sequence of str
        Names; up to 15 that are not drums.

    Raises
    ------
    UsageError
        There are more pitched stems than channels, or a name is empty.
    """
    from rtsep.query.smf import program_for

    free = [channel for channel in range(1, CHANNELS + 1) if channel != PERCUSSION_CHANNEL]
    pitched = [name for name in stems if not _is_drums(name)]
    if len(pitched) > len(free):
        raise UsageError(
            f"{len(pitched)} stems with pitch do not fit on one MIDI port, which has {len(free)} channels beside "
            "percussion's. Leave some out."
        )
    return tuple(
        StripMidi(name, PERCUSSION_CHANNEL)
        if _is_drums(name)
        else StripMidi(name, free.pop(0), program=program_for(name))
        for name in stems
    )


def check_strips(strips: Sequence[StripMidi]) -> None:
    """Raise UsageError when an MPE zone has a channel that another strip plays on."""
    for index, strip in enumerate(strips):
        for other in strips[:index]:
            both = sorted(set(strip.channels) & set(other.channels))
            if both and (strip.mpe_channels or other.mpe_channels):
                zone, guest = (strip, other) if strip.mpe_channels else (other, strip)
                raise UsageError(
                    f"Channel {both[0]} belongs to the MPE zone of {zone.name!r} and to {guest.name!r}; give the zone "
                    "fewer channels or the other strip a channel outside it."
                )


def _is_drums(name: str) -> bool:
    return any(word in name.casefold() for word in _DRUMS)


def _check(who: str, what: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise UsageError(f"{who}: {what} must be {lowest} to {highest}; got {value!r}.")
