"""Which MIDI control moves which parameter: learning by touch, soft take-over, and the texts of a setup file."""

from __future__ import annotations

import collections
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from rtsep.control.parameter import Parameter
from rtsep.control.registry import Registry
from rtsep.errors import RtsepError, UsageError, suggest

ControlKind = Literal["cc", "cc14", "note", "bend", "pressure"]
Mode = Literal["pickup", "jump", "toggle", "follow"]

SOURCE = "midi"
"""Who changed it, for the subscribers of the registry."""
_NOTE_ON, _CC, _PRESSURE, _BEND = 0x90, 0xB0, 0xD0, 0xE0
_PAIR_S = 0.1
_TEXT = re.compile(r"ch(\d{1,2}) (?:(cc|note)(\d{1,3})(?:\+(\d{1,3}))?|(bend|pressure))")
_MODES: dict[str, tuple[Mode, ...]] = {
    "bool": ("toggle", "follow"),
    "choice": ("pickup", "jump", "toggle"),
    "float": ("pickup", "jump"),
}
_BITS = {"cc": 7, "note": 7, "pressure": 7, "cc14": 14, "bend": 14}


@dataclass(frozen=True)
class MidiControl:
    """One knob, fader, pad or wheel, by what it sends.

    Parameters
    ----------
    kind : {"cc", "cc14", "note", "bend", "pressure"}
        ``cc14`` is a pair of controllers, 0 to 31 and the one 32 above it for the lower seven bits.
    channel : int
        1 to 16.
    number : int
        Controller or note, 0 to 127 (0 to 31 of a pair); 0 of the others.

    Raises
    ------
    UsageError
        There is none like that.
    """

    kind: ControlKind
    channel: int
    number: int = 0

    def __post_init__(self) -> None:
        highest = {"cc": 127, "note": 127, "cc14": 31}.get(self.kind, 0)
        if self.kind not in get_args(ControlKind) or not 1 <= self.channel <= 16 or not 0 <= self.number <= highest:
            raise UsageError(
                f"There is no MIDI control {self.kind} {self.number} on channel {self.channel}; channels are 1 to 16, "
                "numbers 0 to 127, and 0 to 31 of a pair of 14 bits."
            )

    def __str__(self) -> str:
        number = {"cc": f"cc{self.number}", "cc14": f"cc{self.number}+{self.number + 32}", "note": f"note{self.number}"}
        return f"ch{self.channel} {number.get(self.kind, self.kind)}"

    @classmethod
    def parse(cls, text: str) -> MidiControl:
        """Return the control of a text, such as ``ch1 cc7``, ``ch1 cc7+39``, ``ch10 note36``, ``ch1 bend``.

        Raises
        ------
        UsageError
            The text names none.
        """
        found = _TEXT.fullmatch(text.strip().casefold())
        if found is None:
            raise UsageError(
                f"{text!r} is no MIDI control; for example ch1 cc7, ch1 cc7+39 (14 bits), ch10 note36, ch1 bend, "
                "ch1 pressure."
            )
        channel, kind, number, second, plain = found.groups()
        if plain is not None:
            return cls(plain, int(channel))  # type: ignore[arg-type]
        if second is None:
            return cls(kind, int(channel), int(number))  # type: ignore[arg-type]
        if kind != "cc" or int(second) != int(number) + 32:
            raise UsageError(f"{text!r}: the second controller of a pair is the first and 32, such as cc7+39.")
        return cls("cc14", int(channel), int(number))


@dataclass(frozen=True)
class MidiMapping:
    """What a control moves, and how.

    Parameters
    ----------
    control : MidiControl
    path : str
        Of the parameter.
    mode : {"pickup", "jump", "toggle", "follow"}
        ``pickup``: the parameter stays until the control has reached it. ``jump``: it follows at once. ``toggle``:
        every press turns a switch over, or a choice to the next one. ``follow``: a switch is on from half-way up.
    """

    control: MidiControl
    path: str
    mode: Mode

    @classmethod
    def make(cls, control: MidiControl, parameter: Parameter, mode: str | None = None) -> MidiMapping:
        """Return a mapping; the parameter's usual mode when `mode` is None. UsageError for one that does not fit."""
        allowed = _MODES[parameter.kind]
        if mode is None:
            chosen = allowed[0]
            if control.kind == "note" and parameter.kind != "bool":
                chosen = "toggle" if parameter.kind == "choice" else "jump"
            return cls(control, parameter.path, chosen)
        if mode not in allowed:
            raise UsageError(
                f"{parameter.path} cannot be moved in the mode {mode!r}; allowed is {', '.join(allowed)}."
                f"{suggest(mode, allowed)}"
            )
        return cls(control, parameter.path, mode)


