"""Weights of a model of more stems for a model of fewer: karaoke begins with what four stems have learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from models.bandsplit.config import BandSplitConfig


def weights_for_stems(weights: dict[str, Tensor], old: BandSplitConfig, new: BandSplitConfig) -> dict[str, Tensor]:
    """Return the weights with only the outputs of the stems that ``new`` estimates.

    Parameters
    ----------
    weights : dict
        State dict of a model of ``old``.
    old, new : BandSplitConfig
        Sizes are compared when the weights are loaded, not here.

    Raises
    ------
    ValueError
        ``new`` estimates a stem that ``old`` does not, or a model has branches per stem.
    """
    if old.estimated == new.estimated:
        return weights
    if unknown := [stem for stem in new.estimated if stem not in old.estimated]:
        raise ValueError(
            f"the weights to start from have no masks for {', '.join(unknown)}: {', '.join(old.estimated)}."
        )
    if old.filter_taps or old.residual_taps:
        raise ValueError("weights with filter_taps or residual_taps can only start a model of the same stems.")
    count, channels = len(old.estimated), old.channels
    picked = torch.tensor([old.estimated.index(stem) for stem in new.estimated])
    per_channel = (picked[:, None] * channels + torch.arange(channels)).flatten()
    # As MaskDecoder lays them out: a gate per stem, then both parts of the mask per stem and channel.
    rows = torch.cat([picked, count + per_channel, count + count * channels + per_channel])
    result = dict(weights)
    for index, (_, width) in enumerate(old.groups):
        for kind in ("weights", "biases"):
            key = f"decode.project.{kind}.{index}"
            result[key] = weights[key].unflatten(-1, (-1, width))[..., rows, :].flatten(-2)
    for kind in ("weight", "bias"):
        result[f"decode.top.{kind}"] = weights[f"decode.top.{kind}"][picked]
    return result
