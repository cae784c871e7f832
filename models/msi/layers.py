"""The blocks of MSI without look-ahead: the weights of :mod:`models.msi.reference`, their reach in the past.

Axes: B batch, C channels, N frames, F bins. The first frame sees zeros before it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from models.msi.reference import CLASSES, FiLM, Pointwise
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.conv import CausalConv1d, CausalConv2d

MOMENTUM = 0.05  # upstream's 0.01 needs several times as many steps until the statistics have settled


class CausalConvBlock(StreamingModule):
    """3 x 3 convolution over the present and two past frames, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, bins: int) -> None:
        super().__init__()
        self.conv = CausalConv2d(inputs, outputs, bins, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=MOMENTUM)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map ``[B, inputs, N, F]`` to ``[B, outputs, N, F]``."""
        state = self.checked_state(state, x.shape[0])
        x, new = self.conv(x, substate(state, "conv"))
        return torch.relu(self.bn(x)), prefixed("conv", new)


class CausalDeepConvBlock(StreamingModule):
    """Two :class:`CausalConvBlock`."""

    def __init__(self, inputs: int, outputs: int, bins: int) -> None:
        super().__init__()
        self.conv1 = CausalConvBlock(inputs, outputs, bins)
        self.conv2 = CausalConvBlock(outputs, outputs, bins)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map ``[B, inputs, N, F]`` to ``[B, outputs, N, F]``."""
        state = self.checked_state(state, x.shape[0])
        x, first = self.conv1(x, substate(state, "conv1"))
        x, second = self.conv2(x, substate(state, "conv2"))
        return x, {**prefixed("conv1", first), **prefixed("conv2", second)}


class CausalConvTranspose2d(StreamingModule):
    """3 x 3 transposed convolution to twice the bins, by overlap-add of frames; latency 0.

    A frame spreads over itself and the next two. What falls beyond the present frames waits in the state
    ``tail`` ``[B, outputs, 2, 2 F]``. Upstream crops a frame on either side; here both are cropped at the end.
    """

    overlap = 2

    def __init__(self, inputs: int, outputs: int, bins: int) -> None:
        super().__init__()
        self.outputs, self.bins = outputs, bins
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=(1, 2), bias=False)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"tail": (self.outputs, self.overlap, 2 * self.bins)}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map ``[B, inputs, N, F]`` to ``[B, outputs, N, 2 F]``."""
        state = self.checked_state(state, x.shape[0])
        spread = self.conv(x)[..., :-1]  # [B, outputs, N + 2, 2 F]
        head = spread[:, :, : self.overlap] + state["tail"].to(spread.dtype)
        full = torch.cat([head, spread[:, :, self.overlap :]], dim=2)
        return full[:, :, : -self.overlap], {"tail": full[:, :, -self.overlap :]}


class CausalUpBlock(StreamingModule):
    """Transposed convolution to twice the bins, then a convolution over it and the skip connection."""

    def __init__(self, inputs: int, outputs: int, bins: int) -> None:
        super().__init__()
        self.conv = CausalConvTranspose2d(inputs, outputs, bins)
        self.bn = nn.BatchNorm2d(outputs, momentum=MOMENTUM)
        self.conv_block = CausalConvBlock(2 * outputs, outputs, 2 * bins)

    def forward(self, x: Tensor, skip: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map ``[B, inputs, N, F]`` and the skip ``[B, outputs, N, 2 F]`` to the shape of the skip."""
        state = self.checked_state(state, x.shape[0])
        x, up = self.conv(x, substate(state, "conv"))
        x = torch.relu(self.bn(x))
        x, new = self.conv_block(torch.cat([x, skip], dim=1), substate(state, "conv_block"))
        return x, {**prefixed("conv", up), **prefixed("conv_block", new)}


def _run_layer(layers: nn.ModuleList, index: int, state: State, new: State, *inputs: Tensor) -> Tensor:
    """Run the streaming layer ``layers[index]`` and put its state into ``new``."""
    name = f"layers.{index}"
    y, after = layers[index](*inputs, substate(state, name))
    new |= prefixed(name, after)
    return y


