"""What is read of the engine's memory, against signals and counters that are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rtsep.console.config import ConsoleConfig
from rtsep.console.watch import BANDS, CEILING_DB, FLOOR_DB, WINDOW, Spectra, Watch, band_weights
from rtsep.engine.shared import SharedBlock
from rtsep.engine.stats import INDEX, bin_of
from rtsep.notes.tap import Tap, TapLayout
from tests.console.conftest import Frame

RATE = 48_000
STEMS = ("drums", "vocals")


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_every_band_hears_something_and_its_own_pitch_best(rate: int) -> None:
    weights = band_weights(rate)
    assert weights.shape == (WINDOW // 2 + 1, BANDS)
    assert (weights.sum(axis=0) > 0.5).all()
    centres = (weights * np.arange(len(weights))[:, np.newaxis]).sum(axis=0) / weights.sum(axis=0)
    assert (np.diff(centres) > 0).all()


@pytest.mark.parametrize("hz", [110.0, 1000.0, 9000.0])
def test_a_sine_is_loudest_in_its_band_at_its_level(hz: float) -> None:
    spectra = Spectra(2, RATE)
    sine = 0.1 * np.sin(2 * np.pi * hz * np.arange(WINDOW) / RATE)
    spectra.push(np.stack([np.stack([sine, sine]), np.zeros((2, WINDOW))]).astype(np.float32))
    levels = spectra.levels()
    assert levels.dtype == np.uint8
    assert not levels[1].any()
    loudest = int(levels[0].argmax())
    edges = 40.0 * 400.0 ** (np.arange(BANDS + 2) / (BANDS + 1))
    assert edges[loudest] * 0.9 <= hz <= edges[loudest + 2] * 1.1
    level_db = FLOOR_DB + levels[0].max() * (CEILING_DB - FLOOR_DB) / 255
    assert level_db == pytest.approx(-20.0, abs=3.0)


@pytest.fixture
def memory() -> Iterator[tuple[SharedBlock, Tap, Watch]]:
    block = SharedBlock()
    tap = Tap.create(TapLayout(2, 2, 512, 40))
    try:
        config = ConsoleConfig(str(block.path), str(tap.path), STEMS, RATE, RATE, 700, "127.0.0.1", None, None, {})
        yield block, tap, Watch(config)
    finally:
        block.unlink()
        tap.unlink()


def put(tap: Tap, hop: int, level: float) -> None:
    rng = np.random.default_rng(hop)
    tap.put(0, hop, 1000, hop, 3, (level * rng.standard_normal((2, 2, 512))).astype(np.float32))
    tap.publish()


def test_a_frame_says_what_is_in_the_memory(memory: tuple[SharedBlock, Tap, Watch]) -> None:
    block, tap, watch = memory
    _, meters = block.mixer(STEMS)
    meters.peak[:], meters.rms[:] = (1.0, 0.1), (0.5, 0.0)
    meters.values[-3:] = (0.25, 0.01, 7)
    for name, value in (
        ("hops", 93),
        ("late_hops", 2),
        ("input_overflow", 3),
        ("output_underflow", 1),
        ("position", 96_000),
    ):
        block.counters[INDEX[name]] = value
    block.counters[INDEX["hop_period_ns"]], block.counters[INDEX["hop_max_ns"]] = 10_666_667, 8_000_000
    block.histogram[bin_of(2_000_000)] = 2
    block.histogram[bin_of(8_000_000)] = 1
    for hop in range(6):
        put(tap, hop, 0.1)
    frame = Frame(watch.frame())
    assert (frame.stems, frame.hops, frame.late, frame.xruns, frame.clipped) == (2, 93, 2, 4, 7)
    assert frame.position == 2.0
    np.testing.assert_allclose(frame.levels, [0, -20, -6.02, -120, -12.04, -40], atol=0.011)
    np.testing.assert_allclose(frame.hop_times, [8.0, 2.0, 2.0], rtol=0.02)
    assert frame.period == pytest.approx(10.667, abs=1e-3)
    assert frame.longest == pytest.approx(8.0)
    assert frame.spectra.max() > 60
    # The middle of the window: 1024 samples before the end of hop 5, and the stems lie 700 later than the sound.
    assert frame.column == pytest.approx((1000 + 6 * 512 - WINDOW / 2 - 700) / RATE)


def test_hop_times_are_told_once_and_a_frame_without_stems_has_no_spectrum(
    memory: tuple[SharedBlock, Tap, Watch],
) -> None:
    block, tap, watch = memory
    block.histogram[bin_of(5_000_000)] = 4
    put(tap, 0, 0.1)
    assert len(Frame(watch.frame()).hop_times) == 4
    block.histogram[bin_of(5_000_000)] += 1
    again = Frame(watch.frame())
    assert len(again.hop_times) == 1
    assert again.bands == 0
    assert again.number == 2


def test_levels_that_are_no_numbers_are_silence(memory: tuple[SharedBlock, Tap, Watch]) -> None:
    block, _, watch = memory
    _, meters = block.mixer(STEMS)
    meters.peak[:] = np.nan, np.inf
    levels = Frame(watch.frame()).levels
    assert levels[0] == -120
    assert levels[1] == 120


def test_what_is_lost_is_an_event_with_its_time_and_count(memory: tuple[SharedBlock, Tap, Watch]) -> None:
    block, _, watch = memory
    assert watch.look() == []
    block.counters[INDEX["position"]] = 24_000
    block.counters[INDEX["late_hops"]] = 3
    block.counters[INDEX["output_underflow"]] = 1
    assert watch.look() == [{"at": 0.5, "kind": "late", "count": 3}, {"at": 0.5, "kind": "xrun", "count": 1}]
    assert watch.look() == []
    assert len(watch.events) == 2


def test_the_engines_memory_cannot_be_written(memory: tuple[SharedBlock, Tap, Watch]) -> None:
    block, tap, _ = memory
    looked = SharedBlock(block.path, readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        looked.counters[0] = 1
    reader = Tap(tap.path, readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        reader.beat(1)


def test_two_readers_of_a_tap_do_not_disturb_each_other(memory: tuple[SharedBlock, Tap, Watch]) -> None:
    _, tap, watch = memory
    other = Tap(tap.path, readonly=True)
    for hop in range(5):
        put(tap, hop, 0.1)
        watch.frame()
    assert [other.read().hop for _ in range(5)] == [0, 1, 2, 3, 4]  # type: ignore[union-attr]
