"""Losses of MSI and MSI-DIS (Lin et al., ISMIR 2021, section 3.5).

The two variants share every loss. MSI-DIS takes the timbre from a second mixture, in which every source is
transposed at random, and still has to give the source of the first: what passes through the timbre path then cannot
be pitch. Upstream takes a step of its own for the contrastive loss before the main one; here one step is taken on
the weighted sum. A model that separates with a mask learns from the SNR it gives
(:func:`models.losses.band_snr_loss`) instead of the distance of magnitudes, whose median answers where several
sources are likely cost SDR.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 1 / 8


@dataclass(frozen=True)
class Weights:
    """Factors of the losses.

    Attributes
    ----------
    separation, transcription, contrastive : float
        Upstream's are 1. Separation is measured in dB where the model has a mask.
    synthesis : float
        Of a loss that upstream lacks: the true notes, played with the timbre averaged over a query as the enrolled
        one is. 0 leaves it, and its computation, out.
    """

    separation: float = 1.0
    transcription: float = 1.0
    contrastive: float = 1.0
    synthesis: float = 0.0


def contrastive_loss(queries: Tensor, margin: float = MARGIN) -> Tensor:
    """Queries of one instrument together, those of different instruments apart by a margin.

    ``sum_i [ |q_i - q'_i|^2 + max(0, a - |q_i - q'_(i+1)|^2) ] / S``, mean over the batch, squares averaged over the
    query's size.

    Parameters
    ----------
    queries : Tensor
        ``[B, S, 2, M]``: two recordings each of S instruments.
    margin : float
        a.

    Returns
    -------
    Tensor
        Scalar.
    """
    first, second = queries.unbind(2)  # [B, S, M]
    same = (first - second).square().mean(-1)  # [B, S]
    other = (first - second.roll(-1, dims=1)).square().mean(-1)
    return (same + torch.relu(margin - other)).mean()


def transcription_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of ``[B, P, N]`` against the true classes ``[B, N]``, mean over frames."""
    return torch.nn.functional.cross_entropy(logits, classes)


def magnitude_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of (compressed) magnitudes of any shape."""
    return (estimate - target).abs().mean()
