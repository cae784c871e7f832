"""``rtsep midi``: results on stdout, sentences and exit codes for what goes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mido
import pytest
from click.testing import CliRunner, Result

from rtsep.cli import main
from rtsep.cli.midi import describe
from rtsep.notes.log import EventLog
from rtsep.notes.messages import default_strips


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in ("midi", *args)], prog_name="rtsep")


@pytest.fixture
def take(tmp_path: Path) -> Path:
    with EventLog(tmp_path / "take.jsonl", default_strips(["drums", "keys"]), 48_000) as log:
        log.on(1, 60, 90, 0.5, 0.57)
        log.on(0, 36, 90, 1.0, 1.07)
        log.off(0, 36, 1.05, 1.12)
    return tmp_path / "take.jsonl"


def test_a_take_that_was_cut_off_is_recovered(take: Path, tmp_path: Path) -> None:
    with take.open("a") as file:
        file.write('{"on": 1.2, "st')
    result = run("recover", take, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "file": str(tmp_path / "take.mid"),
        "notes": {"drums": 1, "keys": 1},
        "closed": 1,
        "remarks": ["The last line is cut short and was left out."],
    }
    assert "1 notes never ended" in result.stderr
    assert [track.name for track in mido.MidiFile(tmp_path / "take.mid").tracks[1:]] == ["drums", "keys"]
    other = run("recover", take, "-o", tmp_path / "other.mid")
    assert other.stdout == f"{tmp_path / 'other.mid'}\n"
    assert "drums 1  keys 1" in other.stderr


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["recover", "none.jsonl"], 1, "cannot be read"),
        (["recover", "TAKE", "-o", "x.wav"], 2, "choose a name like x.mid"),
        (["monitor", "--port", "null"], 2, "nothing to listen to"),
        (["monitor", "--port", ""], 2, "port is empty"),
        (["monitor", "--seconds", "0"], 2, "0.1"),
        (["panic", "--port", "log:"], 2, "needs a path"),
        (["lst"], 2, "No such command 'lst'"),
    ],
)
def test_wrong_values_say_what_is_allowed(take: Path, args: list[str], code: int, text: str) -> None:
    result = run(*[str(take) if word == "TAKE" else word for word in args])
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif(Path("/dev/snd/seq").exists() or sys.platform != "linux", reason="ALSA's sequencer is here")
@pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["monitor"], ["panic"], ["panic", "--port", "synth"]])
def test_without_a_midi_system_it_is_said(monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "no-such-server")
    result = run(*args)
    assert result.exit_code == 3
    assert "No MIDI system answers here" in result.stderr
    assert "Start a JACK server" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("90 3c 5a", {"kind": "note on", "channel": 1, "note": 60, "name": "C4", "velocity": 90}),
        ("90 3c 00", {"kind": "note off", "channel": 1, "note": 60, "name": "C4"}),
        ("8f 46 40", {"kind": "note off", "channel": 16, "note": 70, "name": "Bb4"}),
        ("b9 7b 00", {"kind": "control", "channel": 10, "number": 123, "value": 0}),
        ("e0 00 40", {"kind": "bend", "channel": 1, "value": 0}),
        ("e0 00 00", {"kind": "bend", "channel": 1, "value": -8192}),
        ("c1 21", {"kind": "program", "channel": 2, "value": 33}),
        ("d1 21", {"kind": "pressure", "channel": 2, "value": 33}),
        ("a0 3c 21", {"kind": "pressure", "channel": 1, "note": 60, "value": 33}),
        ("f8", {"kind": "system", "length": 1}),
        ("f0 7e 7f 09 01 f7", {"kind": "sysex", "length": 6}),
    ],
)
def test_messages_are_said_in_words(data: str, said: dict[str, object]) -> None:
    assert describe(list(bytes.fromhex(data))) == said
