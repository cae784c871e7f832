"""``rtsep synth``: a MIDI file as sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.query.notes import Note
from rtsep.query.smf import write_midi
from tests.cli.conftest import Run
from tests.support.pitch import cents, pitch_of
from tests.support.query_graphs import RATE, hertz, make_family


@pytest.fixture
def here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with msi.onnx and its family, oboe.query and melody.mid."""
    monkeypatch.chdir(tmp_path)
    make_family(tmp_path)
    soundfile.write("oboe.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE), RATE, subtype="FLOAT")
    assert run("enroll", "oboe.wav", "-o", "oboe.query", "--model", "msi.onnx").exit_code == 0
    write_midi("melody.mid", {"oboe": [Note(0, 0.5, 60, 90), Note(0.5, 1.0, 64, 90)], "low": [Note(0, 1, 12, 90)]})
    return tmp_path


def args(*more: object) -> tuple[object, ...]:
    return ("synth", "melody.mid", "--query", "oboe.query", "--model", "msi.onnx", "-o", "out.wav", *more)


def test_a_file_is_rendered(run: Run, here: Path) -> None:
    result = run(*args())
    assert result.exit_code == 0, result.output
    assert result.stdout == "out.wav\n"
    assert "oboe  2 notes, C4 to E4  0:01  16000 Hz  peak -" in result.stderr
    assert "Note: 1 notes outside A0 (21) to C8 (108) were left out: 1 x C0 (12)." in result.stderr
    audio, rate = soundfile.read("out.wav", dtype="float32")
    assert rate == RATE
    for start, pitch in ((0.1, 60), (0.6, 64)):
        begin = round(start * rate)
        assert abs(cents(pitch_of(audio[begin : begin + 5600]), hertz(pitch))) < 5
    assert len(audio) / rate == pytest.approx(1.06, abs=0.02)


def test_track_transpose_and_gain(run: Run, here: Path) -> None:
    document = json.loads(run(*args("--track", "3", "--transpose", "24", "--gain", "12", "--json")).stdout)
    assert document["notes"] == 1
    assert document["remarks"] == []
    audio, _ = soundfile.read("out.wav", dtype="float32")
    assert abs(cents(pitch_of(audio[1600:12000]), hertz(36))) < 5
    quieter = json.loads(run(*args("--track", "3", "--transpose", "24", "--json")).stdout)
    assert document["peak_dbfs"] - quieter["peak_dbfs"] == pytest.approx(12, abs=0.02)


def test_too_loud_is_said(run: Run, here: Path) -> None:
    result = run(*args("--gain", "24"))
    assert "the float file keeps it. For example: --gain -" in result.stderr
    assert np.abs(soundfile.read("out.wav")[0]).max() > 1
    assert "the file is clipped" in run(*args("--gain", "24", "--format", "pcm16")).stderr


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"-o": "out.mp3"}, 2, "a name like out.wav"),
        ({"--query": "oboe.wav"}, 1, "oboe.wav is no query"),
        ({"--query": "none.query"}, 1, "none.query cannot be read"),
        ({"--model": "openunmix-low"}, 4, "has no synthesiser"),
        ({"--track": "9"}, 1, "no notes in track 9; tracks with notes: 2 'oboe' (2 notes); 3 'low' (1 notes)"),
        ({"--track": "3"}, 1, "no note is within A0 (21) to C8 (108)"),
        ({"--transpose": "60", "--track": "2"}, 1, "1 x C9 (120), 1 x E9 (124)"),
        ({"melody": "oboe.wav"}, 1, "oboe.wav is no MIDI file"),
    ],
)
def test_errors(run: Run, here: Path, change: dict[str, str], code: int, text: str) -> None:
    options = {"--query": "oboe.query", "--model": "msi.onnx", "-o": "out.wav", **change}
    song = options.pop("melody", "melody.mid")
    result = run("synth", song, *(word for pair in options.items() for word in pair))
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert result.stdout == ""
    assert not list(here.glob("out.*"))
