"""OSC in and out: the parameters as addresses of a UDP port; docs/control.md has the address space.

One thread reads, acts and answers. Whatever comes in is bounded, dropped and counted; nothing of it raises.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rtsep.control.osc_packets import LONGEST, NoOscError, decode, encode, load_osc
from rtsep.control.registry import Registry
from rtsep.errors import ControlError, RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.control.parameter import Parameter, Value
    from rtsep.mixer.meters import Meters

Address = tuple[str, int]

ROOT = "/rtsep"
MESSAGES_PER_S, MESSAGES_AT_ONCE = 2000, 1000
"""What is acted on; the rest is dropped."""
MOST_SUBSCRIBERS = 16
DEFAULT_LEASE_S, LONGEST_LEASE_S = 60.0, 3600.0
FEEDBACK_S, METERS_S = 0.02, 0.05
"""A subscriber gets the last value of what changed at most this often, and its meters."""
_IDLE_S = 0.25
_PER_TURN = 64
_ERRORS_PER_S = 10
_FLOOR_DB = -100.0
_METER_FLOOR_DB = -60.0


@dataclass
class OscCounts:
    """What has come and gone since the start.

    Parameters
    ----------
    received : int
        Datagrams.
    acted : int
        Messages that did what they say.
    refused : int
        Messages with an unknown address, or a value that is not allowed.
    garbage : int
        Datagrams that are no OSC.
    dropped : int
        Datagrams beyond the rate, those that the system dropped before us among them (Linux tells).
    sent : int
        Datagrams sent.
    """

    received: int = 0
    acted: int = 0
    refused: int = 0
    garbage: int = 0
    dropped: int = 0
    sent: int = 0


@dataclass
class _Subscriber:
    to: Address
    owner: Address | None
    """Who sends from where: changes of his own do not come back to him. None: anybody on the host of `to`."""
    until: float = math.inf
    lease_s: float = DEFAULT_LEASE_S
    meters: bool = False
    pending: dict[str, None] = field(default_factory=dict)
    meters_due: float = 0.0

    def is_source(self, source: str) -> bool:
        if self.owner is not None:
            return source == _source(self.owner)
        return source.startswith(f"osc:{self.to[0]}:")


def parse_endpoint(text: str, default_host: str = "127.0.0.1") -> Address:
    """Return host and port of ``9000``, ``host:9000`` or ``[::1]:9000``. UsageError for anything else."""
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else default_host
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is no port for OSC; for example 9000, or 0.0.0.0:9000 for the whole network.")
    return host, int(port)


class OscServer:
    """Parameters on a UDP port; context manager.

    Parameters
    ----------
    registry : Registry
    host, port : str, int
        Where to listen; 127.0.0.1 hears this machine alone. Port 0 takes a free one.
    meters : callable, optional
        Returns a snapshot of the levels, for those who subscribe to meters.
    feedback : iterable of (str, int)
        Who is told of every change for good, without subscribing.

    Attributes
    ----------
    address : (str, int)
        Where it listens.
    counts : OscCounts

    Raises
    ------
    ControlError
        The port is taken, the host is not ours, or python-osc is not installed.

    Notes
    -----
    OSC knows no passwords: whoever reaches the port can move the faders.
    """

    def __init__(
        self,
        registry: Registry,
        host: str = "127.0.0.1",
        port: int = 9000,
        *,
        meters: Callable[[], Meters] | None = None,
        feedback: Iterable[Address] = (),
    ) -> None:
        load_osc()
        self.counts = OscCounts()
        self._registry, self._meters = registry, meters
        self._socket = _open(host, port)
        self.address: Address = self._socket.getsockname()[:2]
        try:
            self._subscribers = [_Subscriber(_resolved(to, self._socket.family), None) for to in feedback]
        except BaseException:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._changed: dict[str, str] = {}
        self._tokens, self._refilled = float(MESSAGES_AT_ONCE), time.monotonic()
        self._errors_left, self._errors_second = 0, 0
        self._kernel_drops = 0
        self._feedback_due = 0.0
        self._closing = False
        for subscriber in self._subscribers:
            subscriber.pending = dict.fromkeys(registry.parameters)
        self._unsubscribe = registry.subscribe(self._on_value, self._on_table)
        self._thread = threading.Thread(target=self._run, name="osc", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; more than once is fine."""
        self._closing = True
        self._unsubscribe()
        self._thread.join(5.0)
        self._socket.close()

    def __enter__(self) -> OscServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach it."""
        return _is_loopback(self.address[0])

    @property
    def subscribers(self) -> list[Address]:
        """Who is told of changes now."""
        return [subscriber.to for subscriber in self._subscribers]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` and ``--stats`` say of it."""
        return {"address": list(self.address), **asdict(self.counts)}

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            # Whoever has subscribed waits for changes that other threads make.
            wait = FEEDBACK_S if self._subscribers else _IDLE_S
            with contextlib.suppress(OSError):
                if select.select([self._socket], [], [], wait)[0]:
                    self._receive()
            now = time.monotonic()
            if now >= self._feedback_due:
                self._feedback_due = now + FEEDBACK_S
                self._tell(now)

    def _receive(self) -> None:
        self._refill()
        for _ in range(_PER_TURN):
            try:
                datagram, sender = self._read()
            except BlockingIOError:
                return
            except OSError:  # Windows tells of a receiver that has gone as an error of the next read
                continue
            self.counts.received += 1
            if self._tokens < 1 and not self._refill():
                self.counts.dropped += 1
                continue
            try:
                messages = decode(datagram)
            except NoOscError:
                self._tokens -= 1
                self.counts.garbage += 1
                continue
            self._tokens -= len(messages)
            for address, arguments in messages:
                self._act(address, arguments, sender)
        if self._tokens < 1 and not self._refill():
            # A flood: what does not fit into the socket's buffer meanwhile is the system's to drop.
            time.sleep(FEEDBACK_S / 2)

    def _read(self) -> tuple[bytes, Address]:
        if not hasattr(self._socket, "recvmsg"):
            datagram, sender = self._socket.recvfrom(LONGEST + 1)
            return datagram, sender[:2]
        datagram, extra, _, sender = self._socket.recvmsg(LONGEST + 1, socket.CMSG_SPACE(4))
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, _RXQ_OVFL) and len(data) >= 4:
                total = int.from_bytes(data[:4], sys.byteorder)
                self.counts.dropped += (total - self._kernel_drops) % (1 << 32)
                self._kernel_drops = total
        return datagram, sender[:2]

    def _refill(self) -> bool:
        now = time.monotonic()
        self._tokens = min(float(MESSAGES_AT_ONCE), self._tokens + (now - self._refilled) * MESSAGES_PER_S)
        self._refilled = now
        return self._tokens >= 1

    # --- messages -----------------------------------------------------------------------------------------------------

    def _act(self, address: str, arguments: list[Any], sender: Address) -> None:
        self._renew(sender)
        try:
            self._obey(address, arguments, sender)
        except RtsepError as error:
            self.counts.refused += 1
            self._complain(str(error), sender)
        else:
            self.counts.acted += 1

    def _obey(self, address: str, arguments: list[Any], sender: Address) -> None:
        if not address.startswith(ROOT + "/"):
            raise UsageError(f"{address[:100]!r} is no address here; all begin with {ROOT}/.")
        path = address.removeprefix(ROOT + "/")
        word, _, rest = path.partition("/")
        if path == "get":
            for wanted in [str(arguments[0])] if arguments else list(self._registry.parameters):
                self._send_value(wanted, sender)
        elif path == "list":
            self._list(sender)
        elif path == "ping":
            self._send(sender, "pong")
        elif path == "subscribe":
            self._subscribe(arguments, sender, meters=False)
        elif path == "subscribe/meters":
            self._subscribe(arguments, sender, meters=True)
        elif path == "unsubscribe":
            self._subscribers = [one for one in self._subscribers if one.owner != sender]
        elif word == "unit" and arguments:
            self._set(rest, self._registry.parameter(rest).from_unit(_one(arguments)), sender)
        elif word == "toggle":
            # A button on a page sends 1 when pressed and 0 when let go.
            if not arguments or _one(arguments) not in (0, 0.0, False):
                self._registry.toggle(rest, _source(sender))
        elif word == "unit" or not arguments:
            self._send_value(rest if word == "unit" else path, sender)
        else:
            self._set(path, _one(arguments), sender)

    def _set(self, path: str, value: Any, sender: Address) -> None:
        parameter = self._registry.parameter(path)
        if isinstance(value, str) and parameter.kind != "choice":
            value = parameter.parse(value)
        self._registry.set(path, value, _source(sender))

    def _subscribe(self, arguments: list[Any], sender: Address, meters: bool) -> None:
        """``[host] [port] [seconds]``: what is left out is the sender's own, and the default lease."""
        given = list(arguments)
        host = str(given.pop(0)) if given and isinstance(given[0], str) else sender[0]
        if host != sender[0] and not _is_loopback(sender[0]):
            # Otherwise anybody could have us send to a third.
            raise UsageError(f"{sender[0]} cannot subscribe for {host[:40]!r}; leave the host out.")
        port = given.pop(0) if given else sender[1]
        lease = given.pop(0) if given else DEFAULT_LEASE_S
        if given or not _is_number(port) or int(port) != port or not 1 <= port <= 65535:
            raise UsageError("subscribe takes [host] [port] [seconds]; a port is a whole number from 1 to 65535.")
        if not _is_number(lease) or not 1 <= lease <= LONGEST_LEASE_S:
            raise UsageError(f"A subscription lasts 1 to {LONGEST_LEASE_S:.0f} seconds; got {lease!r}.")
        to = _resolved((host, int(port)), self._socket.family)
        subscriber = next((one for one in self._subscribers if one.to == to and one.until < math.inf), None)
        if subscriber is None:
            if len(self._subscribers) >= MOST_SUBSCRIBERS:
                raise UsageError(f"There are {MOST_SUBSCRIBERS} subscribers already; one has to leave or to expire.")
            subscriber = _Subscriber(to, sender)
            self._subscribers.append(subscriber)
        subscriber.owner, subscriber.lease_s = sender, float(lease)
        subscriber.until = time.monotonic() + subscriber.lease_s
        subscriber.meters = subscriber.meters or meters
        subscriber.pending = dict.fromkeys(self._registry.parameters)

    def _renew(self, sender: Address) -> None:
        """Whoever moves something is still there."""
        for subscriber in self._subscribers:
            if subscriber.owner == sender and subscriber.until < math.inf:
                subscriber.until = time.monotonic() + subscriber.lease_s

    # --- answers ------------------------------------------------------------------------------------------------------

    def _on_value(self, path: str, _value: Value, source: str) -> None:
        with self._lock:
            self._changed[path] = source

    def _on_table(self, what: str, parameter: Parameter) -> None:
        if what == "added":
            self._on_value(parameter.path, parameter.default, "")

    def _tell(self, now: float) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
        if any(one.until < now for one in self._subscribers):
            self._subscribers = [one for one in self._subscribers if one.until >= now]
        for subscriber in self._subscribers:
            for path, source in changed.items():
                if subscriber.is_source(source):
                    subscriber.pending.pop(path, None)
                else:
                    subscriber.pending[path] = None
            for path in list(subscriber.pending)[:_PER_TURN]:
                del subscriber.pending[path]
                with contextlib.suppress(UsageError):  # it may have gone since
                    self._send_value(path, subscriber.to)
            if subscriber.meters and self._meters is not None and now >= subscriber.meters_due:
                subscriber.meters_due = now + METERS_S
                self._send_meters(subscriber.to)

    def _send_value(self, path: str, to: Address) -> None:
        value, parameter = self._registry.get(path), self._registry.parameter(path)
        self._send(to, path, value)
        self._send(to, f"unit/{path}", float(parameter.to_unit(value)))

    def _list(self, to: Address) -> None:
        for parameter in self._registry.parameters.values():
            facts = (parameter.kind, float(parameter.lowest), float(parameter.highest), parameter.unit, parameter.label)
            self._send(to, "parameter", parameter.path, *facts, ",".join(parameter.choices))

    def _send_meters(self, to: Address) -> None:
        assert self._meters is not None
        try:
            meters = self._meters()
        except RtsepError:
            return
        for i, stem in enumerate(meters.stems):
            self._send_level(to, f"stem/{stem.replace(' ', '_')}", float(meters.peak[i]), float(meters.rms[i]))
        self._send_level(to, "master", meters.master_peak, meters.master_rms, meters.clipped)

    def _send_level(self, to: Address, what: str, peak: float, rms: float, *more: int) -> None:
        peak_db, rms_db = (20 * math.log10(max(level, 10 ** (_FLOOR_DB / 20))) for level in (peak, rms))
        self._send(to, f"meter/{what}", peak_db, rms_db, *(min(count, 2**31 - 1) for count in more))
        self._send(to, f"unit/meter/{what}", min(1.0, max(0.0, 1.0 - peak_db / _METER_FLOOR_DB)))

    def _complain(self, text: str, to: Address) -> None:
        second = int(time.monotonic())
        if second != self._errors_second:
            self._errors_second, self._errors_left = second, _ERRORS_PER_S
        if self._errors_left > 0:
            self._errors_left -= 1
            self._send(to, "error", text[:400])

    def _send(self, to: Address, path: str, *values: float | int | str) -> None:
        with contextlib.suppress(OSError):  # full, or no way there: the next value comes soon
            self._socket.sendto(encode(f"{ROOT}/{path}", *values), to)
            self.counts.sent += 1


