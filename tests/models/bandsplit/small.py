"""Small band-split models, plain and with every option."""

from __future__ import annotations

from typing import Any

import torch

from models.bandsplit.config import BandSplitConfig
from models.bandsplit.streaming import StreamingBandSplit

SMALL: dict[str, Any] = {
    "window": 128, "hop": 32, "groups": ((4, 2), (3, 4), (2, 16)), "width": 12, "layers": 2, "time_hidden": 10,
    "band_hidden": 6, "global_hidden": 9, "global_width": 3, "mask_hidden": 8, "samplerates": (8000,),
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mono, two stems": {"stems": ("vocals", "accompaniment"), "rest": "accompaniment", "channels": 1},
    "rest first": {"stems": ("other", "drums", "bass", "vocals")},
    "shared bands, no level": {"shared_bands": True, "level": False},
    "time alone": {"band_hidden": 0, "global_hidden": 0},
    "one global layer": {"global_every": 2},
    "filter": {"filter_taps": 4},
    "filter of all": {"filter_taps": 3, "filter_off": ()},
    "bass": {"bass_window": 256, "bass_bins": 9},
    "residual": {"residual_taps": 24, "residual_stride": 8, "residual_basis": 4},
    "residual of a hop": {"residual_taps": 40, "residual_stride": 8, "residual_basis": 4, "residual_target": "vocals"},
    "look-ahead": {"lookahead": 3},
    "look-ahead, time alone": {"lookahead": 1, "band_hidden": 0, "global_hidden": 0, "filter_taps": 2},
    "all": {
        "filter_taps": 5, "bass_window": 256, "bass_bins": 9, "residual_taps": 32, "residual_stride": 8,
        "residual_basis": 4, "shared_bands": True, "dropout": 0.2,
    },
}  # fmt: skip


def small(name: str = "plain", dtype: torch.dtype = torch.float32, **changes: Any) -> StreamingBandSplit:
    """Build a model in evaluation mode with weights that are not special: nothing starts as zero or as the identity."""
    torch.manual_seed(3)
    model = StreamingBandSplit(BandSplitConfig(**{**SMALL, **OPTIONS[name], **changes})).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def noise(model: StreamingBandSplit, hops: int, batch: int = 2, seed: int = 1) -> torch.Tensor:
    """Mixture ``[B, C, T]``."""
    generator = torch.Generator().manual_seed(seed)
    kind = next(model.parameters()).dtype
    shape = (batch, model.channels, hops * model.hop_samples)
    return 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64).to(kind)
