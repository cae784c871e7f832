"""Notes of a running engine: starts, steers and ends the notes process."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rtsep import errors
from rtsep.engine.wire import Wire, end_child, error_of, start_child
from rtsep.errors import EngineError, RtsepError, UsageError
from rtsep.notes.config import NotesConfig
from rtsep.notes.messages import StripMidi, default_strips

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine
    from rtsep.notes.output import MidiStatus

_START_S, _STOP_S, _TAKE_S = 30.0, 6.0, 5.0

NoteReport = tuple[str, int, int, int, float]
"""``on`` or ``off``, stem, pitch, velocity, and when its sound was captured, in seconds of the device's clock."""


class LiveNotes:
    """Writes down what the stems of an engine play, and plays it as MIDI; context manager.

    Parameters
    ----------
    engine : Engine
        Started, with the setting ``tap=True``.
    port : str, optional
        ``virtual``, ``null``, ``log:PATH`` or part of a port's name; without it nothing is played.
    latency : {"tight", "normal", "quality"}
        The dial: how long the transcribers may listen before they decide.
    stems : sequence of str, optional
        Which to write down; all when left out.
    strips : sequence of StripMidi, optional
        One for every stem of the model; `default_strips` when left out.
    transcribers : mapping of str to path, optional
        Files by kind; those in the wheel when left out.
    muted_too : bool
        Stems that are not heard give notes as well.
    take : path, optional
        Folder for every stem and the notes as files.
    client_name : str
        Of the MIDI port.

    Attributes
    ----------
    exit_error : RtsepError or None
        What ended the notes process when it was not asked to. The engine and its sound go on.

    Raises
    ------
    RtsepError
        From `start`: as the notes process found it.
    """

    def __init__(
        self,
        engine: Engine,
        port: str | None = None,
        *,
        latency: str = "normal",
        stems: Sequence[str] | None = None,
        strips: Sequence[StripMidi] | None = None,
        transcribers: Mapping[str, str | Path] | None = None,
        muted_too: bool = False,
        take: str | Path | None = None,
        client_name: str = "rtsep-midi",
    ) -> None:
        if engine.tap_path is None:
            raise UsageError("The engine gives out no stems; make it with tap=True.")
        self.config = NotesConfig(
            tap=str(engine.tap_path),
            info=engine.info,
            rate=engine.model_samplerate,
            samplerate=engine.samplerate,
            stem_delay=engine.stem_delay,
            strips=tuple(strips) if strips is not None else default_strips(engine.info.stems),
            port=port,
            client_name=client_name,
            latency=latency,
            stems=None if stems is None else tuple(stems),
            transcribers=None if transcribers is None else {kind: str(path) for kind, path in transcribers.items()},
            muted_too=muted_too,
            take=None if take is None else str(Path(take).absolute()),
        )
        if len(self.config.strips) != len(engine.info.stems):
            raise UsageError(
                f"{len(self.config.strips)} MIDI strips were given; the model {engine.info.name} has "
                f"{len(engine.info.stems)} stems, {', '.join(engine.info.stems)}."
            )
        self.exit_error: RtsepError | None = None
        self.on_events: Callable[[list[NoteReport]], object] | None = None
        """Called with what begins and ends, in a thread of its own; must not wait."""
        self._latency = latency
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._ready: dict[str, Any] | None = None
        self._delays: dict[str, Any] = {"separation_s": 0.0, "transcription_s": {}, "handover_s": 0.0}
        self._status: dict[str, Any] = {"midi": None, "sounding": 0, "notes": 0, "missed_hops": 0}
        self._answered, self._ended = threading.Event(), threading.Event()
        self._taken = threading.Event()
        self._take_error: str | None = None
        self._take_folder = ""
        self._asked_to_stop = False
        self._talk: list[str] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, load the transcribers, open the port.

        Raises
        ------
        RtsepError
            A transcriber, the port or the folder cannot be used.
        EngineError
            The process died or did not answer.
        """
        if self._process is not None:
            raise UsageError("These notes were started before; make new ones.")
        self._process, self._wire = start_child("rtsep.notes.process")
        for target in (self._listen, self._overhear):
            threading.Thread(target=target, daemon=True).start()
        self._wire.send("configure", config=self.config)
        answered = self._answered.wait(_START_S)
        if self._ready is None:
            self._kill()
            self._ended.wait(2.0)
            raise self.exit_error or EngineError(
                "The notes process ended before it began."
                if answered
                else f"The notes process did not answer within {_START_S:.0f} s. See: rtsep doctor"
            )

    def stop(self) -> None:
        """End all notes and the process; files are closed when this returns. More than once is fine."""
        process = self._process
        if process is None:
            return
        self._asked_to_stop = True
        if process.poll() is None and self._wire is not None:
            self._wire.send("stop")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
        self._kill()
        self._ended.wait(2.0)

    def __enter__(self) -> LiveNotes:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Started, and not ended yet."""
        return self._ready is not None and not self._ended.is_set()

    # --- figures ------------------------------------------------------------------------------------------------------

    @property
    def delay_parts_s(self) -> Mapping[str, Mapping[str, float]]:
        """By stem, seconds from a sound at the input to its note, by part: separation, transcription, handover."""
        before, after = self._delays["separation_s"], self._delays["handover_s"]
        return {
            stem: {"separation": before, "transcription": own, "handover": after}
            for stem, own in self._delays["transcription_s"].items()
        }

    @property
    def delays_s(self) -> Mapping[str, float]:
        """Their sums: a note-on of the stem goes out this long after its sound was captured, constantly."""
        return {stem: sum(parts.values()) for stem, parts in self.delay_parts_s.items()}

    @property
    def status(self) -> Mapping[str, Any]:
        """``midi`` (a `MidiStatus` or None), ``notes`` begun, ``sounding`` now, ``missed_hops``; some 0.25 s old."""
        return dict(self._status)

    @property
    def midi(self) -> MidiStatus | None:
        """The port's part of `status`."""
        status: MidiStatus | None = self._status["midi"]
        return status

    @property
    def pid(self) -> int:
        """Of the notes process; 0 before `start`."""
        return self._process.pid if self._process is not None else 0

    # --- controls -----------------------------------------------------------------------------------------------------

    def panic(self) -> None:
        """End everything that sounds at the receiver, whoever began it."""
        self._command("panic")

    def set_latency(self, latency: str) -> None:
        """Turn the dial; what sounds ends, and listening begins anew. UsageError for an unknown position."""
        from rtsep.notes.transcriber_info import DIAL

        if latency not in DIAL:
            raise UsageError(f"There is no latency {latency!r}.{errors.suggest(latency, DIAL)} {', '.join(DIAL)}.")
        self._command("latency", latency=latency)
        self._latency = latency

    @property
    def latency(self) -> str:
        """Where the dial stands."""
        return self._latency

    def set_strip(self, stem: str, strip: StripMidi) -> None:
        """Give a stem another channel, program or curve. StemNotFoundError."""
        from rtsep.mixer.settings import MixerSettings

        self._command("strip", stem=MixerSettings(self.config.info.stems).index(stem), strip=strip)

    def switch_port(self, port: str) -> None:
        """Go on with another port; see `MidiOutput.switch_port`."""
        self._command("port", port=port)

    def begin_take(self, folder: str | Path, start_s: float) -> None:
        """Log the notes from a second of the device's clock on, as ``notes.jsonl`` in a folder that is there.

        One at a time. A log that cannot be written is told by `end_take`. EngineError when the process has ended.
        """
        self._taken.clear()
        self._take_error, self._take_folder = None, str(Path(folder).absolute())
        self._command("take", folder=self._take_folder, start_s=start_s)

    def end_take(self, end_s: float) -> str | None:
        """End that log at a second of the device's clock, and wait until all notes up to there are in it.

        Returns
        -------
        str or None
            Why notes are missing, when some are; those before are in the log.
        """
        self._command("take ends", end_s=end_s)
        if not self._taken.wait(_TAKE_S):
            return "The notes process did not end its log in time."
        if not self.running and self._take_error is None:
            return "The notes process has ended."
        return self._take_error

    def _command(self, kind: str, **values: Any) -> None:
        if self._wire is None or not self.running or not self._wire.send(kind, **values):
            raise self.exit_error or EngineError("The notes process has ended.")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        assert self._wire is not None
        assert self._process is not None
        ended_well = False
        while (message := self._wire.receive()) is not None:
            kind = message.pop("kind")
            if kind == "ready":
                self._status["midi"] = message.pop("midi")
                self._delays = {name: value for name, value in message.items() if name.endswith("_s")}
                self._ready = message
                self._answered.set()
            elif kind == "delays":
                self._delays = message
            elif kind == "status":
                self._status = message
            elif kind == "taken" and message["folder"] == self._take_folder:
                self._take_error = message["error"]
                self._taken.set()
            elif kind == "events" and (on_events := self.on_events) is not None:
                on_events(message["events"])
            elif kind == "ended":
                ended_well = True
            elif kind == "error":
                self.exit_error = error_of(message)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        if not ended_well and self.exit_error is None and not self._asked_to_stop:
            last = "\n  ".join(self._talk[-12:])
            self.exit_error = EngineError("The notes process died." + (f" Its last words:\n  {last}" if last else ""))
        self._ended.set()
        self._answered.set()
        self._taken.set()

    def _overhear(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stderr:
                self._talk = [*self._talk[-40:], line.decode(errors="replace").rstrip()]

    def _kill(self) -> None:
        if self._process is not None:
            end_child(self._process)
