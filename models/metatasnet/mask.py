"""The mask network of Meta-TasNet as a causal stream of frames, with its weights as an argument.

From the reference form it keeps the layers and their order. What differs, and why:

* dilated convolutions see the past only: the state of a layer is ``(kernel - 1) * dilation`` frames;
* every normalisation but the last is over the channels of a group in one frame, instead of over all time. It has no
  state, gives the same at the first second and the tenth hour, and costs one node. Cumulative statistics
  stop following the music after a few minutes and count frames for ever; exponentially forgetting ones
  sink in a pause and blow the first note after it up. The level of the input is lost on no one: it is among
  the features that come in;
* the last normalisation, on the logits, keeps its scale and bias and takes no statistics: over one frame it would
  forbid an instrument to be absent, because the logits of each would always have the same mean;
* a bias before a dilated convolution also counts before the stream begins. It can then be folded into the layer,
  and the first second is no special case.

:func:`fold` turns the generator's output into few matrices (scales and biases of normalisations go into the layers
after them): the streaming network computes with those only, generated or not.

Layout: features last, ``[B, I, N, C]``. One frame of it is a row vector times a matrix per instrument, which ONNX
Runtime runs several times as fast as a grouped convolution over one frame.

Axes: B batch, I instruments, N frames, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.metatasnet.generator import MaskGenerator, MaskSizes, Normalisation
from models.streaming.base import State, StreamingModule, check_keys, prefixed, substate

EPSILON = 1e-5  # larger than in the reference: the variance of a few channels in one frame comes close to zero
Weights = Mapping[str, Tensor]


def fold(generator: MaskGenerator, embeddings: Tensor | None) -> dict[str, Tensor]:
    """Return the weights :class:`CausalMask` runs with; differentiable.

    Parameters
    ----------
    generator : MaskGenerator
    embeddings : Tensor or None
        ``[I, E]``; None with independent weights.
    """

    def matrix(layer: nn.Module) -> Tensor:
        kernels: Tensor = layer.weights(embeddings)  # type: ignore[operator]
        return kernels.squeeze(-1).transpose(1, 2)  # [I, outputs, inputs, 1] -> [I, inputs, outputs]

    def affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
        assert isinstance(layer, Normalisation)
        scale, bias = layer.weights(embeddings)  # [I, C]
        return scale.unsqueeze(1), bias.unsqueeze(1)  # [I, 1, C]

    def after(norm: nn.Module, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Fold the scale and bias of a normalisation into the matrix after it."""
        scale, bias = affine(norm)
        return scale.transpose(1, 2) * weight, bias @ weight

    weights: dict[str, Tensor] = {}
    weights["in_slope"] = generator.prelu_1.weight
    weights["in_weight"], weights["in_bias"] = after(generator.norm_1, matrix(generator.in_conv))
    weights["body_slope"] = generator.prelu_2.weight
    weights["body_scale"], weights["body_bias"] = affine(generator.norm_2)
    for index, layer in enumerate(generator.tcn):
        name = f"layer{index}"
        weights[f"{name}_expand"] = matrix(layer.conv1d)
        weights[f"{name}_slope"] = layer.prelu_1.weight
        taps = layer.dconv1d.weights(embeddings).squeeze(2).transpose(1, 2)  # [I, H, 1, kernel] -> [I, kernel, H]
        scale, bias = affine(layer.norm_1)
        weights[f"{name}_taps"] = scale * taps
        weights[f"{name}_taps_bias"] = bias * taps.sum(1, keepdim=True)  # [I, 1, H]
        weights[f"{name}_taps_slope"] = layer.prelu_2.weight
        project = matrix(layer.skip_out)  # [I, H, width]
        if index < len(generator.tcn) - 1:  # no one hears the last residual (nor upstream's)
            project = torch.cat([matrix(layer.res_out), project], dim=-1)  # [I, H, 2 width]
        weights[f"{name}_project"], weights[f"{name}_project_bias"] = after(layer.norm_2, project)
    weights["out_slope"] = generator.prelu_3.weight
    weights["out_weight"], weights["out_bias"] = after(generator.norm_3, matrix(generator.mask_output))
    weights["mask_slope"] = generator.prelu_4.weight
    weights["mask_scale"], weights["mask_bias"] = affine(generator.norm_4)
    return weights


