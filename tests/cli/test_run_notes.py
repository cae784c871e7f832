"""``rtsep run`` with notes: MIDI out, takes, and what is said when it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Run
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import RATE, hertz, make_family

BEFORE_S = 5  # the notes process has begun to listen by then, on a busy machine too
MELODY = [(BEFORE_S, BEFORE_S + 0.5, 60), (BEFORE_S + 0.5, BEFORE_S + 1.1, 67)]


@pytest.fixture
def here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with msi.onnx, oboe.query, and song.wav: two notes at 48 kHz in stereo, and silence around them."""
    monkeypatch.chdir(tmp_path)
    make_family(tmp_path)
    soundfile.write("oboe.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE), RATE, subtype="FLOAT")
    assert run("enroll", "oboe.wav", "-o", "oboe.query", "--model", "msi.onnx").exit_code == 0
    audio = np.zeros((BEFORE_S + 2) * 48000)
    for start, end, pitch in MELODY:
        part = slice(round(start * 48000), round(end * 48000))
        audio[part] = 0.4 * np.sin(2 * np.pi * hertz(pitch) * np.arange(part.stop - part.start) / 48000)
    soundfile.write("song.wav", np.stack([audio, audio], 1), 48000, subtype="FLOAT")
    return tmp_path


ARGS = ("run", "msi.onnx", "--query", "oboe.query", "--backend", "file", "-i", "song.wav")


def test_notes_go_to_a_port_and_into_a_take(run: Run, here: Path) -> None:
    result = run(*ARGS, "--midi-out", "log:midi.log", "--midi-channel", "query=5", "--record", "take", "--json")
    assert result.exit_code == 0, result.output
    notes = json.loads(result.stdout)["notes"]
    assert (notes["notes"], notes["late"], notes["dropped"]) == (2, 0, 0)
    for stem, delay_ms in notes["delay_ms"].items():
        assert delay_ms == pytest.approx(sum(notes["delay_parts_ms"][stem].values()), abs=0.05)
    assert "query: channel 5" in result.stderr
    sent = [bytes.fromhex(json.loads(line)["bytes"]) for line in (here / "midi.log").read_text().splitlines()]
    assert [m[1] for m in sent if m[0] == 0x94] == [pitch for _, _, pitch in MELODY]
    take = here / "take"
    assert {path.name for path in take.iterdir()} == {"query.wav", "rest.wav", "mix.wav", "notes.jsonl", "notes.mid"}
    (track,) = [t for t in mido.MidiFile(take / "notes.mid").tracks if t.name == "query"]
    assert [m.note for m in track if m.type == "note_on"] == [pitch for _, _, pitch in MELODY]
    # The mix is the song, in its place: nothing was changed, and the latency is taken out.
    mix, _ = soundfile.read(take / "mix.wav", dtype="float32")
    song, _ = soundfile.read("song.wav", dtype="float32")
    np.testing.assert_array_equal(mix[:300_000], song[:300_000])


@pytest.mark.parametrize(
    ("options", "channel", "whole"),
    [(["--midi-bend", "vocals=2"], 0, 2), (["--midi-mpe", "vocals=4"], 1, 48)],
)
def test_a_voice_bends_at_the_port_and_in_the_take(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], channel: int, whole: int
) -> None:
    monkeypatch.chdir(tmp_path)
    make_delay_model(tmp_path / "model.onnx", stems=("vocals", "other"), hop=512, latency=512)
    pitch = 57.3 + 0.5 * np.sin(2 * np.pi * 5 * np.arange(2 * 48000) / 48000)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / 48000
    voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.15
    audio = np.concatenate([np.zeros(BEFORE_S * 48000), voice, np.zeros(24000)])
    soundfile.write("song.wav", np.stack([audio, audio], 1), 48000, subtype="FLOAT")
    where = ["--backend", "file", "-i", "song.wav", "--midi-out", "log:midi.log", "--record", "take"]
    result = run("run", "model.onnx", *where, "--midi-stems", "vocals", *options)
    assert result.exit_code == 0, result.output
    sent = [bytes.fromhex(json.loads(line)["bytes"]) for line in Path("midi.log").read_text().splitlines()]
    assert [0xB0 | channel, 6, whole] in [list(m) for m in sent]
    ons = [at for at, m in enumerate(sent) if m[0] & 0xF0 == 0x90]
    assert ons
    wheel = [(at, (m[1] | m[2] << 7) - 8192) for at, m in enumerate(sent) if m[0] & 0xF0 == 0xE0 and at > ons[0]]
    assert len(wheel) > 10
    assert max(abs(value) for _, value in wheel) <= 8192 * 1.2 / whole
    assert wheel[-1][1] == 0  # what ends the run centres it
    assert {(m[0] & 0x0F, m[1]) for m in sent if m[0] & 0xF0 == 0x90} <= {
        (m[0] & 0x0F, m[1]) for m in sent if m[0] & 0xF0 == 0x80
    }
    (track,) = [t for t in mido.MidiFile(Path("take") / "notes.mid").tracks if t.name == "vocals"]
    turned = [m.pitch * whole / 8192 for m in track if m.type == "pitchwheel"]
    assert len(turned) > 10
    assert np.ptp(turned) > 0.3
    assert "bends by 2 semitones" in result.stderr or "MPE on 2 to 5" in result.stderr


def test_a_wav_to_record_is_what_is_heard_as_before(run: Run, here: Path) -> None:
    assert run(*ARGS, "--record", "heard.wav").exit_code == 0
    assert Path("heard.wav").exists()


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--midi-stems", "query"], 2, "add --midi-out PORT, or --record FOLDER"),
        (["--midi-out", "null", "--midi-channel", "query=17"], 2, "channel must be 1 to 16"),
        (["--midi-out", "null", "--midi-channel", "query=1.5"], 2, "a whole number"),
        (["--midi-out", "null", "--midi-channel", "quary=2"], 2, "query"),
        (["--midi-out", "null", "--midi-stems", "vocals"], 2, "vocals"),
        (["--midi-out", "null", "--midi-bend", "query=2"], 2, "only stems of one voice"),
        (["--midi-out", "null", "--midi-mpe", "query=16"], 2, "mpe_channels must be 0 to 15"),
        (["--midi-bend", "query=2"], 2, "add --midi-out PORT, or --record FOLDER"),
        (["--midi-out", "no such port"], 3, "MIDI"),
        (["--record", "full"], 2, "full is not empty"),
    ],
)
def test_errors(run: Run, here: Path, args: list[str], code: int, text: str) -> None:
    (here / "full").mkdir()
    (here / "full" / "mix.wav").write_bytes(b"precious")
    result = run(*ARGS, *args)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert (here / "full" / "mix.wav").read_bytes() == b"precious"


def test_a_take_that_could_not_begin_leaves_its_folder_free(run: Run, here: Path) -> None:
    failed = run(*ARGS, "--record", "take", "--midi-out", "no such port")
    assert failed.exit_code == 3, failed.output
    assert list((here / "take").iterdir()) == []
    again = run(*ARGS, "--record", "take", "--midi-out", "null")
    assert again.exit_code == 0, again.output
    assert (here / "take" / "notes.mid").exists()
