"""``rtsep demo`` end to end: what is written, what is claimed, and that the claims are true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from rtsep.demo.run import run_demo
from rtsep.errors import StemNotFoundError, UsageError
from tests.cli.conftest import GAINS, Run
from tests.support.graphs import make_delay_model


def test_fast_demo_writes_and_measures_everything(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("demo", "--fast", "--seconds", "8", "-o", tmp_path / "d", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    expected = -20 * np.log10(1 - GAINS[3])  # this model takes an eighth of everything away with the vocals
    for stem in ("drums", "bass", "other", "vocals"):
        assert document["attenuation_db"][stem] == pytest.approx(expected, abs=0.02)
    assert document["ok"] is False
    assert document["stats"]["late_hops"] == 0
    folder = tmp_path / "d"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {"input.wav", "output.wav", "spectrogram.png", "latency.txt", "latency.json", "report.json",
                     *(f"stems/{stem}.wav" for stem in ("drums", "bass", "other", "vocals"))}  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == document
    assert json.loads((folder / "latency.json").read_text()) == document["latency"]
    assert "total" in (folder / "latency.txt").read_text()
    with Image.open(folder / "spectrogram.png") as picture:
        picture.verify()

    song = soundfile.read(folder / "input.wav", dtype="float32")[0]
    stems = [
        soundfile.read(folder / f"stems/{s}.wav", dtype="float32")[0] for s in ("drums", "bass", "other", "vocals")
    ]
    np.testing.assert_array_equal(((stems[0] + stems[1]) + stems[2]) + stems[3], song)
    out = soundfile.read(folder / "output.wav", dtype="float32")[0]
    shift, mute = document["latency"]["stream_samples"], round(document["mute_s"] * 44100)
    assert 3.9 < document["mute_s"] < 4.9
    before = slice(0, mute - 4096)
    np.testing.assert_array_equal(out[shift : shift + len(song)][before], song[before])
    after = slice(mute + 22050, len(song))
    np.testing.assert_allclose(out[shift : shift + len(song)][after], 0.875 * song[after], atol=1e-6)


def test_demo_in_real_time_says_ok_or_missed_and_strict_fails(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("demo", "--seconds", "6", "-o", tmp_path, "--model", model, "--strict")
    assert result.exit_code == 1, result.output
    assert "A target was missed" in result.stderr
    assert re.search(r"^  vocals +1\.2 dB   missed \(at least 10 wanted\)$", result.stdout, re.MULTILINE)
    assert re.search(r"^  drums +1\.2 dB   ok \(at most 1\.5 wanted\)$", result.stdout, re.MULTILINE)
    assert re.search(r"^Hops +\d+: p50 \d+\.\d\d ms .* late, \d+ xruns$", result.stdout, re.MULTILINE)
    assert str(tmp_path / "spectrogram.png") in result.stdout
    assert "playing, vocals muted" in result.stderr


def test_demo_refuses_what_cannot_be_measured(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="seconds is 5"):
        run_demo(tmp_path, seconds=5, model=model)
    with pytest.raises(UsageError, match="seconds is nan"):
        run_demo(tmp_path, seconds=float("nan"), model=model)
    no_vocals = make_delay_model(tmp_path / "m.onnx", stems=("drums", "rest"))
    with pytest.raises(StemNotFoundError, match="drums, rest"):
        run_demo(tmp_path, model=no_vocals)
