"""The port process: ``python -m rtsep.notes.port_process``, started by `rtsep.notes.output.MidiOutput` alone.

It owns port, ledger and schedule, and is the only one that may hang when a MIDI server dies. Commands come on stdin;
its end means that the other side is dead, and like every other end it ends all notes first. Events go out on what was
stdout. While it works it writes a heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any

from rtsep.engine.realtime import SERVICE_PRIORITY, make_thread_realtime, settle_interpreter
from rtsep.engine.wire import Wire
from rtsep.errors import DeviceLostError, RtsepError
from rtsep.notes.block import MidiBlock
from rtsep.notes.jack import JackWatch, Reconnector
from rtsep.notes.ledger import Ledger, note_off
from rtsep.notes.messages import NoteMessage
from rtsep.notes.ports import PORT_NAME, OutputPort, open_output
from rtsep.notes.schedule import RateLimit, Scheduler

SPIN_S = 0.0005
"""Sleeping is not exact: it ends this much before the time of a message."""
_BREATH_S = 0.1
_TICK_S = 0.05
_WATCH_S = 0.1
_HUNG_S = 5
"""After this long without a turn of the loop the kernel ends the process, also when nobody else is left to do it."""
_HUNG_REALTIME_US = 500_000
"""The same at real-time priority, where a driver that never sleeps would keep a core from everyone else."""
_SUSPECT_S = 2.0
_OLD_NAME_S = 1.0
_XRUN_S = 0.25
_REPEATED = 256


class PortProcess:
    """One run, from configuration to the last note-off."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._parent = os.getppid()
        self._orphan = False
        self._beat_at = self._slept_at = 0.0
        self._watch: JackWatch | None = None
        self._lost = ""
        self._suspects: list[tuple[int, int]] = []
        self._counted: dict[str, int] = {}

    def run(self) -> int:
        """Return the exit code. Sends ``ready``, later ``ended`` or ``error``."""
        first = self._wire.receive()
        if first is None or first["kind"] != "configure":
            return 1
        try:
            self._start(first)
        except RtsepError as error:
            self._wire.send("error", type=type(error).__name__, message=str(error), code=error.exit_code)
            return error.exit_code
        try:
            self._loop()
        except DeviceLostError as error:
            self._wire.send("error", type=type(error).__name__, message=str(error), code=error.exit_code)
            return error.exit_code
        self._end()
        return 0

    # --- start and end ------------------------------------------------------------------------------------------------

    def _start(self, message: dict[str, Any]) -> None:
        self._block = MidiBlock(message["shared"])
        died_at = self._block.heartbeat_s
        self._beat()
        self._limit = RateLimit(*message["rate"])
        self._ledger = Ledger(message["strips"], self._block.marks)
        self._scheduler = Scheduler(
            self._limit, time.monotonic(), late_limit_s=message["late_limit_s"], group=self._bend_group
        )
        recover = message["recover"]
        self._client_name = message["client_name"]
        # Whoever died before us may have left notes behind, some of them in a driver that died with it.
        self._suspects = self._block.marks.suspects(died_at - _SUSPECT_S) if recover else []
        self._block.marks.hold(self._suspects)
        self._open(message["port"], self._client_name, self._block.facts() if recover else {})
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self._inbox.put({"kind": "stop"}))
        settle_interpreter()
        if message["realtime"]:
            _be_realtime()  # for this thread and, by inheritance, those it starts
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        self._send_all(self._ledger.panic(suspects=self._suspects))
        self._send_all(self._ledger.setup())
        self._wire.send("ready", pid=os.getpid(), **self._facts)

    def _open(self, spec: str, client_name: str, before: dict[str, Any]) -> None:
        """Open a port; `before` are the facts of the process whose place this one takes."""
        watch = None if spec == "null" or spec.startswith("log:") else _watch(client_name)
        taken: list[str] = []
        try:
            if watch is not None:
                old = str(before.get("jack_port", ""))
                if old:
                    # Under the old name the person's own connections and sessions find it again.
                    watch.wait_until_gone(old, _OLD_NAME_S)
                    client_name = old.partition(":")[0]
                taken = watch.ports(f":{PORT_NAME}$")
            port = open_output(spec, client_name)
        except RtsepError:
            if watch is not None:
                watch.close()
            raise
        facts: dict[str, Any] = {"port": port.name, "api": port.api, "jack_port": "", "connections": [], "missing": []}
        if watch is not None and port.api != "JACK":
            watch.close()
            watch = None
        facts["reconnects"] = watch is not None
        if watch is None:
            self._settle(port, facts, None)
            return
        mine = [name for name in watch.ports(f":{PORT_NAME}$") if name not in taken]
        facts["jack_port"] = mine[0] if mine else f"{client_name}:{PORT_NAME}"
        if spec == "virtual":
            port.name = facts["port"] = facts["jack_port"]
        reconnector = Reconnector(watch, facts["jack_port"], before.get("connections", []) + before.get("missing", []))
        facts |= {"connections": reconnector.look(), "missing": reconnector.missing}
        self._settle(port, facts, watch)
        time.sleep(2 * watch.period_s)  # a connection holds from the next period on
        arguments = (watch, reconnector, facts["jack_port"], facts["connections"], facts["missing"])
        threading.Thread(target=self._watch_jack, args=arguments, name="jack", daemon=True).start()

    def _settle(self, port: OutputPort, facts: dict[str, Any], watch: JackWatch | None) -> None:
        self._port, self._facts, self._watch = port, facts, watch
        self._drain_s = 0.05 if watch is None else max(0.03, 3 * watch.period_s + 0.01)
        self._block.write_facts(facts)

    def _end(self) -> None:
        self._send_all(self._ledger.release())
        self._close_port()
        self._wire.send("ended")
        if self._orphan:
            self._block.unlink()

    def _close_port(self) -> None:
        self._drain()
        self._watch = None
        self._port.close()

    def _drain(self) -> None:
        """Wait until the driver has sent what it took, and say the last note-offs once more.

        JACK sends with the next period, and what it sends in a period that is cut short is lost.
        """
        time.sleep(self._drain_s)
        if self._watch is not None:
            self._repeat()
            time.sleep(self._drain_s)

    def _repeat(self) -> None:
        """Say the note-offs of the last moments once more; their marks keep the time of the first, or it never ends."""
        sounding = self._ledger.sounding()
        ended = self._block.marks.suspects(time.monotonic() - _XRUN_S)
        repeated = [note_off(*note) for note in ended if note not in sounding]
        self._send_all(repeated[:_REPEATED], mark=False)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while (message := self._wire.receive()) is not None:
            self._inbox.put(message)
        self._inbox.put({"kind": "orphan"})

    def _watch_jack(
        self, watch: JackWatch, reconnector: Reconnector, port: str, present: list[str], missing: list[str]
    ) -> None:
        xruns = watch.xruns
        while watch is self._watch:
            if watch.xruns != xruns:
                xruns = watch.xruns
                self._inbox.put({"kind": "xrun"})
            if watch.server_gone:
                self._lost = "The JACK server ended"
                return
            if not watch.exists(port):
                if watch is self._watch:
                    self._lost = f"JACK closed the port {port}"
                return
            before, before_missing = present, missing
            present, missing = reconnector.look(), reconnector.missing
            if (present, missing) != (before, before_missing):
                new = bool(set(present) - set(before))
                self._inbox.put({"kind": "connections", "present": present, "missing": missing, "new": new})
            time.sleep(_WATCH_S)
        watch.close()

    def _loop(self) -> None:
        while True:
            now = self._beat()
            if self._lost:
                raise DeviceLostError(f"{self._lost}. Notes go on when it is back.")
            if os.getppid() != self._parent and hasattr(os, "fork"):
                self._orphan = True
                return
            self._emit(now)
            wake = self._scheduler.wake_at(time.monotonic())
            message = self._await(time.monotonic() + _TICK_S if wake is None else wake)
            while message is not None:
                if not self._obey(message):
                    return
                try:
                    message = self._inbox.get_nowait()
                except queue.Empty:
                    message = None

    def _await(self, wake: float) -> dict[str, Any] | None:
        """Sleep until just before `wake`, watch the clock for the rest; return a command if one comes."""
        delay = min(wake - time.monotonic(), _TICK_S)
        with contextlib.suppress(queue.Empty):
            now = time.monotonic()
            if delay > SPIN_S or now - self._slept_at > _BREATH_S:
                self._slept_at = now
                return self._inbox.get(timeout=max(1e-4, delay - SPIN_S))
            while time.monotonic() < wake:
                if not self._inbox.empty():
                    return self._inbox.get_nowait()
            return self._inbox.get_nowait()
        return None

    def _emit(self, now: float) -> None:
        for _ in range(64):  # then the commands have a turn
            message = self._scheduler.next(now)
            if message is None:
                break
            out = self._ledger.messages(message)
            self._scheduler.spent(len(out))
            for data in out:
                self._send(data)
            now = time.monotonic()
        for name in ("late", "dropped", "coalesced"):
            value = getattr(self._scheduler, name)
            self._block.count(name, value - self._counted.get(name, 0))
            self._counted[name] = value

    def _obey(self, message: dict[str, Any]) -> bool:
        """Do what a command says; False when it is the last one."""
        kind = message["kind"]
        if kind == "notes":
            for fields in message["notes"]:
                self._scheduler.add(NoteMessage(*fields))
        elif kind == "release":
            self._scheduler.cancel(message["stem"])
            self._send_all(self._ledger.release(message["stem"]))
        elif kind == "panic":
            self._scheduler.cancel()
            if message["all_channels"]:
                self._ledger.use_all_channels()
            self._send_all(self._ledger.panic(every_note=True))
        elif kind == "strip":
            self._scheduler.cancel(message["stem"])
            self._send_all(self._ledger.set_strip(message["stem"], message["strip"]))
        elif kind == "port":
            self._switch(message["port"])
        elif kind == "connections":
            self._facts |= {"connections": message["present"], "missing": message["missing"]}
            self._block.write_facts(self._facts)
            if message["new"]:
                # A new listener knows no program yet, and may be one that the process before us left with notes.
                sounding = self._ledger.sounding()
                self._send_all(note_off(*note) for note in self._suspects if note not in sounding)
                self._send_all(self._ledger.setup())
        elif kind == "xrun":
            self._repeat()
        elif kind in ("stop", "orphan"):
            self._orphan = kind == "orphan"
            return False
        return True

    def _switch(self, spec: str) -> None:
        self._scheduler.cancel()
        self._send_all(self._ledger.release())
        self._drain()
        old = self._port
        try:
            self._open(spec, self._client_name, {})
        except RtsepError as error:
            self._wire.send("refused", type=type(error).__name__, message=str(error), port=spec)
            return
        old.close()
        self._block.marks.clear()
        self._suspects = []
        self._send_all(self._ledger.panic())
        self._send_all(self._ledger.setup())
        self._wire.send("switched", spec=spec, **self._facts)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes, mark: bool = True) -> None:
        marks = self._block.marks
        marks.sending(data)
        self._port.send(data)
        if mark:
            marks.sent(data, time.monotonic())
        self._block.count("sent", 1)

    def _send_all(self, messages: Iterable[bytes], mark: bool = True) -> None:
        """Send what must go out now, whole and in order, at the rate the port stands."""
        bucket = self._scheduler.bucket
        for data in messages:
            while (wait := bucket.wait_s(time.monotonic())) > 0:
                time.sleep(wait)
            bucket.spend(1)
            self._send(data, mark)
            self._beat()

    def _bend_group(self, message: NoteMessage) -> Any:
        strip = self._ledger.strips[message.stem]
        return (message.stem, message.pitch) if strip.mpe_channels else strip.channel

    def _beat(self) -> float:
        now = time.monotonic()
        if now - self._beat_at >= _TICK_S / 2:
            self._beat_at = now
            self._block.heartbeat_s = now
            if hasattr(signal, "setitimer"):
                # Not caught by anyone: it ends this process also when the interpreter hangs in the driver.
                signal.setitimer(signal.ITIMER_REAL, _HUNG_S)
        return now


def _be_realtime() -> None:
    """Ask for real-time priority, below all audio, with the kernel to end us when we hang at it."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
        resource.setrlimit(resource.RLIMIT_RTTIME, (_HUNG_REALTIME_US, hard))
        make_thread_realtime(SERVICE_PRIORITY)


def _watch(client_name: str) -> JackWatch | None:
    try:
        return JackWatch(f"{client_name}-watch")
    except (OSError, AttributeError):
        return None


def main() -> None:
    """Take the pipes, run, and end without waiting for a driver that hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for whoever started us
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    code = 1
    try:
        code = PortProcess(Wire(sys.stdin.buffer, events)).run()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
