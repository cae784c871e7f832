"""``rtsep run`` with setups, OSC and parameters by path: what is loaded, saved, and said when it cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pythonosc.udp_client import SimpleUDPClient

from rtsep.audio.backends import DummyConfig
from rtsep.cli.display import frame
from rtsep.cli.keys import Desk
from rtsep.control.midi_map import MidiMap
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from tests.cli.conftest import Run, Spawn
from tests.support.condition_graphs import make_condition_model

DUMMY = ("--backend", "dummy", "--no-keys")
WITHIN_S = 30.0


def wait_for(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < until, "not reached"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def saved(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_a_run_is_saved_and_begins_again_as_it_ended(run: Run, model: Path, tmp_path: Path) -> None:
    gig, again = tmp_path / "gig.toml", tmp_path / "again.toml"
    first = run(
        "run", model, *DUMMY, "--seconds", "0.3", "--slack", "2", "--midi-out", "null", "--midi-channel", "bass=5",
        "--mute", "drums", "--gain", "vocals=-6", "--master", "-1", "--set", "stem/bass/pan=L30", "--save-setup", gig,
    )  # fmt: skip
    assert first.exit_code == 0, first.output
    assert f"Setup saved in {gig}" in first.stderr
    document = saved(gig)
    assert document["run"] == {
        "model": str(model), "backend": "dummy", "slack": 2, "midi-out": "null", "midi-channel": ["bass=5"],
    }  # fmt: skip
    values = document["parameters"]
    assert (values["stem/drums/mute"], values["stem/vocals/gain_db"]) == (True, -6.0)
    assert (values["stem/bass/pan"], values["master/gain_db"]) == (-0.3, -1.0)
    # Everything comes from the file but what is said otherwise.
    second = run(
        "run", "--setup", gig, "--no-keys", "--seconds", "0.3", "--gain", "vocals=-3", "--set", "stem/bass/mute=on",
        "--save-setup", again, "--json",
    )  # fmt: skip
    assert second.exit_code == 0, second.output
    assert "bass: channel 5" in second.stderr
    after = saved(again)
    assert after["run"] == document["run"]
    assert after["parameters"] == {**values, "stem/vocals/gain_db": -3.0, "stem/bass/mute": True}


def test_the_setups_model_gives_way_to_the_command_line(
    run: Run, model: Path, slow_model: Path, tmp_path: Path
) -> None:
    gig = tmp_path / "gig.toml"
    gig.write_text(f'[run]\nmodel = "{slow_model}"\nbackend = "dummy"\n')
    for words in ((str(model),), ("--model", model)):
        result = run("run", *words, "--setup", gig, "--no-keys", "--seconds", "0.1", "--save-setup", gig)
        assert result.exit_code == 0, result.output
        assert saved(gig)["run"]["model"] == str(model)
        gig.write_text(f'[run]\nmodel = "{slow_model}"\nbackend = "dummy"\n')


def test_what_a_setup_has_too_much_is_named_and_kept(run: Run, model: Path, tmp_path: Path) -> None:
    gig = tmp_path / "gig.toml"
    gig.write_text(
        '[run]\nbackend = "dummy"\nblok = 1\n'
        '[parameters]\n"stem/flute/mute" = true\n"stem/bass/mute" = true\n'
        '[[midi]]\ncontrol = "ch1 cc7"\nparameter = "stem/flute/gain_db"\n'
        '[plugins]\nvocals = ["Reverb"]\n'
    )
    result = run("run", model, "--setup", gig, "--no-keys", "--seconds", "0.1", "--save-setup", gig)
    assert result.exit_code == 0, result.output
    assert "[run] has no option 'blok'. Did you mean 'blocksize'?" in result.stderr
    assert "There is no parameter 'stem/flute/mute'" in result.stderr
    assert "[[midi]] ch1 cc7: There is no parameter 'stem/flute/gain_db'" in result.stderr
    document = saved(gig)
    assert document["parameters"]["stem/bass/mute"] is True
    assert document["parameters"]["stem/flute/mute"] is True
    assert document["midi"] == [{"control": "ch1 cc7", "parameter": "stem/flute/gain_db"}]
    assert document["plugins"] == {"vocals": ["Reverb"]}


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--setup", "none.toml"], 1, "none.toml cannot be read"),
        (["--save-setup", "nowhere/gig.toml"], 1, "its folder does not exist"),
        (["--set", "stem/vocals/gain_db"], 2, "is not PATH=VALUE"),
        (["--set", "stem/vocal/gain_db=-6"], 2, "Did you mean 'stem/vocals/gain_db'"),
        (["--set", "stem/vocals/gain_db=25"], 2, "allowed is -120 to 24 dB"),
        (["--osc", "nine"], 2, "no port for OSC"),
        (["--osc", "203.0.113.1:9000"], 1, "cannot listen on 203.0.113.1:9000"),
        (["--osc-feedback", "127.0.0.1:9001"], 2, "add --osc 9000"),
        (["--osc", "0", "--osc-feedback", "nobody:9001"], 2, "give numbers"),
        (["--midi-learn", "stem/vocals/gain_db"], 2, "add --midi-in PORT"),
        (["--midi-in", "null"], 2, "nothing to listen to"),
    ],
)
def test_errors(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("run", model, *DUMMY, "--seconds", "5", *args)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_osc_moves_a_run_and_the_end_saves_it(spawn: Spawn, model: Path, tmp_path: Path) -> None:
    port = free_port()
    process = spawn("run", model, *DUMMY, "--osc", port, "--save-setup", "gig.toml", "--json", "--seconds", "60")
    client = SimpleUDPClient("127.0.0.1", port)
    heard: list[Any] = []

    def answered() -> bool:
        client.send_message("/rtsep/stem/vocals/gain_db", -12.0)
        client.send_message("/rtsep/get", "stem/vocals/gain_db")
        heard.extend(message.params for message in client.get_messages(0.1))
        return [-12.0] in heard

    wait_for(answered)
    client.close()
    process.send_signal(signal.SIGINT)
    out, talk = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130, talk
    assert f"OSC      127.0.0.1:{port}" in talk
    facts = json.loads(out)["osc"]
    assert facts["address"] == ["127.0.0.1", port]
    assert facts["acted"] >= 2
    assert (facts["garbage"], facts["refused"]) == (0, 0)
    assert saved(tmp_path / "gig.toml")["parameters"]["stem/vocals/gain_db"] == -12.0
    assert saved(tmp_path / "gig.toml")["run"]["osc"] == str(port)


def test_keys_save_the_setup_of_a_terminal(model: Path, spawn: Spawn, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = spawn(
        "run", model, "--backend", "dummy", "--save-setup", "gig.toml", "--seconds", "60",
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, text=False,
    )  # fmt: skip
    os.close(theirs)
    screen = b""

    def read() -> bytes:
        nonlocal screen
        if select.select([ours], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # the other side has closed it
                screen += os.read(ours, 65536)
        return screen

    wait_for(lambda: b"for keys" in read())
    os.write(ours, b"1mw")
    wait_for(lambda: read() is not None and (tmp_path / "gig.toml").exists())
    assert saved(tmp_path / "gig.toml")["parameters"]["stem/drums/mute"] is True
    wait_for(lambda: b"Setup saved in gig.toml" in read())
    os.write(ours, b"l")
    wait_for(lambda: b"no controller to learn from" in read())
    os.write(ours, b"mq")
    wait_for(lambda: read() is not None and process.poll() is not None)
    assert process.returncode == 0
    os.close(ours)
    assert saved(tmp_path / "gig.toml")["parameters"]["stem/drums/mute"] is False


def test_keys_choose_what_a_control_learns(model: Path) -> None:
    """The map is a real one; only the port is left out, which tests/integration has."""
    with Engine(model, backend=DummyConfig()) as engine:
        registry = engine_registry(engine)
        midi_map = MidiMap(registry)
        surfaces: Any = SimpleNamespace(midi_map=midi_map, can_learn=True, save=lambda: "saved")
        desk = Desk(engine, None, registry, surfaces)
        desk.press("4")
        desk.press("l")
        assert desk.learning == "stem/vocals/gain_db"
        desk.press("right")
        assert desk.learning == "stem/vocals/mute"
        assert any("learn stem/vocals/mute" in line for line in frame(engine, desk))
        for key in ("left", "left"):
            desk.press(key)
        assert desk.learning == "stem/other/pan"
        assert not engine.settings.pan.any(), "the arrows choose, they do not pan"
        desk.press("l")
        assert desk.learning is None
        desk.press("l")
        midi_map.take(bytes((0xB0, 7, 1)))
        assert desk.learning is None
        assert [mapping.path for mapping in midi_map.mappings] == ["stem/vocals/gain_db"]
        desk.press("right")
        assert engine.settings.pan[3] == pytest.approx(0.1)
        desk.press("w")
        assert desk.said == "saved"


def test_keys_go_through_the_registry(model: Path) -> None:
    with Engine(model, backend=DummyConfig()) as engine:
        registry = engine_registry(engine)
        heard: list[Any] = []
        registry.subscribe(lambda *change: heard.append(change))
        desk = Desk(engine, None, registry)
        for key in ("2", "down", "right", "m", "s", "b", "x"):
            desk.press(key)
        assert heard == [
            ("stem/bass/gain_db", -1.0, "keys"),
            ("stem/bass/pan", 0.1, "keys"),
            ("stem/bass/mute", True, "keys"),
            ("stem/bass/solo", True, "keys"),
            ("master/bypass", True, "keys"),
        ]
        desk.press("l")
        assert "--midi-in" in desk.said
        desk.press("w")
        assert desk.said == "Nothing to save."


def test_instruments_of_a_condition_begin_as_they_were(run: Run, tmp_path: Path) -> None:
    fader_model = make_condition_model(tmp_path / "condition.onnx")
    gig, again = tmp_path / "gig.toml", tmp_path / "again.toml"
    first = run(
        "run", fader_model, *DUMMY, "--seconds", "0.2", "--mute", "vocals", "--gain", "bass=-6", "--save-setup", gig
    )
    assert first.exit_code == 0, first.output
    values = saved(gig)["parameters"]
    assert (values["stem/vocals/mute"], values["stem/bass/gain_db"]) == (True, -6.0)
    assert values["stem/selected/solo"] is True
    second = run("run", "--setup", gig, "--no-keys", "--seconds", "0.2", "--save-setup", again)
    assert second.exit_code == 0, second.output
    assert "Setup    " not in second.stderr
    assert saved(again) == saved(gig)


def test_controls_of_the_command_line_go_before_the_setup(run: Run, tmp_path: Path) -> None:
    model = make_condition_model(tmp_path / "condition.onnx", stems=["chosen", "others"], residual_stem="others")
    gig = tmp_path / "gig.toml"
    gig.write_text('[parameters]\n"control/condition/bass" = 0.25\n"control/condition/drums" = 0.5\n')
    result = run(
        "run", model, *DUMMY, "--setup", gig, "--seconds", "0.2", "--control", "condition.drums=0", "--save-setup", gig
    )
    assert result.exit_code == 0, result.output
    values = saved(gig)["parameters"]
    assert (values["control/condition/drums"], values["control/condition/bass"]) == (0.0, 0.25)
    result = run("run", model, *DUMMY, "--setup", gig, "--seconds", "0.2", "--save-setup", gig)
    assert saved(gig)["parameters"]["control/condition/drums"] == 0.0


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ('blocksize = "many"', 2, "'many' is not a valid integer range"),
        ('backend = "tape"', 2, "tape"),
        ('midi-in = "null"', 2, "nothing to listen to"),
    ],
)
def test_an_option_of_a_setup_that_is_refused(
    run: Run, model: Path, tmp_path: Path, line: str, code: int, text: str
) -> None:
    gig = tmp_path / "gig.toml"
    gig.write_text(f"[run]\n{line}\n")
    result = run("run", model, *(DUMMY if "backend" not in line else ()), "--setup", gig, "--seconds", "1")
    assert result.exit_code == code, result.output
    assert text in result.stderr
