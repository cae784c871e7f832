"""What a trained model gives to another one: fewer stems (karaoke begins with what four have learnt), more layers.

Other parts that the new model has and the old one has not (a look-ahead, a longer window for the bass) start as nothing
by themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.bandsplit.config import BandSplitConfig
from models.bandsplit.layers import Layer
from models.bandsplit.streaming import StreamingBandSplit


def weights_for(weights: dict[str, Tensor], old: BandSplitConfig, model: StreamingBandSplit) -> dict[str, Tensor]:
    """Return the weights that ``model`` starts from; layers that are new in it are set to add nothing.

    Parameters
    ----------
    weights : dict
        State dict of a model of ``old``.
    old : BandSplitConfig
    model : StreamingBandSplit
        Changed where it has more layers than ``old``.

    Raises
    ------
    ValueError
        As :func:`weights_for_stems`, or ``model`` has fewer layers.
    """
    if model.config.layers < old.layers:
        raise ValueError(f"the weights to start from have {old.layers} layers, the model only {model.config.layers}.")
    result = dict(weights_for_stems(weights, old, model.config))
    for index in range(old.layers, model.config.layers):
        layer = model.layers[index]
        assert isinstance(layer, Layer)
        layer.start_as_nothing()
        result |= {f"layers.{index}.{name}": value for name, value in layer.state_dict().items()}
    return result


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
