"""Which stem owns a bin: cross-entropies against the ideal binary mask (the loudest stem of each bin)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.losses.estimates import Estimates
from models.losses.registry import register

_LEAST = 1e-6


def loudest(estimates: Estimates) -> Tensor:
    """Index of the loudest stem, int64 ``[B, C, N, F]``; the first one where all are silent."""
    return estimates.target_magnitudes.argmax(1)


def _owned(estimates: Estimates) -> Tensor:
    """Bins that have an owner: not digital silence."""
    return estimates.target_magnitudes.amax(1) > 0


@register("cross_entropy", "mask", head="softmax")
def cross_entropy(estimates: Estimates) -> Tensor:
    """``-mean log softmax(z)_k``, k the loudest stem of the bin (CrossEntropy, on logits).

    Bins of digital silence have no loudest stem and are left out. Without logits, masks are taken as shares:
    ``-mean log (M_k / sum_s M_s)``, which is the same for masks from a softmax.
    """
    logits = estimates.logits
    if logits is None:
        logits = torch.log(estimates.masks.clamp_min(_LEAST))
    owned = _owned(estimates)
    values = F.cross_entropy(logits, loudest(estimates), reduction="none")  # [B, C, N, F]
    return (values * owned).sum() / owned.sum().clamp_min(1)


@register("binary_cross_entropy", "mask", head="sigmoid")
def binary_cross_entropy(estimates: Estimates) -> Tensor:
    """``sum_s mean BCE(sigmoid(z_s), [s is the loudest of the bin])`` (BinaryCrossEntropy, on logits).

    Bins of digital silence are left out. Without logits, masks are taken as probabilities and clamped into (0, 1).
    """
    owned = _owned(estimates)
    wanted = F.one_hot(loudest(estimates), estimates.masks.shape[1]).movedim(-1, 1).to(estimates.masks.dtype)
    if estimates.logits is not None:
        values = F.binary_cross_entropy_with_logits(estimates.logits, wanted, reduction="none")
    else:
        values = F.binary_cross_entropy(estimates.masks.clamp(_LEAST, 1 - _LEAST), wanted, reduction="none")
    return (values.sum(1) * owned).sum() / owned.sum().clamp_min(1)
