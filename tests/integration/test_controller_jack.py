"""A MIDI controller on a real JACK server moves the faders of a running engine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.control.midi_in import MidiIn
from rtsep.control.midi_map import MidiControl, MidiMap, MidiMapping
from rtsep.control.registry import Registry, engine_registry
from rtsep.engine import Engine
from rtsep.errors import DeviceNotFoundError, MidiSystemError
from tests.cli.conftest import Spawn, spawn  # noqa: F401
from tests.integration.jack import JackServer, jack_server, need_tools, write_noise
from tests.integration.midi_controller import Controller
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration

WITHIN_S = 30.0
GAIN = "stem/drums/gain_db"


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    need_tools("cc", packages="gcc libc6-dev")


def wait_for(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < until, "not reached"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_controller_moves_a_fader_of_a_running_engine(server: JackServer, tmp_path: Path) -> None:
    """Learnt by touch; picked up where the fader is; heard in what plays."""
    model = make_delay_model(tmp_path / "delay.onnx", hop=512, latency=700, gains=(0.5, 0.25, 0.125, 0.125))
    with (
        Controller(server) as knobs,
        Engine(model, backend=DummyConfig(source="noise"), solo=["drums"]) as engine,
    ):
        registry = engine_registry(engine)
        midi_map = MidiMap(registry)
        midi_map.learn(GAIN)
        with MidiIn("virtual", midi_map.take) as midi:
            assert midi.name == "rtsep-control:control"
            server.command("jack_connect", knobs.port, midi.name)
            wait_for(lambda: float(engine.meters().master_rms) > 0.02)
            knobs.turn((0xB2, 7, 20))
            wait_for(lambda: midi_map.learning is None)
            assert [str(mapping.control) for mapping in midi_map.mappings] == ["ch3 cc7"]
            assert registry.get(GAIN) == 0.0
            for value in range(20, 127):
                knobs.turn((0xB2, 7, value))
            until_heard(knobs, registry, 127, 24.0, 0xB2)
            for value in range(126, -1, -1):
                knobs.turn((0xB2, 7, value))
            until_heard(knobs, registry, 0, -120.0, 0xB2)
            wait_for(lambda: float(engine.meters().master_rms) < 1e-3)
            pid = midi.pid
        wait_for(lambda: gone(pid))
        assert not midi.alive


def moved_by(registry: Registry) -> MidiMap:
    mapping = MidiMapping.make(MidiControl("cc", 1, 7), registry.parameter(GAIN), "jump")
    return MidiMap(registry, [mapping])


def until_heard(knobs: Controller, registry: Registry, value: int, gain_db: float, status: int = 0xB0) -> None:
    """Turn again and again: python-rtmidi loses messages in the cycles that JACK cuts short."""

    def heard() -> bool:
        knobs.turn((status, 7, value))
        return registry.get(GAIN) == gain_db

    wait_for(heard)


def test_a_named_port_is_found_and_a_storm_passes(server: JackServer) -> None:
    registry = strip()
    with Controller(server, "storm") as knobs, MidiIn("storm", moved_by(registry).take) as midi:
        for _ in range(50):
            knobs.turn(*((0xB0, 7, value) for value in range(128)))
        until_heard(knobs, registry, 0, -120.0)
        until_heard(knobs, registry, 127, 24.0)
        assert midi.respawns == 0
    with pytest.raises(DeviceNotFoundError, match="No MIDI port has 'strom'"):
        MidiIn("strom", lambda message: None)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_listener_that_dies_or_hangs_is_replaced(server: JackServer, how: signal.Signals) -> None:
    registry, said = strip(), []
    with Controller(server) as knobs, MidiIn("knobs", moved_by(registry).take, said.append) as midi:
        until_heard(knobs, registry, 127, 24.0)
        first = midi.pid
        os.kill(first, how)
        wait_for(lambda: midi.respawns == 1)
        assert gone(first)
        assert [text.split(" is ")[1].split()[0] for text in said] == ["lost", "back."]
        until_heard(knobs, registry, 0, -120.0)


def test_a_virtual_port_keeps_what_a_person_connected(server: JackServer) -> None:
    """Through the end of the process that listens, and of the controller."""
    registry = strip()
    with MidiIn("virtual", moved_by(registry).take) as midi:
        name = midi.name
        with Controller(server) as knobs:
            server.command("jack_connect", knobs.port, name)
            until_heard(knobs, registry, 127, 24.0)
            wait_for(lambda: midi.sources == [knobs.port])
            os.kill(midi.pid, signal.SIGKILL)
            wait_for(lambda: midi.respawns == 1)
            until_heard(knobs, registry, 0, -120.0)
        wait_for(lambda: midi.missing == [knobs.port])
        with Controller(server) as knobs:
            until_heard(knobs, registry, 127, 24.0)
        assert name in server.ports()


def test_a_server_that_dies_is_survived_and_without_one_there_is_a_clear_error() -> None:
    registry, said = strip(), []
    with jack_server() as server, Controller(server) as knobs:
        midi = MidiIn("knobs", moved_by(registry).take, said.append)
        try:
            until_heard(knobs, registry, 127, 24.0)
            server.process.kill()
            server.process.wait()
            wait_for(lambda: bool(said))
            assert "is lost" in said[0]
            assert not midi.alive
            with pytest.raises(MidiSystemError, match="No MIDI system answers"):
                MidiIn("virtual", lambda message: None)
        finally:
            began = time.monotonic()
            midi.close()
            assert time.monotonic() - began < 15


def strip() -> Registry:
    from rtsep.control.parameter import Parameter

    registry = Registry()
    registry.add(Parameter(GAIN, "float", -120.0, 24.0, 0.0, "dB", scale="fader"))
    return registry


def said(stream: IO[str], text: str, act: Callable[[], None] = lambda: None) -> None:
    """Act and wait for a line; the process ends by itself if it never comes. A message may be lost: act once more."""
    act()
    again = threading.Timer(5.0, act)
    again.start()
    lines = []
    try:
        for line in stream:
            lines.append(line)
            if text in line:
                return
    finally:
        again.cancel()
        again.join()
    raise AssertionError(f"never said {text!r}: {''.join(lines)}")


def test_run_learns_saves_and_knows_its_controller_again(
    server: JackServer,
    spawn: Spawn,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The whole way twice: ``rtsep run`` on JACK, a controller in C, and the sound that JACK recorded."""
    make_delay_model(tmp_path / "model.onnx", hop=512, latency=700, gains=(0.5, 0.25, 0.125, 0.125))
    write_noise(tmp_path / "noise.wav", 60.0)
    devices = ("-i", "system", "-o", "system", "--no-keys", "--midi-in", "knobs", "--seconds", "60")
    with Controller(server) as knobs:
        first = spawn(
            "run", "model.onnx", *devices, "--save-setup", "gig.toml",
            "--midi-learn", "stem/drums/solo", "--midi-learn", "master/gain_db",
        )  # fmt: skip
        server.wait_for_port("rtsep-control:control")

        assert first.stderr is not None
        said(first.stderr, "touch the control")
        said(first.stderr, "ch10 note36 moves stem/drums/solo", lambda: knobs.turn((0x99, 36, 100)))
        said(first.stderr, "ch1 cc7 moves master/gain_db", lambda: knobs.turn((0xB0, 7, 90)))
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=WITHIN_S)
        assert first.returncode == 130
        setup = tomllib.loads((tmp_path / "gig.toml").read_text())
        assert [entry["control"] for entry in setup["midi"]] == ["ch10 note36", "ch1 cc7"]
        assert setup["parameters"]["stem/drums/solo"] is True

        again = spawn("run", "--setup", "gig.toml", "--no-keys", "--json")
        assert again.stderr is not None
        said(again.stderr, "2 controls known")
        server.wait_for_port("rtsep:out_0")
        server.play(tmp_path / "noise.wav")
        recording = server.capture(tmp_path / "heard.wav", 6.0, "rtsep:out_0", "rtsep:out_1")
        time.sleep(2.0)
        for _ in range(40):  # down, past where the master is
            for value in (127, 100, 80, 40, 0):
                knobs.turn((0xB0, 7, value))
                time.sleep(0.01)
        audio = server.captured(recording, tmp_path / "heard.wav", 6.0)
        again.send_signal(signal.SIGINT)
        out, _ = again.communicate(timeout=WITHIN_S)
    facts = json.loads(out)["midi_in"]
    assert facts["messages"] > 20
    assert facts["respawns"] == 0
    level = np.abs(audio[: len(audio) // 4800 * 4800, 0].reshape(-1, 4800)).max(axis=1)
    assert level[:10].max() > 0.1, "drums alone, half of the noise"
    assert level[-3:].max() < 1e-4, "the master is down"
