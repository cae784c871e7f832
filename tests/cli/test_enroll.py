"""``rtsep enroll``: from files and devices, with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.query.queries import Query
from tests.cli.conftest import Run
from tests.support.query_graphs import RATE, make_family


@pytest.fixture(scope="module")
def msi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("msi"))


@pytest.fixture
def oboe(tmp_path: Path) -> Path:
    """1.5 s of a tone at 44.1 kHz, and half a second of silence on either side."""
    audio = 0.3 * np.sin(2 * np.pi * 440 * np.arange(66150) / 44100)
    path = tmp_path / "oboe take 1.wav"
    soundfile.write(path, np.concatenate([np.zeros(22050), audio, np.zeros(22050)]), 44100, subtype="FLOAT")
    return path


def test_a_recording_becomes_a_query(run: Run, msi: Path, oboe: Path, tmp_path: Path) -> None:
    out = tmp_path / "oboe.query"
    result = run("enroll", oboe, "-o", out, "--model", msi)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    assert "oboe  1.5 s of sound out of 2.5 s recorded  (1.0 s of silence left out)  for msi" in result.stderr
    query = Query.load(out)
    assert (query.name, query.model, query.source) == ("oboe", "msi", "oboe take 1.wav")
    document = json.loads(run("enroll", oboe, "-o", out, "--model", msi, "--json").stdout)
    assert document["query"] == query.vector.tolist()
    assert document["sounding_s"] == pytest.approx(1.5, abs=0.02)


def test_live_from_a_backend(run: Run, msi: Path, oboe: Path, tmp_path: Path) -> None:
    out = tmp_path / "live.query"
    result = run("enroll", "--live", "2", "--backend", "file", "-i", oboe, "-o", out, "--model", msi)
    assert result.exit_code == 0, result.output
    assert "Recording 2 s" in result.stderr
    query = Query.load(out)
    assert query.seconds == pytest.approx(1.5, abs=0.02)
    assert query.source == f"live from {oboe}"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["-o", "x.query"], 2, "Give a recording, or --live SECONDS"),
        (["a.wav", "--live", "5", "-o", "x.query"], 2, "not both"),
        (["a.wav", "-i", "3", "-o", "x.query"], 2, "-i and --backend are for --live"),
        (["a.wav", "-o", "x.wav"], 2, "a name like x.query"),
        (["a.wav", "-o", "x.query"], 1, "a.wav: no such file"),
        (["silent.wav", "-o", "x.query"], 1, "silent.wav is silent"),
        (["oboe take 1.wav", "-c", "2", "-o", "x.query"], 2, "channels 1 to 1"),
        (["--live", "1", "--backend", "dummy", "-o", "x.query"], 1, "live from dummy is silent"),
        (["oboe take 1.wav", "-o", "none/x.query"], 1, "cannot be written"),
        (["oboe take 1.wav", "-o", "x.query", "--model", "openunmix-low"], 4, "has no query encoder"),
    ],
)
def test_errors(
    run: Run, msi: Path, oboe: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, text: str
) -> None:
    monkeypatch.chdir(oboe.parent)
    soundfile.write("silent.wav", np.zeros(RATE), RATE)
    result = run("enroll", *args, *([] if "--model" in args else ["--model", msi]))
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in Path().iterdir()) == ["oboe take 1.wav", "silent.wav"]


def test_a_clipped_recording_needs_force(run: Run, msi: Path, tmp_path: Path) -> None:
    audio = np.clip(2 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE), -1, 32767 / 32768)
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="PCM_16")
    args = ("enroll", tmp_path / "a.wav", "-o", tmp_path / "a.query", "--model", msi)
    result = run(*args)
    assert result.exit_code == 1
    assert "% of its samples are at full scale" in result.stderr
    assert "--force" in result.stderr
    assert run(*args, "--force").exit_code == 0
