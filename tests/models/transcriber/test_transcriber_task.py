"""Training: the loss falls, thresholds and checkpoints come out, a run goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint, save_checkpoint
from models.data.readers import DataError
from models.train import TrainConfig
from models.transcriber import calibrate
from models.transcriber.losses import LossWeights, dial_losses
from models.transcriber.model import DIAL, KINDS
from models.transcriber.task import TranscriberTask
from tests.models.transcriber.small import SMALL, write_clips

ROOT = Path(__file__).parents[3]


def document(folder: Path, kind: str = "polyphonic") -> dict:
    source = {"name": "sines", "path": str(folder / kind), "kind": "rendered", "terms": "made here"}
    return {
        "model": {k: list(v) if isinstance(v, tuple) else v for k, v in SMALL[kind].to_dict().items()},
        "examples": {"seconds": 2.0, "degradation": {"bleed_db": [-30.0, -20.0]}},
        "validation": {"tuning_clips": 2, "tuning_seconds": 3.0},
        "source": [source],
        "bleed": [source],
    }


def config(folder: Path) -> TrainConfig:
    return TrainConfig(run=str(folder / "run"), steps=3, samplerate=16000, cache=str(folder / "cache"))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_loss_falls(tmp_path: Path, kind: str) -> None:
    write_clips(tmp_path / kind)
    torch.manual_seed(0)
    task = TranscriberTask(document(tmp_path, kind), config(tmp_path))
    data = iter(task.dataset(1))
    examples = [next(data) for _ in range(4)]
    batch = {key: torch.stack([e[key] for e in examples]) for key in examples[0]}
    optimizer = torch.optim.AdamW(task.model.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        loss = task.loss(task.model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    figures = task.model.eval() and task.validate()
    assert set(task.facts["thresholds"]) == set(DIAL)
    assert {"score", "noise/tight"} <= set(figures)


def test_each_position_learns_the_frame_it_speaks_of() -> None:
    frames, lookahead = 40, (3, 6, 14)
    batch = {name: torch.zeros(1, frames, 5) for name in ("onset", "frame", "velocity")}
    batch |= {"weight": torch.ones(1, frames, 5), "pitch": torch.zeros(1, frames)}
    batch["onset"][0, 10, 2] = 1.0
    weights = LossWeights(focus=0.0)

    def loss(late: tuple[int, ...]) -> float:
        logits = torch.full((1, 3, 3, frames, 5), -9.0)
        for d, delay in enumerate(late):
            logits[0, d, 0, 10 + delay, 2] = 9.0
        return float(dial_losses(logits, batch, lookahead, 60, weights)["onset"])

    assert loss(lookahead) < 0.01 * loss((0, 0, 0))


def test_the_bend_is_learnt_where_the_pitch_is_known() -> None:
    frames = 30
    batch = {name: torch.zeros(1, frames, 5) for name in ("onset", "frame", "velocity")}
    batch |= {"weight": torch.ones(1, frames, 5), "pitch": torch.zeros(1, frames)}
    batch["frame"][0, 5:20, 2] = 1.0
    batch["pitch"][0, 5:20] = 62.5
    logits = torch.zeros(1, 3, 4, frames, 5)
    flat = dial_losses(logits, batch, (1, 2, 3), 60, LossWeights())["pitch"]
    logits[:, :, 3, :, 2] = float(torch.atanh(torch.tensor(0.25)))  # 0.5 semitones
    bent = dial_losses(logits, batch, (1, 2, 3), 60, LossWeights())["pitch"]
    assert flat > 0.4
    assert bent < 1e-6


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    write_clips(tmp_path / "polyphonic")
    good = document(tmp_path)
    with pytest.raises(ValueError, match="samplerate must be 16000"):
        TranscriberTask(good, dataclasses.replace(config(tmp_path), samplerate=44100))
    with pytest.raises(DataError, match="kind must be one of"):
        TranscriberTask(good | {"source": [{**good["source"][0], "kind": "midi"}]}, config(tmp_path))
    with pytest.raises(DataError, match=r"Render it with: python tools/render_notes\.py"):
        TranscriberTask(good | {"source": [{**good["source"][0], "path": str(tmp_path / "no")}]}, config(tmp_path))


def test_calibration_writes_thresholds_into_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clips(tmp_path / "polyphonic")
    task = TranscriberTask(document(tmp_path), config(tmp_path))
    save_checkpoint(tmp_path / "best.pt", "transcriber", task.model, {"steps": 0})
    source = document(tmp_path)["source"][0]
    text = f'[train]\nrun = "r"\nsteps = 1\nsamplerate = 16000\ncache = "{tmp_path / "cache"}"\n'
    text += "".join(
        f'[[{table}]]\nname = "sines"\npath = "{source["path"]}"\nkind = "rendered"\n' for table in ("source",)
    )
    (tmp_path / "c.toml").write_text(text)
    # The config's model is not used; the checkpoint's is.
    assert calibrate.main([str(tmp_path / "c.toml"), str(tmp_path / "best.pt"), "--clips", "1"]) == 0
    _, extras = load_checkpoint(tmp_path / "best.pt", "transcriber")
    assert set(extras["thresholds"]) == set(DIAL)
    assert "tight" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["notes-poly", "notes-mono", "notes-drums"])
def test_the_configs_name_sizes_that_exist(name: str) -> None:
    from models.transcriber.model import StreamingTranscriber, TranscriberConfig

    values = tomllib.loads((ROOT / f"models/configs/{name}.toml").read_text())
    model = StreamingTranscriber(TranscriberConfig.from_dict(values["model"]))
    assert model.latencies == (160, 640, 1920)
    TrainConfig(**values["train"])


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped_and_can_be_exported(tmp_path: Path) -> None:
    write_clips(tmp_path / "monophonic")
    text = """
[train]
system = "transcriber"
run = "run"
steps = {steps}
batch = 2
bfloat16 = true
threads = 1
workers = 0
warmup = 2
samplerate = 16000
cache = "cache"
validate_every = 2
[model]
kind = "monophonic"
lowest_midi = 36
highest_midi = 84
channels = 4
hidden = 4
readout = 4
head = 4
[examples]
seconds = 2.0
[validation]
tuning_clips = 1
tuning_seconds = 2.0
[[source]]
name = "sines"
path = "monophonic"
kind = "rendered"
terms = "made here"
[card]
licence = "CC0"
"""
    for steps in (2, 4):
        (tmp_path / "c.toml").write_text(text.format(steps=steps))
        command = [sys.executable, "-m", "models.train", "c.toml"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    model, extras = load_checkpoint(tmp_path / "run/best.pt", "transcriber")
    assert model.config.kind == "monophonic"
    assert set(extras["thresholds"]) == set(DIAL)
    assert extras["training_data"] == ["sines: 3 recordings, 0 min, 54 notes (made here)"]
