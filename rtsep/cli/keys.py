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

from rtsep.errors import RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.cli.control_options import Surfaces
    from rtsep.control.registry import Registry
    from rtsep.engine.engine import Engine
    from rtsep.mixer.faders import ConditionFaders

HELP = (
    "1-8 select a stem   up/down gain 1 dB   left/right pan   m mute   s solo   b bypass   t next model   "
    "r reset model   R record   l learn MIDI   w save setup   q quit\n"
    "   file as input: space pause   , . seek 5 s   [ ] loop begins, ends here   o loop on, off"
)
SOURCE = "keys"
"""Who changed it, for the subscribers of the registry."""
SONG_KEYS = " ,.[]o"
"""For a file as input, see `rtsep.control.song.press`."""
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
    registry : Registry, optional
        What the keys move; one of the engine's own when left out.
    surfaces : Surfaces, optional
        For the keys that learn a MIDI control and save the setup.

    Attributes
    ----------
    stems : tuple of str
        What the keys act on: stems, or instruments of the condition.
    settings : MixerSettings
        Where their faders and switches stand.
    selected : int
        Stem the arrow keys and switches act on.
    learning : str or None
        Parameter that waits for the touch of a MIDI control.
    said : str
        What there is to say about the last key; empty for most.
    show_help : bool
    quit : bool
        Set by ``q``.
    """

    def __init__(
        self,
        engine: Engine,
        faders: ConditionFaders | None = None,
        registry: Registry | None = None,
        surfaces: Surfaces | None = None,
    ) -> None:
        from rtsep.control.registry import engine_registry

        self._engine, self.faders, self._surfaces = engine, faders, surfaces
        self.registry = registry or engine_registry(engine, faders=faders)
        self.settings = engine.settings if faders is None else faders.settings
        self.stems = self.settings.stems
        self.selected = 0
        self.said = ""
        self.show_help = False
        self.quit = False

    @property
    def learning(self) -> str | None:
        """Parameter that waits for the touch of a MIDI control."""
        return None if self._surfaces is None else self._surfaces.midi_map.learning

    def press(self, key: str) -> None:
        """Act on one key; keys without a meaning do nothing."""
        self.said = ""
        try:
            self._press(key)
        except UsageError as error:  # the model that has it is not there any more
            self.said = str(error)

    def _press(self, key: str) -> None:
        if key == "q":
            self.quit = True
        elif key == "?":
            self.show_help = not self.show_help
        elif key == "r":
            self._engine.reset_model()
        elif key == "R":
            from rtsep.control.record import press

            self.said = press(self.registry, SOURCE)
        elif key == "w":
            self._save()
        elif key == "l" or (self.learning is not None and key in ("left", "right")):
            self._learn(key)
        elif key in "12345678" and int(key) <= len(self.stems):
            self.selected = int(key) - 1
        else:
            self._move(key)

    def _move(self, key: str) -> None:
        registry, strip = self.registry, f"stem/{self.stems[self.selected].replace(' ', '_')}"
        if key in ("up", "down"):
            path = f"{strip}/gain_db"
            db = _step_gain(float(registry.get(path)), key == "up")
            registry.set(path, min(db, registry.parameter(path).highest), SOURCE)
        elif key in ("left", "right") and f"{strip}/pan" in registry:
            pan = float(registry.get(f"{strip}/pan")) + (-PAN_STEP if key == "left" else PAN_STEP)
            registry.set(f"{strip}/pan", max(-1.0, min(1.0, round(pan, 3))), SOURCE)
        elif key in ("m", "s"):
            registry.toggle(f"{strip}/{'mute' if key == 'm' else 'solo'}", SOURCE)
        elif key == "b":
            registry.toggle("master/bypass", SOURCE)
        elif key == "t":
            self._next_model()
        elif key in SONG_KEYS:
            self._move_song(key)

    def _move_song(self, key: str) -> None:
        from rtsep.control.song import press

        try:
            self.said = press(self.registry, key, SOURCE)
        except RtsepError as error:
            self.said = str(error)

    def _next_model(self) -> None:
        from rtsep.control.model_switch import PATH

        if PATH not in self.registry:
            self.said = "The model stays: there is no other with these stems, or notes, a take or the console need it."
            return
        self.said = f"On with {self.registry.toggle(PATH, SOURCE)}."

    def _learn(self, key: str) -> None:
        """``l`` begins with the gain of the selected stem and ends; the arrows choose another parameter."""
        if self._surfaces is None or not self._surfaces.can_learn:
            self.said = "There is no controller to learn from; start with --midi-in PORT. See: rtsep midi list"
            return
        midi_map, now = self._surfaces.midi_map, self.learning
        if key == "l" and now is not None:
            midi_map.stop_learning()
            return
        paths = list(self.registry.parameters)
        wanted = f"stem/{self.stems[self.selected].replace(' ', '_')}/gain_db"
        if now in paths:
            wanted = paths[(paths.index(now) + (1 if key == "right" else -1)) % len(paths)]
        midi_map.learn(wanted)

    def _save(self) -> None:
        try:
            self.said = "Nothing to save." if self._surfaces is None else self._surfaces.save()
        except RtsepError as error:
            self.said = str(error)


def _step_gain(db: float, up: bool) -> float:
    if up:
        return GAIN_FLOOR_DB if db < GAIN_FLOOR_DB else min(24.0, db + GAIN_STEP_DB)
    return db - GAIN_STEP_DB if db - GAIN_STEP_DB >= GAIN_FLOOR_DB else -120.0
