"""The study's command: trains, goes on after an interruption, and writes its document from its results alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.loss_report import write_report
from models.loss_study import main

Study = Callable[..., str]
STEMS = ("drums", "bass", "other", "vocals")
DATA = """
[[source]]
name = "songs"
path = "songs"
kind = "folders"
terms = "made here"

[validation]
songs = ["song1"]
"""
STUDY = """
[study]
run = "run"
data = "data.toml"
cache = "cache"
samplerate = 8000
segments = 6
batch = 2
warm_up_seconds = 0.1
seed = 1
repeat = "l1_freq"

[model]
window = 256
hop = 64
edges = [16, 32, 64, 128]
hidden = {hidden}
layers = 1

[remix]
seconds = 1.2

[learning_rates]
default = 5e-3
{rates}
"""
LOSSES = ("l1_freq", "si_sdr_time", "si_sdr_time_upstream", "cross_entropy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two songs whose stems lie in bands of their own, so that a model can learn to separate them."""
    rng = np.random.default_rng(0)
    for name in ("song0", "song1"):
        (tmp_path / "songs" / name).mkdir(parents=True)
        for i, stem in enumerate(STEMS):
            spectrum = np.fft.rfft(rng.standard_normal((16000, 2)), axis=0)
            band = len(spectrum) // 4
            spectrum[: i * band], spectrum[(i + 1) * band :] = 0, 0
            soundfile.write(tmp_path / "songs" / name / f"{stem}.wav", 0.1 * np.fft.irfft(spectrum, axis=0), 8000)
    (tmp_path / "data.toml").write_text(DATA)
    return tmp_path


@pytest.fixture
def study(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Study]:
    """Run the command in the folder; it returns what was printed, and raises ``SystemExit`` where it fails."""

    def run(minutes: float, *losses: str, hidden: int = 12, rates: str = "") -> str:
        (folder / "study.toml").write_text(STUDY.format(hidden=hidden, rates=rates))
        command = ["--config", "study.toml", "-o", "losses.md", "--minutes-per-loss", str(minutes)]
        main([*command, *(["--losses", *losses] if losses else [])])
        return capsys.readouterr().out

    monkeypatch.chdir(folder)
    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_a_study(folder: Path, study: Study) -> None:
    assert study(0.01, "l1_freq").count("l1_freq") == 3, "three seeds"
    first = (folder / "run" / "result-l1_freq-1.json").read_text()
    result = json.loads(first)
    assert result["loss_last_tenth"] < result["loss_first_tenth"]
    assert result["steps"] == json.loads((folder / "run" / "plan.json").read_text())["steps"]

    assert "l1_freq" not in study(0.02, *LOSSES), "what is finished is not done again"
    assert (folder / "run" / "result-l1_freq-1.json").read_text() == first
    results = {p.stem: json.loads(p.read_text()) for p in (folder / "run").glob("result-*.json")}
    assert {r["steps"] for r in results.values()} == {result["steps"]}, "the budget of the first call is kept"
    assert len(results) == len(LOSSES) + 2

    text = (folder / "losses.md").read_text()
    mean = np.mean([result["sdr_shared"][stem] for stem in STEMS])
    assert f"**{mean:.2f}**" in text
    assert "with 3 seeds" in text
    assert "| `si_sdr_time` |" in text.split("## Corrected")[1]
    assert 1000 < (folder / "losses.png").stat().st_size < 100_000

    (folder / "losses.md").unlink()
    (folder / "songs").rename(folder / "elsewhere")
    study(0)
    assert (folder / "losses.md").read_text() == text, "the document needs the results only"

    (folder / "elsewhere").rename(folder / "songs")
    with pytest.raises(SystemExit, match="results of other settings"):
        study(0.01, "l1_freq", hidden=13)


def test_the_same_again(folder: Path, study: Study) -> None:
    """Weights and order of the batches are functions of the seed."""
    study(0.005, "l1_freq")
    before = json.loads((folder / "run" / "result-l1_freq-1.json").read_text())
    (folder / "run" / "result-l1_freq-1.json").unlink()
    study(0.005, "l1_freq")
    after = json.loads((folder / "run" / "result-l1_freq-1.json").read_text())
    assert {**before, "ms_per_step": 0} == {**after, "ms_per_step": 0}


def test_wrong_names(study: Study) -> None:
    with pytest.raises(SystemExit, match="Did you mean l1_freq"):
        study(0.01, "l1_frek")
    with pytest.raises(SystemExit, match=r"\[learning_rates\] has no losses \['l3_freq'\]"):
        study(0.01, "l1_freq", rates="l3_freq = 1e-3")


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no results; make some with"):
        write_report(tmp_path, tmp_path / "losses.md")
