"""Training through the trainer's interface on songs made here."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models.metatasnet.streaming import MetaTasNetConfig, StreamingMetaTasNet
from models.metatasnet.task import MetaTasNetTask
from models.train import TrainConfig
from tests.models.metatasnet.small import SIZES

RATE = 8000
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Songs whose stems are tones far apart."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    time = np.arange(4 * RATE) / RATE
    for song in ("song0", "song1"):
        (folder / "songs" / song).mkdir(parents=True)
        for stem, hertz in (("drums", 3300), ("bass", 120), ("other", 600), ("vocals", 1500)):
            tone = np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6)) * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))
            soundfile.write(folder / "songs" / song / f"{stem}.wav", 0.1 * np.stack([tone, 0.7 * tone], 1), RATE)
    return {
        "model": {key: list(v) if isinstance(v, tuple) else v for key, v in SIZES.items()} | {"samplerates": [RATE]},
        "remix": {"seconds": 2.0, "filter": 0.0, "drop": 0.0, "solo_stem": 0.0},
        "source": [{"name": "songs", "path": str(folder / "songs"), "kind": "folders", "terms": "made here"}],
        "validation": {"songs": ["song1"]},
        "cache": str(folder / "cache"),
    }


def task(document: dict[str, Any], **changes: Any) -> MetaTasNetTask:
    torch.manual_seed(0)
    config = TrainConfig(run="run", steps=1, samplerate=RATE, cache=document["cache"])
    return MetaTasNetTask(document, replace(config, **changes))


@pytest.mark.parametrize(("kind", "bfloat16"), [("", True), ("si_sdr", False)])
def test_training_lowers_the_loss_and_raises_the_score(document: dict[str, Any], kind: str, bfloat16: bool) -> None:
    training = task(document, loss=kind, bfloat16=bfloat16)
    training.prepare()
    model = training.model
    assert float(model.normalise.scale.std()) > 0  # measured
    loader = iter(torch.utils.data.DataLoader(training.dataset(1), 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    with torch.no_grad():
        before = training.validate()["score"]
    losses = []
    for _ in range(30):
        loss = training.loss(model, next(loader))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0
    with torch.no_grad():
        figures = training.validate()
    assert figures["score"] > before + 1.0
    assert set(figures) == {"score"} | {
        f"{kind}/{s}" for kind in ("sdr", "clip_sdr") for s in ("drums", "bass", "other", "vocals")
    }


@torch.no_grad()
def test_the_loss_compares_what_belongs_together(document: dict[str, Any]) -> None:
    """True stems, late by the latency, have the least loss there is; one sample off costs."""
    training = task(document)
    target = next(iter(torch.utils.data.DataLoader(training.dataset(1), 2)))

    class Oracle(torch.nn.Module):
        extra = 0

        def forward(self, mixture: torch.Tensor) -> tuple[torch.Tensor, None]:
            whole = target[..., : mixture.shape[-1]]
            shift = training.model.latency + self.extra
            return torch.nn.functional.pad(whole, (shift, 0))[..., : mixture.shape[-1]], None

    oracle = Oracle()
    best = float(training.loss(oracle, target))
    oracle.extra = 1
    assert best < float(training.loss(oracle, target)) - 3.0
    assert best < -15.0


@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        ({"loss": "l1"}, {}, "loss must be one of snr, si_sdr, got 'l1'"),
        ({}, {"stems": ["vocals", "rest"]}, "a model in training has the stems"),
        ({}, {"materialised": True}, "materialised = True"),
    ],
)
def test_what_cannot_be_trained_is_named(
    document: dict[str, Any], changes: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        task(document | {"model": document["model"] | model}, **changes)


def test_the_shipped_config_reads() -> None:
    document = tomllib.loads((ROOT / "models" / "configs" / "metatasnet-low.toml").read_text())
    config = TrainConfig(**document["train"])
    assert config.system == "metatasnet"
    model = StreamingMetaTasNet(MetaTasNetConfig.from_dict(document["model"]))
    assert sum(p.numel() for p in model.materialise().parameters()) * 4 < 10e6
    assert len(document["validation"]["songs"]) == 14
