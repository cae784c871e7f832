"""``rtsep transcribe``: notes in a MIDI file, in time with the recording."""

from __future__ import annotations

import json
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from rtsep.query.smf import read_midi
from tests.cli.conftest import Run
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import RATE, hertz, make_family

MELODY = [(0.5, 1.0, 69), (1.0, 1.5, 74)]


@pytest.fixture
def here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with msi.onnx and its family, oboe.query and song.wav."""
    monkeypatch.chdir(tmp_path)
    make_family(tmp_path)
    audio = np.zeros(2 * RATE)
    for start, end, pitch in MELODY:
        time = np.arange(round((end - start) * RATE)) / RATE
        audio[round(start * RATE) : round(end * RATE)] = 0.3 * np.sin(2 * np.pi * hertz(pitch) * time)
    soundfile.write("song.wav", audio, RATE, subtype="FLOAT")
    assert run("enroll", "song.wav", "-o", "oboe.query", "--model", "msi.onnx").exit_code == 0
    return tmp_path


def test_notes_are_written_under_the_querys_name(run: Run, here: Path) -> None:
    args = ("transcribe", "song.wav", "--query", "oboe.query", "--model", "msi.onnx", "-o", "song.mid")
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert result.stdout == "song.mid\n"
    assert "oboe  2 notes, A4 to D5  0:02" in result.stderr
    notes = read_midi("song.mid").notes
    assert [note.pitch for note in notes] == [69, 74]
    for note, (start, end, _) in zip(notes, MELODY, strict=True):
        assert note.start_s == pytest.approx(start, abs=0.04)
        assert note.end_s == pytest.approx(end, abs=0.04)
    document = json.loads(run(*args, "--json").stdout)
    assert [note["pitch"] for note in document["notes"]["oboe"]] == [69, 74]
    assert document["seconds"] == 2.0


def test_bends_of_a_voice_are_in_the_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_delay_model(tmp_path / "model.onnx", stems=("vocals", "other"), hop=512, latency=512)
    pitch = 57.3 + 0.5 * np.sin(2 * np.pi * 5 * np.arange(2 * 48000) / 48000)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / 48000
    voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.15
    soundfile.write("song.wav", np.concatenate([np.zeros(24000), voice, np.zeros(12000)]), 48000, subtype="FLOAT")
    args = ("transcribe", "song.wav", "--model", "model.onnx", "--stems", "vocals", "-o", "song.mid")
    result = run(*args, "--midi-bend", "vocals=2")
    assert result.exit_code == 0, result.output
    turned = [m.pitch * 2 / 8192 for track in mido.MidiFile("song.mid").tracks for m in track if m.type == "pitchwheel"]
    assert len(turned) > 10
    assert np.ptp(turned) > 0.3
    assert run(*args).exit_code == 0
    assert not [m for track in mido.MidiFile("song.mid").tracks for m in track if m.type == "pitchwheel"]
    for wrong, text in (
        ("vocals=97", "1 to 96"),
        ("vocals=1.5", "whole number"),
        ("other=2", "only stems of one voice"),
    ):
        result = run(*args, "--midi-bend", wrong)
        assert result.exit_code == 2
        assert text in result.stderr


def test_thresholds(run: Run, here: Path) -> None:
    args = ("transcribe", "song.wav", "--query", "oboe.query", "--model", "msi.onnx", "-o", "song.mid", "--json")
    assert json.loads(run(*args, "--shortest", "2000").stdout)["notes"] == {"oboe": []}
    result = run(*args[:-1], "--shortest", "2000")
    assert "0 notes, none heard" in result.stderr
    assert Path("song.mid").exists()


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["song.wav", "-o", "song.wav"], 2, "a name like song.mid"),
        (["song.wav", "--model", "msi.onnx", "-o", "a.mid"], 2, "--query NAME.query"),
        (["song.wav", "--model", "openunmix-low", "--stems", "vocal", "-o", "a.mid"], 2, "vocal"),
        (["song.wav", "--model", "openunmix-low", "--plot", "a.jpg", "-o", "a.mid"], 2, "a name like a.png"),
        (["song.wav", "--model", "openunmix-low", "--query", "oboe.query", "-o", "a.mid"], 1, "takes no query"),
        (["song.wav", "--query", "song.wav", "-o", "a.mid"], 1, "song.wav is no query"),
        (["song.wav", "--query", "oboe.query", "--model", "none.onnx", "-o", "a.mid"], 4, "none.onnx"),
        (["none.wav", "--query", "oboe.query", "--model", "msi.onnx", "-o", "a.mid"], 1, "no such file"),
        (["song.wav", "--query", "oboe.query", "--model", "msi.onnx", "-o", "none/a.mid"], 1, "cannot be written"),
    ],
)
def test_errors(run: Run, here: Path, args: list[str], code: int, text: str) -> None:
    before = sorted(path.name for path in here.iterdir())
    result = run("transcribe", *args)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in here.iterdir()) == before
