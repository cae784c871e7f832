"""A training run's MSI side: classes and notes, losses that fall, and what a validation measures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.checkpoint import load_checkpoint
from models.data.readers import DataError
from models.msi.reference import SILENCE
from models.msi.streaming import StreamingMSI
from models.msi.task import MSITask, classes_of, frames_heard, note_f1, runs, sounding_power
from tests.models.data.recorded_notes import write_notes

ROOT = Path(__file__).parents[3]
MODEL = {
    "edges": [64, 128, 256],
    "channels": [4, 6, 8],
    "transcriptor_channels": [12],
    "query_channels": [4, 8],
    "templates": 24,
    "compression": 0.5,
    "mask": True,
    "window": 512,
}

CONFIG = """
[train]
run = "{folder}/run"
system = "msi"
steps = 4
batch = 2
warmup = 2
samplerate = 16000
cache = "{folder}/cache"
validate_every = 4
threads = 1
workers = 1
bfloat16 = true

[model]
edges = [64, 128, 256]
channels = [4, 6, 8]
transcriptor_channels = [12]
templates = 24
window = 512

[msi]
variant = "msi-dis"
synthesis = 0.2

[ensemble]
seconds = 1.0
query_seconds = 1.0

[[source]]
name = "notes"
path = "{folder}/notes"
kind = "recorded-notes"
terms = "made here"

[validation]
unseen = ["string"]
duets = 2
seconds = 2.0

[card]
licence = "CC0-1.0"
"""
SHORT = {"seconds": 1.0, "query_seconds": 1.0, "sizes": [1.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes of a reed, a horn and a string, from 50 to 74, every one of them."""
    path = tmp_path_factory.mktemp("msi")
    write_notes(path / "notes", step=1)
    return path


def document(folder: Path, **tables: Any) -> dict[str, Any]:
    source = {"name": "notes", "path": str(folder / "notes"), "kind": "recorded-notes", "terms": "made here"}
    return {
        "model": MODEL,
        "ensemble": SHORT,
        "source": [source],
        "validation": {"unseen": ["string"], "duets": 2, "seconds": 2.0},
        **tables,
    }


def task(folder: Path, samplerate: int = 16000, **tables: Any) -> MSITask:
    config = SimpleNamespace(samplerate=samplerate, cache=str(folder / "cache"), bfloat16=False, workers=0)
    torch.manual_seed(0)
    return MSITask(document(folder, **tables), config)  # type: ignore[arg-type]


def test_classes_follow_the_roll_one_frame_late() -> None:
    roll = torch.tensor([[0, 60, 60, 21, 108, 0, 19, 110]])
    assert classes_of(roll).tolist() == [[SILENCE, SILENCE, 39, 39, 0, 87, SILENCE, SILENCE]]


def test_frames_are_heard_as_the_likeliest_class_silence_included() -> None:
    frame = torch.zeros(1, 3, 88)
    frame[0, 0, 5], frame[0, 1, 5], frame[0, 1, 7] = 0.8, 0.3, 0.25
    assert frames_heard(frame).tolist() == [[5, SILENCE, SILENCE]]


def test_runs_of_a_class_are_notes_and_blips_are_not() -> None:
    classes = torch.tensor([SILENCE] * 4 + [7] * 6 + [9] * 3 + [8] * 10 + [8] * 2 + [SILENCE] + [3] * 5)
    assert runs(classes) == [(4, 10, 7), (13, 25, 8), (26, 31, 3)]


def test_note_f1_is_mir_evals() -> None:
    truth = [(10, 30, 40), (40, 60, 42), (70, 90, 44), (100, 120, 45)]
    estimate = [(13, 25, 40), (46, 60, 42), (70, 90, 45), (101, 105, 45)]  # in time; late; wrong pitch; in time
    assert note_f1(estimate, truth) == pytest.approx(0.5)
    assert note_f1(truth, truth) == 1.0
    assert note_f1([], truth) == note_f1(truth, []) == 0.0
    assert note_f1([], []) == 1.0


def test_power_is_that_of_the_sounding_frames() -> None:
    magnitude = torch.zeros(2, 1, 6, 4)
    magnitude[0, 0, 1:3] = 0.5
    magnitude[0, 0, 4] = 1e-4  # more than 40 dB down
    assert sounding_power(magnitude).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("variant", ["msi", "msi-dis"])
