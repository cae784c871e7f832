"""The factored DFT against torch.fft."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.streaming.dft import RealDFT, factor

SIZES = [2, 6, 8, 36, 64, 96, 480, 512, 2048, 4096]


def factored(size: int, tail: int | None = None) -> RealDFT:
    dft = RealDFT(size, tail)
    dft.implementation = "factored"
    return dft


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_forward_is_the_dft(size: int) -> None:
    x = noise(2, 3, size, seed=size)
    re, im = factored(size)(x)
    expected = np.fft.rfft(x.double().numpy())
    assert re.shape == im.shape == (2, 3, size // 2 + 1)
    # 4e-7 of the spectrum's rms was measured; single precision leaves no more.
    limit = 2e-6 * np.sqrt(size)
    assert np.abs(re.numpy() - expected.real).max() < limit
    assert np.abs(im.numpy() - expected.imag).max() < limit


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [1, 2])
def test_inverse_returns_the_end_of_the_frame(size: int, share: int) -> None:
    k2 = factor(size)[1]
    tail = max(k2, size // share // k2 * k2)
    # Any bins, not only those of a real frame: real masks keep the first and last real, others may not.
    re, im = noise(2, size // 2 + 1, seed=1), noise(2, size // 2 + 1, seed=2)
    expected = np.fft.irfft(re.double().numpy() + 1j * im.double().numpy(), n=size)[:, size - tail :]
    for dft in (RealDFT(size, tail), factored(size, tail)):
        got = dft.inverse_tail(re, im)
        assert got.shape == (2, tail)
        assert np.abs(got.numpy() - expected).max() < 2e-6 * max(1.0, np.abs(expected).max())


@settings(max_examples=25, deadline=None)
@given(half=st.integers(1, 150), seed=st.integers(0, 99))
def test_every_even_size_survives_the_round_trip(half: int, seed: int) -> None:
    dft = factored(2 * half)
    x = noise(1, 2 * half, seed=seed)
    torch.testing.assert_close(dft.inverse_tail(*dft(x)), x, rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [2, 12, 64, 480, 4096, 46])
def test_factors_multiply_to_the_size(size: int) -> None:
    k1, k2 = factor(size)
    assert k1 * k2 == size
    assert k1 >= k2
    assert k1 % 2 == 0
    squarer = [k for k in range(k2 + 1, int(size**0.5) + 1) if size % k == 0 and (size // k) % 2 == 0]
    assert not squarer


def test_4096_is_two_products_of_64() -> None:
    assert factor(4096) == (64, 64)


def test_odd_sizes_and_broken_tails_are_refused() -> None:
    with pytest.raises(ValueError, match="even, got 15"):
        factor(15)
    with pytest.raises(ValueError, match="multiple of 8 up to 64, got 12"):
        RealDFT(64, tail=12)
    with pytest.raises(ValueError, match="got 72"):
        RealDFT(64, tail=72)
