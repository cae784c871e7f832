"""The notes process: ``python -m rtsep.notes.process``, started by `rtsep.notes.live.LiveNotes` and by nothing else.

It reads the stems from the engine's tap, writes them down, plays the notes through a `MidiOutput` (whose port lives in
a process of its own) and keeps the take. Commands come on stdin, whose end means the control process is gone; events go
out on what was stdout. When the engine stops giving signs of life everything that sounds ends.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any

from rtsep.engine.realtime import NOTES_PRIORITY, OverloadGuard, settle_interpreter
from rtsep.engine.wire import Wire
from rtsep.errors import EngineError, RtsepError
from rtsep.notes.clock import CaptureClock
from rtsep.notes.config import NotesConfig
from rtsep.notes.messages import NoteMessage
from rtsep.notes.output import MidiOutput
from rtsep.notes.stream import StemEvent, StemNotes
from rtsep.notes.take import NotesLog, Take
from rtsep.notes.tap import Tap, TapHop

_LOOK_S = 0.002
_STATUS_S = 0.25
_ENGINE_SILENT_S = 0.6
# For the engine's worker to compute a hop, as a part of the hop, and for the look at the tap.
_WORKER_PART, _LOOKS_S = 0.5, 0.004
_ENDS_KNOWN_S = 0.1  # ends are known up to 40 ms after their time


class NotesProcess:
    """One run, from configuration to the last note ended."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._output: MidiOutput | None = None
        self._take: Take | None = None
        self._log: NotesLog | None = None
        self._log_folder = ""
        self._next_hop: tuple[int, int] | None = None
        self._origin_s, self._base = 0.0, 0
        self._engine_silent = False
        self._counts = {"notes": 0, "missed_hops": 0}
        self._heard = -1
        self._sounding: set[tuple[int, int]] = set()

    def run(self) -> int:
        """Return the exit code. Sends ``ready``, then ``ended`` or ``error``."""
        first = self._wire.receive()
        if first is None or first["kind"] != "configure":
            return 1
        error_seen: RtsepError | None = None
        try:
            self._open(first["config"])
            self._listen()
            self._loop()
        except RtsepError as error:
            error_seen = error
        except Exception as error:  # whatever a MIDI system or a graph does must reach the person as a sentence
            error_seen = EngineError(f"The notes process failed: {type(error).__name__}: {error}")
            traceback.print_exc()
        try:
            self._close()
        except RtsepError as error:
            error_seen = error_seen or error
        if error_seen is not None:
            self._wire.send("error", type=type(error_seen).__name__, message=str(error_seen))
            return error_seen.exit_code
        self._wire.send("ended")
        return 0

    # --- start and end ------------------------------------------------------------------------------------------------

    def _open(self, config: NotesConfig) -> None:
        self._config, self._strips = config, list(config.strips)
        self._tap = Tap(config.tap)
        self._clock = CaptureClock(config.samplerate)
        self._hop_s = config.info.hop_samples / config.rate
        self._notes = self._new_notes(config.latency)
        if config.port is not None:
            self._output = MidiOutput(config.port, config.strips, config.client_name)
        if config.take is not None:
            self._take = Take(config)
        # What was written while the graphs were loading is too late to be played.
        self._tap.position = self._tap.written
        self._wire.send("ready", pid=os.getpid(), **self._delays(), midi=self._output and self._output.status)
        settle_interpreter()
        # Before what only computes, after all that makes sound. The output's threads have begun and do not inherit it.
        self._guard = OverloadGuard(self._hop_s, NOTES_PRIORITY)
        self._guard.start()

    def _new_notes(self, latency: str) -> StemNotes:
        c = self._config
        return StemNotes(c.info, c.rate, latency, transcribers=c.transcribers, stems=c.stems, bends=self._bending())

    def _bending(self) -> list[str]:
        """Stems whose strips play pitch bends."""
        return [strip.name for strip in self._strips if strip.bends]

    def _delays(self) -> dict[str, Any]:
        """Seconds from a sound at the input to its note at the port, part by part; transcription by stem."""
        c = self._config
        separation_s = c.stem_delay / c.rate + (1 + _WORKER_PART) * self._hop_s
        transcription_s = {c.info.stems[stem]: delay_s for stem, delay_s in self._notes.delays_s.items()}
        return {"separation_s": separation_s, "transcription_s": transcription_s, "handover_s": _LOOKS_S}

    def _close(self) -> None:
        if self._output is not None:
            self._output.close()
        self._end_log()
        if self._take is not None:
            self._take.close()

    # --- a take that begins and ends while this runs ------------------------------------------------------------------

    def _begin_log(self, folder: str, start_s: float) -> None:
        self._end_log()
        self._log_folder = folder
        try:
            self._log = NotesLog(folder, self._strips, self._config.samplerate, start_s)
        except RtsepError as error:
            self._wire.send("taken", folder=folder, error=str(error))

    def _end_log(self) -> None:
        if self._log is not None:
            error, self._log = self._log.close(), None
            self._wire.send("taken", folder=self._log_folder, error=None if error is None else str(error))

    def _known_s(self) -> float:
        """Seconds of the device's clock up to which all notes have been given, their ends too."""
        if self._next_hop is None:
            return -math.inf
        delay_s = max(self._notes.delays_s.values(), default=0.0) + _ENDS_KNOWN_S
        heard_s = self._base / self._config.samplerate + self._next_hop[1] * self._hop_s
        return heard_s - self._config.stem_delay / self._config.rate - delay_s

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        def listen() -> None:
            while (message := self._wire.receive()) is not None:
                self._inbox.put(message)
            self._inbox.put(None)

        threading.Thread(target=listen, name="commands", daemon=True).start()
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self._inbox.put({"kind": "stop"}))

    def _loop(self) -> None:
        next_status = 0.0
        while True:
            try:
                message = self._inbox.get(timeout=_LOOK_S)
            except queue.Empty:
                pass
            else:
                if message is None or message["kind"] == "stop":
                    self._read()
                    self._release()
                    return
                self._obey(message)
            self._read()
            if self._log is not None and self._log.over(self._known_s(), self._engine_silent):
                self._end_log()
            now = time.monotonic()
            self._watch_engine(now)
            if now >= next_status:
                next_status = now + _STATUS_S
                self._send_status()

    def _obey(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "panic":
            self._release()
            if self._output is not None:
                self._output.panic(all_channels=message.get("all_channels", False))
        elif kind == "latency":
            notes = self._new_notes(message["latency"])
            self._release()
            self._notes = notes
            self._wire.send("delays", **self._delays())
        elif kind == "strip" and self._output is not None:
            self._output.set_strip(message["stem"], message["strip"])
            self._strips[message["stem"]] = message["strip"]
            self._notes.set_bends(self._bending())
        elif kind == "take":
            self._begin_log(message["folder"], message["start_s"])
        elif kind == "take ends" and self._log is not None:
            self._log.end_at(message["end_s"])
        elif kind == "port" and self._output is not None:
            self._output.switch_port(message["port"])

    def _read(self) -> None:
        while (hop := self._tap.read()) is not None:
            self._process(hop)
            self._guard.after_hop()

    def _process(self, hop: TapHop) -> None:
        c = self._config
        if self._next_hop != (hop.epoch, hop.hop):
            # A restart of the model, hops that were missed, or the beginning: time has jumped.
            self._release()
            self._origin_s, self._base = hop.hop * self._hop_s, hop.base
            self._counts["missed_hops"] = self._tap.missed
        self._next_hop = (hop.epoch, hop.hop + 1)
        self._clock.observe(hop.base + int((hop.hop + 1) * self._hop_s * c.samplerate), hop.taken_ns * 1e-9)
        heard = -1 if c.muted_too else hop.audible
        if self._take is not None:
            self._take.put_stems(hop)
        self._play(self._notes.push(hop.stems, hop.notes, heard))

    def _position_s(self, event: StemEvent) -> float:
        """Seconds of the device's clock at which the sound of an event was captured."""
        c = self._config
        return self._base / c.samplerate + self._origin_s + event.time_s - c.stem_delay / c.rate

    def _play(self, events: list[StemEvent]) -> None:
        delays = self._delays()
        given_s = delays["separation_s"] + delays["handover_s"]
        messages = []
        for event in events:
            delay_s = given_s + self._notes.delays_s[event.stem]
            key = (event.stem, event.pitch)
            position_s = self._position_s(event)
            if event.kind == "on":
                self._counts["notes"] += 1
                self._sounding.add(key)
            elif event.kind == "off":
                self._sounding.discard(key)
            due_s = self._clock.time_of(position_s * self._config.samplerate) + delay_s
            for log in self._logs():
                # What is found after it was due, as most ends are, goes out at once.
                log.put_note(event, position_s, max(position_s + delay_s, self._now_s()))
            messages.append(NoteMessage(due_s, event.stem, event.kind, event.pitch, max(1, event.velocity), event.bend))
        if messages and self._output is not None:
            self._output.send(messages)
        self._report_events(events)

    def _report_events(self, events: list[StemEvent]) -> None:
        """Tell the control process what begins and ends, for whoever looks on."""
        told = [(e.kind, e.stem, e.pitch, e.velocity, self._position_s(e)) for e in events if e.kind != "bend"]
        if told:
            self._wire.send("events", events=told)

    def _release(self) -> None:
        """End what sounds, in the output and in the take, and begin to listen anew with the next hop."""
        ends = self._notes.reset()
        self._report_events(ends)
        for log in self._logs():
            for event in ends:
                log.put_note(event, self._position_s(event), self._now_s())
        self._next_hop = None
        self._sounding.clear()
        if self._output is not None:
            self._output.release()

    def _logs(self) -> list[Take | NotesLog]:
        return [log for log in (self._take, self._log) if log is not None]

    def _now_s(self) -> float:
        """Seconds on the device's clock, now; only after a hop was seen."""
        return time.monotonic() - self._clock.time_of(0.0)

    def _watch_engine(self, now: float) -> None:
        beat = self._tap.beat_ns
        silent = beat > 0 and now - beat * 1e-9 > _ENGINE_SILENT_S
        if silent and not self._engine_silent:
            self._release()
        self._engine_silent = silent

    def _send_status(self) -> None:
        status = None if self._output is None else self._output.status
        self._wire.send("status", midi=status, sounding=len(self._sounding), **self._counts)


def main() -> None:
    """Take the pipes, run, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    code = NotesProcess(Wire(sys.stdin.buffer, events)).run()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