def test_losses_fall(folder: Path, variant: str) -> None:
    mine = task(folder, msi={"variant": variant, "synthesis": 0.5}, ensemble={**SHORT, "seconds": 0.6})
    batch = next(iter(DataLoader(mine.dataset(0), 4)))  # type: ignore[arg-type]
    assert ("second" in batch) == (variant == "msi-dis")
    optimizer = torch.optim.AdamW(mine.model.parameters(), 5e-3)
    mine.model.train()
    history = []
    for _ in range(20):
        losses = mine.losses(mine.model, batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    for name in ("transcription", "contrastive", "synthesis"):
        assert history[-1][name] < 0.8 * history[0][name], name
    assert history[-1]["separation"] < history[0]["separation"] - 0.3  # dB
    with torch.no_grad():
        losses = mine.losses(mine.model, batch)
        assert float(mine.loss(mine.model, batch)) == pytest.approx(sum(float(x) for x in losses.values()), rel=1e-3)


@torch.no_grad()
def test_the_separation_loss_is_the_snr_of_what_the_stream_gives(folder: Path) -> None:
    mine = task(folder, ensemble={**SHORT, "seconds": 3.0})
    mine.model.eval()
    batch = next(iter(DataLoader(mine.dataset(1), 4)))  # type: ignore[arg-type]
    outputs = mine.model.training_outputs(batch["mixture"], batch["queries"])
    controls = {"query": outputs["queries"][:, 0, 0], "score": torch.zeros(4, 88), "score_weight": torch.zeros(4)}
    late = torch.nn.functional.pad(batch["mixture"], (0, mine.model.hop_samples))[:, None]
    estimate = mine.model(late, None, controls)[0][:, 0, :, mine.model.hop_samples :]  # [B, 1, T]
    target = batch["target"][:, None]

    def seconds(x: torch.Tensor) -> torch.Tensor:
        return x.square().unflatten(-1, (3, 16000)).sum(-1)

    floor = 10 ** (-25.0 / 10) * seconds(batch["mixture"][:, None])
    expected = 10 * torch.log10((seconds(estimate - target) + floor) / (seconds(target) + floor))  # [B, 1, 3]
    got = mine.losses(mine.model, batch)["separation"]
    assert float(got) == pytest.approx(float(expected.mean()), abs=0.5)  # dB


def test_preparation_teaches_query_network_and_templates_alone(folder: Path) -> None:
    mine, untouched = task(folder, msi={"prepare_steps": 25}), task(folder)
    batch = next(iter(DataLoader(mine.dataset(5), 16)))  # type: ignore[arg-type]

    @torch.no_grad()
    def losses() -> dict[str, float]:
        # With the batch's own statistics: the running ones have not settled after so few steps.
        outputs = mine.model.train().template_outputs(batch["mixture"], batch["queries"])
        return {name: float(value) for name, value in mine._weighted(outputs, batch).items()}

    before = losses()
    mine.prepare()
    after = losses()
    assert before.keys() == {"contrastive", "transcription", "separation"}
    assert after["contrastive"] < 0.8 * before["contrastive"]
    assert after["transcription"] < 0.9 * before["transcription"]
    assert after["separation"] < before["separation"] - 0.1  # dB
    untouched.prepare()  # no steps
    fresh = task(folder).model.state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in untouched.model.state_dict().items())
    taught = mine.model.state_dict()
    changed = {key for key in fresh if not torch.equal(taught[key], fresh[key])}
    assert {key.split(".")[0] for key in changed} == {"query_net", "templates", "transcriptor"}
    assert {key for key in changed if key.startswith("transcriptor")} == {
        "transcriptor.bottom.conv.weight",
        "transcriptor.bottom.conv.bias",
    }


@torch.no_grad()
def test_a_fresh_model_answers_as_its_templates_do(folder: Path) -> None:
    mine = task(folder)
    batch = next(iter(DataLoader(mine.dataset(5), 2)))  # type: ignore[arg-type]
    mine.model.eval()
    whole = mine.model.training_outputs(batch["mixture"], batch["queries"])
    quick = mine.model.template_outputs(batch["mixture"], batch["queries"])
    assert quick.keys() == {"queries", "logits", "mask"}
    for name, value in quick.items():
        if name == "mask":  # up to the decoder's bias
            value, whole[name] = value.logit().diff(dim=-1), whole[name].logit().diff(dim=-1)
        torch.testing.assert_close(value, whole[name], atol=1e-4, rtol=1e-4)


def test_weights_scale_their_losses_and_zero_leaves_the_synthesis_out(folder: Path) -> None:
    plain, weighted = task(folder), task(folder, msi={"transcription": 0.25, "separation": 2.0})
    batch = next(iter(DataLoader(plain.dataset(0), 2)))  # type: ignore[arg-type]
    with torch.no_grad():
        a, b = plain.losses(plain.model, batch), weighted.losses(weighted.model, batch)
    assert a.keys() == {"separation", "transcription", "contrastive"}
    assert float(b["transcription"]) == pytest.approx(0.25 * float(a["transcription"]), rel=1e-5)
    assert float(b["separation"]) == pytest.approx(2 * float(a["separation"]), rel=1e-5)


