"""Causal convolutions against torch's own on a padded clip, and their delays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.streaming.conv import CausalConv1d, CausalConv2d, CausalConvTranspose1d
from tests.models.streaming.cases import CASES, Case, call

X1 = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X2 = torch.randn(2, 3, 10, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (3, 1, 5), (8, 4, 1), (4, 3, 2)])
def test_conv1d_is_torchs_on_a_clip_padded_on_the_left(kernel: int, stride: int, dilation: int) -> None:
    layer = CausalConv1d(3, 5, kernel, stride, dilation).double()
    y, _ = layer(X1)
    padded = functional.pad(X1, ((kernel - 1) * dilation + 1 - stride, 0))
    expected = functional.conv1d(padded, layer.conv.weight, layer.conv.bias, stride, dilation=dilation)
    torch.testing.assert_close(y, expected)
    assert y.shape == (2, 5, 24 // stride)


def test_conv1d_follows_its_written_formula() -> None:
    layer = CausalConv1d(1, 1, kernel=3, stride=2, dilation=2).double()
    w, bias = layer.conv.weight[0, 0].tolist(), layer.conv.bias.item()
    x = X1[0, 0].tolist()
    y, _ = layer(X1[:1, :1])

    def sample(t: int) -> float:
        return x[t] if t >= 0 else 0.0

    expected = [bias + sum(w[i] * sample((m + 1) * 2 - 1 - (3 - 1 - i) * 2) for i in range(3)) for m in range(12)]
    torch.testing.assert_close(y[0, 0].tolist(), expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [((3, 3), 1, (1, 1)), ((2, 5), 2, (3, 1)), ((1, 3), 3, (1, 2))]
)
def test_conv2d_is_torchs_on_frames_padded_before(
    kernel: tuple[int, int], stride: int, dilation: tuple[int, int]
) -> None:
    layer = CausalConv2d(3, 4, 7, kernel, stride, dilation).double()
    y, _ = layer(X2)
    side = (kernel[1] - 1) * dilation[1] // 2
    padded = functional.pad(X2, (side, side, (kernel[0] - 1) * dilation[0], 0))
    expected = functional.conv2d(padded, layer.conv.weight, layer.conv.bias, stride=(1, stride), dilation=dilation)
    torch.testing.assert_close(y, expected)
    assert y.shape == (2, 4, 10, layer.output_bins)


@pytest.mark.parametrize(("kernel", "stride", "bias"), [(8, 4, True), (4, 4, True), (7, 3, False), (20, 4, True)])
def test_transposed_is_torchs_without_the_end(kernel: int, stride: int, bias: bool) -> None:
    layer = CausalConvTranspose1d(3, 5, kernel, stride, bias=bias).double()
    y, _ = layer(X1)
    expected = functional.conv_transpose1d(X1, layer.conv.weight, layer.conv.bias, stride)
    torch.testing.assert_close(y, expected[..., : 24 * stride])


def test_weights_are_those_of_the_plain_layers() -> None:
    CausalConv1d(3, 5, 3).conv.load_state_dict(nn.Conv1d(3, 5, 3, padding=1).state_dict())
    CausalConv2d(3, 5, 7).conv.load_state_dict(nn.Conv2d(3, 5, 3, padding=1).state_dict())
    CausalConvTranspose1d(3, 5, 4, 2).conv.load_state_dict(nn.ConvTranspose1d(3, 5, 4, 2).state_dict())
    assert set(CausalConv1d(3, 5, 3).state_dict()) == {"conv.weight", "conv.bias"}


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.name.startswith("conv") and "stride" not in case.name],
    ids=lambda case: case.name,
)
def test_an_impulse_comes_out_at_once_and_not_before(case: Case) -> None:
    module: Any = case.module()
    assert module.latency == 0
    x = torch.zeros(case.inputs[0].sized(12), dtype=torch.float64)
    x.select(case.inputs[0].time, 5).fill_(1.0)
    (silent,), _ = call(module, (torch.zeros_like(x),), None)
    (y,), _ = call(module, (x,), None)
    moved = (y - silent).abs().movedim(case.outputs[0].time, 0).flatten(1).amax(1)  # [N]
    assert int(moved.nonzero()[0]) == 5 + module.latency


@pytest.mark.parametrize(("kernel", "stride"), [(4, 4), (8, 4), (12, 4), (9, 3)])
def test_a_pair_of_framing_and_overlap_add_is_late_by_its_latency(kernel: int, stride: int) -> None:
    analysis = CausalConv1d(1, kernel, kernel, stride, bias=False)
    synthesis = CausalConvTranspose1d(kernel, 1, kernel, stride, bias=False)
    with torch.no_grad():
        analysis.conv.weight.copy_(torch.eye(kernel)[:, None])  # a frame's samples as channels
        synthesis.conv.weight.copy_(torch.eye(kernel)[:, None] * stride / kernel)
        x = torch.zeros(1, 1, 20 * stride)
        x[..., 7 * stride + 1] = 1.0
        y, _ = synthesis(analysis(x)[0])
    assert synthesis.latency == kernel - stride
    expected = torch.zeros_like(x)
    expected[..., 7 * stride + 1 + analysis.latency + synthesis.latency] = 1.0
    torch.testing.assert_close(y, expected)


def test_sizes_that_cannot_stream_are_refused() -> None:
    with pytest.raises(ValueError, match="must span at least the stride 4, got 3 samples"):
        CausalConv1d(1, 1, kernel=3, stride=4)
    with pytest.raises(ValueError, match="dilation must be 1 or more, got 0"):
        CausalConv1d(1, 1, kernel=3, dilation=0)
    with pytest.raises(ValueError, match="odd number of bins, got 4"):
        CausalConv2d(1, 1, bins=9, kernel=(3, 4))
    with pytest.raises(ValueError, match="at least the stride 4, got 2 samples"):
        CausalConvTranspose1d(1, 1, kernel=2, stride=4)
    with pytest.raises(ValueError, match="stride must be 1 or more, got 0"):
        CausalConvTranspose1d(1, 1, kernel=2, stride=0)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the stride 4, got 6"):
        CausalConv1d(1, 1, kernel=4, stride=4)(torch.zeros(1, 1, 6))
    with pytest.raises(ValueError, match="F must be 9, which the state is made for, got 8"):
        CausalConv2d(1, 1, bins=9)(torch.zeros(1, 1, 4, 8))