class FixedWeights(nn.Module):
    """Holds what :func:`fold` returned; takes the generator's place in a materialised model."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.values = nn.ParameterDict({name: nn.Parameter(value.detach().clone()) for name, value in weights.items()})

    def forward(self) -> dict[str, Tensor]:
        """Return the weights."""
        return dict(self.values)


class GeneratedWeights(nn.Module):
    """A generator and the embeddings of its instruments.

    Parameters
    ----------
    sizes : MaskSizes
        ``instruments`` embeddings are kept.
    """

    def __init__(self, sizes: MaskSizes) -> None:
        super().__init__()
        self.generator = MaskGenerator(sizes)
        self.embeddings = None if sizes.rank is None else nn.Embedding(sizes.instruments, sizes.embedding)

    def forward(self) -> dict[str, Tensor]:
        """Make the weights of all instruments."""
        return fold(self.generator, None if self.embeddings is None else self.embeddings.weight)


class CausalLayer(StreamingModule):
    """One layer's state: the frames that its dilated convolution looks back to.

    State ``past`` ``[B, I, (kernel - 1) * dilation, hidden]``, normalised, before scale and bias.
    """

    def __init__(self, sizes: MaskSizes, dilation: int) -> None:
        super().__init__()
        self.sizes, self.dilation = sizes, dilation
        self.past_frames = (sizes.kernel - 1) * dilation

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        shape = (self.sizes.instruments, self.past_frames, self.sizes.hidden)
        return {"past": shape} if self.past_frames else {}

    def forward(self, x: Tensor, taps: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Convolve ``[B, I, N, hidden]`` with one filter per channel, ``taps`` ``[I, kernel, hidden]``."""
        state = self.checked_state(state, x.shape[0])
        if not self.past_frames:
            return x * taps, {}
        line = torch.cat([state["past"].to(x.dtype), x], dim=2)  # [B, I, past + N, hidden]
        frames = x.shape[2]
        new = {"past": line[:, :, frames:]}
        if frames == 1:  # the taps are a strided slice: three nodes instead of eight
            return (line[:, :, :: self.dilation] * taps).sum(2, keepdim=True), new
        y = line[:, :, :frames] * taps[:, :1]
        for tap in range(1, self.sizes.kernel):
            start = tap * self.dilation
            y = torch.addcmul(y, line[:, :, start : start + frames], taps[:, tap : tap + 1].to(line.dtype))
        return y, new


class CausalMask(StreamingModule):
    """Frames in, mask logits out; see the module's head.

    Parameters
    ----------
    sizes : MaskSizes

    Raises
    ------
    ValueError
        A group has fewer than three channels: normalised in one frame, they would be constants or signs.
    """

    def __init__(self, sizes: MaskSizes) -> None:
        super().__init__()
        for name in ("inputs", "width", "hidden"):
            if getattr(sizes, name) < 3 * sizes.groups:
                raise ValueError(f"{name} must be 3 or more per group, got {getattr(sizes, name)} in {sizes.groups}.")
        self.sizes = sizes
        self.layers = nn.ModuleList(CausalLayer(sizes, dilation) for dilation in sizes.dilations)

    def forward(self, x: Tensor, weights: Weights, state: State | None = None) -> tuple[Tensor, State]:
        """Return mask logits.

        Parameters
        ----------
        x : Tensor
            ``[B, I or 1, N, inputs]``; with 1 all instruments see the same.
        weights : mapping
            From :func:`fold`.

        Returns
        -------
        logits : Tensor
            ``[B, I, N, outputs]``.
        state : dict
            ``layers.<i>.past``.
        """
        state = state if state is not None else self.initial_state(x.shape[0])
        check_keys(type(self).__name__, state.keys(), self.state_shapes().keys())
        width = self.sizes.width
        y = self._frame_norm(functional.prelu(x, weights["in_slope"]))
        y = torch.matmul(y, weights["in_weight"]) + weights["in_bias"]  # [B, I, N, width]
        y = self._frame_norm(functional.prelu(y, weights["body_slope"]))
        body = y * weights["body_scale"] + weights["body_bias"]
        sums = torch.cat([body, torch.zeros_like(body)], dim=-1)  # body and sum of the skips, [B, I, N, 2 width]
        new: State = {}
        for index, layer in enumerate(self.layers):
            name = f"layer{index}"
            y = torch.matmul(sums[..., :width], weights[f"{name}_expand"])  # [B, I, N, hidden]
            y = self._frame_norm(functional.prelu(y, weights[f"{name}_slope"]))
            y, past = layer(y, weights[f"{name}_taps"], substate(state, f"layers.{index}"))
            new |= prefixed(f"layers.{index}", past)
            y = self._frame_norm(functional.prelu(y + weights[f"{name}_taps_bias"], weights[f"{name}_taps_slope"]))
            y = torch.matmul(y, weights[f"{name}_project"]) + weights[f"{name}_project_bias"]
            sums = sums[..., -y.shape[-1] :] + y  # after the last layer the skips alone
        y = self._frame_norm(functional.prelu(sums, weights["out_slope"]))
        logits = torch.matmul(y, weights["out_weight"]) + weights["out_bias"]
        logits = functional.prelu(logits, weights["mask_slope"])
        return logits * weights["mask_scale"] + weights["mask_bias"], new

    def _frame_norm(self, x: Tensor) -> Tensor:
        """Give every group of channels zero mean and unit variance in every frame."""
        channels, groups = x.shape[-1], self.sizes.groups
        if groups == 1:
            return functional.layer_norm(x, (channels,), eps=EPSILON)
        parts = x.unflatten(-1, (groups, channels // groups))
        return functional.layer_norm(parts, parts.shape[-1:], eps=EPSILON).flatten(-2)
