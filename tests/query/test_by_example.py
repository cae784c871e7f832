"""A query and a score in ``run`` and ``separate``: what they set, when, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import FileConfig
from rtsep.engine import Engine
from rtsep.errors import EngineError, UsageError
from rtsep.offline import separate
from rtsep.query.live import LiveScore
from rtsep.query.notes import Note
from rtsep.query.queries import Query
from rtsep.query.score import Score
from rtsep.query.smf import write_midi
from tests.cli.conftest import Run, run  # noqa: F401
from tests.query.conftest import Audio
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import HOP, RATE, make_family

NOTES = [Note(0.5, 0.8, 60, 64), Note(0.8, 1.1, 62, 64), Note(1.3, 1.6, 64, 64)]


def noise(seconds: float, rate: int = RATE) -> Audio:
    return np.random.default_rng(1).uniform(-0.3, 0.3, (1, round(seconds * rate))).astype(np.float32)


def sounding(times: Audio) -> Audio:
    """1 where a note of `NOTES` sounds."""
    return np.array([any(n.start_s <= t < n.end_s for n in NOTES) for t in times], np.float32)


def test_each_hop_of_a_file_gets_the_score_of_its_audio(family: Path) -> None:
    audio = noise(2.0)
    found = separate(audio, samplerate=RATE, model=family, score=Score(NOTES))
    middles = (np.arange(len(audio[0]) // HOP) + 0.5) * HOP / RATE
    np.testing.assert_array_equal(found.stems["query"][0], audio[0] * np.repeat(sounding(middles), HOP))
    np.testing.assert_array_equal(found.stems["query"] + found.stems["rest"], audio)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_resampled_files_too(family: Path, rate: int) -> None:
    time = np.arange(2 * rate) / rate
    audio = (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    query = separate(audio, samplerate=rate, model=family, score=Score(NOTES)).stems["query"][0]
    on = np.abs(query) > 0.25
    for note in NOTES:
        inside = on[round((note.start_s + 0.012) * rate) : round((note.end_s - 0.012) * rate)]
        assert inside.mean() > 0.6  # of a sine, two thirds lie above half its peak
    outside = sounding((np.arange(len(on)) - 0.012 * rate) / rate) + sounding(
        (np.arange(len(on)) + 0.012 * rate) / rate
    )
    assert not on[outside == 0].any()


def test_live_the_score_keeps_to_the_engines_clock(family: Path, tmp_path: Path) -> None:
    rate, audio = 48000, noise(3.0, 48000)
    soundfile.write(tmp_path / "in.wav", audio.T, rate, subtype="FLOAT")
    device = FileConfig(input=str(tmp_path / "in.wav"), output=str(tmp_path / "out.wav"), blocksize=128)
    score = Score([Note(0.4 + 0.3 * i, 0.55 + 0.3 * i, 60, 64) for i in range(8)])
    with Engine(family, backend=device, solo=["query"], slack_hops=4) as engine, LiveScore(engine, score):
        assert engine.wait(30)
        late = engine.latency().total_samples
    heard = soundfile.read(tmp_path / "out.wav", dtype="float32")[0][late:, 0]
    level = np.sqrt(np.convolve(heard**2, np.ones(96) / 96, "same"))
    changes = np.flatnonzero(np.diff((level > 0.5 * np.median(level[level > 0.05])).astype(int))) / rate
    edges = [time for note in score.notes for time in (note.start_s, note.end_s)]
    errors = sorted(float(np.abs(changes - edge).min()) for edge in edges)
    # On a crowded machine a thread may wake late now and then.
    assert errors[int(0.7 * len(errors))] < 0.02, errors


def test_live_needs_a_model_that_reads_scores_and_survives_the_engines_end(family: Path, tmp_path: Path) -> None:
    with Engine(make_delay_model(tmp_path / "m.onnx"), backend="dummy") as engine, pytest.raises(UsageError):
        LiveScore(engine, Score(NOTES))
    with Engine(family, backend="dummy") as engine:
        with LiveScore(engine, Score([Note(i / 50, (i + 0.5) / 50, 60, 64) for i in range(500)])):
            engine.stop()
        with pytest.raises(EngineError, match="has ended"):
            LiveScore(engine, Score(NOTES))


@pytest.fixture
def here(query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with msi.onnx and its family, oboe.query, song.wav and score.mid."""
    monkeypatch.chdir(tmp_path)
    make_family(tmp_path)
    query.save("oboe.query")
    soundfile.write("song.wav", noise(2.0).T, RATE, subtype="FLOAT")
    write_midi("score.mid", {"oboe": NOTES, "low": [Note(0, 2, 12, 64)]})
    return tmp_path


