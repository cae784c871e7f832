"""The short resampler in front of the transcribers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.errors import UsageError
from rtsep.notes.decimate import Decimator

RATES = [16000, 22050, 44100, 48000, 96000]


def sine(hertz: float, rate: int, count: int, delay: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * (np.arange(count) - delay) / rate).astype(np.float32)[None]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("hertz", [50.0, 1000.0, 6500.0])
def test_a_tone_comes_out_at_the_declared_delay(rate: int, hertz: float) -> None:
    decimator = Decimator(rate, 16000, 1)
    out = decimator.process(sine(hertz, rate, rate))
    wanted = sine(hertz, 16000, out.shape[1], decimator.delay)
    assert np.abs(out - wanted)[:, 200:].max() < 2e-3
    assert decimator.delay / 16 < 1.6  # ms


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_what_cannot_be_kept_is_gone(rate: int) -> None:
    for hertz in (9500.0, 12000.0, 15900.0, 17000.0):
        out = Decimator(rate, 16000, 1).process(sine(hertz, rate, rate))
        assert 20 * np.log10(np.abs(out[:, 200:]).max()) < -55


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RATES), st.lists(st.integers(0, 700), max_size=12))
def test_cuts_change_nothing_but_rounding(rate: int, cuts: list[int]) -> None:
    audio = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
    whole = Decimator(rate, 16000, 2).process(audio)
    decimator, at, parts = Decimator(rate, 16000, 2), 0, []
    for cut in [*cuts, 4000]:
        parts.append(decimator.process(audio[:, at : at + cut]))
        at += cut
        taken = min(at, 4000)
        assert sum(p.shape[1] for p in parts) == -(-taken * 16000 // rate)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_reset_and_refusals() -> None:
    decimator = Decimator(44100, 16000, 1)
    audio = sine(440, 44100, 1000)
    first = decimator.process(audio)
    decimator.reset()
    np.testing.assert_array_equal(decimator.process(audio), first)
    with pytest.raises(UsageError):
        Decimator(8000, 16000, 1)
