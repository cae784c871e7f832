"""Analysis and synthesis: what the formulas say, kernel by kernel, and a frame that gives the signal back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.metatasnet.filterbank import Analysis, Bank, Synthesis, cosine_frame


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("lengths", "stride"), [((4, 8, 16), 4), ((6, 16), 4), ((8,), 8)])
@torch.no_grad()
def test_latents_and_samples_are_sums_over_kernels(lengths: tuple[int, ...], stride: int, centred: bool) -> None:
    torch.manual_seed(0)
    bank = Bank(lengths, tuple(3 + i for i in range(len(lengths))), stride, centred)
    analysis, synthesis = Analysis(bank, 2).double(), Synthesis(bank, 2).double()
    frames, span = 9, max(lengths)
    x = torch.randn(1, 2, frames * stride, dtype=torch.float64)
    latents, delayed, _ = analysis(x)
    line = np.pad(x[0].numpy(), ((0, 0), (span - stride, 0)))
    np.testing.assert_array_equal(delayed[0].numpy(), line[:, : frames * stride])
    result = np.zeros((2, frames * stride + span))
    place = 0
    for length, forth, back in zip(lengths, analysis.kernels, synthesis.kernels, strict=True):
        start = (span - length) // 2 if centred else span - length
        for n in range(frames):
            piece = line[:, n * stride + start : n * stride + start + length]
            expected = piece @ forth.numpy().T  # [C, D of this length]
            got = latents[0, :, n, place : place + len(forth)].numpy()
            np.testing.assert_allclose(got, expected, atol=1e-12)
            result[:, n * stride + start : n * stride + start + length] += expected @ back.numpy()
        place += len(forth)
    got, _ = synthesis(latents)
    np.testing.assert_allclose(got[0].numpy(), result[:, : frames * stride], atol=1e-12)


@pytest.mark.parametrize(
    ("lengths", "latents", "stride", "decibels"), [((512, 1024), (256, 128), 256, -60), ((32, 64), (16, 8), 16, -40)]
)
@torch.no_grad()
def test_the_cosine_frame_gives_the_signal_back(
    lengths: tuple[int, ...], latents: tuple[int, ...], stride: int, decibels: float
) -> None:
    bank = Bank(lengths, latents, stride)
    modules = Analysis(bank, 1), Synthesis(bank, 1)
    for module, kernels in zip(modules, cosine_frame(bank), strict=True):
        assert [tuple(k.shape) for k in kernels] == list(zip(latents, lengths, strict=True))
        for parameter, kernel in zip(module.kernels, kernels, strict=True):
            parameter.copy_(kernel)
    x = torch.randn(1, 1, stride * 60, generator=torch.Generator().manual_seed(0))  # white: every frequency
    encoded, delayed, _ = modules[0](x)
    decoded, _ = modules[1](encoded)
    error = (decoded - delayed)[..., 8 * stride :].square().sum() / delayed[..., 8 * stride :].square().sum()
    assert float(10 * torch.log10(error)) < decibels


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"how many of each of the kernels \(8, 16\), got \(4,\)"):
        Bank((8, 16), (4,), 8)
    with pytest.raises(ValueError, match="stride must divide 16 and be at most 8, got 5"):
        Bank((8, 16), (4, 4), 5)
    with pytest.raises(ValueError, match="at most 4, got 8"):
        Bank((4, 16), (4, 4), 8)
