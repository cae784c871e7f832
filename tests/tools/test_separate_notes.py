"""Stems of a separator with the notes of what went in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data.clips import onset_lag
from tests.models.transcriber.small import write_clips
from tools import separate_notes

RATE = 16000


def write_material(root: Path) -> list[str]:
    for kind in ("polyphonic", "monophonic", "drums"):
        write_clips(root / "clips" / kind, count=2, seconds=6.0)
    for path in [*(root / "clips/monophonic").glob("*.json"), *(root / "clips/drums").glob("*.json")]:
        document = json.loads(path.read_text())
        for note in document["notes"]:
            note[2] = 38 if path.parent.name == "drums" else 40
        path.write_text(json.dumps(document))
    voices = root / "voices"
    voices.mkdir()
    for name in "abc":
        time = np.arange(5 * RATE) / RATE
        soundfile.write(voices / f"{name}.ogg", 0.2 * np.sin(2 * np.pi * 330 * time), RATE)
        (voices / f"{name}.txt").write_text("0.5 1.5 64.1\n2.0 3.0 64.1\n")
    options = ["--clips", str(root / "clips"), "--voices", str(voices), "--cache", str(root / "cache")]
    return [*options, "--out", str(root / "out")]


def test_stems_are_in_time_with_their_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separate_notes, "SAMPLES", 6 * RATE)
    options = write_material(tmp_path)
    assert separate_notes.main([*options, "--mixtures", "2"]) == 0
    lags = []
    for path in sorted((tmp_path / "out/polyphonic").glob("*.flac")):
        audio, rate = soundfile.read(path, dtype="float32")
        document = json.loads(path.with_suffix(".json").read_text())
        assert (rate, len(audio)) == (RATE, 6 * RATE)
        assert document["notes"]
        lags += list(onset_lag(audio, [note[0] for note in document["notes"]]))
    assert abs(np.nanmedian(lags)) < 0.01
    names = {path.stem.split("-")[1] for path in (tmp_path / "out").rglob("*.flac")}
    assert {"other", "bass", "drums"} <= names
    facts = json.loads((tmp_path / "out/drums/000000-drums.json").read_text())["facts"]
    assert "c" not in facts["clips"].values()  # the third voice is held out


def test_a_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        separate_notes.main(["--clips", str(tmp_path), "--cache", str(tmp_path / "cache")])
    assert "nothing to read" in capsys.readouterr().err
