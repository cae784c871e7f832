"""A run trains, stops, goes on where it stopped, and leaves checkpoints that others can read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.average import average
from models.checkpoint import load_checkpoint
from models.metrics import clip_sdr, frame_sdr
from models.registry import find, load
from models.train import read_config

ROOT = Path(__file__).parents[2]
CONFIG = """
[train]
run = "run"
steps = {steps}
batch = 2
warmup = 2
samplerate = 8000
cache = "cache"
validate_every = 3
threads = 1
workers = 1
{extra}
[model]
window = 256
hop = 64
edges = [16, 32, 64, 128]
hidden = 12
refine = {refine}
samplerates = [8000]

[remix]
seconds = 1.5

[[source]]
name = "songs"
path = "songs"
kind = "folders"
terms = "made here"

[card]
licence = "CC0-1.0"

[validation]
songs = ["song1"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("song0", "song1"):
        (tmp_path / "songs" / name).mkdir(parents=True)
        for stem in ("drums", "bass", "other", "vocals"):
            audio = 0.1 * rng.standard_normal((24000, 2))
            soundfile.write(tmp_path / "songs" / name / f"{stem}.wav", audio, 8000)
    return tmp_path


def train(folder: Path, steps: int, *, extra: str = "", refine: int = 0) -> subprocess.CompletedProcess[str]:
    (folder / "config.toml").write_text(CONFIG.format(steps=steps, extra=extra, refine=refine))
    command = [sys.executable, "-m", "models.train", "config.toml"]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )


def steps_logged(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def test_a_run_resumes_and_takes_weights(folder: Path) -> None:
    done = train(folder, 3)
    assert done.returncode == 0, done.stderr
    assert "made here" in done.stdout
    model, facts = load_checkpoint(folder / "run" / "best.pt")
    assert facts["licence"] == "CC0-1.0"
    assert facts["steps"] == 3
    assert facts["training_data"] == ["songs: 1 recordings, 0.1 min (made here)"], "the validation song is not in it"
    assert model.normalise.scale.std() > 0, "the input statistics were measured"

    assert train(folder, 6).returncode == 0
    last = torch.load(folder / "run" / "last.pt", weights_only=True)
    assert last["step"] == 6
    assert max(steps_logged(folder)) == 6
    assert 3 in steps_logged(folder)
    assert list((folder / "run" / "tensorboard").iterdir())

    (folder / "run").rename(folder / "first")
    done = train(folder, 2, extra='start_from = "first/last.pt"\nloss = "waveform"', refine=4)
    assert done.returncode == 0, done.stderr
    assert "new: ['refine']" in done.stdout
    assert load_checkpoint(folder / "run" / "best.pt")[1]["steps"] == 8


def test_unknown_settings_are_refused(folder: Path) -> None:
    done = train(folder, 1, extra="learning_rat = 1")
    assert done.returncode != 0
    assert "learning_rat" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "configs").glob("*-low.toml")), ids=lambda path: path.stem)
def test_shipped_configs_read(path: Path) -> None:
    config, document = read_config(path)
    system = find(config.system)
    assert load(system.config).from_dict(document.get("model", {}))
    assert load(system.task)
    if config.system != "msi":
        assert len(document["validation"]["songs"]) == 14


@pytest.mark.parametrize("loss", ["l1_freq", "si_sdr_time", "adversarial"])
def test_a_loss_of_the_study_is_called_by_name(folder: Path, loss: str) -> None:
    done = train(folder, 2, extra=f'loss = "{loss}"')
    assert done.returncode == 0, done.stderr
    done = train(folder, 3, extra=f'loss = "{loss}"')
    assert done.returncode == 0, done.stderr
    saved = torch.load(folder / "run" / "last.pt", weights_only=True)
    assert saved["step"] == 3
    assert bool(saved["loss"]) == (loss == "adversarial")


def test_two_processes_average_their_gradients(folder: Path) -> None:
    done = train(folder, 3, extra='device = "cpu"\ndevices = 2')
    assert done.returncode == 0, done.stderr
    facts = load_checkpoint(folder / "run" / "best.pt")[1]
    assert facts["processes"] == 2
    assert steps_logged(folder).count(3) == 1, "one process writes the log"


def test_mean_of_checkpoints(folder: Path) -> None:
    assert train(folder, 3).returncode == 0
    best = folder / "run" / "best.pt"
    document = torch.load(best, weights_only=True)
    document["state_dict"]["fc3.bias"] += 2.0
    torch.save(document, folder / "other.pt")
    system, mean, facts = average([best, folder / "other.pt"])
    torch.testing.assert_close(mean.fc3.bias, load_checkpoint(best)[0].fc3.bias + 1.0)
    assert system == "openunmix"
    assert facts["averaged_steps"] == [3, 3]


def test_metrics_by_hand() -> None:
    target = torch.zeros(2, 1, 3000)
    target[0], target[1, :, :1000] = 1.0, 1.0
    estimate = target.clone()
    estimate[0] *= 0.9
    estimate[1, :, :1000] += 0.5
    torch.testing.assert_close(frame_sdr(estimate, target, 1000), torch.tensor([20.0, 6.0206]), atol=1e-3, rtol=0)
    torch.testing.assert_close(clip_sdr(estimate, target), torch.tensor([20.0, 6.0206]), atol=1e-3, rtol=0)
