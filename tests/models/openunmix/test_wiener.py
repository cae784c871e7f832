"""The Wiener filters against brute force in NumPy, against norbert, and on sources they must help with."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.openunmix.wiener import RecursiveWiener, wiener

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # norbert asks for a SciPy namespace on its way out
    import norbert

Complex = NDArray[np.complex128]
EPSILON = 1e-10


def brute_force(x: Complex, v: NDArray[np.float64], iterations: int, softmask: bool, residual: bool) -> Complex:
    """Filter one window ``[C, F, N]`` with ``[S, C, F, N]``, one bin at a time and with a general inverse."""
    channels, bins, frames = x.shape
    y = np.zeros((len(v), *x.shape), complex)
    for index in np.ndindex(*y.shape):
        place = index[1:]
        if softmask:
            y[index] = x[place] * v[index] / (EPSILON + sum(v[k][place] for k in range(len(v))))
        else:
            y[index] = v[index] * np.exp(1j * np.angle(x[place]))
    if residual:
        y = np.concatenate([y, [x - y.sum(0)]])
    scale = max(1.0, np.abs(x).max() / 10.0) if iterations else 1.0
    x, y = x / scale, y / scale
    for _ in range(iterations):
        power = np.zeros((len(y), bins, frames))
        spatial = np.zeros((len(y), bins, channels, channels), complex)
        for j in range(len(y)):
            for f in range(bins):
                total = EPSILON
                for n in range(frames):
                    column = y[j, :, f, n][:, None]
                    power[j, f, n] = np.mean(np.abs(column) ** 2)
                    spatial[j, f] += column @ column.conj().T
                    total += power[j, f, n]
                spatial[j, f] /= total
        new = np.zeros_like(y)
        for f in range(bins):
            for n in range(frames):
                covariance = math.sqrt(EPSILON) * np.eye(channels, dtype=complex)
                for j in range(len(y)):
                    covariance += power[j, f, n] * spatial[j, f]
                for j in range(len(y)):
                    gain = power[j, f, n] * spatial[j, f] @ np.linalg.inv(covariance)
                    new[j, :, f, n] = gain @ x[:, f, n]
        y = new
    return y * scale


def example(channels: int, sources: int, seed: int, level: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return a mixture ``[2, C, 3, 7]`` and magnitudes ``[2, S, C, 3, 7]``."""
    rng = np.random.default_rng(seed)
    x = level * (rng.normal(size=(2, channels, 3, 7)) + 1j * rng.normal(size=(2, channels, 3, 7)))
    v = level * rng.gamma(0.7, 1.0, (2, sources, channels, 3, 7))
    return torch.from_numpy(x), torch.from_numpy(v)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize(("softmask", "residual"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("level", [0.3, 400.0])  # below and above where the window's peak is scaled
def test_filter_is_the_brute_force(
    channels: int, iterations: int, softmask: bool, residual: bool, level: float
) -> None:
    x, v = example(channels, 3, seed=iterations, level=level)
    got = wiener(x, v, iterations=iterations, softmask=softmask, residual=residual)
    assert got.shape == (2, 3 + residual, channels, 3, 7)
    for item in range(2):  # each item of a batch has its own peak and covariances
        expected = brute_force(x[item].numpy(), v[item].numpy(), iterations, softmask, residual)
        np.testing.assert_allclose(got[item].numpy(), expected, rtol=1e-7, atol=1e-9 * level)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("level", [0.3, 400.0])
def test_filter_is_norberts(iterations: int, softmask: bool, level: float) -> None:
    x, v = example(2, 4, seed=11, level=level)
    got = wiener(x[:1], v[:1], iterations=iterations, softmask=softmask)[0]
    expected = norbert.wiener(  # there [N, F, C, S]
        v[0].numpy().transpose(3, 2, 1, 0).copy(),
        x[0].numpy().transpose(2, 1, 0).copy(),
        iterations=iterations,
        use_softmask=softmask,
        eps=EPSILON,
    ).transpose(3, 2, 1, 0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-8 * level)


def test_one_channel_of_magnitudes_serves_both() -> None:
    x, v = example(2, 3, seed=4)
    got = wiener(x, v[:, :, :1], iterations=1)
    expected = wiener(x, v[:, :, :1].expand(-1, -1, 2, -1, -1), iterations=1)
    torch.testing.assert_close(got, expected)


def test_single_precision_comes_back_as_such_and_close() -> None:
    x, v = example(2, 3, seed=5, level=30.0)
    got = wiener(x.to(torch.complex64), v.float(), iterations=2)
    assert got.dtype == torch.complex64
    torch.testing.assert_close(got.to(torch.complex128), wiener(x, v, iterations=2), rtol=0, atol=2e-4)


def test_filtered_sources_and_residual_add_to_the_mixture() -> None:
    x, v = example(2, 3, seed=6)
    y = wiener(x, v, iterations=1, residual=True)
    torch.testing.assert_close(y.sum(1), x, rtol=1e-3, atol=1e-3)
    silent = wiener(torch.zeros_like(x), torch.zeros_like(v), iterations=2)
    assert not silent.abs().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture": torch.zeros(1, 3, 4, 5, dtype=torch.complex64)}, "C 1 or 2, got torch.complex64"),
        ({"mixture": torch.zeros(1, 2, 4, 5)}, "mixture must be complex"),
        ({"magnitudes": torch.zeros(1, 3, 2, 4, 6)}, r"\[1, S, 1 or 2, 4, 5\], got \(1, 3, 2, 4, 6\)"),
        ({"magnitudes": torch.zeros(1, 3, 2, 4, 5, dtype=torch.complex64)}, "absolute values"),
        ({"iterations": -1}, "iterations must be 0 or more, got -1"),
        ({"epsilon": 0.0}, "epsilon must be above 0, got 0"),
    ],
)
def test_arguments_outside_their_range_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "mixture": torch.zeros(1, 2, 4, 5, dtype=torch.complex64),
        "magnitudes": torch.zeros(1, 3, 2, 4, 5),
    } | change
    with pytest.raises(ValueError, match=message):
        wiener(**arguments)