def _start_as_identity(film: FiLM) -> None:
    """Let a modulation begin near 1: random signs per bin would undo every level."""
    nn.init.ones_(film.gamma.conv.bias)
    nn.init.zeros_(film.beta.conv.bias)


class CausalEncoder(StreamingModule):
    """Features and query to one level per entry of ``shapes``.

    Parameters
    ----------
    query : int
        Size of the query vector.
    shapes : list of (C, F)
        Of the levels, finest first; F halves from level to level.
    """

    def __init__(self, query: int, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(1, momentum=MOMENTUM)
        widths = [1, *(c for c, _ in shapes)]
        self.layers = nn.ModuleList(CausalDeepConvBlock(i, c, f) for i, (c, f) in zip(widths, shapes, strict=False))
        self.film_layers = nn.ModuleList(FiLM(query, c, f) for c, f in shapes)
        for film in self.film_layers:
            _start_as_identity(film)

    def forward(self, x: Tensor, query: Tensor, state: State | None = None) -> tuple[list[Tensor], State]:
        """Map ``[B, 1, N, F]`` and ``[B, query]`` to the levels ``[B, C, N, F / 2^level]``, finest first."""
        state = self.checked_state(state, x.shape[0])
        levels: list[Tensor] = []
        new: State = {}
        x = self.bn0(x)
        for index, film in enumerate(self.film_layers):
            x = avg_pool2d(levels[-1], (1, 2)) if levels else x
            levels.append(film(_run_layer(self.layers, index, state, new, x), query))
        return levels, new


class TemplateQueryNet(nn.Module):
    """A query network of spectral templates, frame by frame: :class:`models.msi.reference.QueryNet` without its levels.

    Told to tell instruments apart by the contrastive loss alone, 200 steps of 8 examples each, it did so for 93 % of
    pairs of unknown recordings, the convolutions for 74 % after 100 steps that cost ten times as much.

    Parameters
    ----------
    bins, units, size : int
        Of the features, of templates, of the query.
    """

    def __init__(self, bins: int, units: int, size: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm1d(bins, momentum=MOMENTUM)
        self.conv = Pointwise(bins, units, bias=False)
        self.bn = nn.BatchNorm1d(units, momentum=MOMENTUM)
        self.bottom = Pointwise(units, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``[B, 1, N, F]`` to queries ``[B, size]``."""
        x = torch.relu(self.bn(self.conv(self.bn0(_shape_of_frames(x)))))  # [B, units, N]
        return torch.tanh(self.bottom(x)).mean(-1)


def _shape_of_frames(x: Tensor) -> Tensor:
    """Features ``[B, 1, N, F]`` over the mean of their frame (at least that of about -80 dB), as ``[B, F, N]``."""
    return (x / (x.mean(-1, keepdim=True) + 0.05)).squeeze(1).transpose(1, 2)


class Templates(StreamingModule):
    """Spectral templates that the query weights: a short way from the spectrum to notes and mask.

    Frames are divided by their mean, bins normalised one by one, and three frames of all bins seen by every unit.
    What the way through the levels needs thousands of steps for is learnt this way in hundreds.

    Parameters
    ----------
    query, bins, units : int
    mask : bool
        Give logits of a mask.
    """

    def __init__(self, query: int, bins: int, units: int, mask: bool) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm1d(bins, momentum=MOMENTUM)
        self.conv = CausalConv1d(bins, units, kernel=3, bias=False)
        self.bn = nn.BatchNorm1d(units, momentum=MOMENTUM)
        self.film = FiLM(query, units, 1)
        _start_as_identity(self.film)
        self.mask = None
        if mask:
            between = nn.Conv1d(units, units, 1, bias=False)
            norm = nn.BatchNorm1d(units, momentum=MOMENTUM)
            self.mask = nn.Sequential(between, norm, nn.ReLU(), nn.Conv1d(units, bins, 1))

    def forward(
        self, x: Tensor, query: Tensor, state: State | None = None
    ) -> tuple[tuple[Tensor, Tensor | None], State]:
        """See what the query's instrument plays.

        Parameters
        ----------
        x : Tensor
            Features ``[B, 1, N, F]``.
        query : Tensor
            ``[B, query]``.

        Returns
        -------
        seen, logits : Tensor
            ``[B, units, N]``, and of the mask ``[B, 1, N, F]``, None without one.
        state : dict
        """
        state = self.checked_state(state, x.shape[0])
        x, new = self.conv(self.bn0(_shape_of_frames(x)), substate(state, "conv"))
        seen = self.film(torch.relu(self.bn(x)).unsqueeze(-1), query).squeeze(-1)  # [B, units, N]
        logits = None if self.mask is None else self.mask(seen).transpose(1, 2).unsqueeze(1)  # [B, 1, N, F]
        return (seen, logits), prefixed("conv", new)


class CausalTranscriptor(StreamingModule):
    """Logits of the note that sounds.

    Parameters
    ----------
    inputs, bins : int
        Of the encoder's deepest level.
    channels : tuple of int
        Of the convolutions over it; bins are halved after each two.
    templates : int
        Units of :class:`Templates` beside them; 0, as upstream, for none.
    """

    def __init__(self, inputs: int, bins: int, channels: tuple[int, ...], templates: int) -> None:
        super().__init__()
        widths = (inputs, *channels)
        self.layers = nn.ModuleList(
            CausalDeepConvBlock(i, o, bins >> level) for level, (i, o) in enumerate(zip(widths, channels, strict=False))
        )
        self.deep = channels[-1] * (bins >> len(channels))
        self.bottom = Pointwise(self.deep + templates, CLASSES)
        if templates:  # which go ahead; the levels join in as they learn
            nn.init.zeros_(self.bottom.conv.weight[:, : self.deep])

    def of_templates(self, seen: Tensor) -> Tensor:
        """Logits ``[B, P, N]`` of what the templates saw alone."""
        return torch.nn.functional.conv1d(seen, self.bottom.conv.weight[:, self.deep :], self.bottom.conv.bias)

    def forward(self, bottleneck: Tensor, seen: Tensor | None, state: State | None = None) -> tuple[Tensor, State]:
        """Map the deepest level ``[B, C, N, F]`` and what the templates saw ``[B, units, N]`` to ``[B, P, N]``."""
        state = self.checked_state(state, bottleneck.shape[0])
        x, new = bottleneck, {}
        for index in range(len(self.layers)):
            x = avg_pool2d(_run_layer(self.layers, index, state, new, x), (1, 2))
        x = x.transpose(2, 3).flatten(1, 2)  # [B, C F, N]
        return self.bottom(x if seen is None else torch.cat([x, seen.to(x.dtype)], dim=1)), new


class CausalTimbreFilter(StreamingModule):
    """One convolution per level that keeps what is not pitch."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CausalConvBlock(c, c, f) for c, f in shapes)

    def forward(self, levels: list[Tensor], state: State | None = None) -> tuple[list[Tensor], State]:
        """Filter ``[B, C, N, F]`` of each level."""
        state = self.checked_state(state, levels[0].shape[0])
        new: State = {}
        return [_run_layer(self.layers, index, state, new, x) for index, x in enumerate(levels)], new


class CausalDecoder(StreamingModule):
    """Levels, finest first, back to one number per bin.

    Parameters
    ----------
    shapes : list of (C, F)
    mask : bool
        Give a second number per bin, from the same channels.
    """

    def __init__(self, shapes: list[tuple[int, int]], mask: bool) -> None:
        super().__init__()
        down = shapes[::-1]
        self.layers = nn.ModuleList(CausalUpBlock(i, o, f) for (i, f), (o, _) in itertools.pairwise(down))
        self.bottom = nn.Conv2d(shapes[0][0], 1 + mask, 1)
        nn.init.zeros_(self.bottom.weight[1:])

    def forward(self, levels: list[Tensor], state: State | None = None) -> tuple[Tensor, State]:
        """Map ``[B, C, N, F]`` of each level to ``[B, 1, N, F]`` of the finest, or ``[B, 2, N, F]``."""
        state = self.checked_state(state, levels[0].shape[0])
        x, new = levels[-1], {}
        for index, skip in enumerate(levels[-2::-1]):
            x = _run_layer(self.layers, index, state, new, x, skip)
        return self.bottom(x), new
