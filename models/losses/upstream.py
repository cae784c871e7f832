"""Losses in the form that the code of the study has them, defects included, for comparison.

The code is the fork of Open-Unmix that belongs to arXiv:2202.07968. Each is the defective form of the loss of the same
name without ``_upstream``; the tests show the defects.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.losses.classification import loudest
from models.losses.distances import dissimilarities
from models.losses.estimates import Estimates
from models.losses.registry import register

_EPS = torch.finfo(torch.float32).eps


def _flattened_si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    e, s = estimate.flatten(), target.flatten()
    a = torch.dot(e, s) * s / (s.square().sum() + _EPS)
    return -10 * torch.log10(a.square().sum() / ((a - e).square().sum() + _EPS))


@register("si_sdr_time_upstream", "time")
def si_sdr_time_upstream(estimates: Estimates) -> Tensor:
    """SI-SDR of one vector made of all items, stems and channels: the loudest decide, only a common scale is free.

    Silence everywhere gives infinity.
    """
    return _flattened_si_sdr(estimates.estimate_waveforms, estimates.target_waveforms)


@register("si_sdr_freq_upstream", "frequency")
def si_sdr_freq_upstream(estimates: Estimates) -> Tensor:
    """SI-SDR of one vector made of all items, stems and channels, of magnitudes."""
    return _flattened_si_sdr(estimates.estimate_magnitudes, estimates.target_magnitudes)


@register("min_snr_sd_sdr_upstream", "time")
def min_snr_sd_sdr_upstream(estimates: Estimates) -> Tensor:
    """``-min(SNR, SD-SDR)`` of one vector made of everything; not a number where ``<e, s>`` is negative."""
    e, s = estimates.estimate_waveforms.flatten(), estimates.target_waveforms.flatten()
    snr = 10 * torch.log10(s.square().sum() / (e - s).square().sum() + _EPS)
    sd_sdr = snr + 20 * torch.log10(torch.dot(e, s) / s.square().sum() + _EPS)
    return -torch.minimum(snr, sd_sdr)


@register("cross_entropy_upstream", "mask")
def cross_entropy_upstream(estimates: Estimates) -> Tensor:
    """Cross-entropy with the ReLU masks themselves as logits: it is lowest for masks without bound."""
    return F.cross_entropy(estimates.masks, loudest(estimates))


@register("binary_cross_entropy_upstream", "mask")
def binary_cross_entropy_upstream(estimates: Estimates) -> Tensor:
    """BCE with the ReLU masks as logits: no probability can be below a half, so that "not this stem" cannot be said."""
    wanted = F.one_hot(loudest(estimates), estimates.masks.shape[1]).movedim(-1, 1).to(estimates.masks.dtype)
    per_bin = F.binary_cross_entropy_with_logits(estimates.masks, wanted, reduction="none")
    return per_bin.sum(1).mean()


@register("snr_psa_upstream", "frequency")
def snr_psa_upstream(estimates: Estimates) -> Tensor:
    """SNRPSA with targets ``sqrt|Y| cos(...)`` but estimates ``M |X|`` without the root; the batch is one vector."""
    target = estimates.phase_sensitive_targets / estimates.target_magnitudes.clamp_min(1e-12).sqrt()
    signal = target.square().transpose(0, 1).flatten(1).sum(1)  # [S]
    error = (estimates.estimate_magnitudes - target).square().transpose(0, 1).flatten(1).sum(1)
    values = -10 * torch.log10(signal / error + _EPS)
    return (20 * torch.tanh(values / 20)).mean()


@register("dissimilarity_upstream", "frequency")
def dissimilarity_upstream(estimates: Estimates) -> Tensor:
    """Dissimilarity whose sum over other stems has the stem itself in it, so that its own weight is 0.9."""
    return dissimilarities(estimates, own=True)
