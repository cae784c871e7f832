"""Streaming STFT and inverse: reconstruction, latency, scale, and the two implementations of the DFT."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.streaming.stft import StreamingISTFT, StreamingSTFT, asymmetric_windows

SHAPES = [(64, 16), (64, 32), (96, 24), (480, 120), (2048, 512), (4096, 512), (4096, 128)]
both = pytest.mark.parametrize("implementation", ["fft", "factored"])


def pair(window: int, hop: int, implementation: str, channels: int = 2) -> tuple[StreamingSTFT, StreamingISTFT]:
    stft = StreamingSTFT(window, hop, channels)
    stft.dft.implementation = implementation  # type: ignore[assignment]
    return stft, StreamingISTFT(stft, channels)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


@both
@pytest.mark.parametrize(("window", "hop"), SHAPES)
def test_reconstruction_is_the_input_one_hop_late(window: int, hop: int, implementation: str) -> None:
    stft, istft = pair(window, hop, implementation)
    hops = max(6, 2 * window // hop)
    x = noise(2, 2, hops * hop)
    re, im, delayed, _ = stft(x)
    y, _ = istft(re, im)
    late = torch.cat([torch.zeros(2, 2, hop), x[..., :-hop]], dim=-1)
    assert torch.equal(delayed, late)
    # From the first sample on: nothing has to fill up first.
    torch.testing.assert_close(y, late, rtol=0, atol=3e-6)


@both
@pytest.mark.parametrize(("window", "hop"), [(64, 16), (2048, 512)])
def test_an_impulse_is_late_by_the_latency(window: int, hop: int, implementation: str) -> None:
    stft, istft = pair(window, hop, implementation)
    assert (stft.latency, istft.latency) == (0, hop)
    for at in (0, hop - 1, hop, 3 * hop + 5):
        x = torch.zeros(1, 2, 8 * hop)
        x[..., at] = 1.0
        re, im, _, _ = stft(x)
        y, _ = istft(re, im)
        expected = torch.zeros_like(x)
        expected[..., at + stft.latency + istft.latency] = 1.0
        torch.testing.assert_close(y, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("window", "hop"), SHAPES)
def test_overlapping_window_products_add_to_one(window: int, hop: int) -> None:
    analysis, synthesis = asymmetric_windows(window, hop)
    assert analysis.shape == (window,)
    assert synthesis.shape == (2 * hop,)
    product = analysis[-2 * hop :].double() * synthesis.double()
    torch.testing.assert_close(product[:hop] + product[hop:], torch.ones(hop).double(), rtol=0, atol=1e-6)
    # The synthesis window must not amplify what a mask leaves at a frame's edges.
    assert float(synthesis.min()) > 0.0
    assert float(synthesis.max()) < 2.5


@both
def test_bins_are_those_of_the_windowed_frames(implementation: str) -> None:
    window, hop = 64, 16
    stft, _ = pair(window, hop, implementation)
    x = noise(1, 2, 5 * hop)
    re, im, _, _ = stft(x)
    assert re.shape == (1, 2, 5, 33)
    rise = np.sin(np.pi / 2 * (np.arange(window - hop) + 0.5) / (window - hop))
    fall = np.cos(np.pi / 2 * (np.arange(hop) + 0.5) / hop)
    analysis = np.concatenate([rise, fall])
    analysis *= 2 / analysis.sum()
    line = np.concatenate([np.zeros((2, window - hop)), x[0].double().numpy()], axis=-1)
    for n in range(5):
        frame = line[:, n * hop : n * hop + window] * analysis
        torch.testing.assert_close(
            torch.complex(re, im)[0, :, n].to(torch.complex128),
            torch.from_numpy(np.fft.rfft(frame)),
            rtol=0,
            atol=1e-6,
        )


@pytest.mark.parametrize(("window", "hop"), [(1024, 256), (4096, 512)])
def test_a_full_scale_sine_has_magnitude_one_in_its_bin(window: int, hop: int) -> None:
    stft, _ = pair(window, hop, "fft", channels=1)
    t = torch.arange(2 * window, dtype=torch.float64)
    x = torch.sin(2 * math.pi * 20 * t / window).float()[None, None]
    re, im, _, _ = stft(x)
    magnitude = torch.hypot(re, im)[0, 0, -1]
    assert int(magnitude.argmax()) == 20
    assert float(magnitude[20]) == pytest.approx(1.0, abs=1e-3)


def test_both_implementations_agree_over_a_stream() -> None:
    x = noise(1, 2, 64 * 512)
    outputs = []
    for implementation in ("fft", "factored"):
        stft, istft = pair(4096, 512, implementation)
        re, im, _, _ = stft(x)
        outputs.append((re, im, istft(0.5 * re, 0.5 * im)[0]))
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 \\* hop = 128 samples, got 64"):
        asymmetric_windows(64, 64)
    stft, _ = pair(64, 16, "fft")
    with pytest.raises(ValueError, match=r"multiple of the hop 16, got \[1, 2, 20\]"):
        stft(torch.zeros(1, 2, 20))
