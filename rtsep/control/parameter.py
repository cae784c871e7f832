"""One parameter: its range, its place on a fader of 0 to 1, and how it is written."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from rtsep.errors import UsageError, suggest

Value = float | bool | str
"""What a parameter holds: a float, a bool or one of its choices, as its kind says."""
Kind = Literal["float", "bool", "choice"]
Scale = Literal["linear", "log", "fader", "balance"]

# Position of a fader and the gain there: fine around 0 dB, and 0 is silence. Straight lines between.
_FADER = ((0.0, -120.0), (0.02, -70.0), (0.1, -50.0), (0.25, -30.0), (0.5, -10.0), (0.75, 0.0), (0.9, 9.0), (1.0, 24.0))
SILENT_DB = -120.0
"""Gains from here down are silence, written ``-inf dB``."""
_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")


@dataclass(frozen=True)
class Parameter:
    """What is known of one parameter, whoever moves it.

    Parameters
    ----------
    path : str
        Name in the registry: parts between slashes, such as ``stem/vocals/gain_db``.
    kind : {"float", "bool", "choice"}
    lowest, highest : float
        Range of a float, both ends included; 0 and 1 of the others.
    default : float, bool or str
    unit : str
        ``dB``, ``Hz`` ...; empty without one.
    choices : tuple of str
        Of a choice, in their order on a fader.
    label : str
        For a person; the path when empty.
    scale : {"linear", "log", "fader", "balance"}
        How a float lies on a fader of 0 to 1. ``fader`` is for gains in dB, fine around 0 dB with silence at 0;
        ``balance`` is linear and written ``L50``, ``C``, ``R50``; ``log`` needs a range above 0.

    Raises
    ------
    UsageError
        These do not go together.

    Notes
    -----
    Values are plain Python numbers, so that they can go into JSON, TOML and OSC as they are.
    """

    path: str
    kind: Kind = "float"
    lowest: float = 0.0
    highest: float = 1.0
    default: Value = 0.0
    unit: str = ""
    choices: tuple[str, ...] = ()
    label: str = ""
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        if not self.path or any(not part or part.isspace() for part in self.path.split("/")):
            raise UsageError(f"{self.path!r} is no path of a parameter; parts stand between single slashes.")
        if self.kind == "choice" and not self.choices:
            raise UsageError(f"The parameter {self.path} is a choice of nothing.")
        if self.kind == "float" and not -math.inf < self.lowest < self.highest < math.inf:
            raise UsageError(f"The parameter {self.path} has no range from {self.lowest} to {self.highest}.")
        if self.kind == "float" and self.scale == "log" and self.lowest <= 0:
            raise UsageError(f"The parameter {self.path} begins at {self.lowest}; a log scale needs more than 0.")
        object.__setattr__(self, "label", self.label or self.path)
        object.__setattr__(self, "default", self.check(self.default))

    def check(self, value: object) -> Value:
        """Return a value of this parameter as it is kept.

        A float takes any number in range (``-inf`` for silence), a bool also 0 and 1, a choice its words.

        Raises
        ------
        UsageError
            Another type, NaN, or out of range; says what is allowed.
        """
        if self.kind == "choice":
            if isinstance(value, str) and value in self.choices:
                return value
            hint = suggest(value, self.choices) if isinstance(value, str) else ""
            raise UsageError(f"{self.path} got {_shown(value)}; allowed is {', '.join(self.choices)}.{hint}")
        number = _number(value)
        if self.kind == "bool":
            if number not in (0.0, 1.0):
                raise UsageError(f"{self.path} got {_shown(value)}; allowed is true or false (1 or 0).")
            return bool(number)
        if number == -math.inf and self.scale == "fader":
            return self.lowest
        # Written so that NaN is refused too.
        if number is None or isinstance(value, bool) or not self.lowest <= number <= self.highest:
            raise UsageError(f"{self.path} got {_shown(value)}; allowed is {self.allowed}.")
        return number

    @property
    def allowed(self) -> str:
        """The range or the choices, for a person."""
        if self.kind == "bool":
            return "on or off"
        if self.kind == "choice":
            return ", ".join(self.choices)
        below = " (-inf is silence)" if self.scale == "fader" else ""
        return f"{self.lowest:g} to {self.highest:g}{f' {self.unit}' if self.unit else ''}{below}"

    # --- fader --------------------------------------------------------------------------------------------------------

    def to_unit(self, value: object) -> float:
        """Return where a value lies on a fader, 0 to 1; the inverse of `from_unit`. UsageError as `check`."""
        value = self.check(value)
        if isinstance(value, str):
            return self.choices.index(value) / max(len(self.choices) - 1, 1)
        if self.kind == "bool":
            return float(value)
        if self.scale == "log":
            return math.log(value / self.lowest) / math.log(self.highest / self.lowest)
        if self.scale == "fader":
            bottom, top = _position(self.lowest), _position(self.highest)
            return (_position(value) - bottom) / (top - bottom)
        return (value - self.lowest) / (self.highest - self.lowest)

    def from_unit(self, x: object) -> Value:
        """Return the value at a position of a fader.

        Parameters
        ----------
        x : float
            0 to 1. A bool is on from 0.5, a choice is the nearest one.

        Raises
        ------
        UsageError
            Not a number from 0 to 1.
        """
        position = _number(x)
        if position is None or not 0.0 <= position <= 1.0:
            raise UsageError(f"{self.path} got the position {_shown(x)}; allowed is 0 to 1.")
        if self.kind == "choice":
            return self.choices[round(position * (len(self.choices) - 1))]
        if self.kind == "bool":
            return position >= 0.5
        if self.scale == "log":
            value = float(self.lowest * (self.highest / self.lowest) ** position)
        elif self.scale == "fader":
            bottom, top = _position(self.lowest), _position(self.highest)
            value = _gain(bottom + position * (top - bottom))
        else:
            value = self.lowest + position * (self.highest - self.lowest)
        return min(max(value, self.lowest), self.highest)  # rounding must not leave the range

    # --- text ---------------------------------------------------------------------------------------------------------

    def text(self, value: object) -> str:
        """Return a value as a person reads it, such as ``-6.0 dB``; `parse` reads it. UsageError as `check`."""
        value = self.check(value)
        if isinstance(value, str):
            return value
        if self.kind == "bool":
            return "on" if value else "off"
        if self.scale == "balance":
            percent = round(100 * abs(value))
            return "C" if percent == 0 else f"{'L' if value < 0 else 'R'}{percent}"
        if self.scale == "fader":
            return "-inf dB" if value <= SILENT_DB else f"{value:+.1f} {self.unit}"
        return f"{value:.4g} {self.unit}".rstrip()

    def parse(self, text: str) -> Value:
        """Return the value that a text means: as `text` writes it, or a bare number, with or without the unit.

        Raises
        ------
        UsageError
            It means none, or one out of range.
        """
        word = text.strip()
        lower = word.casefold()
        if self.kind == "choice":
            return self.check(word)
        if self.kind == "bool":
            if lower in _ON or lower in _OFF:
                return lower in _ON
            raise UsageError(f"{self.path} got {word!r}; allowed is on or off.")
        if self.scale == "balance" and lower[:1] in ("l", "r", "c"):
            return self.check(self._balance(word))
        if self.scale == "fader" and lower == "off":
            return self.check(self.lowest)
        if self.unit and lower.endswith(self.unit.casefold()):
            lower = lower.removesuffix(self.unit.casefold()).rstrip()
        try:
            return self.check(float(lower))
        except ValueError:
            raise UsageError(f"{self.path} got {word!r}, which is no number; allowed is {self.allowed}.") from None

    def _balance(self, word: str) -> float:
        side, percent = word[:1].casefold(), word[1:]
        if side == "c" and word.casefold() in ("c", "centre", "center"):
            return 0.0
        if side != "c" and percent.isdecimal() and percent.isascii():
            return (-1 if side == "l" else 1) * int(percent) / 100
        raise UsageError(f"{self.path} got {word!r}; allowed is L100 to R100, C, or -1 to 1.")


def part_of_path(name: str) -> str:
    """Return a name as part of a path: addresses of OSC have no spaces."""
    return name.replace(" ", "_")


def gain_parameter(path: str, label: str = "", highest: float = 24.0) -> Parameter:
    """Return a gain in dB as the mixer takes it."""
    return Parameter(path, "float", SILENT_DB, highest, 0.0, "dB", label=label, scale="fader")


def switch_parameter(path: str, label: str = "") -> Parameter:
    """Return a switch that is off at first."""
    return Parameter(path, "bool", default=False, label=label)


def pan_parameter(path: str, label: str = "") -> Parameter:
    """Return a balance as the mixer takes it."""
    return Parameter(path, "float", -1.0, 1.0, 0.0, label=label, scale="balance")


def _number(value: object) -> float | None:
    """A number of any library as a float; None for anything else."""
    if isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: object) -> str:
    """A value in an error: what came from outside may be long."""
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _position(db: float) -> float:
    for (x0, db0), (x1, db1) in itertools.pairwise(_FADER):
        if db <= db1:
            return max(x0, x0 + (x1 - x0) * (db - db0) / (db1 - db0))
    return 1.0


def _gain(x: float) -> float:
    for (x0, db0), (x1, db1) in itertools.pairwise(_FADER):
        if x <= x1:
            return db1 if x == x1 else db0 + (db1 - db0) * (x - x0) / (x1 - x0)
    return _FADER[-1][1]
