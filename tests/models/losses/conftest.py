from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models.losses import Estimates, stem_spectra
from models.streaming.stft import StreamingISTFT, StreamingSTFT

WINDOW, HOP, STEMS, FRAMES, BATCH = 256, 64, 4, 12, 3


@pytest.fixture
def make() -> Callable[..., Estimates]:
    """Build estimates of random stems; ``masks`` is a leaf that takes gradients."""

    def build(
        gains: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
        channels: int = 2,
    ) -> Estimates:
        torch.manual_seed(3)
        stems = 0.1 * torch.randn(BATCH, STEMS, channels, FRAMES * HOP)
        if gains is not None:  # [B, S]
            stems = stems * gains[..., None, None]
        stft = StreamingSTFT(WINDOW, HOP, channels)
        mixture, targets = stem_spectra(stft, stems)
        if masks is None:
            masks = torch.rand(targets.shape)
        masks = masks.clone().requires_grad_(True)
        return Estimates(masks, mixture, targets, stems, StreamingISTFT(stft, STEMS * channels), logits)

    return build


@pytest.fixture
def truth(make: Callable[..., Estimates]) -> Estimates:
    """Estimates that are the truth, in waveforms as in spectra: in every item and channel one stem plays alone."""
    gains = torch.eye(BATCH, STEMS)
    masks = gains[..., None, None, None].expand(BATCH, STEMS, 2, FRAMES, WINDOW // 2 + 1)
    return make(gains=gains, masks=masks)
