"""Live MIDI out: notes go to a process of their own, which is watched, ended and replaced when it hangs or dies."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from rtsep.engine.realtime import SERVICE_PRIORITY, make_thread_realtime
from rtsep.errors import MidiSystemError, RtsepError, UsageError
from rtsep.notes import ports
from rtsep.notes.block import MidiBlock
from rtsep.notes.child import PortChild
from rtsep.notes.messages import NoteMessage, StripMidi, check_strips
from rtsep.notes.schedule import rate_limit

HEARTBEAT_S = 1.0
_LOOK_S = 0.02
_PAUSES_S = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
_HEALTHY_S = 1.0
_BATCH = 256


@dataclass(frozen=True)
class MidiStatus:
    """A look at a `MidiOutput`.

    Parameters
    ----------
    port, api : str
        What is open: its name and its system, empty for ``null`` and ``log:``.
    connections : tuple of str
        Where a JACK port is connected; empty elsewhere, where it is not known.
    missing : tuple of str
        Where it was connected, and will be again when that is back.
    sent : int
        MIDI messages, with note-offs and controllers.
    late : int
        Note-ons that went out more than 5 ms after their time.
    dropped : int
        Note-ons, bends and pressures that never went out: too many, too late, or while the port was dead.
    coalesced : int
        Bends and pressures replaced by a newer one.
    respawns : int
        How often the port process was replaced.
    dead : bool
        There is no working port at the moment; it is being tried again.
    problem : str
        The last thing that went wrong, a sentence; empty when nothing did.
    pid : int
        Of the port process; 0 without one.
    """

    port: str
    api: str
    connections: tuple[str, ...]
    missing: tuple[str, ...]
    sent: int
    late: int
    dropped: int
    coalesced: int
    respawns: int
    dead: bool
    problem: str
    pid: int


class MidiOutput:
    """A MIDI port that plays note messages at their due times and leaves no note hanging; context manager.

    Parameters
    ----------
    port : str
        ``virtual``, ``null``, ``log:PATH`` or part of a port's name.
    strips : sequence of StripMidi
        By stem index.
    client_name : str
        What other programs see.
    rate : {"virtual", "din"}
        Limit of messages a second: for ports between programs, or for a cable of 31250 baud.
    late_limit_s : float
        A note-on later than this is dropped; above 0.
    queue_limit : int
        Messages that may wait for the port process, 16 or more. Beyond it note-ons and bends are dropped and counted;
        a note-off of a note that was taken never is.
    realtime : bool
        Ask for real-time priority for the port process, below all audio; without the right to it nothing changes.
    start_timeout_s : float
        How long the constructor waits for the port.

    Raises
    ------
    MidiSystemError, DeviceNotFoundError, DeviceAmbiguousError, DeviceBusyError
        The port cannot be opened; or nothing answers within `start_timeout_s`.
    UsageError
        A value is outside what is said above, or strips claim the same MPE channel.

    Notes
    -----
    The constructor waits for the port (typically 0.3 s), `close` for its end; everything else takes microseconds and
    may be called from any thread, but not from an audio callback. Notes end when this object is closed, when the
    process that holds it ends or is killed, and when the port process is killed or hangs: another one then takes its
    place, connects to the same JACK ports and ends what sounded. ALSA connections cannot be made again; a port chosen
    by name can.
    """

    def __init__(
        self,
        port: str,
        strips: Sequence[StripMidi],
        client_name: str = "rtsep",
        *,
        rate: Literal["virtual", "din"] = "virtual",
        late_limit_s: float = 0.25,
        queue_limit: int = 4096,
        realtime: bool = True,
        start_timeout_s: float = 10.0,
    ) -> None:
        ports.check_name(port)
        check_strips(strips)
        if not client_name or ":" in client_name:
            raise UsageError(f"client_name must be a name without a colon; got {client_name!r}.")
        if not late_limit_s > 0:
            raise UsageError(f"late_limit_s must be above 0; got {late_limit_s}.")
        if queue_limit < 16:
            raise UsageError(f"queue_limit must be 16 or more; got {queue_limit}.")
        limit = rate_limit(rate)
        self._port, self._strips = port, list(strips)
        self._fixed = {
            "client_name": client_name,
            "rate": (limit.rate, limit.burst),
            "late_limit_s": late_limit_s,
            "realtime": realtime,
        }
        self._queue_limit, self._start_timeout_s = queue_limit, start_timeout_s
        self._changed = threading.Condition()
        # Guarded by the condition's lock, which is never held while anything waits.
        self._queue: collections.deque[tuple[Any, ...] | dict[str, Any]] = collections.deque()
        self._open: set[tuple[int, int]] = set()
        self._dropped = 0
        self._child: PortChild | None = None
        self._dead = True
        self._closing = False
        self._next_port: str | None = None
        self._facts: dict[str, Any] = {}
        self._problem = ""
        self._respawns = 0
        self._start_error: RtsepError | None = None
        self._started, self._finished = threading.Event(), threading.Event()
        self._block = MidiBlock()
        threading.Thread(target=self._supervise, name="midi-watchdog", daemon=True).start()
        threading.Thread(target=self._feed, name="midi-feed", daemon=True).start()
        answered = self._started.wait(start_timeout_s + 1.0)
        if self._start_error is not None or not answered:
            self.close()
            raise self._start_error or MidiSystemError(f"The MIDI port {port!r} did not open. See: rtsep midi list")

    # --- notes --------------------------------------------------------------------------------------------------------

    def send(self, messages: Iterable[NoteMessage]) -> None:
        """Hand over messages, in the order of each note's own events. Returns at once; any thread.

        Raises
        ------
        UsageError
            A stem has no strip.
        """
        messages = list(messages)
        for message in messages:
            self._check_stem(message.stem)
        with self._changed:
            for message in messages:
                if self._take(message):
                    self._queue.append(message.pack())
            self._changed.notify()

    def _take(self, message: NoteMessage) -> bool:
        key = (message.stem, message.pitch)
        if message.kind == "off":
            # One per note taken: that bounds them, and the end of a note that was dropped is none.
            wanted = key in self._open
            self._open.discard(key)
            return wanted
        if self._dead or self._closing or len(self._queue) >= self._queue_limit:
            self._dropped += 1
            return False
        if message.kind == "on":
            self._open.add(key)
        return True

    def release(self, stem: int | None = None) -> None:
        """End all notes of a stem, or of all stems, and forget those still to come. Returns at once.

        Raises
        ------
        UsageError
            The stem has no strip.
        """
        if stem is not None:
            self._check_stem(stem)
        self._command({"kind": "release", "stem": stem}, forget=stem)

    def panic(self, *, all_channels: bool = False) -> None:
        """Send note-offs for every note of the channels that were used, and silence on all 16. Returns at once.

        Parameters
        ----------
        all_channels : bool
            Note-offs on all 16 channels: 2048 of them take about 2 s.
        """
        self._command({"kind": "panic", "all_channels": all_channels}, forget=None)

    def set_strip(self, stem: int, strip: StripMidi) -> None:
        """Give a stem another channel, program or curve; its notes are released on the old channel first.

        Raises
        ------
        UsageError
            The stem has no strip, or the channel belongs to another strip's MPE zone.
        """
        self._check_stem(stem)
        strips = [*self._strips[:stem], strip, *self._strips[stem + 1 :]]
        check_strips(strips)
        with self._changed:
            self._strips = strips
        self._command({"kind": "strip", "stem": stem, "strip": strip}, forget=stem)

    def switch_port(self, port: str) -> None:
        """Release everything on the present port and go on with another. Returns at once.

        When the other one cannot be opened the present one stays, and `status` says why in `problem`. While the port
        is dead its notes are still to be ended: it is tried once more, and left when that fails.

        Raises
        ------
        UsageError
            The name says nothing.
        """
        ports.check_name(port)
        with self._changed:
            self._next_port = port  # until it is answered: a process that dies before that leaves it to the next one
        self._command({"kind": "port", "port": port}, forget=None)

    @property
    def strips(self) -> tuple[StripMidi, ...]:
        """The strips as they are now."""
        return tuple(self._strips)

    @property
    def status(self) -> MidiStatus:
        """A look at what it does; returns at once."""
        with self._changed:
            facts, child = self._block.facts() or self._facts, self._child
            return MidiStatus(
                port=str(facts.get("port", self._port)),
                api=str(facts.get("api", "")),
                connections=() if self._dead else tuple(facts.get("connections", ())),
                missing=tuple(facts.get("missing", ())),
                sent=self._block.counter("sent"),
                late=self._block.counter("late"),
                dropped=self._block.counter("dropped") + self._dropped,
                coalesced=self._block.counter("coalesced"),
                respawns=self._respawns,
                dead=self._dead,
                problem=self._problem,
                pid=child.process.pid if child is not None else 0,
            )

    def close(self, timeout_s: float = 4.0) -> None:
        """End all notes, close the port, end the process; waits up to `timeout_s`. More than once is fine."""
        with self._changed:
            already, self._closing = self._closing, True
            if not already:
                self._queue.append({"kind": "stop"})
            self._changed.notify_all()
        self._finished.wait(timeout_s)
        with self._changed:
            child = self._child
        if not self._finished.is_set() and child is not None:
            with contextlib.suppress(OSError):
                child.process.kill()

    def __enter__(self) -> MidiOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- queue --------------------------------------------------------------------------------------------------------

    def _check_stem(self, stem: int) -> None:
        if not 0 <= stem < len(self._strips):
            raise UsageError(f"There is no MIDI strip {stem}; there are {len(self._strips)}, from 0.")

    def _command(self, command: dict[str, Any], forget: int | None) -> None:
        """Queue a command. What it makes pointless leaves the queue, which bounds the commands in it."""
        kind = command["kind"]
        with self._changed:
            if self._closing or self._dead:
                return
            if forget is None:
                self._open.clear()
            else:
                self._open = {key for key in self._open if key[0] != forget}

            def stays(item: tuple[Any, ...] | dict[str, Any]) -> bool:
                if isinstance(item, tuple):
                    return forget is not None and item[1] != forget
                same = item["kind"] == kind or item["kind"] == "release"
                return not (same and (forget is None or item.get("stem") == forget))

            self._queue = collections.deque(item for item in self._queue if stays(item))
            self._queue.append(command)
            self._changed.notify()

    def _feed(self) -> None:
        """Write the queue to the port process. Only this thread waits when its pipe is full."""
        if self._fixed["realtime"]:
            make_thread_realtime(SERVICE_PRIORITY)
        while not self._finished.is_set():
            with self._changed:
                while not self._queue or self._child is None or self._dead:
                    if self._finished.is_set():
                        return
                    self._changed.wait(0.5)
                child = self._child
                items = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            notes: list[tuple[Any, ...]] = []
            for item in items:
                if isinstance(item, tuple):
                    notes.append(item)
                    continue
                if notes:
                    child.wire.send("notes", notes=notes)
                    notes = []
                child.wire.send(**item)
            if notes:
                child.wire.send("notes", notes=notes)

    # --- watchdog -----------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            failures = 0
            while True:
                child = self._spawn(recover=self._started.is_set())
                ended = child is not None and self._attend(child)
                if child is not None:
                    child.kill()
                if ended or self._start_error is not None:
                    return
                with self._changed:
                    closing = self._closing
                    self._respawns += 1
                if closing and failures:
                    return
                opened = child is not None and child.ready is not None
                lived = child is not None and opened and time.monotonic() - child.began > _HEALTHY_S
                failures = 0 if lived else failures + 1
                # A system on which the port opens is well: no reason to be silent for long.
                self._pause(_PAUSES_S[min(failures, 2 if opened else len(_PAUSES_S) - 1)])
        finally:
            with self._changed:
                self._dead = True
                self._queue.clear()
            self._block.unlink()
            self._started.set()
            self._finished.set()
            with self._changed:
                self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._closing and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _spawn(self, recover: bool) -> PortChild | None:
        with self._changed:
            port, strips = self._port, list(self._strips)
        try:
            child = PortChild(
                {**self._fixed, "shared": str(self._block.path), "port": port, "strips": strips, "recover": recover}
            )
        except OSError as error:
            self._lose(f"The MIDI port process could not be started: {error.strerror}.")
            return None
        with self._changed:
            self._child = child
        return child

    def _lose(self, problem: str) -> None:
        with self._changed:
            self._dead, self._problem = True, problem
            self._queue.clear()
            self._open.clear()

    def _attend(self, child: PortChild) -> bool:
        """Watch a process until it ends; True when it ended as it was asked to."""
        looked = time.monotonic()
        quiet_looks = 0
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            paused, looked = now - looked > 0.25, now
            if child.process.poll() is not None:
                child.kill()
                return self._note_end(child)
            if child.ready is None:
                if now - child.began > self._start_timeout_s:
                    child.kill()
                    child.error = child.error or MidiSystemError(
                        f"The MIDI system did not open {self._port!r} within {self._start_timeout_s:.0f} s; it may "
                        "hang. Restart the JACK server, or use another port: rtsep midi list"
                    )
                    return self._note_end(child)
                continue
            if self._dead:
                self._go(child)
            self._hear(child)
            # Looks are counted, not seconds alone: when we were suspended ourselves, it was too.
            silent = now - max(self._block.heartbeat_s, child.began) > HEARTBEAT_S
            quiet_looks = quiet_looks + 1 if silent and not paused else 0
            if quiet_looks >= 5:
                child.kill()
                child.error = MidiSystemError(
                    f"The MIDI port process hung for {HEARTBEAT_S:.0f} s, as it does when a MIDI server dies; it was "
                    "ended and is being replaced."
                )
                return self._note_end(child)

    def _go(self, child: PortChild) -> None:
        with self._changed:
            self._dead = False
            self._facts = child.ready or {}
            if self._respawns and not self._facts.get("reconnects") and self._port == "virtual":
                self._problem += " Connections of its port have to be made again by hand."
            if self._facts.get("api") == "JACK" and self._port != "virtual":
                self._port = self._facts["port"]  # the part of a name that was given may fit another port later
            if self._next_port is not None:
                self._queue.append({"kind": "port", "port": self._next_port})
                self._next_port = None
            if self._closing:
                self._queue.append({"kind": "stop"})
            self._changed.notify_all()
        self._started.set()

    def _hear(self, child: PortChild) -> None:
        for message in child.news():
            with self._changed:
                if message["kind"] == "refused":
                    self._problem, answered = message["message"], message["port"]
                elif message["kind"] == "switched":
                    self._facts, self._problem = message, ""
                    self._port = answered = message["spec"]
                else:
                    continue
                if answered == self._next_port:
                    self._next_port = None

    def _note_end(self, child: PortChild) -> bool:
        self._hear(child)  # what it said last: a port it went over to is the one to open again
        if child.ended and self._closing:
            return True
        error = child.error
        with self._changed:
            if child.ready is None and self._next_port is not None:
                self._port, self._next_port = self._next_port, None
        if not self._started.is_set():
            self._start_error = error or MidiSystemError(child.obituary())
        if child.ended:
            self._lose("The MIDI port process was told to end, not by us; it is being replaced.")
        else:
            self._lose(str(error) if error is not None else child.obituary())
        return False
