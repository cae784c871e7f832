"""OSC on a real UDP port, with python-osc's client: setting, asking, feedback, meters, floods, garbage."""

from __future__ import annotations

import math
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pythonosc.udp_client import SimpleUDPClient

from rtsep.audio.backends import DummyConfig
from rtsep.control.osc import OscServer, parse_endpoint
from rtsep.control.osc_packets import NoOscError, decode
from rtsep.control.registry import Parameter, Registry, engine_registry
from rtsep.engine import Engine
from rtsep.errors import ControlError, UsageError
from rtsep.mixer.meters import Meters
from tests.control.osc_fuzz import bundle, fuzz, harmless, message, mutated
from tests.support.graphs import make_delay_model

WITHIN_S = 20.0
"""Long enough for a machine that stops now and then."""


def wait_for(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < until, "not reached"
        time.sleep(0.005)


def make_registry() -> Registry:
    registry = Registry()
    registry.add(Parameter("stem/vocals/gain_db", "float", -120.0, 24.0, 0.0, "dB", scale="fader"))
    registry.add(Parameter("stem/vocals/mute", "bool", default=False))
    registry.add(Parameter("stem/vocals/pan", "float", -1.0, 1.0, 0.0, scale="balance"))
    registry.add(Parameter("notes/latency", "choice", default="normal", choices=("tight", "normal", "quality")))
    return registry


@pytest.fixture
def registry() -> Registry:
    return make_registry()


@pytest.fixture
def osc(registry: Registry) -> Iterator[OscServer]:
    levels = Meters(("vocals",))
    levels.peak[0], levels.rms[0] = 0.5, 0.1
    with OscServer(registry, port=0, meters=lambda: levels) as server:
        yield server


class Client:
    """python-osc's own client, and what it has heard."""

    def __init__(self, server: OscServer) -> None:
        self._client = SimpleUDPClient(*server.address)
        self._client._sock.bind(("127.0.0.1", 0))
        self.port: int = self._client._sock.getsockname()[1]
        self.heard: list[tuple[str, list[Any]]] = []

    def send(self, address: str, *values: Any) -> None:
        self._client.send_message(address, list(values) or None)

    def hears(self, address: str, check: Callable[..., bool] = lambda *_: True) -> list[Any]:
        """Wait for a message and return its arguments; what came before it is forgotten."""
        until = time.monotonic() + WITHIN_S
        while time.monotonic() < until:
            for i, (found, values) in enumerate(self.heard):
                if found == address and check(*values):
                    del self.heard[: i + 1]
                    return values
            self.listen(0.05)
        raise AssertionError(f"nothing at {address}; heard {self.heard[-20:]}")

    def listen(self, seconds: float) -> None:
        for got in self._client.get_messages(seconds):
            self.heard.append((got.address, got.params))
            return

    def drain(self) -> list[tuple[str, list[Any]]]:
        """All that is there after an answer to a question that was asked last."""
        self.send("/rtsep/ping")
        while ("/rtsep/pong", []) not in self.heard:
            self.listen(0.05)
        heard = [one for one in self.heard if one[0] != "/rtsep/pong"]
        self.heard.clear()
        return heard

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def client(osc: OscServer) -> Iterator[Client]:
    client = Client(osc)
    yield client
    client.close()


@pytest.fixture
def other(osc: OscServer) -> Iterator[Client]:
    client = Client(osc)
    yield client
    client.close()


# --- setting and asking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "value", "path", "result"),
    [
        ("stem/vocals/gain_db", -6.0, "stem/vocals/gain_db", -6.0),
        ("stem/vocals/gain_db", -6, "stem/vocals/gain_db", -6.0),
        ("stem/vocals/gain_db", "-3 dB", "stem/vocals/gain_db", -3.0),
        ("stem/vocals/gain_db", -math.inf, "stem/vocals/gain_db", -120.0),
        ("unit/stem/vocals/gain_db", 1.0, "stem/vocals/gain_db", 24.0),
        ("unit/stem/vocals/pan", 0.0, "stem/vocals/pan", -1.0),
        ("stem/vocals/mute", True, "stem/vocals/mute", True),
        ("stem/vocals/mute", 1, "stem/vocals/mute", True),
        ("stem/vocals/mute", "on", "stem/vocals/mute", True),
        ("unit/stem/vocals/mute", 0.7, "stem/vocals/mute", True),
        ("toggle/stem/vocals/mute", 1.0, "stem/vocals/mute", True),
        ("toggle/notes/latency", 1, "notes/latency", "quality"),
        ("notes/latency", "tight", "notes/latency", "tight"),
        ("unit/notes/latency", 1, "notes/latency", "quality"),
    ],
)
def test_a_message_sets_a_parameter(
    registry: Registry, client: Client, address: str, value: Any, path: str, result: Any
) -> None:
    client.send(f"/rtsep/{address}", value)
    wait_for(lambda: registry.get(path) == result)


