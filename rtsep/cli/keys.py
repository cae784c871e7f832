"""Keys of the terminal while ``rtsep run`` plays, and what they do. The terminal is always given back as it was."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine
    from rtsep.mixer.faders import ConditionFaders

HELP = "1-8 select a stem   up/down gain 1 dB   left/right pan   m mute   s solo   b bypass   r reset model   q quit"
GAIN_STEP_DB = 1.0
PAN_STEP = 0.1
GAIN_FLOOR_DB = -60.0
"""Below this the down key mutes the fader (-120 dB), and the up key starts here."""

_ESCAPES = {"[A": "up", "[B": "down", "[C": "right", "[D": "left",
            "OA": "up", "OB": "down", "OC": "right", "OD": "left"}  # fmt: skip
_WINDOWS = {"H": "up", "P": "down", "M": "right", "K": "left"}


def decode(text: str) -> Iterator[str]:
    """Yield key names from what a terminal sent: single characters, ``up``, ``down``, ``left``, ``right``."""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character != "\x1b":
            yield character
            continue
        name = _ESCAPES.get(text[position : position + 2])
        if name:
            yield name
            position += 2
        elif text[position : position + 1] in ("[", "O"):  # a sequence we do not know: to its final letter
            position += 1
            while position < len(text) and not text[position].isalpha() and text[position] != "~":
                position += 1
            position += 1


class Keyboard:
    """Reads single keys from the terminal without waiting; context manager. Does nothing without a terminal.

    Ctrl+C stays an interrupt. On POSIX the terminal's settings are restored on exit for whatever reason, and around a
    suspension with Ctrl+Z.
    """

    def __init__(self) -> None:
        self.active = sys.stdin is not None and sys.stdin.isatty()
        self._file = -1
        self._before: Any = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Keyboard:
        if not self.active or os.name == "nt":
            return self
        import termios

        self._file = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._file)
        try:
            self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._suspend)
            self._take()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def read(self) -> list[str]:
        """Return the keys pressed since the last call, by name."""
        if not self.active:
            return []
        if sys.platform == "win32":
            return _read_windows()
        if not select.select([self._file], [], [], 0)[0]:
            return []
        data = os.read(self._file, 1024)
        if not data:  # the terminal is gone
            self.active = False
        return list(decode(data.decode(errors="replace")))

    def _take(self) -> None:
        import termios

        attributes = termios.tcgetattr(self._file)
        attributes[3] &= ~(termios.ECHO | termios.ICANON)
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 0, 0
        termios.tcsetattr(self._file, termios.TCSADRAIN, attributes)

    def _give_back(self) -> None:
        if self._before is None:
            return
        import termios

        with contextlib.suppress(termios.error, OSError):  # the terminal may have gone
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
        self._before = None
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _suspend(self, number: int, _frame: FrameType | None) -> None:
        import termios

        termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # stops here, until fg
        signal.signal(number, self._suspend)
        self._take()


if sys.platform == "win32":

    def _read_windows() -> list[str]:
        import msvcrt

        keys = []
        while msvcrt.kbhit():
            character = msvcrt.getwch()
            if character == "\x03":
                raise KeyboardInterrupt
            if character in ("\x00", "\xe0"):
                name = _WINDOWS.get(msvcrt.getwch())
                if name:
                    keys.append(name)
            else:
                keys.append(character)
        return keys

else:

    def _read_windows() -> list[str]:
        return []


class Desk:
    """What the keys do to a running engine.

    Parameters
    ----------
    engine : Engine
        Started.
    faders : ConditionFaders, optional
        For a model whose instruments are elements of its condition: the keys then act on these.

    Attributes
    ----------
    stems : tuple of str
        What the keys act on: stems, or instruments of the condition.
    settings : MixerSettings
        Where their faders and switches stand.
    selected : int
        Stem the arrow keys and switches act on.
    show_help : bool
    quit : bool
        Set by ``q``.
    """

    def __init__(self, engine: Engine, faders: ConditionFaders | None = None) -> None:
        self._engine, self.faders = engine, faders
        self.settings = engine.settings if faders is None else faders.settings
        self.stems = self.settings.stems
        self.selected = 0
        self.show_help = False
        self.quit = False

    def press(self, key: str) -> None:
        """Act on one key; keys without a meaning do nothing."""
        settings, i = self.settings, self.selected
        stem = self.stems[i]
        if key in "12345678" and int(key) <= len(self.stems):
            self.selected = int(key) - 1
        elif key in ("up", "down"):
            db = _step_gain(float(settings.gain_db[i]), key == "up")
            settings.set_gain(stem, db if self.faders is None else min(db, 0.0))
        elif key in ("left", "right") and self.faders is None:
            step = -PAN_STEP if key == "left" else PAN_STEP
            settings.set_pan(stem, max(-1.0, min(1.0, round(float(settings.pan[i]) + step, 3))))
        elif key == "m":
            settings.set_mute(stem, not settings.mute[i])
        elif key == "s":
            settings.set_solo(stem, not settings.solo[i])
        elif key == "b":
            self._engine.set_bypass(not self._engine.settings.bypass)
        elif key == "r":
            self._engine.reset_model()
        elif key == "?":
            self.show_help = not self.show_help
        elif key == "q":
            self.quit = True
        if self.faders is not None and key in ("up", "down", "m", "s"):
            self._engine.set_control(self.faders.control.name, self.faders.values())


def _step_gain(db: float, up: bool) -> float:
    if up:
        return GAIN_FLOOR_DB if db < GAIN_FLOOR_DB else min(24.0, db + GAIN_STEP_DB)
    return db - GAIN_STEP_DB if db - GAIN_STEP_DB >= GAIN_FLOOR_DB else -120.0
