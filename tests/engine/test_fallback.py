"""The ladder: what each rung does to the signal, and that its edges do not click."""

from __future__ import annotations

import numpy as np
import pytest

from rtsep.engine.fallback import HOLD_HOPS, Fallback
from rtsep.engine.stats import BINS, bin_of, percentile_ms

RATE, HOP, FADE = 48_000, 512, 240


def dry(frames: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((2, frames))).astype(np.float32)


def test_with_nothing_changed_it_is_the_delayed_input_bit_for_bit() -> None:
    fallback, signal = Fallback(2, RATE, HOP, FADE), dry(6000)
    fallback.begin(signal[:, 0], signal[:, 0])
    out = signal[:, 1:].copy()
    rungs = [fallback.shape(out[:, start : start + 500]) for start in range(0, 5999, 500)]
    np.testing.assert_array_equal(out, signal[:, 1:])
    assert rungs[0] is False
    assert rungs[-1] is True


def test_the_held_gain_stays_while_something_is_muted() -> None:
    fallback, signal = Fallback(2, RATE, HOP, FADE), dry(100_000)
    fallback.hold[:] = (0.5, 0.25)
    fallback.intact_gain = None
    fallback.begin(signal[:, 0], signal[:, 0] * np.float32([0.5, 0.25]))
    out = signal.copy()
    rungs = [fallback.shape(out[:, start : start + 1000]) for start in range(0, 100_000, 1000)]
    assert not any(rungs)
    np.testing.assert_array_equal(out, signal * np.float32([[0.5], [0.25]]))


def test_with_nothing_muted_it_glides_to_the_delayed_input_after_four_hops() -> None:
    fallback = Fallback(1, RATE, HOP, FADE)
    fallback.hold[:] = 0.5
    fallback.begin(np.float32([1.0]), np.float32([0.5]))
    out = np.ones((1, 20 * HOP), np.float32)
    rungs = [fallback.shape(out[:, start : start + 64]) for start in range(0, 20 * HOP, 64)]
    assert rungs.index(True) == HOLD_HOPS * HOP // 64
    assert (out[0, : HOLD_HOPS * HOP] == 0.5).all()
    assert out[0, -1] == 1.0
    assert np.diff(out[0]).max() <= 1.01 / (0.05 * RATE)


@pytest.mark.parametrize("played", [0.8, -0.8])
def test_the_step_at_the_edge_is_spread_over_five_milliseconds(played: float) -> None:
    fallback = Fallback(1, RATE, HOP, FADE)
    fallback.begin(np.float32([0.1]), np.float32([played]))
    out = np.full((1, 1000), 0.1, np.float32)
    fallback.shape(out[:, :100])
    fallback.shape(out[:, 100:])
    everything = np.concatenate([[played], out[0]])
    assert np.abs(np.diff(everything)).max() < 1.2 * abs(played - 0.1) / FADE
    assert out[0, FADE] == np.float32(0.1)


def test_begun_hops_are_counted_once() -> None:
    fallback = Fallback(1, RATE, HOP, FADE)
    fallback.begin(np.float32([0.0]), np.float32([0.0]))
    counts = []
    for size in (100, 412, 1, 511, 513):
        fallback.shape(np.zeros((1, size), np.float32))
        counts.append(fallback.hop_begun)
    assert counts == [1, 0, 1, 0, 2]


def test_percentiles_of_the_histogram_are_within_two_percent() -> None:
    times = np.random.default_rng(0).lognormal(np.log(0.4e6), 0.5, 20_000).astype(int)
    histogram = np.zeros(BINS, np.int64)
    for time in times:
        histogram[bin_of(int(time))] += 1
    for percent in (50, 95, 99, 99.9):
        exact = float(np.percentile(times, percent)) / 1e6
        assert percentile_ms(histogram, percent) == pytest.approx(exact, rel=0.02)
    assert percentile_ms(np.zeros(BINS, np.int64), 99) == 0.0
    assert bin_of(0) == 0
    assert bin_of(10**13) == BINS - 1
