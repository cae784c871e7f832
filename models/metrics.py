"""Quick measures for training; final figures come from museval in :mod:`models.evaluate`."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_sdr(estimate: Tensor, target: Tensor, samplerate: int) -> Tensor:
    """Median over the seconds of a clip of the plain SDR in dB; seconds of silent target are left out.

    Parameters
    ----------
    estimate, target : Tensor
        ``[S, C, T]``.

    Returns
    -------
    Tensor
        ``[S]``; NaN where the target never plays.
    """
    count = target.shape[-1] // samplerate

    def energy(x: Tensor) -> Tensor:
        return x[..., : count * samplerate].unflatten(-1, (count, samplerate)).square().sum(dim=(-3, -1))

    signal = energy(target)  # [S, count]
    ratio = 10 * torch.log10(signal / energy(estimate - target).clamp_min(1e-10))
    return ratio.masked_fill(signal < 1e-3, float("nan")).nanmedian(dim=-1).values


def clip_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """SDR in dB over the whole clip, ``[S, C, T]`` -> ``[S]``."""
    error = (estimate - target).square().sum(dim=(-2, -1)).clamp_min(1e-10)
    return 10 * torch.log10(target.square().sum(dim=(-2, -1)).clamp_min(1e-10) / error)