def test_values_and_the_table_can_be_asked_for(registry: Registry, client: Client) -> None:
    registry.set("stem/vocals/gain_db", -6.0)
    client.send("/rtsep/stem/vocals/gain_db")
    assert client.hears("/rtsep/stem/vocals/gain_db") == [-6.0]
    assert client.hears("/rtsep/unit/stem/vocals/gain_db") == [pytest.approx(0.6)]
    client.send("/rtsep/get", "notes/latency")
    assert client.hears("/rtsep/notes/latency") == ["normal"]
    assert client.drain() == [("/rtsep/unit/notes/latency", [0.5])]
    client.send("/rtsep/get")
    assert [address for address, _ in client.drain()] == [
        f"/rtsep/{twin}{path}" for path in registry.parameters for twin in ("", "unit/")
    ]
    client.send("/rtsep/list")
    listed = client.drain()
    assert listed[0] == (
        "/rtsep/parameter",
        ["stem/vocals/gain_db", "float", -120.0, 24.0, "dB", "stem/vocals/gain_db", ""],
    )
    assert listed[3][1][-1] == "tight,normal,quality"


def test_a_button_that_is_let_go_toggles_nothing(registry: Registry, client: Client) -> None:
    for value in (1.0, 0.0, 1.0, 0.0, 1.0, 0.0):
        client.send("/rtsep/toggle/stem/vocals/mute", value)
    client.drain()
    assert registry.get("stem/vocals/mute") is True


