"""A running engine with a console, and clients that speak its protocol without a browser."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rtsep.audio.backends import DummyConfig
from rtsep.console.access import SUBPROTOCOL
from rtsep.console.live import Console
from rtsep.console.watch import BANDS
from rtsep.control.registry import Registry, engine_registry
from rtsep.engine import Engine
from tests.support.graphs import make_delay_model

PATIENCE_S = 20.0


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drums .5, bass .25, other and vocals .125 of the input; hop 512, latency 700."""
    gains = (0.5, 0.25, 0.125, 0.125)
    return make_delay_model(tmp_path_factory.mktemp("model") / "delay.onnx", hop=512, latency=700, gains=gains)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Engine]:
    with Engine(model, backend=DummyConfig(source="noise", samplerate=48_000), tap=True) as running:
        yield running


@pytest.fixture(scope="module")
def table(engine: Engine) -> Registry:
    return engine_registry(engine)


@pytest.fixture(scope="module")
def started(engine: Engine, table: Registry) -> Iterator[Console]:
    with Console(engine, table) as running:
        yield running


@pytest.fixture
def registry(table: Registry) -> Registry:
    """Everything at its default."""
    for path, parameter in table.parameters.items():
        table.set(path, parameter.default)
    return table


@pytest.fixture
def console(started: Console, registry: Registry) -> Console:
    """The console of the module, when it knows of the defaults."""

    def fresh() -> bool:
        with open_socket(started) as socket:
            hello = Page(socket).hello
        return {entry["path"]: entry["value"] for entry in hello["table"]} == registry.values()

    until(fresh, "the console's news of the defaults")
    return started


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never happened"
        time.sleep(0.01)


def open_socket(console: Console, **wanted: Any) -> ClientConnection:
    """Connect as our page does; `wanted` changes how."""
    address = urlsplit(console.link)
    protocols = [SUBPROTOCOL] + ([f"token.{console.token}"] if console.token else [])
    settings: dict[str, Any] = {
        "origin": f"http://{address.netloc}",
        "subprotocols": protocols,
        "compression": None,
        "open_timeout": PATIENCE_S,
        "max_queue": None,
        **wanted,
    }
    return connect(f"ws://{address.netloc}/live", **settings)


class Page:
    """A client: what it was told, in the order it came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.texts: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.hello = self.wait_for("hello")

    def read(self, timeout: float) -> bool:
        """Take one message; False when none came."""
        try:
            message = self.socket.recv(timeout)
        except TimeoutError:
            return False
        except ConnectionClosed as end:
            self.closed = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")
            return False
        if isinstance(message, str):
            self.texts.append(json.loads(message))
        else:
            self.frames.append(message)
        return True

    def wait_for(self, kind: str, wanted: Callable[[Any], object] = lambda content: True) -> Any:
        """Return what the next message of a kind holds that `wanted` takes."""
        deadline = time.monotonic() + PATIENCE_S
        seen = 0
        while True:
            for message in self.texts[seen:]:
                if kind in message and wanted(message[kind]):
                    return message[kind]
            seen = len(self.texts)
            assert time.monotonic() < deadline, f"no {kind} came"
            assert self.closed is None, self.closed
            self.read(0.5)

    def wait_for_value(self, path: str, value: Any) -> None:
        self.wait_for("values", lambda values: path in values and values[path] == value)

    def wait_for_end(self) -> tuple[int, str]:
        deadline = time.monotonic() + PATIENCE_S
        while self.closed is None:
            assert time.monotonic() < deadline, "the connection stayed open"
            self.read(0.5)
        return self.closed

    def next_frame(self) -> Frame:
        seen = len(self.frames)
        deadline = time.monotonic() + PATIENCE_S
        while len(self.frames) <= seen:
            assert time.monotonic() < deadline, "no frame came"
            self.read(0.5)
        return Frame(self.frames[-1])

    def set(self, **values: Any) -> None:
        self.socket.send(json.dumps({"set": {path.replace("__", "/"): value for path, value in values.items()}}))


class Frame:
    """A frame taken apart, independently of the code that makes it."""

    def __init__(self, data: bytes) -> None:
        kind, self.stems, self.bands, _ = data[:4]
        assert kind == 1
        (self.number,) = struct.unpack_from("<I", data, 4)
        self.position, self.column = struct.unpack_from("<dd", data, 8)
        self.hops, self.late, self.xruns, self.covered, self.clipped, self.silent_ms = struct.unpack_from(
            "<6I", data, 24
        )
        self.p50, self.p99, self.longest, self.period = struct.unpack_from("<4f", data, 48)
        count = 2 * self.stems + 2
        self.levels = np.frombuffer(data, "<i2", count, 64) / 100
        at = 64 + 2 * count
        (hops,) = struct.unpack_from("<H", data, at)
        self.hop_times = np.frombuffer(data, "<u2", hops, at + 2) / 100
        at += 2 + 2 * hops
        assert self.bands in (0, BANDS)
        self.spectra = np.frombuffer(data, np.uint8, self.stems * self.bands, at).reshape(self.stems, self.bands)
        assert len(data) == at + self.stems * self.bands


@pytest.fixture
def page(console: Console) -> Iterator[Page]:
    with open_socket(console) as socket:
        yield Page(socket)
