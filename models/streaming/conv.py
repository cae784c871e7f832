"""Convolutions over time that see the present and the past only.

What a convolution needs of earlier hops is its state; the first hop sees zeros. No layer looks ahead.
The parameters are those of the plain torch layer, kept under ``conv``, so that weights of a network with
symmetric padding load (their receptive field then lies in the past).

Axes: B batch, C channels, T samples (or frames), N frames, F bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule


class CausalConv1d(StreamingModule):
    """Convolution over ``[B, C, T]`` whose last tap is the newest sample of a stride; latency 0.

    ``y[m] = bias + sum_i w[i] x[(m + 1) * stride - 1 - (kernel - 1 - i) * dilation]``, zeros before 0.
    State ``past`` ``[B, C, (kernel - 1) * dilation + 1 - stride]``; none when that is 0.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel, stride, dilation : int
        In samples, 1 or more; ``(kernel - 1) * dilation + 1 >= stride``, or samples would be skipped.
    groups : int
        As in :class:`torch.nn.Conv1d`.
    bias : bool

    Raises
    ------
    ValueError
        The kernel spans less than a stride, or a size is below 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(kernel=kernel, stride=stride, dilation=dilation)
        span = (kernel - 1) * dilation + 1
        if span < stride:
            raise ValueError(f"the kernel must span at least the stride {stride}, got {span} samples.")
        self.inputs, self.stride, self.past_samples = inputs, stride, span - stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=bias)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"past": (self.inputs, self.past_samples)} if self.past_samples else {}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Convolve whole strides.

        Parameters
        ----------
        x : Tensor
            ``[B, inputs, T]``, T a multiple of the stride.

        Returns
        -------
        y : Tensor
            ``[B, outputs, T / stride]``.
        state : dict

        Raises
        ------
        ValueError
            T is not a multiple of the stride.
        """
        if x.shape[-1] % self.stride:
            raise ValueError(f"T must be a multiple of the stride {self.stride}, got {x.shape[-1]}.")
        state = self.checked_state(state, x.shape[0])
        if not self.past_samples:
            return self.conv(x), {}
        line = torch.cat([state["past"], x], dim=-1)  # [B, C, past + T]
        return self.conv(line), {"past": line[..., line.shape[-1] - self.past_samples :]}


class CausalConv2d(StreamingModule):
    """Convolution over ``[B, C, N, F]``: past frames only, bins on both sides; latency 0.

    Frequency is padded with zeros on either side, so that F bins give ``(F - 1) // stride + 1``.
    State ``past`` ``[B, C, (kernel[0] - 1) * dilation[0], F]``; none when that is 0.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    bins : int
        F of the input; the state needs it.
    kernel : tuple of int
        Frames and bins; the number of bins is odd (symmetric padding has no other way).
    stride : int
        Over bins. Frames are never skipped: every hop gives one frame.
    dilation : tuple of int
        Over frames and bins.
    groups : int
        As in :class:`torch.nn.Conv2d`.
    bias : bool

    Raises
    ------
    ValueError
        An even number of bins in the kernel, or a size below 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bins: int,
        kernel: tuple[int, int] = (3, 3),
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(bins=bins, kernel=min(kernel), stride=stride, dilation=min(dilation))
        if kernel[1] % 2 == 0:
            raise ValueError(f"the kernel must cover an odd number of bins, got {kernel[1]}.")
        self.inputs, self.bins, self.past_frames = inputs, bins, (kernel[0] - 1) * dilation[0]
        self.output_bins = (bins - 1) // stride + 1
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=(1, stride),
            padding=(0, (kernel[1] - 1) * dilation[1] // 2),
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"past": (self.inputs, self.past_frames, self.bins)} if self.past_frames else {}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map ``[B, inputs, N, F]`` to ``[B, outputs, N, output_bins]``.

        Raises
        ------
        ValueError
            F is not the layer's.
        """
        if x.shape[-1] != self.bins:
            raise ValueError(f"F must be {self.bins}, which the state is made for, got {x.shape[-1]}.")
        state = self.checked_state(state, x.shape[0])
        if not self.past_frames:
            return self.conv(x), {}
        line = torch.cat([state["past"].to(x.dtype), x], dim=2)  # [B, C, past + N, F]
        return self.conv(line), {"past": line[:, :, line.shape[2] - self.past_frames :]}


class CausalConvTranspose1d(StreamingModule):
    """Transposed convolution over ``[B, C, N]`` by overlap-add; every frame gives ``stride`` samples.

    ``y[n * stride + i] = bias + sum over overlapping n of w[i] x[n]``. A frame lasts ``kernel`` samples; what
    lies beyond the present stride waits in the state ``tail`` ``[B, outputs, kernel - stride]`` (none when
    that is 0). The bias is added once, after the overlap.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel, stride : int
        Samples; ``kernel >= stride``, or the output would have gaps.
    groups : int
        As in :class:`torch.nn.ConvTranspose1d`.
    bias : bool

    Attributes
    ----------
    latency : int
        ``kernel - stride`` in samples of the output: a :class:`CausalConv1d` with the same kernel and stride
        hands it frames that began so much before the present stride, and it writes them from there on. As
        with the inverse STFT, the output is one overlap late.

    Raises
    ------
    ValueError
        The kernel is shorter than the stride, or a size is below 1.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        _check_sizes(kernel=kernel, stride=stride)
        if kernel < stride:
            raise ValueError(f"the kernel must be at least the stride {stride}, got {kernel} samples.")
        self.outputs, self.stride, self.tail_samples = outputs, stride, kernel - stride
        self.latency = kernel - stride
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride, groups=groups, bias=bias)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"tail": (self.outputs, self.tail_samples)} if self.tail_samples else {}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map frames ``[B, inputs, N]`` to samples ``[B, outputs, N * stride]``."""
        state = self.checked_state(state, x.shape[0])
        if not self.tail_samples:
            return self.conv(x), {}
        full = nn.functional.conv_transpose1d(
            x, self.conv.weight, stride=self.stride, groups=self.conv.groups
        )  # [B, outputs, N * stride + tail]
        head = full[..., : self.tail_samples] + state["tail"]
        full = torch.cat([head, full[..., self.tail_samples :]], dim=-1)
        samples = x.shape[-1] * self.stride
        y = full[..., :samples]
        if self.conv.bias is not None:
            y = y + self.conv.bias[:, None]
        return y, {"tail": full[..., samples:]}


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}.")