class _State:
    """What is known of a mapped control."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.left: object = None
        """The value as this control left it: while it still holds, the control has hold of the parameter."""


class MidiMap:
    """Moves parameters by MIDI messages.

    Parameters
    ----------
    registry : Registry
    mappings : iterable of MidiMapping
        To begin with; a parameter that does not exist (yet) is no error.
    report : callable, optional
        Told in a sentence what was learnt, and once of a control that is touched and moves what the model has not.

    Notes
    -----
    Any thread; not for the audio thread.
    """

    def __init__(
        self,
        registry: Registry,
        mappings: Iterable[MidiMapping] = (),
        report: Callable[[str], object] | None = None,
    ) -> None:
        self._registry, self._report = registry, report or (lambda text: None)
        self._lock = threading.RLock()
        self._mappings: dict[MidiControl, MidiMapping] = {}
        self._states: dict[MidiControl, _State] = collections.defaultdict(_State)
        self._upper: dict[tuple[int, int], int] = {}
        self._to_learn: collections.deque[str] = collections.deque()
        self._learnt: set[MidiControl] = set()
        self._fresh: tuple[MidiControl, float] | None = None
        self._missing: set[str] = set()
        """Parameters that there are not, and of which that was said."""
        self.messages = 0
        """Messages taken since the start."""
        for mapping in mappings:
            self.add(mapping)

    # --- table --------------------------------------------------------------------------------------------------------

    @property
    def mappings(self) -> list[MidiMapping]:
        """All of them; a snapshot."""
        with self._lock:
            return list(self._mappings.values())

    def add(self, mapping: MidiMapping) -> None:
        """Add a mapping; a control moves one parameter, so it takes the place of another of the same control."""
        with self._lock:
            self._mappings[mapping.control] = mapping
            self._states.pop(mapping.control, None)

    def remove(self, control: MidiControl) -> None:
        """Forget what a control moves; nothing happens when it moves nothing."""
        with self._lock:
            self._mappings.pop(control, None)

    # --- learning -----------------------------------------------------------------------------------------------------

    def learn(self, *paths: str) -> None:
        """Give each parameter to the next control that is touched, one after the other.

        Raises
        ------
        UsageError
            No such parameter.
        """
        for path in paths:
            self._registry.parameter(path)
        with self._lock:
            self._to_learn = collections.deque(paths)
            self._learnt.clear()

    def stop_learning(self) -> None:
        """Leave the rest unlearnt."""
        with self._lock:
            self._to_learn.clear()

    @property
    def learning(self) -> str | None:
        """The parameter that waits for a touch; None when none does."""
        with self._lock:
            return self._to_learn[0] if self._to_learn else None

    # --- messages -----------------------------------------------------------------------------------------------------

    def take(self, message: bytes) -> None:
        """Do what one MIDI message means, in one thread at a time. Never raises for what is in the message."""
        found = _read(message)
        if found is None:
            return
        control, value, pressed = found
        said, mapping = None, None
        with self._lock:
            self.messages += 1
            self._make_pair(control)
            if self._to_learn and pressed and control not in self._learnt and not self._is_lower(control):
                said = self._bind(control, self._to_learn.popleft())
            moved = self._position(control, value)
            if moved is not None:
                control, x = moved
                mapping, state = self._mappings.get(control), self._states[control]
                before, state.last = state.last, x
        # Without the lock: whoever hears of the change may want something of this map.
        if mapping is not None and mapping.path in self._registry:
            self._missing.discard(mapping.path)
            self._move(mapping, state, x, before, pressed)
        elif mapping is not None and mapping.path not in self._missing:
            self._missing.add(mapping.path)
            self._report(
                f"{mapping.control} moves {mapping.path}, which this model has not; it waits for one that has."
            )
        if said is not None:
            self._report(said)

    def _position(self, control: MidiControl, value: int) -> tuple[MidiControl, float] | None:
        """The mapped control and its place, 0 to 1; None for the upper half of a pair, which waits for the lower."""
        if control.kind == "cc":
            pair = _pair(control.channel, control.number % 32) if control.number < 64 else None
            if pair is not None and pair in self._mappings:
                if control.number < 32:
                    self._upper[control.channel, control.number] = value
                    return None
                return pair, _scaled(self._upper.get((pair.channel, pair.number), 0) << 7 | value, 14)
        return control, _scaled(value, _BITS[control.kind])

    def _move(self, mapping: MidiMapping, state: _State, x: float, before: float | None, pressed: bool) -> None:
        registry, path = self._registry, mapping.path
        try:
            if mapping.mode == "toggle":
                if pressed and (mapping.control.kind == "note" or x >= 0.5) and (before is None or before < 0.5):
                    registry.toggle(path, SOURCE)
                return
            if mapping.control.kind == "note" and not pressed and mapping.mode != "follow":
                return
            parameter, value = registry.parameter(path), registry.get(path)
            if mapping.mode == "pickup" and state.left != value:
                there = parameter.to_unit(value)
                step = 1.5 / ((1 << _BITS[mapping.control.kind]) - 1)
                crossed = before is not None and (before - there) * (x - there) <= 0
                if not crossed and abs(x - there) > step:
                    return
            state.left = registry.set(path, _near_default(parameter, x, mapping.control), SOURCE)
        except RtsepError:  # the engine has ended, or the parameter went this moment
            return

    # --- inside -------------------------------------------------------------------------------------------------------

    def _bind(self, control: MidiControl, path: str) -> str | None:
        if path not in self._registry:
            return None
        mapping = MidiMapping.make(control, self._registry.parameter(path))
        self.add(mapping)
        self._learnt.add(control)
        self._fresh = (control, time.monotonic())
        return f"{control} moves {path}."

    def _make_pair(self, control: MidiControl) -> None:
        """A controller that was just learnt, followed by the one 32 above it, sends 14 bits."""
        if self._fresh is None:
            return
        first, at = self._fresh
        self._fresh = None
        if first.kind != "cc" or first.number > 31 or time.monotonic() - at > _PAIR_S:
            return
        if control == first:
            self._fresh = (first, at)
        elif control == MidiControl("cc", first.channel, first.number + 32):
            mapping = self._mappings.pop(first, None)
            if mapping is None:
                return
            pair = _pair(first.channel, first.number)
            self.add(MidiMapping(pair, mapping.path, mapping.mode))
            self._learnt.add(pair)

    def _is_lower(self, control: MidiControl) -> bool:
        """Whether a controller is the lower half of a pair that moves something."""
        if control.kind != "cc" or not 32 <= control.number < 64:
            return False
        return _pair(control.channel, control.number - 32) in self._mappings


def _read(message: bytes) -> tuple[MidiControl, int, bool] | None:
    """Control, value, and whether it is touched rather than let go; None for messages that are no control."""
    if len(message) < 2 or any(byte > 127 for byte in message[1:]):
        return None
    kind, channel = message[0] & 0xF0, (message[0] & 0x0F) + 1
    if kind == _PRESSURE:
        return MidiControl("pressure", channel), message[1], True
    if len(message) < 3:
        return None
    if kind == _CC:
        return MidiControl("cc", channel, message[1]), message[2], True
    if kind == _BEND:
        return MidiControl("bend", channel), message[1] | message[2] << 7, True
    if kind in (_NOTE_ON, _NOTE_ON - 0x10):
        velocity = message[2] if kind == _NOTE_ON else 0
        return MidiControl("note", channel, message[1]), velocity, velocity > 0
    return None


def _pair(channel: int, number: int) -> MidiControl:
    return MidiControl("cc14", channel, number)


def _scaled(value: int, bits: int) -> float:
    """0 to 1 with both ends and the centre met exactly: 64 of 127 is the middle of a pan."""
    centre = 1 << (bits - 1)
    if value <= centre:
        return value / (2 * centre)
    return 0.5 + (value - centre) / (2 * (centre - 1))


def _near_default(parameter: Parameter, x: float, control: MidiControl) -> object:
    """The value at a position; within half a step of the default the default itself, so that 0 dB can be met."""
    default = parameter.to_unit(parameter.default)
    half = 0.5 / ((1 << _BITS[control.kind]) - 2) + 1e-9
    return parameter.default if abs(x - default) <= half else parameter.from_unit(x)
