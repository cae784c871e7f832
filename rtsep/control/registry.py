"""The one table of parameters that everything reads and writes: keys, OSC, MIDI controllers, the console, setup files.

A value lives where it takes effect (for the mixer in the memory that the audio process reads), and the registry asks
there, so the two cannot disagree.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from rtsep.control.model_controls import ModelControls, add_instrument, control_paths
from rtsep.control.parameter import Parameter, Value, gain_parameter, pan_parameter, part_of_path, switch_parameter
from rtsep.errors import RtsepError, UsageError, suggest

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine
    from rtsep.mixer.faders import ConditionFaders
    from rtsep.mixer.settings import MixerSettings
    from rtsep.notes.live import LiveNotes

__all__ = [
    "Parameter", "Registry", "Value", "control_paths", "engine_registry", "gain_parameter", "pan_parameter",
    "part_of_path", "switch_parameter",
]  # fmt: skip

OnValue = Callable[[str, Value, str], object]
OnTable = Callable[[Literal["added", "removed"], Parameter], object]


@dataclass(frozen=True)
class _Entry:
    parameter: Parameter
    read: Callable[[], Value]
    write: Callable[[Value], object]


@dataclass(frozen=True)
class _Subscriber:
    on_value: OnValue | None
    on_table: OnTable | None


class Registry:
    """Parameters by path; any thread may use all of it.

    Parameters
    ----------
    report : callable, optional
        Told in a sentence what went wrong in a subscriber; stderr when left out.

    Notes
    -----
    Subscribers are called one change after the other, in the order of the changes, in the thread of somebody who made
    one: usually the one who called `set`, or whoever was calling subscribers at that moment. They may set parameters
    themselves, and should be quick. `set` may return before they have been called.

    Nothing here is for the audio thread, and nothing here can hold it up.
    """

    def __init__(self, report: Callable[[str], object] | None = None) -> None:
        self._report = report or (lambda text: print(text, file=sys.stderr))
        self._entries: dict[str, _Entry] = {}
        self._parameters: dict[str, Parameter] = {}
        self._known: dict[str, Value] = {}
        self._lock = threading.RLock()
        self._subscribers: list[_Subscriber] = []
        self._news: collections.deque[tuple[str, Parameter, Value, str]] = collections.deque()
        self._telling = False
        self._looks: list[Callable[[], object]] = []

    # --- table --------------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """All of them by path, in the order they were added; a snapshot."""
        with self._lock:
            return MappingProxyType(dict(self._parameters))

    def parameter(self, path: str) -> Parameter:
        """Return what is known of one; UsageError with close matches when there is none."""
        with self._lock:
            return self._entry(path).parameter

    def __contains__(self, path: object) -> bool:
        with self._lock:
            return path in self._entries

    def add(
        self,
        parameter: Parameter,
        read: Callable[[], Value] | None = None,
        write: Callable[[Value], object] | None = None,
    ) -> None:
        """Add a parameter, also while others are moved.

        Parameters
        ----------
        parameter : Parameter
        read, write : callable, optional
            Where the value lives; both or none. Without them the registry keeps it, from the default on.

        Raises
        ------
        UsageError
            The path is taken.
        """
        if read is None or write is None:
            kept = [parameter.default]
            read, write = (lambda: kept[0]), (lambda value: kept.__setitem__(0, value))
        with self._lock:
            if parameter.path in self._entries:
                raise UsageError(f"There is a parameter {parameter.path} already.")
            self._entries[parameter.path] = _Entry(parameter, read, write)
            self._parameters[parameter.path] = parameter
            self._known[parameter.path] = value = read()
            self._news.append(("added", parameter, value, ""))
        self._tell()

    def remove(self, path: str) -> None:
        """Take a parameter away; its value stays where it lives. UsageError when there is none."""
        with self._lock:
            self._entry(path)
            self._take_out(path)
        self._tell()

    # --- values -------------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Value:
        """Return a value from where it lives. UsageError for an unknown path."""
        with self._lock:
            return self._entry(path).read()

    def values(self) -> dict[str, Value]:
        """Return all values by path."""
        with self._lock:
            found: dict[str, Value] = {}
            for path, entry in self._entries.items():
                with contextlib.suppress(RtsepError):  # the next `poll` takes it out
                    found[path] = entry.read()
            return found

    def set(self, path: str, value: object, source: str = "") -> Value:
        """Set a value and tell the subscribers, if that changed it.

        Parameters
        ----------
        path : str
        value : float, bool or str
            As `Parameter.check` takes it.
        source : str
            Who did it; subscribers get it with the change, so that nobody hears an echo of himself.

        Returns
        -------
        float, bool or str
            The value as it is now.

        Raises
        ------
        UsageError
            No such path, or not a value of it; nothing is changed then.
        EngineError
            What the parameter belongs to has ended.
        """
        with self._lock:
            now = self._change(self._entry(path), value, source)
        self._tell()
        return now

    def set_unit(self, path: str, x: object, source: str = "") -> Value:
        """Set a value by the position of its fader, 0 to 1. As `set`."""
        return self.set(path, self.parameter(path).from_unit(x), source)

    def set_text(self, path: str, text: str, source: str = "") -> Value:
        """Set a value by its text, such as ``-6 dB``. As `set`."""
        return self.set(path, self.parameter(path).parse(text), source)

    def toggle(self, path: str, source: str = "") -> Value:
        """Turn a switch over, or a choice to the next one. UsageError for a number; else as `set`."""
        with self._lock:
            entry = self._entry(path)
            parameter, value = entry.parameter, entry.read()
            if parameter.kind == "float":
                raise UsageError(f"{path} is no switch; it takes {parameter.allowed}.")
            wanted: Value = not value
            if isinstance(value, str):
                wanted = parameter.choices[(parameter.choices.index(value) + 1) % len(parameter.choices)]
            now = self._change(entry, wanted, source)
        self._tell()
        return now

    def poll(self) -> None:
        """Tell the subscribers of what was changed past the registry, with the source ``""``.

        ``Engine.set_gain`` of a program and a score that leads the model are such changes. A parameter whose value has
        gone is removed. Controls of a model that took over come, and those of the one before go (see `follow`).
        """
        for look in list(self._looks):
            with contextlib.suppress(RtsepError):  # the engine has ended
                look()
        with self._lock:
            for path, entry in list(self._entries.items()):
                try:
                    self._look(entry, "")
                except RtsepError:
                    self._take_out(path)
        self._tell()

    def follow(self, look: Callable[[], object]) -> None:
        """Call `look` now and at the beginning of every `poll`: it may add and remove parameters."""
        look()
        self._looks.append(look)

    # --- subscribers --------------------------------------------------------------------------------------------------

    def subscribe(self, on_value: OnValue | None = None, on_table: OnTable | None = None) -> Callable[[], None]:
        """Be told of every change from now on.

        Parameters
        ----------
        on_value : callable, optional
            ``on_value(path, value, source)`` after a change of a value.
        on_table : callable, optional
            ``on_table("added" or "removed", parameter)``.

        Returns
        -------
        callable
            Ends it, if it was not ended by then; a call that has begun elsewhere still comes to its end.

        Notes
        -----
        A subscriber that raises is dropped and reported; the others are told all the same.
        """
        subscriber = _Subscriber(on_value, on_table)
        with self._lock:
            self._subscribers.append(subscriber)
        return lambda: self._drop(subscriber)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _take_out(self, path: str) -> None:
        parameter = self._parameters.pop(path)
        del self._entries[path]
        self._news.append(("removed", parameter, self._known.pop(path), ""))

    def _entry(self, path: str) -> _Entry:
        try:
            return self._entries[path]
        except (KeyError, TypeError):
            raise UsageError(self._unknown(str(path)[:100])) from None

    def _unknown(self, path: str) -> str:
        groups = list(dict.fromkeys(known.partition("/")[0] for known in self._entries))
        near = [known for known in self._entries if known.rpartition("/")[0] == path.rpartition("/")[0]]
        there = ", ".join(near or [f"{group}/..." for group in groups]) or "none"
        return f"There is no parameter {path!r}.{suggest(path, self._entries)} There is: {there}."

    def _change(self, entry: _Entry, value: object, source: str) -> Value:
        self._look(entry, "")  # somebody else may have moved it past the registry
        entry.write(entry.parameter.check(value))
        return self._look(entry, source)

    def _look(self, entry: _Entry, source: str) -> Value:
        path, value = entry.parameter.path, entry.read()
        if value != self._known[path]:
            self._known[path] = value
            self._news.append(("value", entry.parameter, value, source))
        return value

    def _tell(self) -> None:
        """Hand out the news, without the lock: a subscriber may be slow, or set something."""
        while True:
            with self._lock:
                if self._telling or not self._news:
                    return
                self._telling = True
                kind, parameter, value, source = self._news.popleft()
                subscribers = list(self._subscribers)
            try:
                for subscriber in subscribers:
                    self._tell_one(subscriber, kind, parameter, value, source)
            finally:
                with self._lock:
                    self._telling = False

    def _tell_one(self, subscriber: _Subscriber, kind: str, parameter: Parameter, value: Value, source: str) -> None:
        if subscriber not in self._subscribers:
            return
        try:
            if kind == "value" and subscriber.on_value is not None:
                subscriber.on_value(parameter.path, value, source)
            elif kind != "value" and subscriber.on_table is not None:
                subscriber.on_table("added" if kind == "added" else "removed", parameter)
        except Exception as error:  # whatever it is, it is not the others' fault
            self._drop(subscriber)
            what = str(error) or type(error).__name__
            self._report(f"A listener of parameters failed and hears no more ({type(error).__name__}: {what}).")

    def _drop(self, subscriber: _Subscriber) -> None:
        with self._lock:
            self._subscribers = [other for other in self._subscribers if other is not subscriber]


# --- a running engine -------------------------------------------------------------------------------------------------


def engine_registry(
    engine: Engine,
    notes: LiveNotes | None = None,
    faders: ConditionFaders | None = None,
    report: Callable[[str], object] | None = None,
) -> Registry:
    """Return the parameters of a running engine.

    Parameters
    ----------
    engine : Engine
        Started.
    notes : LiveNotes, optional
        Started; gives ``notes/latency``.
    faders : ConditionFaders, optional
        Instruments of the model's condition: they get strips instead of the elements of the condition.
    report : callable, optional
        As `Registry`.

    Raises
    ------
    UsageError
        The engine is not started.
    """
    registry = Registry(report)
    settings = engine.settings
    for stem in (faders.settings if faders is not None else settings).stems:
        if faders is not None:
            add_instrument(registry, engine, faders, stem)
        else:
            _add_strip(registry, settings, stem)
    if faders is not None:
        for stem in settings.stems:
            _add_strip(registry, settings, stem)
    _add_master(registry, engine)
    registry.follow(ModelControls(registry, engine, faders).look)
    if notes is not None:
        from rtsep.notes.transcriber_info import DIAL

        live = notes
        registry.add(
            Parameter("notes/latency", "choice", default="normal", choices=DIAL, label="notes latency"),
            lambda: live.latency,
            lambda value: live.set_latency(str(value)),
        )
    return registry


def _add_strip(registry: Registry, settings: MixerSettings, stem: str) -> None:
    path, i = f"stem/{part_of_path(stem)}", settings.index(stem)
    registry.add(
        gain_parameter(f"{path}/gain_db", f"{stem} gain"),
        lambda: float(settings.gain_db[i]),
        lambda value: settings.set_gain(stem, float(value)),
    )
    registry.add(
        switch_parameter(f"{path}/mute", f"{stem} mute"),
        lambda: bool(settings.mute[i]),
        lambda value: settings.set_mute(stem, bool(value)),
    )
    registry.add(
        switch_parameter(f"{path}/solo", f"{stem} solo"),
        lambda: bool(settings.solo[i]),
        lambda value: settings.set_solo(stem, bool(value)),
    )
    registry.add(
        pan_parameter(f"{path}/pan", f"{stem} pan"),
        lambda: float(settings.pan[i]),
        lambda value: settings.set_pan(stem, float(value)),
    )


def _add_master(registry: Registry, engine: Engine) -> None:
    settings = engine.settings
    registry.add(
        gain_parameter("master/gain_db", "master gain"),
        lambda: settings.master_db,
        lambda value: engine.set_master(float(value)),
    )
    registry.add(
        switch_parameter("master/bypass", "bypass"),
        lambda: settings.bypass,
        lambda value: engine.set_bypass(bool(value)),
    )
    registry.add(
        switch_parameter("master/limiter", "limiter"),
        lambda: settings.limiter,
        lambda value: engine.set_limiter(bool(value)),
    )