def test_the_synths_target_has_the_level_of_the_recording(folder: Path) -> None:
    mine = task(folder)
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * math.pi * 440 * time)[None]
    quiet, loud = mine.model.features(0.01 * tone), mine.model.recording_features(0.5 * tone)
    torch.testing.assert_close(mine._at_level_of(quiet, loud), loud, atol=0.02, rtol=0.02)
    silent = mine._at_level_of(torch.zeros_like(quiet), loud)
    assert torch.isfinite(silent).all()
    assert float(silent.abs().max()) < 1e-3


def test_unseen_instruments_and_held_out_notes_are_never_trained_on(folder: Path) -> None:
    mine = task(folder)
    (players,) = mine.players
    assert players.instruments == ("horn", "reed")
    assert all(r.midi % 5 for i in players.library.values() for r in i.recordings)  # type: ignore[attr-defined]
    assert mine.data_lines == [
        "notes: 40 recorded notes playing Bach chorales and random lines; horn, reed (made here)"
    ]
    assert {kind: len(duets) for kind, duets in mine.duets.items()} == {"seen": 2, "unseen": 2}


@torch.no_grad()
def test_validation_tells_seen_from_unseen_and_knows_a_perfect_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = task(folder)
    mine.model.eval()
    figures = mine.validate()
    names = {"sdr", "sdr_mixture", "sdri", "note_f1", "frame_accuracy"}
    assert figures.keys() == {"score"} | {f"{name}/{kind}" for name in names for kind in ("seen", "unseen")}
    assert figures["score"] == pytest.approx((figures["sdri/seen"] + figures["sdri/unseen"]) / 2)
    assert figures["sdri/seen"] == pytest.approx(figures["sdr/seen"] - figures["sdr_mixture/seen"])
    assert all(math.isfinite(value) for value in figures.values())

    def oracle(self: StreamingMSI, audio: torch.Tensor, state: Any, controls: Any) -> Any:
        """What a perfect model would return: the target late by a hop, and its notes as frames hear them."""
        duets = [d for kind in mine.duets.values() for d in kind]
        index = [next(i for i, d in enumerate(duets) if np.array_equal(d["mixture"], a[0])) for a in audio.numpy()]
        target = torch.from_numpy(np.stack([duets[i]["target"] for i in index]))[:, None]
        late = torch.nn.functional.pad(target, (self.latency, 0))[..., : audio.shape[-1]]
        classes = classes_of(torch.from_numpy(np.stack([duets[i]["roll"] for i in index])))
        frame = torch.nn.functional.one_hot(classes, 89)[..., :88].float()[:, None]
        return torch.stack([late, audio - late], 1), {"frame": frame}, {}

    monkeypatch.setattr(StreamingMSI, "forward", oracle)
    perfect = mine.validate()
    assert perfect["sdr/seen"] > 60
    assert perfect["note_f1/unseen"] == perfect["frame_accuracy/seen"] == 1.0


def test_what_is_wrong_in_a_config_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be 16000 for MSI, got 44100"):
        task(folder, samplerate=44100)
    with pytest.raises(ValueError, match="one of msi, msi-dis, got 'dis'"):
        task(folder, msi={"variant": "dis"})
    with pytest.raises(ValueError, match="second_shift is for"):
        task(folder, ensemble={"second_shift": 4})
    with pytest.raises(DataError, match="kind must be one of recorded-notes, urmp, noted-stems, got 'musdb18'"):
        task(folder, source=[{"name": "a", "path": "a", "kind": "musdb18", "terms": ""}])
    with pytest.raises(DataError, match=r"has 1 instruments to train on; mixtures need 2\. Not trained on: horn, reed"):
        task(folder, validation={"unseen": ["horn", "reed"]})
    with pytest.raises(TypeError, match="speed"):
        task(folder, msi={"speed": 1})


@pytest.mark.slow
def test_a_run_trains_validates_and_leaves_a_checkpoint(folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    done = subprocess.run(
        [sys.executable, "-m", "models.train", str(folder / "config.toml")],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert "sdri/unseen" in log[-1]
    model, extras = load_checkpoint(folder / "run" / "best.pt", "msi")
    assert isinstance(model, StreamingMSI)
    assert model.config.templates == 24
    assert extras["training_data"][0].startswith("notes: 40 recorded notes")
    assert extras["variant"] == "msi-dis"
    assert extras["ensemble"]["second_shift"] == 4
