"""Input normalisation without statistics over time: fixed by the data, or learnt from there."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InputNormalisation(nn.Module):
    """``(x - mean) / std`` per feature, set once from training data.

    Statistics over the clip (InstanceNorm) need the future and running ones drift in long streams, so
    both are constants of the model (Open-Unmix v1 does the same with ``input_mean``/``input_scale``).

    Parameters
    ----------
    features : int
        Size of the last axis.
    learnt : bool
        Go on training both from their measured start.
    """

    def __init__(self, features: int, learnt: bool = False) -> None:
        super().__init__()
        for name, value in (("offset", torch.zeros(features)), ("scale", torch.ones(features))):
            if learnt:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take measured ``mean`` and ``std`` (``[features]``); tiny deviations are floored."""
        floor = 1e-2 * std.max()
        self.offset.copy_(-mean)
        self.scale.copy_(1.0 / std.clamp_min(float(floor)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return (x + self.offset) * self.scale
