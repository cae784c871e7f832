"""Masks on bins, and stems that add up to the mixture."""

from __future__ import annotations

from torch import Tensor


def apply_masks(masks: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply the mixture's bins by real masks.

    Parameters
    ----------
    masks : Tensor
        ``[B, S, C, N, F]``.
    re, im : Tensor
        Bins of the mixture ``[B, C, N, F]``.

    Returns
    -------
    re, im : Tensor
        Bins of the stems ``[B, S, C, N, F]``. Silence in the mixture is silence in every stem.
    """
    return masks * re.unsqueeze(1), masks * im.unsqueeze(1)


def mixture_consistent(stems: Tensor, mixture: Tensor) -> Tensor:
    """Share what the stems miss of the mixture equally among them (Wisdom et al., ICASSP 2019, eq. 5).

    Parameters
    ----------
    stems : Tensor
        ``[B, S, C, T]``.
    mixture : Tensor
        ``[B, C, T]``, aligned with the stems.
    """
    missing = mixture - stems.sum(dim=1)  # [B, C, T]
    return stems + missing.unsqueeze(1) / stems.shape[1]
