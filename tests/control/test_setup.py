"""Setup files: what is read, what is named and left out, what is written, and how."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from rtsep.control.midi_map import MidiControl, MidiMapping
from rtsep.control.registry import Parameter, Registry
from rtsep.control.setup import (
    FirstMix,
    Setup,
    apply_parameters,
    mappings_of,
    midi_entries,
    read_setup,
    write_setup,
)
from rtsep.errors import ControlError

FULL = Setup(
    options={"model": "low", "blocksize": 128, "osc": "9000", "osc-feedback": ["127.0.0.1:9001"]},
    parameters={"stem/vocals/gain_db": -6.5, "stem/vocals/mute": True, "notes/latency": "tight"},
    midi=[{"control": "ch1 cc7", "parameter": "stem/vocals/gain_db", "mode": "pickup"}],
    sections={"plugins": {"vocals": [{"name": "Reverb", "state": 'a "quoted"\n\u00fc'}]}},
)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(Parameter("stem/vocals/gain_db", "float", -120.0, 24.0, 0.0, "dB", scale="fader"))
    registry.add(Parameter("stem/vocals/mute", "bool", default=False))
    registry.add(Parameter("notes/latency", "choice", default="normal", choices=("tight", "normal", "quality")))
    return registry


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gig.toml"
    path.write_text(text)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gig.toml"
    write_setup(path, FULL)
    assert read_setup(path) == (FULL, [])


def test_a_file_by_hand_may_use_tables_and_texts(tmp_path: Path, registry: Registry) -> None:
    setup, remarks = read_setup(
        write(
            tmp_path,
            """
            [parameters.stem.vocals]
            gain_db = "-6 dB"
            mute = true
            [parameters]
            "notes/latency" = "quality"
            """,
        )
    )
    assert remarks == []
    assert apply_parameters(registry, setup.parameters) == []
    assert list(registry.values().values()) == [-6.0, True, "quality"]


def test_what_is_not_known_is_named_and_the_rest_loads(tmp_path: Path, registry: Registry) -> None:
    setup, remarks = read_setup(
        write(
            tmp_path,
            """
            midi = [{control = "ch1 cc7", parameter = "stem/vocals/gain_db"}, {control = "ch1 cc8"}, 5,
                    {control = "cc9", parameter = "stem/vocals/mute"}, {control = 1, parameter = "a"},
                    {control = "ch1 cc10", parameter = "stem/flute/mute"},
                    {control = "ch1 cc11", parameter = "stem/vocals/mute", mode = "pickup"}]
            run = 5
            [parameter]
            a = 1
            [parameters]
            "stem/vocals/gian_db" = -6.0
            "stem/vocals/gain_db" = 30.0
            "stem/vocals/mute" = true
            "notes/latency" = ["tight"]
            """,
        )
    )
    text = "\n".join(remarks)
    assert "run = 5: a table is needed" in text
    assert "Unknown section [parameter]. Did you mean 'parameters'?" in text
    assert "notes/latency has a value of no use" in text
    assert text.count("[[midi]]") == 3
    assert setup.options == {}
    left_out = apply_parameters(registry, setup.parameters)
    assert len(left_out) == 2
    assert "Did you mean 'stem/vocals/gain_db'" in left_out[0]
    assert "got 30" in left_out[1]
    assert registry.get("stem/vocals/mute") is True
    mappings, wrong = mappings_of(setup, registry)
    assert [(str(one.control), one.mode) for one in mappings] == [("ch1 cc7", "pickup")]
    assert len(wrong) == 3
    assert "stem/flute/mute" in wrong[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[parameters", "is no TOML"),
        ("setup = 2", "of version 2; this rtsep reads up to 1"),
        ('setup = "one"', "it has to be 1"),
        ("setup = true", "it has to be 1"),
    ],
)
def test_a_file_that_is_no_setup(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ControlError, match=message):
        read_setup(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be read: No such file"):
        read_setup(tmp_path / "none.toml")
    with pytest.raises(ControlError, match="cannot be read: Is a directory"):
        read_setup(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ControlError, match="is no TOML"):
        read_setup(tmp_path / "bytes.toml")
    deep = tmp_path / "deep.toml"
    deep.write_text("a = " + "[" * 100_000)
    with pytest.raises(ControlError, match="is no TOML"):
        read_setup(deep)


def test_a_setup_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "setup = 1\n")
    path.chmod(0o640)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ControlError, match="cannot be written: No space left"):
            write_setup(path, FULL)
    assert path.read_text() == "setup = 1\n"
    assert list(tmp_path.iterdir()) == [path]
    write_setup(path, FULL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ControlError, match="cannot be written: No such file"):
        write_setup(tmp_path / "nowhere" / "gig.toml", FULL)


def test_mappings_go_to_a_file_and_back(registry: Registry) -> None:
    made = [
        MidiMapping.make(MidiControl.parse("ch1 cc7+39"), registry.parameter("stem/vocals/gain_db"), "jump"),
        MidiMapping.make(MidiControl.parse("ch10 note36"), registry.parameter("stem/vocals/mute")),
    ]
    assert mappings_of(Setup(midi=midi_entries(made)), registry) == (made, [])


def test_what_the_command_line_says_goes_before_the_setup() -> None:
    mix = FirstMix(mute=("drums",), gain={"vocals": -3.0}, given={"stem/drums/mute", "stem/vocals/gain_db"})
    values: dict[str, float | bool | str] = {
        "stem/drums/mute": False,
        "stem/vocals/gain_db": -20.0,
        "stem/vocals/mute": True,
        "stem/my_bass/gain_db": "-6 dB",
        "stem/my_bass/pan": 0.5,
        "stem/flute/pan": 0.5,
        "stem/drums/solo": "perhaps",
        "master/gain_db": -1,
        "master/bypass": True,
    }
    mix.add(values, ("drums", "vocals", "my bass", "flute"), ("drums", "vocals", "my bass"))
    assert mix.mute == ("drums", "vocals")
    assert mix.solo == ()
    assert mix.gain == {"vocals": -3.0, "my bass": -6.0}
    assert mix.pan == {"my bass": 0.5}
    assert (mix.master_db, mix.bypass, mix.limiter) == (-1.0, True, False)
