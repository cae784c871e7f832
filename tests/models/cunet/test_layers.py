"""The halving and doubling layers against what upstream's strided ones compute."""

from __future__ import annotations

import torch
from torch import Tensor

from models.cunet.layers import DoublingConv, HalvingConv
from models.cunet.reference import CUNet, ReferenceConfig
from models.cunet.streaming import StreamingCUNet


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def test_doubling_is_the_transposed_convolution_over_bands() -> None:
    """By the definition: every input frame and band adds the kernel to what lies above it, then 1 and 2 bands go."""
    layer = DoublingConv(3, 2, bands=6, frames=3, dilation=2).double()
    x = noise(2, 3, 7, 6)
    full = torch.zeros(2, 2, 7 + 4, 2 * 6 + 3, dtype=torch.float64)
    for frame in range(7):
        for band in range(6):
            for tap in range(3):
                spread = torch.einsum("bc,cok->bok", x[:, :, frame, band], layer.conv.weight[:, :, tap])
                full[:, :, frame + 2 * tap, 2 * band : 2 * band + 5] += spread
    expected = full[:, :, :7, 1:-2] + layer.conv.bias[:, None, None]
    got, _ = layer(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_halving_is_keras_padding_over_bands() -> None:
    layer = HalvingConv(3, 2, bands=6, frames=1, dilation=1).double()
    x = noise(2, 3, 7, 6)
    padded = torch.nn.functional.pad(x, (1, 2))
    windows = padded.unfold(-1, 5, 2)  # [B, C, N, 3, 5]
    expected = torch.einsum("bcnfk,ock->bonf", windows, layer.conv.weight[:, :, 0]) + layer.conv.bias[:, None, None]
    got, state = layer(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert state == {}


@torch.no_grad()
def test_the_encoder_computes_what_the_strided_one_does_at_every_frame() -> None:
    """Stage k at frame ``2^(k + 1) m + shift`` is upstream's frame m there; in between lies what upstream skips."""
    torch.manual_seed(0)
    config = ReferenceConfig("complex_dense", (3, 4, 5), (4, 5, 6), frames=256, window=32, hop=8)
    reference = CUNet(config).eval().double()
    model = StreamingCUNet.from_reference(reference.float()).eval().double()
    reference.double()
    x = noise(1, 1, 256, 16).abs()  # [B, C, N, F]
    theirs, mine, shift = x.transpose(2, 3), x, 0
    for index, dilation in enumerate((1, 2, 4)):
        theirs = reference.encoder[index](torch.nn.functional.pad(theirs, (1, 2, 1, 2)))
        mine, _ = model.encoder[index](mine)
        shift += 3 * dilation
        matched = mine[:, :, shift :: 2 * dilation]
        inside = slice(30 // dilation, matched.shape[2] - 30 // dilation)  # away from the patch's own edges
        frames = theirs.transpose(2, 3)[:, :, : matched.shape[2]]
        torch.testing.assert_close(matched[:, :, inside], frames[:, :, inside], rtol=0, atol=1e-9)
        assert matched[:, :, inside].shape[2] > 10
        theirs, mine = torch.relu(theirs), torch.relu(mine)
