"""The console of a running engine: starts, feeds and ends the console process. For the control process."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rtsep.console.access import is_loopback, link, new_token
from rtsep.console.config import ConsoleConfig
from rtsep.console.courier import Courier
from rtsep.console.plugins import PluginDesk
from rtsep.engine.wire import Wire, end_child, error_of, start_child
from rtsep.errors import EngineError, RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.control.registry import Parameter, Registry, Value
    from rtsep.engine.engine import Engine
    from rtsep.notes.live import LiveNotes
    from rtsep.takes.live import LiveTakes

_START_S, _STOP_S = 20.0, 3.0
_POLL_S, _STATUS_S = 0.1, 1.0
_MOST_RESTARTS, _RESTARTS_WITHIN_S = 3, 60.0
_CURVE = 100
_consoles = itertools.count(1)


class Console:
    """A page with faders, meters, notes, spectra and the clockwork of an engine; context manager.

    Parameters
    ----------
    engine : Engine
        Started. With the setting ``tap=True`` the page has spectra.
    registry : Registry
        What the page shows and moves.
    notes : LiveNotes, optional
        Started; its notes go to the page's piano roll.
    takes : LiveTakes, optional
        What ``record/on`` of the registry begins and ends: the page shows how long the take is.
    host : str
        Where to listen. Anything but this machine itself (127.0.0.1, ::1, localhost) needs a token, which is part of
        `link`.
    port : int, optional
        1 to 65535; 7373, or any free one, when left out.
    report : callable, optional
        Told in a sentence when the console process died.

    Attributes
    ----------
    exit_error : RtsepError or None
        What ended the console for good. The engine and its sound go on.

    Notes
    -----
    A console process that dies is started again, at the same address; after three deaths within a minute it stays away.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        notes: LiveNotes | None = None,
        takes: LiveTakes | None = None,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        report: Callable[[str], object] | None = None,
    ) -> None:
        if port is not None and not 1 <= port <= 65535:
            raise UsageError(f"--console-port {port}: allowed is 1 to 65535.")
        self._engine, self._registry, self._notes, self._takes = engine, registry, notes, takes
        self._host, self._port = host, port
        self._token = None if is_loopback(host) else new_token()
        self._report = report or (lambda text: None)
        self.exit_error: RtsepError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._courier: Courier | None = None
        self._answered, self._ended = threading.Event(), threading.Event()
        self._ready = False
        self._asked_to_stop = False
        self._restarts: list[float] = []
        self._talk: list[str] = []
        self._unsubscribe: Callable[[], None] = lambda: None
        # What the registry hears as the source of a change is this and the number of the page.
        self._source = f"console-{next(_consoles)}"
        self._plugins: PluginDesk | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and begin to listen.

        Raises
        ------
        UsageError
            A package of the extra ``console`` is missing, or there is no such address.
        DeviceBusyError
            The port is taken.
        EngineError
            The process died or did not answer.
        """
        if self._process is not None:
            raise UsageError("This console was started before; make a new one.")
        if _hosts_plugins():
            self._plugins = PluginDesk(self._engine, self._tell)
        self._launch()
        self._unsubscribe = self._registry.subscribe(self._on_value, self._on_table)
        if self._notes is not None:
            self._notes.on_events = self._on_notes
        threading.Thread(target=self._run, name="console", daemon=True).start()
        self._answered.wait(_START_S)
        if not self._ready:
            self.stop()
            raise self.exit_error or EngineError(f"The console did not answer within {_START_S:.0f} s.")
        threading.Thread(target=self._watch, name="console status", daemon=True).start()

    def stop(self) -> None:
        """End the process; more than once is fine. Pages that are open say that the engine has ended."""
        if self._process is None:
            return
        self._asked_to_stop = True
        self._unsubscribe()
        if self._plugins is not None:
            self._plugins.end()
        if self._notes is not None:
            self._notes.on_events = None
        if self._courier is not None:
            self._courier.put("stop")
            self._courier.end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        self._kill()
        self._ended.wait(2.0)

    def __enter__(self) -> Console:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Started, and not given up."""
        return self._ready and not self._ended.is_set()

    @property
    def link(self) -> str:
        """Address of the page, with the token if there is one. UsageError before `start`."""
        if self._port is None:
            raise UsageError("The console is not started: call start(), or use it in a with statement.")
        return link(self._host, self._port, self._token)

    @property
    def token(self) -> str | None:
        """What a page must know; None where only this machine gets in."""
        return self._token

    @property
    def pid(self) -> int:
        """Of the console process; 0 before `start`."""
        return self._process.pid if self._process is not None else 0

    # --- to the console -----------------------------------------------------------------------------------------------

    def _tell(self, kind: str, **values: Any) -> None:
        if self._courier is not None:
            self._courier.put(kind, **values)

    def _on_value(self, path: str, value: Value, source: str) -> None:
        if self._courier is not None:
            self._courier.put_value(path, (value, self._client_of(source)))

    def _client_of(self, source: str) -> int:
        """The page of ours that made a change; 0 for anybody else."""
        console, _, number = source.partition(":")
        return int(number) if console == self._source and number.isdecimal() else 0

    def _on_table(self, what: Literal["added", "removed"], parameter: Parameter) -> None:
        if self._courier is None:
            return
        if what == "removed":
            self._courier.put("table", added=[], removed=[parameter.path])
        else:
            with contextlib.suppress(RtsepError):  # gone again by now; that news is on its way
                value = self._registry.get(parameter.path)
                self._courier.put("table", added=[described(parameter, value)], removed=[])

    def _on_notes(self, events: list[tuple[str, int, int, int, float]]) -> None:
        self._tell("notes", notes=[list(event) for event in events])

    def _status(self) -> dict[str, Any]:
        report = self._engine.latency()
        notes = self._notes
        return {
            "latency": report.to_dict(),
            "notes": None
            if notes is None
            else {
                "running": notes.running,
                "delays_ms": {stem: round(1000 * delay_s, 2) for stem, delay_s in notes.delays_s.items()},
            },
            "take": self._take(),
            "ended": not self._engine.running,
        }

    def _take(self) -> dict[str, Any] | None:
        """What the page says of the take that runs, or of the last one."""
        if self._takes is None:
            return None
        state = self._takes.state
        name = None if state.folder is None else state.folder.name
        return {"name": name, "since_s": state.since_s, "error": state.error, "done": len(state.done)}

    def _watch(self) -> None:
        """Find what was changed past the registry, and what changes seldom."""
        sent: dict[str, Any] | None = None
        asked, model, told_latency = 0.0, self._engine.models_played, self._engine.latency()
        courier: Courier | None = None
        while not self._ended.wait(_POLL_S):
            with contextlib.suppress(RtsepError):
                self._registry.poll()
            if self._plugins is not None:
                self._plugins.look()
            if model != self._engine.models_played:
                model = self._engine.models_played
                self._tell("about", about=self._about())
            now = time.monotonic()
            latency = self._engine.latency()
            told = sent is not None and sent["take"] == self._take() and latency is told_latency
            if now - asked < _STATUS_S and courier is self._courier and told:
                continue
            asked, told_latency, status = now, latency, self._status()
            if self._courier is not None and (status != sent or courier is not self._courier):
                sent, courier = status, self._courier
                courier.put("status", status=status)

    def _about(self) -> dict[str, Any]:
        """Words for the page on the model and the device."""
        engine, info = self._engine, self._engine.info
        return {
            "model": info.name,
            "version": str(info.version),
            "stems": list(info.stems),
            "samplerate": engine.samplerate,
            "model_samplerate": engine.model_samplerate,
            "hop": info.hop_samples,
            "block": engine.stats().block,
            "provider": engine.provider,
            "spectra": engine.tap_path is not None,
        }

    # --- the process --------------------------------------------------------------------------------------------------

    def _config(self) -> ConsoleConfig:
        engine, info = self._engine, self._engine.info
        return ConsoleConfig(
            shared=str(engine.shared_path),
            tap=None if engine.tap_path is None else str(engine.tap_path),
            stems=tuple(info.stems),
            samplerate=engine.samplerate,
            rate=engine.model_samplerate,
            stem_delay=engine.stem_delay,
            host=self._host,
            port=self._port,
            token=self._token,
            about=self._about(),
        )

    def _launch(self) -> None:
        self._process, self._wire = start_child("rtsep.console.process")
        threading.Thread(target=self._overhear, args=(self._process,), daemon=True).start()
        self._wire.send("configure", config=self._config())
        # Changes from here on come after this table; it holds all before.
        self._courier = Courier(self._wire)
        parameters, values = self._registry.parameters, self._registry.values()
        table = [described(parameters[path], value) for path, value in values.items() if path in parameters]
        self._courier.put("table", added=table, removed=[])
        self._courier.put("status", status=self._status())
        if self._plugins is not None:
            self._plugins.forget()
            self._plugins.look()

    def _run(self) -> None:
        """Obey the console; start it again when it dies."""
        while True:
            ended_well = self._obey_all()
            process = self._process
            assert process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.0)
            if self._asked_to_stop or ended_well or self.exit_error is not None or not self._ready:
                if self._ready and self.exit_error is not None and not self._asked_to_stop:
                    self._report(f"The console ended; the sound goes on. {self.exit_error}")
                break
            now = time.monotonic()
            self._restarts = [at for at in self._restarts if now - at < _RESTARTS_WITHIN_S]
            last = f" Its last words: {self._talk[-1]}" if self._talk else ""
            if len(self._restarts) >= _MOST_RESTARTS or not self._engine.running:
                self.exit_error = EngineError(f"The console died again and is not started any more.{last}")
                self._report(f"{self.exit_error} The sound goes on.")
                break
            self._restarts.append(now)
            self._kill()
            try:
                self._launch()
            except OSError as error:
                self.exit_error = EngineError(f"The console died and cannot be started again: {error}")
                self._report(f"{self.exit_error} The sound goes on.")
                break
            self._report(f"The console died and was started again; the sound goes on.{last}")
        self._ended.set()
        self._answered.set()

    def _obey_all(self) -> bool:
        """Do what the process asks for until it ends; return whether it said that it ends."""
        assert self._wire is not None
        wire = self._wire
        while (message := wire.receive()) is not None:
            kind = message["kind"]
            if kind == "set":
                for path, (value, client) in message["values"].items():
                    self._set(path, value, client)
            elif kind == "plugin" and self._plugins is not None:
                self._plugins.put(message["command"], message["client"])
            elif kind == "ready":
                self._port, self._ready = message["port"], True
                self._answered.set()
            elif kind == "error":
                self.exit_error = error_of(message)
            elif kind == "ended":
                return True
        return False

    def _set(self, path: str, value: Any, client: int) -> None:
        try:
            self._registry.set(path, value, f"{self._source}:{client}")
        except RtsepError as error:
            now: Any = None
            with contextlib.suppress(RtsepError):
                now = self._registry.get(path)
            self._tell("refused", client=client, path=path, message=str(error), value=now)

    def _overhear(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with contextlib.suppress(ValueError, OSError):
            for line in process.stderr:
                self._talk = [*self._talk[-20:], line.decode(errors="replace").rstrip()]

    def _kill(self) -> None:
        if self._process is not None:
            end_child(self._process)


def described(parameter: Parameter, value: Value) -> Mapping[str, Any]:
    """Return what the page needs to know of a parameter, with its value.

    ``curve`` gives the values at 101 places of a fader, where these are not simply proportional.
    """
    found: dict[str, Any] = {
        "path": parameter.path,
        "kind": parameter.kind,
        "label": parameter.label,
        "unit": parameter.unit,
        "scale": parameter.scale,
        "default": parameter.default,
        "value": value,
    }
    if parameter.kind == "choice":
        found["choices"] = list(parameter.choices)
    elif parameter.kind == "float":
        found["lowest"], found["highest"] = parameter.lowest, parameter.highest
        if parameter.scale in ("fader", "log"):
            found["curve"] = [round(float(parameter.from_unit(i / _CURVE)), 6) for i in range(_CURVE + 1)]
    return found


def _hosts_plugins() -> bool:
    return importlib.util.find_spec("pedalboard") is not None
