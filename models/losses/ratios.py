"""Ratios of signal to error in decibels, per stem and item.

A stem that is silent in an item (a millionth of the energy of all its stems, or less) has no such ratio and is left out
of the mean. Ratios end at 80 dB.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.losses.estimates import Estimates
from models.losses.registry import register

_RELATIVE_FLOOR = 1e-8
_SILENT = 1e-6


def energy(x: Tensor) -> Tensor:
    """Sum of squares per item and stem, ``[B, S, ...]`` -> ``[B, S]``."""
    return x.flatten(2).square().sum(-1)


def _signal_energy(target: Tensor) -> tuple[Tensor, Tensor]:
    """Energy ``[B, S]``, one where silent, and which stems are not silent."""
    signal = energy(target)
    active = signal > _SILENT * signal.sum(1, keepdim=True)
    return torch.where(active, signal, torch.ones_like(signal)), active


def _mean(values: Tensor, active: Tensor) -> Tensor:
    return torch.where(active, values, torch.zeros_like(values)).sum() / active.sum().clamp_min(1)


def negative_si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean over items and stems of minus the SI-SDR in dB (Le Roux et al., ICASSP 2019).

    ``-10 log10(|a|^2 / |e - a|^2)`` with ``a = <e, s> s / |s|^2``; both arguments ``[B, S, ...]``.
    """
    signal, active = _signal_energy(target)
    projection = (estimate * target).flatten(2).sum(-1) / signal  # [B, S]
    scaled = projection.view(*signal.shape, *[1] * (target.dim() - 2)) * target
    floor = _RELATIVE_FLOOR * signal
    values = 10 * torch.log10((energy(estimate - scaled) + floor) / (energy(scaled) + floor))
    return _mean(values, active)


@register("si_sdr_time", "time")
def si_sdr_time(estimates: Estimates) -> Tensor:
    """Minus SI-SDR of the waveforms, per stem and item (SISDRtime); the scale of the estimates stays free."""
    return negative_si_sdr(estimates.estimate_waveforms, estimates.target_waveforms)


@register("si_sdr_freq", "frequency")
def si_sdr_freq(estimates: Estimates) -> Tensor:
    """Minus SI-SDR of the magnitudes ``M |X|`` against ``|Y|``, per stem and item (SISDRfreq)."""
    return negative_si_sdr(estimates.estimate_magnitudes, estimates.target_magnitudes)


@register("min_snr_sd_sdr", "time")
def min_snr_sd_sdr(estimates: Estimates) -> Tensor:
    """``-min(SNR, SD-SDR)`` of the waveforms, per stem and item (MinSNRsdsdr; Le Roux et al., ICASSP 2019).

    ``SNR = 10 log10(|s|^2 / |e - s|^2)``, ``SD-SDR = SNR + 20 log10 |<e, s> / |s|^2|``: the second punishes
    estimates that are too soft, the first those that are too loud.
    """
    estimate, target = estimates.estimate_waveforms, estimates.target_waveforms
    signal, active = _signal_energy(target)
    snr = -10 * torch.log10(energy(estimate - target) / signal + _RELATIVE_FLOOR)
    scale = (estimate * target).flatten(2).sum(-1) / signal
    sd_sdr = snr + 10 * torch.log10(scale.square() + _RELATIVE_FLOOR)
    return _mean(-torch.minimum(snr, sd_sdr), active)


@register("snr_psa", "frequency")
def snr_psa(estimates: Estimates) -> Tensor:
    """``mean 20 tanh(v / 20)``, ``v = -10 log10(|s|^2 / |M |X| - s|^2)``, ``s = |Y| cos(angle X - angle Y)``.

    SNR against the phase-sensitive target, held within 20 dB so that neither the easy nor the hopeless items take over
    (SNRPSA; Erdogan and Yoshioka, Interspeech 2018).
    """
    target = estimates.phase_sensitive_targets
    signal, active = _signal_energy(target)
    error = energy(estimates.estimate_magnitudes - target)
    values = 10 * torch.log10(error / signal + _RELATIVE_FLOOR)
    return _mean(20 * torch.tanh(values / 20), active)
