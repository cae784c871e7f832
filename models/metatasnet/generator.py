"""The generator of Meta-TasNet: the weights of a mask network as a linear function of an instrument embedding.

Every layer of the mask network has a ``bottleneck`` (embedding -> a few numbers) and linear maps from there to its
kernel, or to the scale and bias of its normalisation. Layers do not share them. With ``rank=None`` there is
no generator and each instrument has weights of its own, which is upstream's ``independent_params``.

:class:`MaskGenerator` only owns parameters, under upstream's names. What is computed with the weights that
:meth:`MaskGenerator.weights` returns is up to the reference form (:mod:`models.metatasnet.reference`, statistics over
the clip) and to the streaming form (:mod:`models.metatasnet.mask`, statistics per frame).

Source: D. Samuel, A. Ganeshan, J. Naradowsky, "Meta-learning extractors for music source separation", ICASSP 2020,
and its code (pfnet-research/meta-tasnet, MIT).

Axes: I instruments, E embedding, R rank, B batch, C channels, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MaskSizes:
    """Sizes of a mask network.

    Attributes
    ----------
    inputs, outputs : int
        Features per frame that come in and mask logits that go out, per instrument.
    width, hidden : int
        Channels between the layers (and of the sum of skip connections), and inside them.
    layers, stacks : int
        Dilations ``1, 2, ... 2 ** (layers - 1)``, gone through ``stacks`` times.
    kernel : int
        Taps of the dilated convolutions.
    groups : int
        Of every normalisation, per instrument; must divide all four channel counts.
    embedding : int
        E.
    rank : int or None
        R; None for independent weights.
    instruments : int
        I; only independent weights depend on it.

    Raises
    ------
    ValueError
        A size is below 1, or the groups do not divide the channels.
    """

    inputs: int
    outputs: int
    width: int
    hidden: int
    layers: int
    stacks: int
    kernel: int = 3
    groups: int = 8
    embedding: int = 8
    rank: int | None = 5
    instruments: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        for name in ("inputs", "outputs", "width", "hidden"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} must be a multiple of groups = {self.groups}, got {getattr(self, name)}.")

    @property
    def dilations(self) -> tuple[int, ...]:
        """Dilation of every layer, in frames."""
        return tuple(2**layer for _ in range(self.stacks) for layer in range(self.layers))


class GeneratedConv1d(nn.Module):
    """Makes the kernels of a convolution, one per embedding."""

    def __init__(self, sizes: MaskSizes, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        assert sizes.rank is not None
        self.shape = (outputs, inputs // groups, kernel)
        self.bottleneck = nn.Linear(sizes.embedding, sizes.rank)
        self.kernel = nn.Linear(sizes.rank, outputs * (inputs // groups) * kernel)

    def weights(self, embeddings: Tensor | None) -> Tensor:
        """Map embeddings ``[I, E]`` to kernels ``[I, outputs, inputs / groups, kernel]``."""
        kernels: Tensor = self.kernel(self.bottleneck(embeddings))
        return kernels.unflatten(-1, self.shape)


class IndependentConv1d(nn.Module):
    """Holds the kernels of a convolution, one per instrument."""

    def __init__(self, sizes: MaskSizes, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        count = sizes.instruments
        self.conv = nn.Conv1d(count * inputs, count * outputs, kernel, groups=count * groups, bias=False)
        self.instruments = count

    def weights(self, embeddings: Tensor | None) -> Tensor:
        """Return kernels ``[I, outputs, inputs / groups, kernel]``."""
        return self.conv.weight.unflatten(0, (self.instruments, -1))


class GeneratedGroupNorm(nn.Module):
    """Makes scale and bias of a normalisation, one pair per embedding."""

    def __init__(self, sizes: MaskSizes, channels: int) -> None:
        super().__init__()
        assert sizes.rank is not None
        self.bottleneck = nn.Linear(sizes.embedding, sizes.rank)
        self.affine = nn.Linear(sizes.rank, 2 * channels)

    def weights(self, embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map embeddings ``[I, E]`` to scale and bias, ``[I, C]`` each."""
        affine = self.affine(self.bottleneck(embeddings))  # [I, 2 C]
        # Slices and not chunk(), which an exporter does not fold into constants.
        return affine[:, : affine.shape[1] // 2], affine[:, affine.shape[1] // 2 :]


class IndependentGroupNorm(nn.Module):
    """Holds scale and bias of a normalisation, one pair per instrument."""

    def __init__(self, sizes: MaskSizes, channels: int) -> None:
        super().__init__()
        count = sizes.instruments
        self.group_norm = nn.GroupNorm(count * sizes.groups, count * channels)
        self.instruments = count

    def weights(self, embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scale and bias, ``[I, C]`` each."""
        scale, bias = self.group_norm.weight, self.group_norm.bias
        return scale.unflatten(0, (self.instruments, -1)), bias.unflatten(0, (self.instruments, -1))


Convolution = GeneratedConv1d | IndependentConv1d
Normalisation = GeneratedGroupNorm | IndependentGroupNorm


def _conv(sizes: MaskSizes, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> Convolution:
    kind = IndependentConv1d if sizes.rank is None else GeneratedConv1d
    return kind(sizes, inputs, outputs, kernel, groups)


def _norm(sizes: MaskSizes, channels: int) -> Normalisation:
    return IndependentGroupNorm(sizes, channels) if sizes.rank is None else GeneratedGroupNorm(sizes, channels)


class LayerGenerator(nn.Module):
    """Parameters of one layer: 1x1 in, dilated per channel, and two 1x1 out (residual and skip)."""

    def __init__(self, sizes: MaskSizes) -> None:
        super().__init__()
        width, hidden = sizes.width, sizes.hidden
        self.norm_1, self.prelu_1 = _norm(sizes, hidden), nn.PReLU()
        self.conv1d = _conv(sizes, width, hidden)
        self.norm_2, self.prelu_2 = _norm(sizes, hidden), nn.PReLU()
        self.dconv1d = _conv(sizes, hidden, hidden, sizes.kernel, groups=hidden)
        self.res_out = _conv(sizes, hidden, width)
        self.skip_out = _conv(sizes, hidden, width)


class MaskGenerator(nn.Module):
    """Parameters of the whole mask network, under upstream's names.

    Parameters
    ----------
    sizes : MaskSizes
    """

    def __init__(self, sizes: MaskSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.norm_1, self.prelu_1 = _norm(sizes, sizes.inputs), nn.PReLU()
        self.in_conv = _conv(sizes, sizes.inputs, sizes.width)
        self.norm_2, self.prelu_2 = _norm(sizes, sizes.width), nn.PReLU()
        self.tcn = nn.ModuleList([LayerGenerator(sizes) for _ in sizes.dilations])
        self.norm_3, self.prelu_3 = _norm(sizes, sizes.width), nn.PReLU()
        self.mask_output = _conv(sizes, sizes.width, sizes.outputs)
        self.norm_4, self.prelu_4 = _norm(sizes, sizes.outputs), nn.PReLU()

    @torch.no_grad()
    def start_near_plain_layers(self) -> None:
        """Set the generator so that what it makes has the spread of freshly initialised plain layers.

        The defaults of a linear layer look at its own inputs, of which there are ``rank``: the kernels they
        make are several times too large, and scales are around 0 instead of 1. The instrument's share is as
        large as the common one, so that instruments differ from the first step on.
        """
        for module in self.modules():
            if isinstance(module, GeneratedConv1d):
                bound = (3 * module.shape[1] * module.shape[2]) ** -0.5
                nn.init.uniform_(module.kernel.bias, -bound, bound)
                nn.init.uniform_(module.kernel.weight, -bound, bound)
            elif isinstance(module, GeneratedGroupNorm):
                nn.init.uniform_(module.affine.weight, -0.05, 0.05)
                scale, bias = module.affine.bias.chunk(2)
                scale.fill_(1.0)
                bias.zero_()