_RXQ_OVFL = 40
"""SO_RXQ_OVFL of Linux, which Python does not name: how many datagrams did not fit into the buffer."""


def _open(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ControlError(
            f"OSC cannot listen on {host}:{port}: {error.strerror}. Try 127.0.0.1 or 0.0.0.0."
        ) from error
    try:
        made.bind(where)
    except OSError as error:
        made.close()
        raise ControlError(
            f"OSC cannot listen on {host}:{port}: {error.strerror}. Choose another port, for example --osc {port + 1}"
        ) from error
    made.setblocking(False)
    with contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, _RXQ_OVFL, 1)
    return made


def _resolved(to: Address, family: int) -> Address:
    """A receiver as an address of numbers: nobody is asked for a name."""
    try:
        if family == socket.AF_INET6 or ipaddress.ip_address(to[0]).version == 4:
            found = socket.getaddrinfo(*to, family=family, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]
            return str(found[0]), int(found[1])
    except (OSError, ValueError):
        pass
    raise UsageError(f"{str(to[0])[:40]!r} is no address for OSC feedback; give numbers, for example 127.0.0.1:9001.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _source(sender: Address) -> str:
    return f"osc:{sender[0]}:{sender[1]}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _one(arguments: list[Any]) -> Any:
    if len(arguments) != 1:
        raise UsageError(f"One value is needed; got {len(arguments)}.")
    return arguments[0]
