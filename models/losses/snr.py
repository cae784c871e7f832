"""Thresholded SNR on stems: the losses that the shipped models were trained with."""

from __future__ import annotations

import torch
from torch import Tensor


def windowed_snr_loss(estimate: Tensor, target: Tensor, window: int, threshold_db: float = -25.0) -> Tensor:
    """Mean over windows and stems of the error-to-target ratio in dB, softly bounded.

    ``10 log10((|s - s_hat|^2 + tau |x|^2) / (|s|^2 + tau |x|^2))`` per window, with the mixture x: the
    thresholded SNR of Wisdom et al. (NeurIPS 2020, eq. 2) in windows of about a second, which is what
    BSS Eval takes its medians over. Silent stems count as well: there it measures leakage.

    Parameters
    ----------
    estimate, target : Tensor
        ``[B, S, C, T]``; their sums over S are the mixture.
    window : int
        Samples per window; a shorter rest at the end is left out.
    threshold_db : float
        Level against the mixture below which errors stop to matter.

    Returns
    -------
    Tensor
        Scalar, dB; lower is better.
    """
    count = target.shape[-1] // window
    tau = 10 ** (threshold_db / 10)

    def energy(x: Tensor) -> Tensor:
        return x[..., : count * window].unflatten(-1, (count, window)).square().sum(dim=(-3, -1))

    floor = tau * energy(target.sum(1, keepdim=True)) + 1e-4  # [B, 1, count]; about -85 dB full scale
    error = energy(estimate - target) + floor  # [B, S, count]
    return (10 * torch.log10(error / (energy(target) + floor))).mean()


def band_snr_loss(masks: Tensor, a: Tensor, c: Tensor, d: Tensor, window: int, threshold_db: float = -25.0) -> Tensor:
    """:func:`windowed_snr_loss` computed on the frames' spectra, from sums per band.

    It needs neither inverse transform nor gradients per bin, which makes a training step several times
    cheaper; frames overlap, so that it is close to the loss on the waveform, not equal.

    Parameters
    ----------
    masks : Tensor
        ``[B, S, C, N, bands]``.
    a, c, d : Tensor
        From :class:`models.data.spectra.SpectralDataset`, batched:
        ``[B, C, N, bands]``, ``[B, S, C, N, bands]``, ``[B, S, N]``.
    window : int
        Frames per window (about a second).
    threshold_db : float
        As in :func:`windowed_snr_loss`.
    """
    count = masks.shape[3] // window

    def per_window(x: Tensor) -> Tensor:
        return x[..., : count * window].unflatten(-1, (count, window)).sum(-1)

    change = (masks * (masks * a.unsqueeze(1) - 2 * c)).sum(dim=(2, 4))  # [B, S, N]
    target = per_window(d)  # [B, S, count]
    floor = 10 ** (threshold_db / 10) * per_window(a.sum(dim=(1, 3))).unsqueeze(1) + 1e-6
    error = (per_window(change) + target).clamp_min(0.0) + floor
    return (10 * torch.log10(error / (target + floor))).mean()
