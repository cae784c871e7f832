"""The four parts of Meta-TasNet's loss.

Source: Samuel et al., ICASSP 2020, and its code (utility/loss.py of pfnet-research/meta-tasnet, MIT). A scale-invariant
ratio leaves the level of an estimate free: fine before a least squares fit over the whole song, of no use in a
stream, whose stems must have the right level at once. Streaming models train with
:func:`models.losses.windowed_snr_loss` by default; there, this is the selectable alternative.

Axes: B batch, S stems, C channels, T samples, D latent channels, N frames.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 1e-8


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts; the defaults are upstream's.

    Attributes
    ----------
    reconstruction : float
        Of the mixture encoded and decoded without a mask.
    dissimilarity : float
        Of different instruments' latents.
    similarity : float
        Of one instrument's latents in different items of the batch.
    """

    reconstruction: float = 0.05
    dissimilarity: float = 3.0
    similarity: float = 2.0


def active_sources(target: Tensor) -> Tensor:
    """Return 1 for every stem and channel of ``[B, S, C, T]`` that is not silent, ``[B, S, C]``."""
    return (target != 0).any(dim=-1).to(target.dtype)


def si_sdr(estimate: Tensor, target: Tensor, active: Tensor | None = None) -> Tensor:
    """Scale-invariant signal-to-distortion ratio per stem, without removal of the mean.

    ``10 log10(|a s|^2 / |s_hat - a s|^2)`` with ``a = <s, s_hat> / |s|^2``, both powers 1e-8 or more.

    Parameters
    ----------
    estimate, target : Tensor
        ``[B, S, C, T]``.
    active : Tensor, optional
        ``[B, S, C]``, 1 where the mean over batch and channels takes an item in, see :func:`active_sources`.

    Returns
    -------
    Tensor
        ``[S]``, dB; higher is better. 0 for a stem that is silent in the whole batch.
    """
    power = target.square().sum(dim=-1, keepdim=True) + FLOOR
    scaled = (estimate * target).sum(dim=-1, keepdim=True) / power * target
    signal = scaled.square().sum(dim=-1).clamp_min(FLOOR)
    error = (estimate - scaled).square().sum(dim=-1).clamp_min(FLOOR)
    ratio = 10 * (torch.log10(signal) - torch.log10(error))  # [B, S, C]
    if active is None:
        return ratio.mean(dim=(0, 2))
    return (ratio * active).sum(dim=(0, 2)) / active.sum(dim=(0, 2)).clamp_min(FLOOR)


def dissimilarity(latents: Tensor, active: Tensor) -> Tensor:
    """Cosine similarity of the magnitudes of different instruments' latents, to be made small.

    Parameters
    ----------
    latents : Tensor
        Encoded true stems ``[B, S, N, D]``.
    active : Tensor
        ``[B, S]``, 1 where a stem plays; pairs count when both do.

    Returns
    -------
    Tensor
        Scalar: sum over the pairs of stems and the batch, over the number of active ones, mean over frames.
    """
    first, second = zip(*itertools.combinations(range(latents.shape[1]), 2), strict=True)
    magnitudes = latents.abs()
    both = active[:, first] * active[:, second]  # [B, pairs]
    cosine = functional.cosine_similarity(magnitudes[:, first], magnitudes[:, second], dim=-1)  # [B, pairs, N]
    return ((cosine * both.unsqueeze(-1)).sum(dim=(0, 1)) / (both.sum() + FLOOR)).mean()


def similarity(latents: Tensor, active: Tensor) -> Tensor:
    """Cosine similarity of an instrument's latents in neighbouring items of the batch, to be made large.

    Parameters and result as :func:`dissimilarity`; signs count here. The items follow one another in a circle.
    """
    both = active * active.roll(1, dims=0)  # [B, S]
    cosine = functional.cosine_similarity(latents, latents.roll(1, dims=0), dim=-1)  # [B, S, N]
    return ((cosine * both.unsqueeze(-1)).sum(dim=(0, 1)) / both.sum().clamp_min(FLOOR)).mean()


def meta_tasnet_loss(
    estimate: Tensor,
    target: Tensor,
    reconstruction: Tensor,
    latents: Tensor,
    weights: LossWeights | None = None,
) -> Tensor:
    """Return the whole loss of one stage.

    Parameters
    ----------
    estimate, target : Tensor
        ``[B, S, C, T]``.
    reconstruction : Tensor
        The mixture encoded and decoded, ``[B, C, T]``.
    latents : Tensor
        Encoded true stems ``[B, S, N, D]``.
    weights : LossWeights, optional

    Returns
    -------
    Tensor
        Scalar; lower is better.
    """
    weights = weights or LossWeights()
    active = active_sources(target)
    playing = active.amax(dim=-1)  # [B, S]
    mixture = target.sum(dim=1, keepdim=True)  # [B, 1, C, T]
    return (
        -si_sdr(estimate, target, active).sum()
        - weights.reconstruction * si_sdr(reconstruction.unsqueeze(1), mixture).mean()
        + weights.dissimilarity * dissimilarity(latents, playing)
        - weights.similarity * similarity(latents, playing)
    )
