"""Losses that look through a network: one that is trained against the model, and one that is fixed.

The study's taxonomy names both; its code has neither. Both see compressed magnitudes ``log(1 + 1000 |Y|)``, where a
full-scale sine has magnitude 1: nearly linear below -60 dB, logarithmic above.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.losses.distances import absolute
from models.losses.estimates import Estimates
from models.losses.registry import Loss, register_class

_STRIDE, _KERNEL = (2, 4), (4, 8)  # frames, bins
_LEAST_FRAMES, _LEAST_BINS = 8, 64


def compress(magnitudes: Tensor) -> Tensor:
    """Return ``log(1 + 1000 magnitudes)``.

    Raises
    ------
    ValueError
        The maps ``[..., N, F]`` are too small for three strided layers.
    """
    frames, bins = magnitudes.shape[-2:]
    if frames < _LEAST_FRAMES or bins < _LEAST_BINS:
        raise ValueError(
            f"losses with a network need at least {_LEAST_FRAMES} frames and {_LEAST_BINS} bins, "
            f"got {frames} and {bins}; take longer segments or a longer window."
        )
    return torch.log1p(1000 * magnitudes)


def _layer(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, _KERNEL, _STRIDE, padding=(1, 2))


@register_class("adversarial", "learned")
class AdversarialLoss(Loss):
    """``L1freq / mean |X| + weight (D(X, M |X|) - 1)^2``: least-squares GAN (Mao et al., ICCV 2017) beside L1freq.

    The discriminator D sees the mixture and all stems at once and judges patches, so that stems must be plausible and
    fit each other. In training mode every call is also one step of D, which minimises
    ``(D(X, |Y|) - 1)^2 + D(X, M |X|)^2``; in evaluation mode D stays as it is. Its weights and its optimizer are in the
    ``state_dict`` of the loss. In training with several processes each has a discriminator of its own.

    Parameters
    ----------
    stems : int
        S.
    weight : float
        Of the judgement; ``L1freq / mean |X|`` is of the order of one.
    learning_rate : float
        Of D's Adam.
    width : int
        Channels of D's first layer.
    """

    def __init__(self, stems: int, weight: float = 0.1, learning_rate: float = 5e-4, width: int = 8) -> None:
        super().__init__()
        self.weight = weight
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.discriminator = nn.Sequential(
                _layer(stems + 1, width),
                nn.LeakyReLU(0.2),
                _layer(width, 2 * width),
                nn.LeakyReLU(0.2),
                _layer(2 * width, 4 * width),
                nn.LeakyReLU(0.2),
                nn.Conv2d(4 * width, 1, 1),
            )
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.9))

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of D's optimizer."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the state of D's optimizer."""
        self.optimizer.load_state_dict(state)

    def _judge(self, mixture: Tensor, stems: Tensor) -> Tensor:
        maps = torch.cat([mixture, stems], dim=1).transpose(1, 2).flatten(0, 1)  # [B C, 1 + S, N, F]
        judgement: Tensor = self.discriminator(compress(maps))
        return judgement

    def forward(self, estimates: Estimates) -> Tensor:
        """Train D by one step (in training mode) and return the model's loss."""
        mixture, magnitudes = estimates.mixture_magnitude, estimates.estimate_magnitudes
        if self.training and torch.is_grad_enabled():
            real = self._judge(mixture, estimates.target_magnitudes)
            fake = self._judge(mixture, magnitudes.detach())
            self.optimizer.zero_grad(set_to_none=True)
            ((real - 1).square().mean() + fake.square().mean()).backward()
            self.optimizer.step()
        # The model's gradients run through D but must not gather in it.
        self.discriminator.requires_grad_(False)
        judgement = (self._judge(mixture, magnitudes) - 1).square().mean()
        self.discriminator.requires_grad_(True)
        distance = absolute(magnitudes - estimates.target_magnitudes).sum() / mixture.mean().clamp_min(1e-6)
        return distance + self.weight * judgement


@register_class("deep_feature", "learned")
class DeepFeatureLoss(Loss):
    """``sum_l sum_s mean |phi_l(M_s |X|) - phi_l(|Y_s|)| / mean |phi_l(|Y|)|`` in the layers of a fixed network.

    The network is three strided convolutions with orthogonal random weights. That random weights can stand in for
    trained ones in such losses is from Liu et al. ("A generic perceptual loss for modeling structured output
    dependencies", CVPR 2021). Against the encoder of a trained separator they have three advantages: they work with
    any window, hop and rate; they bring no training material, and so no licence, into the model; and such an encoder
    has seen mixtures only, while here it would have to look at stems. The weights come from a fixed seed.

    Parameters
    ----------
    stems : int
        Unused: stems go through the network one by one.
    width : int
        Channels of the first layer.
    """

    def __init__(self, stems: int, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sizes = (1, width, 2 * width, 4 * width)
            self.layers = nn.ModuleList(_layer(inputs, outputs) for inputs, outputs in pairwise(sizes))
            for layer in self.layers:
                nn.init.orthogonal_(layer.weight, gain=2**0.5)
                nn.init.zeros_(layer.bias)
        self.requires_grad_(False)

    def forward(self, estimates: Estimates) -> Tensor:
        """Return the distance of the activations."""
        estimate, target = (
            compress(part).flatten(0, 2).unsqueeze(1)  # [B S C, 1, N, F]
            for part in (estimates.estimate_magnitudes, estimates.target_magnitudes)
        )
        total = estimate.new_zeros(())
        for layer in self.layers:
            estimate = nn.functional.leaky_relu(layer(estimate), 0.2)
            with torch.no_grad():
                target = nn.functional.leaky_relu(layer(target), 0.2)
            total = total + (estimate - target).abs().mean() / target.abs().mean().clamp_min(1e-6)
        return total * estimates.masks.shape[1]
