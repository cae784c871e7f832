"""A small model that does something: random weights that keep signals alive from layer to layer."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from models.msi.streaming import MSIConfig, StreamingMSI

CONFIG = MSIConfig(
    edges=(64, 128, 256),  # of 257 bins; 128 bands
    channels=(2, 4, 6),
    transcriptor_channels=(8,),
    query_channels=(2, 3),
    compression=0.5,
    window=512,
)
MASKING = dataclasses.replace(CONFIG, mask=True, templates=5)


def small_model(config: MSIConfig = CONFIG, seed: int = 0) -> StreamingMSI:
    """Return it in evaluation mode, in single precision."""
    model = StreamingMSI(config)
    enliven(model, seed)
    torch.nn.init.constant_(model.decoder.bottom.bias, 1.0)  # about the level of the tests' mixtures
    return model.eval()


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms statistics that are not special, and the decoder's end a level that is neither 0 nor the mixture's."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
                spread = module.weight[0].numel() ** -0.5
                module.weight.copy_(spread * torch.randn(module.weight.shape, generator=generator))
            if isinstance(module, nn.BatchNorm2d):
                uniform(module.running_mean, -0.2, 0.2)
                uniform(module.running_var, 0.1, 0.5)
                uniform(module.weight, 0.8, 1.2)
                uniform(module.bias, 0.0, 0.3)
        for module in model.modules():
            if type(module).__name__ == "FiLM":
                module.gamma.conv.bias.fill_(1.0)
    return model