def parts(z: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part as the streaming layers lay them out: complex ``[..., F, N]`` to ``[..., N, F]``."""
    z = z.transpose(-1, -2)
    return z.real.contiguous(), z.imag.contiguous()


def run_recursive(layer: RecursiveWiener, y: Tensor, x: Tensor) -> Tensor:
    re, im, _ = layer(*parts(y), *parts(x))
    return torch.complex(re, im).transpose(-1, -2)


def test_recursive_filter_is_the_brute_force() -> None:
    x, v = example(2, 3, seed=8)
    y = v * torch.exp(1j * x.angle())[:, None]
    layer = RecursiveWiener(3, 3, memory_frames=5.0, regularisation=1e-3)
    got = run_recursive(layer, y, x)[0].numpy()
    ys, xs, forget = y[0].numpy(), x[0].numpy(), 1 - 1 / 5.0
    for f in range(3):
        for n in range(7):
            power = [np.mean(np.abs(ys[j, :, f, n]) ** 2) for j in range(3)]
            share = np.array(power) / sum(power)
            spatial = []
            for j in range(3):
                past = ys[j, :, f, : n + 1]  # nothing later
                weights = forget ** np.arange(n, -1, -1.0)
                num = (weights * past) @ past.conj().T
                spatial.append(num / (weights * np.mean(np.abs(past) ** 2, axis=0)).sum())
            a = sum(share[j] * spatial[j] for j in range(3)) + 1e-3 * np.eye(2)
            for j in range(3):
                expected = share[j] * spatial[j] @ np.linalg.inv(a) @ xs[:, f, n]
                np.testing.assert_allclose(got[j, :, f, n], expected, rtol=1e-9, atol=1e-12)


def test_recursive_filter_that_never_forgets_ends_as_the_window_does() -> None:
    # At the last frame both have seen the same frames; only the regularisation differs, and it is small.
    x, v = example(2, 3, seed=9)
    y = wiener(x, v, iterations=0)
    layer = RecursiveWiener(3, 3, memory_frames=math.inf, regularisation=1e-9)
    got = run_recursive(layer, y, x)[..., -1]
    expected = wiener(x, v, iterations=1)[..., -1]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_recursive_filter_does_not_depend_on_level_and_keeps_silence() -> None:
    x, v = example(2, 3, seed=10)
    y = wiener(x, v, iterations=0)
    layer = RecursiveWiener(3, 3)
    loud = run_recursive(layer, y, x)
    torch.testing.assert_close(run_recursive(layer, 1e-4 * y, 1e-4 * x) / 1e-4, loud, rtol=1e-6, atol=1e-9)
    x, y = x.clone(), y.clone()
    x[..., 4:], y[..., 4:] = 0.0, 0.0
    quiet = run_recursive(layer, y, x)
    assert quiet[..., :4].abs().all()
    assert not quiet[..., 4:].abs().any()


def test_recursive_filter_forgets_to_exact_zero_in_silence() -> None:
    x, v = example(2, 3, seed=3)
    y = wiener(x, v, iterations=0)
    layer = RecursiveWiener(3, 3, memory_frames=2.0)
    re, im = (part.float() for part in parts(x))
    *_, state = layer(*(part.float() for part in parts(y)), re, im)
    quiet, silent = torch.zeros(2, 3, 2, 110, 3), torch.zeros(2, 2, 110, 3)
    *_, state = layer(quiet, quiet, silent, silent, state)  # 2^-110 is a normal number in single precision
    assert not state["covariance"].any()


def test_recursive_filter_stands_single_precision_with_one_source_alone() -> None:
    # Rank one from every side: where an unregularised determinant is nothing but rounding.
    x = torch.randn(1, 1, 3, 200, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    x = 1e3 * torch.cat([x, 0.5 * x], dim=1)
    y = torch.stack([x, torch.zeros_like(x)], dim=1)
    got = run_recursive(RecursiveWiener(2, 3), y, x)
    torch.testing.assert_close(got[:, 0], x, rtol=1e-3, atol=0.5)
    assert not got[:, 1].abs().any()


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """Return mixture ``[1, 2, F, N]``, sources ``[1, S, 2, F, N]`` panned apart, and rough magnitudes of them."""
    generator = torch.Generator().manual_seed(12)
    pan = torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.7, 0.7]], dtype=torch.float64)
    mono = torch.randn(3, 20, 300, generator=generator, dtype=torch.complex128)
    mono = mono * torch.rand(3, 20, 300, generator=generator, dtype=torch.float64).pow(3)  # sparse, as music is
    sources = (pan[:, :, None, None] * mono[:, None])[None]
    noise = torch.randn(sources.shape, generator=generator, dtype=torch.float64)
    return sources.sum(1), sources, sources.abs() * (0.4 * noise).exp() + 0.02


def sdr_db(estimate: Tensor, sources: Tensor) -> float:
    error = (estimate - sources).abs().square().sum()
    return float(10 * torch.log10(sources.abs().square().sum() / error))


def test_both_filters_improve_on_the_masks_they_start_from() -> None:
    x, sources, v = scene()
    start = wiener(x, v, iterations=0, softmask=True)
    offline = wiener(x, v, iterations=1, softmask=True)
    causal = run_recursive(RecursiveWiener(3, 20, memory_frames=100.0), start, x)
    figures = [sdr_db(y, sources) for y in (start, offline, causal)]
    assert figures[1] > figures[0] + 2.0, figures
    assert figures[2] > figures[0] + 2.0, figures


def test_recursive_filter_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"memory_frames must be above 1, got 1.0"):
        RecursiveWiener(2, 3, memory_frames=1.0)
    with pytest.raises(ValueError, match="regularisation must be above 0, got 0"):
        RecursiveWiener(2, 3, regularisation=0)
    y, x = torch.zeros(1, 3, 2, 4, 3), torch.zeros(1, 2, 4, 3)
    with pytest.raises(ValueError, match=r"stems must be \[B, 2, 2, N, 3\].*got \(1, 3, 2, 4, 3\)"):
        RecursiveWiener(2, 3)(y, y, x, x)
