"""Small models whose weights are not special."""

from __future__ import annotations

from typing import Any

import torch

from models.metatasnet.reference import ReferenceConfig
from models.metatasnet.stages import StagesConfig, StreamingStages
from models.metatasnet.streaming import MetaTasNetConfig, StreamingMetaTasNet

SIZES: dict[str, Any] = {
    "stride": 16,
    "hop": 16,
    "kernels": (32, 64),
    "latents": (16, 8),
    "window": 128,
    "edges": (8, 16, 32, 64),
    "bottleneck": 16,
    "width": 12,
    "hidden": 16,
    "layers": 3,
    "stacks": 2,
}


def scatter(module: torch.nn.Module, seed: int = 7) -> None:
    """Move every parameter, so that nothing stays at a value (0, 1) behind which an error could hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
            parameter.add_(0.2 * noise)


def small(dtype: torch.dtype = torch.float32, **changes: Any) -> StreamingMetaTasNet:
    torch.manual_seed(0)
    model = StreamingMetaTasNet(MetaTasNetConfig(**(SIZES | changes))).to(dtype).eval()
    scatter(model)
    return model


STAGE_SIZES = ReferenceConfig(stages=2, latents=32, mels=6, width=64, hidden=64, layers=2, stacks=2)


def small_stages(dtype: torch.dtype = torch.float32) -> StreamingStages:
    torch.manual_seed(0)
    model = StreamingStages(StagesConfig(STAGE_SIZES)).to(dtype).eval()
    scatter(model.stages)
    return model