def test_separate_takes_a_query(run: Run, here: Path, query: Query) -> None:  # noqa: F811
    result = run(
        "separate", "song.wav", "--model", "msi.onnx", "--query", "oboe.query", "--stems", "query", "-o", "out/"
    )
    assert result.exit_code == 0, result.output
    assert "Query    oboe  2.0 s from oboe.wav" in result.stderr
    found = soundfile.read("out/song/query.wav", dtype="float32")[0]
    np.testing.assert_allclose(found, noise(2.0)[0] * (1 + query.vector[0]) / 2, atol=1e-6)


def test_separate_takes_a_score(run: Run, here: Path) -> None:  # noqa: F811
    args = ("separate", "song.wav", "--model", "msi.onnx", "--query", "oboe.query", "--solo", "query", "-o", "out.wav")
    result = run(*args, "--score", "score.mid", "--score-offset", "-0.3")
    assert result.exit_code == 0, result.output
    assert "Note: score.mid: 1 notes outside A0 (21) to C8 (108) were left out" in result.stderr
    assert "Score    score.mid  3 notes, to 0:01" in result.stderr
    middles = (np.arange(2 * RATE // HOP) + 0.5) * HOP / RATE
    # The file counts in ticks of about a millisecond; hops are ten.
    expected = noise(2.0)[0] * np.repeat(sounding(middles + 0.3), HOP)
    np.testing.assert_array_equal(soundfile.read("out.wav", dtype="float32")[0], expected)
    assert "no note is within" in run(*args, "--score", "score.mid", "--score-track", "3").stderr


def test_run_takes_both(run: Run, here: Path) -> None:  # noqa: F811
    result = run(
        "run", "msi.onnx", "--query", "oboe.query", "--score", "score.mid", "--score-track", "2", "--solo", "query",
        "--backend", "file", "-i", "song.wav", "-o", "out.wav", "--json", "--no-keys",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Query    oboe" in result.stderr
    late = sum(part["samples"] for part in json.loads(result.stdout)["latency"]["parts"])
    heard = soundfile.read("out.wav", dtype="float32")[0][late:, 0]
    share = [float(np.abs(heard[round(a * RATE) : round(b * RATE)]).mean()) for a, b in ((0.6, 1.0), (1.15, 1.25))]
    assert share[0] > 0.1
    assert share[1] < 0.03


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--model", "msi.onnx"], 2, "has none: --query NAME.query"),
        (["--query", "oboe.query"], 1, "takes no query; 'oboe' is for msi: --model msi"),
        (["--model", "msi.onnx", "--query", "none.query"], 1, "none.query cannot be read"),
        (["--model", "msi.onnx", "--query", "oboe.query", "--score-track", "1"], 2, "are for --score FILE.mid"),
        (["--model", "msi.onnx", "--query", "oboe.query", "--score", "song.wav"], 1, "song.wav is no MIDI file"),
        (["--model", "msi.onnx", "--query", "oboe.query", "--control", "query=0,0,0,0,0,0"], 2, "give one"),
        (["--score", "score.mid"], 2, "reads no score"),
    ],
)
@pytest.mark.parametrize("command", ["separate", "run"])
def test_errors(run: Run, here: Path, command: str, args: list[str], code: int, text: str) -> None:  # noqa: F811
    places = {
        "separate": ["song.wav", "--mute", "rest", "-o", "out.wav"],
        "run": ["--backend", "file", "-i", "song.wav", "--seconds", "1"],
    }
    more = places[command] if "msi.onnx" in args else [word.replace("rest", "vocals") for word in places[command]]
    result = run(command, *more, *args)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert not Path("out.wav").exists()


def test_a_query_may_be_given_as_numbers(run: Run, here: Path) -> None:  # noqa: F811
    args = ("--model", "msi.onnx", "--control", "query=1,0,0,0,0,0", "--solo", "query", "-o", "out.wav")
    assert run("separate", "song.wav", *args).exit_code == 0
    np.testing.assert_allclose(soundfile.read("out.wav", dtype="float32")[0], noise(2.0)[0], atol=1e-7)


def test_models_show_what_stands_beside_them(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    info = run("models", "info", "msi.onnx").stdout
    assert "query encoder (rtsep enroll), synthesiser (rtsep synth)" in info
    assert json.loads(run("models", "info", "msi.onnx", "--json").stdout)["companions"] == ["query", "synth"]
    monkeypatch.setattr("rtsep.zoo.registry._FOLDER", here)
    listed = json.loads(run("models", "list", "--json").stdout)
    assert [(entry["name"], entry["companions"]) for entry in listed] == [("msi", ["query", "synth"])]
    assert "query, synth" in run("models", "list").stdout
    # And without --model the one model with an encoder is taken.
    soundfile.write("oboe.wav", 0.5 * noise(2.0).T, RATE, subtype="FLOAT")
    assert run("enroll", "oboe.wav", "-o", "again.query").exit_code == 0
    assert run("transcribe", "song.wav", "--query", "again.query", "-o", "song.mid").exit_code == 0