def test_a_bundle_is_done_whole_or_not_at_all(registry: Registry, osc: OscServer) -> None:
    gain, mute = message("/rtsep/stem/vocals/gain_db", (-6.0, "f")), message("/rtsep/stem/vocals/mute", (True, "T"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bundle(gain, sizes=[len(gain) + 4]), osc.address)
        sender.sendto(bundle(gain, mute, sizes=[len(gain), -4]), osc.address)
        wait_for(lambda: osc.counts.garbage == 2)
        assert registry.get("stem/vocals/gain_db") == 0.0
        sender.sendto(bundle(gain, bundle(mute)), osc.address)
        wait_for(lambda: osc.counts.acted == 2)
    assert registry.get("stem/vocals/gain_db") == -6.0
    assert registry.get("stem/vocals/mute") is True


@pytest.mark.parametrize(
    ("address", "values", "message"),
    [
        ("/rtsep/stem/vocal/gain_db", [1.0], "Did you mean 'stem/vocals/gain_db'"),
        ("/rtsep/stem/vocals/gain_db", [25.0], "allowed is -120 to 24 dB"),
        ("/rtsep/stem/vocals/gain_db", [1.0, 2.0], "One value is needed; got 2"),
        ("/rtsep/unit/stem/vocals/gain_db", [1.5], "allowed is 0 to 1"),
        ("/rtsep/toggle/stem/vocals/gain_db", [1], "no switch"),
        ("/other/stem/vocals/gain_db", [1.0], "all begin with /rtsep/"),
        ("/rtsep/subscribe", [0], "port is a whole number"),
        ("/rtsep/subscribe", [9001, 0.0], "lasts 1 to 3600"),
        ("/rtsep/subscribe", ["example.org", 9001], "give numbers"),
        ("/rtsep/subscribe", [9001, 10.0, 1], "takes"),
    ],
)
def test_what_cannot_be_done_is_answered(
    registry: Registry, osc: OscServer, client: Client, address: str, values: list[Any], message: str
) -> None:
    before = registry.values()
    client.send(address, *values)
    assert message in client.hears("/rtsep/error")[0]
    assert registry.values() == before
    assert (osc.counts.refused, osc.counts.acted) == (1, 0)
    assert osc.subscribers == []


# --- feedback ---------------------------------------------------------------------------------------------------------


def test_subscribers_follow_every_change_but_their_own(registry: Registry, client: Client, other: Client) -> None:
    client.send("/rtsep/subscribe")
    client.hears("/rtsep/unit/notes/latency")  # all there is, at first
    other.send("/rtsep/subscribe", other.port, 30.0)
    other.hears("/rtsep/unit/notes/latency")
    client.send("/rtsep/stem/vocals/gain_db", -6.0)
    assert other.hears("/rtsep/stem/vocals/gain_db") == [-6.0]
    assert other.hears("/rtsep/unit/stem/vocals/gain_db") == [pytest.approx(0.6)]
    registry.set("stem/vocals/mute", True, "keys")
    assert client.hears("/rtsep/stem/vocals/mute") == [1]
    assert other.hears("/rtsep/stem/vocals/mute") == [1]
    assert not [one for one in client.drain() if "gain_db" in one[0]], "nobody hears himself"
    other.send("/rtsep/unsubscribe")
    other.drain()
    registry.set("stem/vocals/mute", False, "keys")
    assert client.hears("/rtsep/stem/vocals/mute") == [0]
    assert other.drain() == []


def test_of_many_changes_the_last_one_is_what_is_sent(registry: Registry, osc: OscServer, client: Client) -> None:
    client.send("/rtsep/subscribe")
    client.hears("/rtsep/unit/notes/latency")
    client.drain()
    began = time.monotonic()
    for step in range(5000):
        registry.set("stem/vocals/gain_db", -step / 100, "keys")
    passed = time.monotonic() - began
    client.hears("/rtsep/stem/vocals/gain_db", lambda value: value == pytest.approx(-49.99))
    assert osc.counts.sent < 20 + 2 * (2 + passed / 0.02), "at most fifty times a second"


def test_a_subscription_ends_with_its_lease_and_is_renewed_by_any_message(
    registry: Registry, osc: OscServer, client: Client
) -> None:
    client.send("/rtsep/subscribe", client.port, 3600.0)
    wait_for(lambda: len(osc.subscribers) == 1)
    first = osc._subscribers[0].until
    client.send("/rtsep/ping")
    wait_for(lambda: osc._subscribers[0].until > first)
    client.send("/rtsep/subscribe", client.port, 1.0)
    wait_for(lambda: not osc.subscribers)


def test_there_is_room_for_so_many_subscribers(osc: OscServer, client: Client) -> None:
    for port in range(20_000, 20_020):
        client.send("/rtsep/subscribe", port)
    assert "16 subscribers already" in client.hears("/rtsep/error")[0]
    assert len(osc.subscribers) == 16
    client.send("/rtsep/subscribe", 20_000)  # a renewal needs no room
    client.drain()
    assert osc.counts.refused == 4


def test_a_receiver_given_at_the_start_hears_for_good(registry: Registry) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(WITHIN_S)
        with OscServer(registry, port=0, feedback=[receiver.getsockname()]):
            got: list[Any] = []
            while not got or got[-1][0] != "/rtsep/unit/notes/latency":
                got += decode(receiver.recv(4096))
            registry.set("stem/vocals/gain_db", -6.0, "keys")
            assert decode(receiver.recv(4096)) == [("/rtsep/stem/vocals/gain_db", [-6.0])]


def test_meters_come_on_subscription(osc: OscServer, client: Client) -> None:
    client.send("/rtsep/subscribe/meters")
    for _ in range(3):
        peak_db, rms_db = client.hears("/rtsep/meter/stem/vocals")
        assert (peak_db, rms_db) == (pytest.approx(-6.02, abs=0.01), pytest.approx(-20.0))
        assert client.hears("/rtsep/unit/meter/stem/vocals") == [pytest.approx(0.8997, abs=1e-3)]
        assert client.hears("/rtsep/meter/master") == [pytest.approx(-100.0), pytest.approx(-100.0), 0]


# --- what must not hurt -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 64,
        b"rtsep",
        b"/rtsep/stem/vocals/gain_db",
        b"/a\x00\x00,z\x00\x00",
        b"/a\x00\x00,[f]\x00\x00\x00\x00\x00\x00\x00\x00",
        b"/a\x00\x00,f\x00\x00",
        b"/\xff\xfe\x00,f\x00\x00\x00\x00\x00\x00",
        b"/a\x00\x00" + b"," + b"T" * 100 + b"\x00" * 3,
        b"#bundle\x00",
        b"#bundle\x00" + b"\x00" * 8 + b"\xff\xff\xff\xfc" * 4,
        bundle(*[b"/a\x00\x00,\x00\x00\x00"] * 65),
        b"/" + b"a" * 9000,
    ],
)
def test_no_osc(data: bytes) -> None:
    """The bundle of negative sizes keeps python-osc 1.10 busy for ever."""
    with pytest.raises(NoOscError):
        decode(data)


