"""The streaming resampler: exact counts, a delay that is what it says, the same bits whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.audio.resampler import QUALITIES, StreamResampler, minimum_delay, whole_delay
from rtsep.errors import UsageError

RATES = [(44100, 48000), (48000, 44100), (96000, 48000), (8000, 48000), (48000, 8000), (192000, 44100), (11025, 48000)]


def run(resampler: StreamResampler, audio: np.ndarray, blocks: list[int]) -> np.ndarray:
    """Feed `audio` in blocks of the given sizes, over and over."""
    out, start, index = [], 0, 0
    while start < audio.shape[1]:
        size = blocks[index % len(blocks)]
        out.append(resampler.process(audio[:, start : start + size]))
        start, index = start + size, index + 1
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("quality", QUALITIES)
def test_output_is_the_whole_files_resampling_at_the_stated_delay(rates: tuple[int, int], quality: str) -> None:
    in_rate, out_rate = rates
    audio = np.random.default_rng(0).standard_normal((2, in_rate)).astype(np.float32)
    resampler = StreamResampler(in_rate, out_rate, 2, quality)
    out = run(resampler, audio, [128])
    whole = soxr.ResampleStream(in_rate, out_rate, 2, "float32", quality).resample_chunk(audio.T.copy(), last=True).T
    delay = resampler.delay_samples
    assert out.shape[1] == in_rate * out_rate // in_rate
    assert not out[:, :delay].any()
    length = out.shape[1] - delay
    assert length > out_rate // 3
    np.testing.assert_array_equal(out[:, delay:], whole[:, :length])


@pytest.mark.parametrize("rates", RATES)
def test_an_impulse_comes_where_the_delay_says(rates: tuple[int, int]) -> None:
    in_rate, out_rate = rates
    at = 147 * 160 * in_rate // 48000  # lies on a whole output sample at every pair here
    at -= at % in_rate if in_rate < 100 else 0
    audio = np.zeros((1, 2 * in_rate), np.float32)
    audio[0, at] = 1.0
    resampler = StreamResampler(in_rate, out_rate, 1, "HQ")
    out = run(resampler, audio, [441])[0].astype(np.float64)
    energy = out**2
    centre = float((np.arange(len(out)) * energy).sum() / energy.sum())
    assert centre == pytest.approx(resampler.delay_samples + at * out_rate / in_rate, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(RATES),
    st.sampled_from(["QQ", "LQ"]),
    st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
def test_blocks_change_neither_bits_nor_counts(rates: tuple[int, int], quality: str, blocks: list[int]) -> None:
    in_rate, out_rate = rates
    audio = np.random.default_rng(1).standard_normal((1, 6000)).astype(np.float32)
    resampler = StreamResampler(in_rate, out_rate, 1, quality)
    expected = StreamResampler(in_rate, out_rate, 1, quality).process(audio)
    taken, parts, index = 0, [], 0
    while taken < 6000:
        size = min(blocks[index % len(blocks)], 6000 - taken)
        parts.append(resampler.process(audio[:, taken : taken + size]))
        taken, index = taken + size, index + 1
        assert sum(part.shape[1] for part in parts) == taken * out_rate // in_rate
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("quality", QUALITIES)
def test_the_calibrated_delay_holds_for_a_minute(rates: tuple[int, int], quality: str) -> None:
    in_rate, out_rate = rates
    resampler = StreamResampler(in_rate, out_rate, 1, quality)
    block = np.zeros((1, 997), np.float32)
    total = 0
    for _ in range(60 * in_rate // 997):
        total += resampler.process(block).shape[1]
    assert total == resampler.samples_in * out_rate // in_rate


def test_reset_is_a_new_resampler() -> None:
    audio = np.random.default_rng(2).standard_normal((2, 5000)).astype(np.float32)
    resampler = StreamResampler(44100, 48000, 2, "LQ")
    first = resampler.process(audio)
    resampler.process(audio[:, :777])
    resampler.reset()
    np.testing.assert_array_equal(resampler.process(audio), first)


def test_equal_rates_pass_through() -> None:
    audio = np.random.default_rng(3).standard_normal((2, 100)).astype(np.float32)
    resampler = StreamResampler(48000, 48000, 2)
    assert resampler.delay_samples == 0
    np.testing.assert_array_equal(resampler.process(audio), audio)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("latency", [0, 1, 512, 700])
def test_whole_delay_makes_the_sum_whole_at_the_device(rates: tuple[int, int], latency: int) -> None:
    device, model = rates
    shortest = minimum_delay(device, model, "LQ")
    delay = whole_delay(shortest, latency, device, model)
    assert delay >= shortest
    assert (delay + latency) * device % model == 0
    assert delay - shortest < model


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((7999, 48000, 1), "8000 to 192000"),
        ((48000, 192001, 1), "8000 to 192000"),
        ((48000, 44100, 0), "channels"),
        ((48000, 44100, 1, "best"), "QQ, LQ, MQ, HQ, VHQ"),
        ((48000, 44100, 1, "HQ", 3), "delay_samples must be"),
    ],
)
def test_values_out_of_range_are_named(arguments: tuple, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        StreamResampler(*arguments)
