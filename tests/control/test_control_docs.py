"""What docs/control.md says exists: paths, OSC addresses with their arguments, options, the example, the setup."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.cli.control_options import _names
from rtsep.cli.run import command
from rtsep.control.midi_map import _MODES, MidiControl
from rtsep.control.osc import OscServer
from rtsep.control.osc_packets import decode
from rtsep.control.record import ON
from rtsep.control.registry import engine_registry
from rtsep.control.setup import apply_parameters, mappings_of, read_setup
from rtsep.engine import Engine
from tests.cli.conftest import Run, run  # noqa: F401
from tests.control.osc_fuzz import message
from tests.support.graphs import make_delay_model

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "control.md").read_text()
ANSWERS = TEXT.index("What comes back:")
CALLS = re.findall(r"^\| `(/rtsep/[^`]+)` \| (?:`(\w+)`)? ?\|", TEXT[:ANSWERS], re.MULTILINE)
FIRST: dict[str, Any] = {"f": 0.5, "i": 9001, "s": "-6 dB", "T": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("model") / "delay.onnx", hop=512, latency=700, gains=[0.25] * 4)


def test_every_address_does_what_it_takes(model: Path) -> None:
    assert len(CALLS) >= 14
    with (
        Engine(model, backend=DummyConfig(source="noise")) as engine,
        OscServer(engine_registry(engine), port=0, meters=engine.meters) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(20.0)
        heard: set[str] = set()
        for address, types in CALLS:
            given = [("stem/vocals/mute" if address == "/rtsep/get" and t == "s" else FIRST[t], t) for t in types]
            given = [(2.0 if t == "f" and "subscribe" in address else value, t) for value, t in given]
            client.sendto(message(address, *given), server.address)
        client.sendto(message("/rtsep/nothing"), server.address)  # the error that has to be the only one
        client.sendto(message("/rtsep/subscribe/meters"), server.address)
        wanted = {
            re.sub("<stem>", "vocals", found)
            for found in re.findall(r"`(/rtsep/[^`.]+)`", TEXT[ANSWERS : TEXT.index("## MIDI controllers")])
        }
        assert len(wanted) == 5
        until = time.monotonic() + 20.0
        while not wanted | {"/rtsep/pong", "/rtsep/parameter"} <= heard:
            assert time.monotonic() < until, f"never heard {wanted - heard}"
            heard.update(found for found, _ in decode(client.recv(8192)))
        assert server.counts.refused == 1
        assert server.counts.acted == len(CALLS) + 1


def test_every_path_is_a_parameter(model: Path) -> None:
    table = TEXT[TEXT.index("## Parameters") : TEXT.index("`<stem>` is the name")]
    paths = [
        path
        for path in re.findall(r"`([a-z]+/[^`]+)`", table)
        if not path.startswith(("control/", "notes/", "engine/", "input/", "record/"))
    ]
    assert ON in table
    with Engine(model, backend=DummyConfig()) as engine:
        registry = engine_registry(engine)
        assert {path.replace("<stem>", "drums") for path in paths} == {
            path for path in registry.parameters if path.startswith(("stem/drums", "master"))
        }
        fader = registry.parameter("stem/drums/gain_db")
        for x, db in ((0.75, 0.0), (0.5, -10.0), (0.25, -30.0), (0.0, -120.0), (1.0, 24.0)):
            assert fader.from_unit(x) == db


def test_the_setup_loads(model: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "gig.toml").write_text(block)
    setup, remarks = read_setup(tmp_path / "gig.toml")
    assert remarks == []
    assert set(setup.options) <= set(_names(command))
    with Engine(model, backend=DummyConfig()) as engine:
        registry = engine_registry(engine)
        assert apply_parameters(registry, setup.parameters) == []
        mappings, wrong = mappings_of(setup, registry)
        assert (len(mappings), wrong) == (1, [])
    comment = next(line for line in block.splitlines() if "cc7+39" in line).partition("# ")[2]
    for control in re.split(r" \(14 bits\), |, ", comment):
        assert str(MidiControl.parse(control)) == control


def test_modes_and_options(run: Run) -> None:  # noqa: F811
    table = TEXT[TEXT.index("| mode |") : TEXT.index("Within half a step")]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == {mode for modes in _MODES.values() for mode in modes}
    told = run("run", "--help").output
    for option in set(re.findall(r"(?<=[ `])--[a-z]+(?:-[a-z]+)*(?=[ `])", TEXT)):
        assert option in told, option


def test_python(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(block, "docs/control.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.splitlines() == [
        "stem/vocals/gain_db -6.0 dB me",
        "stem/drums/gain_db -10.0 dB ",
        "stem/bass/pan L30 ",
    ]
