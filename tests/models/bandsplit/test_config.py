"""Sizes and options: what is refused, and what it says."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from models.bandsplit.config import BandSplitConfig
from models.bandsplit.streaming import low_bands
from models.bandsplit.transfer import weights_for
from models.registry import find

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "models" / "configs").glob("bandsplit-*.toml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop": 0}, "hop must be 1 or more, got 0"),
        ({"global_every": 0}, "global_every must be 1 or more"),
        ({"band_hidden": -1}, "band_hidden must be 0 or more, got -1"),
        ({"window": 512}, "at least 2 \\* hop = 1024, got 512"),
        ({"channels": 3}, "channels must be 1 or 2, got 3"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"groups": ()}, "groups must be pairs"),
        ({"groups": ((4, 0),)}, "groups must be pairs"),
        ({"groups": ((600, 2),)}, "groups cover 1200 bins; a window of 2048 has 1024"),
        ({"stems": ("drums", "guitar")}, "got guitar"),
        ({"stems": ("other",)}, "two or more"),
        ({"stems": ("other", "drums", "drums")}, "each once"),
        ({"rest": "accompaniment"}, "rest must be one of the stems"),
        ({"stems": ("drums", "accompaniment"), "rest": "accompaniment"}, "beside it must be vocals alone"),
        ({"stems": ("drums", "vocals"), "rest": "drums"}, "the rest must be other, got 'drums'"),
        ({"filter_taps": 1}, "0 or at least 2"),
        ({"bass_window": 2048}, "longer than the window 2048, got 2048"),
        ({"bass_window": 4096, "bass_bins": 3000}, "at most bass_window / 2"),
        ({"residual_taps": 1024}, "exceed it by at most a hop"),
        ({"residual_taps": 100, "residual_stride": 60}, "must divide the hop 512"),
        ({"residual_taps": 256, "residual_target": "other"}, "one of the estimated stems drums, bass, vocals"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BandSplitConfig(**changes)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(TypeError, match="widht"):
        BandSplitConfig.from_dict({"widht": 3})


def test_a_config_survives_json() -> None:
    config = BandSplitConfig(filter_off=("bass", "vocals"), stems=("vocals", "other"), rest="other")
    assert BandSplitConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.estimated == ("vocals",)


def test_the_longer_analysis_is_for_the_bands_it_reaches() -> None:
    config = BandSplitConfig(window=1024, hop=128, groups=((10, 4), (3, 20)), bass_window=4096, bass_bins=18)
    assert low_bands(config) == 2  # bins 0 to 4.5 of the short window: bands of bins 0..3 and 4..7


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_tiers_fit_the_checkpoint_they_start_from(path: Path) -> None:
    document = tomllib.loads(path.read_text())
    if "start_from" not in document["train"]:
        return
    saved = torch.load(ROOT / document["train"]["start_from"], map_location="cpu", weights_only=True)
    model = find("bandsplit").build(document["model"])
    weights = weights_for(saved["state_dict"], BandSplitConfig.from_dict(saved["config"]), model)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert {name.split(".")[0] for name in missing} <= {"ahead"}, "parts that start as nothing"


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_tiers_keep_their_latency_and_size(path: Path) -> None:
    document = tomllib.loads(path.read_text())
    assert document["train"]["system"] == "bandsplit"
    assert document["remix"]["seconds"] >= 6.0
    assert len(document["validation"]["songs"]) == 14
    model = find("bandsplit").build(document["model"])
    longest_ms = {"bandsplit-live": 8.0, "bandsplit-low": 23.3, "bandsplit-karaoke": 23.3, "bandsplit-studio": 93.0}[
        path.stem
    ]
    assert (model.hop_samples + model.latency) / 44.1 <= longest_ms
    assert model.samplerates == (44100, 48000)
    assert 4 * sum(p.numel() for p in model.parameters()) < 11e6, "12 MB with the constants"
