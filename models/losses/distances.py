"""Distances between estimates and truth, plain, in decibels, and against the other stems.

Throughout, ``M`` are the masks, ``X`` and ``Y_s`` the spectra of the mixture and of the true stems, ``y_s`` and
``e_s`` the true and estimated waveforms. ``mean`` runs over the batch, channels and bins or samples of one stem; stems
are added, each with weight one (arXiv:2202.07968).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.losses.estimates import Estimates
from models.losses.registry import register

# Below the square of 16-bit rounding, on samples as on magnitudes.
_LOG_FLOOR = 1e-10


def squared(difference: Tensor) -> Tensor:
    """Mean square per stem, ``[B, S, ...]`` -> ``[S]``."""
    return difference.square().transpose(0, 1).flatten(1).mean(1)


def absolute(difference: Tensor) -> Tensor:
    """Mean absolute value per stem, ``[B, S, ...]`` -> ``[S]``."""
    return difference.abs().transpose(0, 1).flatten(1).mean(1)


def _decibels(per_stem: Tensor) -> Tensor:
    return 10 * torch.log10(per_stem + _LOG_FLOOR).sum()


def _spectral(estimates: Estimates) -> Tensor:
    return estimates.estimate_magnitudes - estimates.target_magnitudes


def _temporal(estimates: Estimates) -> Tensor:
    return estimates.estimate_waveforms - estimates.target_waveforms


def ratio_masks(estimates: Estimates) -> Tensor:
    """Ideal ratio masks ``|Y_s| / sum_t |Y_t|``, ``[B, S, C, N, F]``; zero where all is silent."""
    magnitudes = estimates.target_magnitudes
    return magnitudes / (magnitudes.sum(1, keepdim=True) + 1e-12)


@register("l2_freq", "frequency")
def l2_freq(estimates: Estimates) -> Tensor:
    """``sum_s mean (M_s |X| - |Y_s|)^2``: what Open-Unmix trains with (L2freq)."""
    return squared(_spectral(estimates)).sum()


@register("l1_freq", "frequency")
def l1_freq(estimates: Estimates) -> Tensor:
    """``sum_s mean |M_s |X| - |Y_s||`` (L1freq)."""
    return absolute(_spectral(estimates)).sum()


@register("l2_mask", "mask")
def l2_mask(estimates: Estimates) -> Tensor:
    """``sum_s mean (M_s - IRM_s)^2`` with the ideal ratio mask ``|Y_s| / sum_t |Y_t|`` (L2mask)."""
    return squared(estimates.masks - ratio_masks(estimates)).sum()


@register("l1_mask", "mask")
def l1_mask(estimates: Estimates) -> Tensor:
    """``sum_s mean |M_s - IRM_s|`` (L1mask)."""
    return absolute(estimates.masks - ratio_masks(estimates)).sum()


@register("l2_time", "time")
def l2_time(estimates: Estimates) -> Tensor:
    """``sum_s mean (e_s - y_s)^2``, through the causal iSTFT (L2time)."""
    return squared(_temporal(estimates)).sum()


@register("l1_time", "time")
def l1_time(estimates: Estimates) -> Tensor:
    """``sum_s mean |e_s - y_s|``, through the causal iSTFT (L1time)."""
    return absolute(_temporal(estimates)).sum()


@register("log_l2_time", "time")
def log_l2_time(estimates: Estimates) -> Tensor:
    """``sum_s 10 log10 mean (e_s - y_s)^2`` (LogL2time): soft and loud stems weigh alike."""
    return _decibels(squared(_temporal(estimates)))


@register("log_l1_time", "time")
def log_l1_time(estimates: Estimates) -> Tensor:
    """``sum_s 10 log10 mean |e_s - y_s|`` (LogL1time)."""
    return _decibels(absolute(_temporal(estimates)))


@register("log_l2_freq", "frequency")
def log_l2_freq(estimates: Estimates) -> Tensor:
    """``sum_s 10 log10 mean (M_s |X| - |Y_s|)^2`` (LogL2freq)."""
    return _decibels(squared(_spectral(estimates)))


@register("log_l1_freq", "frequency")
def log_l1_freq(estimates: Estimates) -> Tensor:
    """``sum_s 10 log10 mean |M_s |X| - |Y_s||`` (LogL1freq)."""
    return _decibels(absolute(_spectral(estimates)))


@register("psa", "frequency")
def psa(estimates: Estimates) -> Tensor:
    """``sum_s mean (M_s |X| - |Y_s| cos(angle X - angle Y_s))^2`` (PSA; Erdogan et al., ICASSP 2015).

    The phase-sensitive approximation: with the mixture's phase, no mask gets closer to ``Y_s`` than its part in
    phase.
    """
    return squared(estimates.estimate_magnitudes - estimates.phase_sensitive_targets).sum()


def dissimilarities(estimates: Estimates, *, own: bool, weight: float = 0.1) -> Tensor:
    """``sum_s [d(s, s) - weight sum_t d(s, t)]``, ``d(s, t) = mean (M_s |X| - |Y_t|)^2``; ``t = s`` too if ``own``."""
    magnitudes, targets = estimates.estimate_magnitudes, estimates.target_magnitudes
    stems = targets.shape[1]
    total = targets.new_zeros(())
    for shift in range(stems):  # every stem against the one `shift` further on
        distance = squared(magnitudes - targets.roll(shift, dims=1)).sum()
        if shift == 0:
            total = total + (1 - weight if own else 1.0) * distance
        else:
            total = total - weight * distance
    return total


@register("dissimilarity", "frequency")
def dissimilarity(estimates: Estimates) -> Tensor:
    """``sum_s [mean (M_s |X| - |Y_s|)^2 - 0.1 sum_{t != s} mean (M_s |X| - |Y_t|)^2]`` (Dissimilarity).

    After Huang et al. (ICASSP 2014). Its minimum is not at the truth: estimates are pushed away from the other
    stems.
    """
    return dissimilarities(estimates, own=False)