def test_a_flood_is_dropped_and_counted_and_the_next_message_counts(registry: Registry, osc: OscServer) -> None:
    changes = []
    registry.subscribe(lambda *change: changes.append(change))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        flood = [message("/rtsep/stem/vocals/gain_db", (-step / 1000, "f")) for step in range(1, 20_001)]
        began = time.monotonic()
        for data in flood:
            sender.sendto(data, osc.address)
        wait_for(lambda: osc.counts.dropped > 0)
        last = message("/rtsep/stem/vocals/gain_db", (6.0, "f"))
        until = time.monotonic() + WITHIN_S
        while registry.get("stem/vocals/gain_db") != 6.0:
            assert time.monotonic() < until
            sender.sendto(last, osc.address)
            time.sleep(0.02)
        passed = time.monotonic() - began
    assert len(changes) <= 1000 + 2000 * passed + 1
    assert osc.counts.refused == osc.counts.garbage == 0


def test_fuzzed_messages_change_nothing_they_should_not(registry: Registry, osc: OscServer) -> None:
    """A second of bytes that mean nothing; then a second of bytes that may, after which all values are in range."""
    heard: list[Any] = []
    registry.subscribe(lambda *change: heard.append(change))
    before, paths = registry.values(), list(registry.parameters)
    *_, sent = fuzz(osc.address, harmless, paths, 1.0, 800.0)
    wait_for(lambda: osc.counts.received + osc.counts.dropped >= sent)
    assert heard == []
    assert registry.values() == before
    assert osc.counts.acted < 0.01 * sent, "only what was cut down to a question"
    assert osc.counts.refused > 0
    assert osc.counts.garbage > 0
    *_, more = fuzz(osc.address, mutated, paths, 1.0, 800.0)
    wait_for(lambda: osc.counts.received + osc.counts.dropped >= sent + more)
    assert heard, "some of them mean something"
    for path, value, source in heard:
        assert registry.parameter(path).check(value) == value
        assert source.startswith("osc:127.0.0.1:")
    registry.set("stem/vocals/gain_db", 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(message("/rtsep/stem/vocals/gain_db", (-12.0, "f")), osc.address)
        wait_for(lambda: registry.get("stem/vocals/gain_db") == -12.0)


def test_the_harmless_are_harmless_and_the_mutated_are_not_all() -> None:
    """Holds the fuzzer itself: it reaches past the decoder."""
    rng = random.Random(5)
    read = 0
    for make in (harmless, mutated):
        for _ in range(300):
            try:
                read += bool(decode(make(rng, ["stem/vocals/gain_db"])))
            except NoOscError:
                continue
    assert 200 < read < 500


def test_a_port_that_is_taken_and_a_host_that_is_not_ours(registry: Registry, osc: OscServer) -> None:
    with pytest.raises(ControlError, match=f"{osc.address[1]}: .*Choose another port"):
        OscServer(registry, port=osc.address[1])
    with pytest.raises(ControlError, match=r"cannot listen on 203\.0\.113\.1"):
        OscServer(registry, "203.0.113.1", 0)
    assert [thread for thread in osc_threads() if thread != osc._thread] == []


def test_without_python_osc_it_is_said_how_to_get_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythonosc.osc_message", None)
    with pytest.raises(ControlError, match=r"pip install 'rtsep\[console\]'"):
        OscServer(registry, port=0)


def osc_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "osc"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("studio.local:0", ("studio.local", 0)),
    ],
)
def test_endpoints(text: str, result: tuple[str, int]) -> None:
    assert parse_endpoint(text) == result


@pytest.mark.parametrize("text", ["", "nine", ":9000", "9000:", "127.0.0.1:70000", "-1"])
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no port for OSC"):
        parse_endpoint(text)


def test_a_python_osc_client_moves_a_fader_of_a_running_engine(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "delay.onnx", hop=512, latency=700, gains=(0.5, 0.25, 0.125, 0.125))
    with (
        Engine(model, backend=DummyConfig(source="noise"), solo=["drums"]) as engine,
        OscServer(engine_registry(engine), port=0, meters=engine.meters) as server,
    ):
        wait_for(lambda: float(engine.meters().master_rms) > 0.02)
        client = SimpleUDPClient(*server.address)
        client.send_message("/rtsep/stem/drums/gain_db", -120.0)
        wait_for(lambda: float(engine.meters().master_rms) < 1e-3)
        client.send_message("/rtsep/unit/stem/drums/gain_db", 0.75)
        wait_for(lambda: float(engine.meters().master_rms) > 0.02)
        client.close()
