"""The mixer against its formula: exactness at unity, ramps against a sample-by-sample oracle, any cut the same bits."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtsep.errors import StemNotFoundError, UsageError
from rtsep.mixer.limiter import CEILING, PeakLimiter
from rtsep.mixer.mixer import Mixer
from rtsep.mixer.settings import MixerSettings

STEMS = ("drums", "bass", "other", "vocals")
RATE = 44100
Audio = NDArray[np.float32]


def sound(length: int, channels: int = 2, seed: int = 0) -> tuple[Audio, Audio]:
    """Dry signal and four stems that sum to it up to rounding."""
    rng = np.random.default_rng(seed)
    stems = rng.uniform(-0.2, 0.2, (len(STEMS), channels, length)).astype(np.float32)
    return stems.sum(0), stems


Change = tuple[int, Callable[[MixerSettings], None]]


def run(mixer: Mixer, dry: Audio, stems: Audio, cuts: Sequence[int], changes: Sequence[Change] = ()) -> Audio:
    """Process in blocks that end at `cuts` and wherever a change is due."""
    out = np.zeros_like(dry)
    edges = sorted({0, dry.shape[1], *(c for c in cuts if 0 < c < dry.shape[1]), *(at for at, _ in changes)})
    for a, b in itertools.pairwise(edges):
        for at, change in changes:
            if at == a:
                change(mixer.settings)
        out[:, a:b] = mixer.process(dry[:, a:b], stems[:, :, a:b])
    return out


def test_all_faders_at_zero_return_the_input_bit_for_bit() -> None:
    dry, stems = sound(5000)
    dry[0, :3] = (1e-42, -0.0, 1.5)  # denormal, negative zero, beyond full scale
    mixer = Mixer(STEMS, 2, RATE)
    out = mixer.process(dry, stems, np.full_like(dry, 7.0))
    assert out.tobytes() == dry.tobytes()


def test_solo_at_zero_db_is_the_stem_bit_for_bit() -> None:
    dry, stems = sound(1000)
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.set_solo("bass", True)
    np.testing.assert_array_equal(mixer.process(dry, stems), stems[1])


def test_two_solos_sum_and_a_muted_solo_is_silent() -> None:
    dry, stems = sound(1000)
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.apply(solo=["bass", "vocals"], gain={"vocals": -6.0})
    np.testing.assert_allclose(mixer.process(dry, stems), stems[1] + 10 ** (-6 / 20) * stems[3], atol=1e-6)
    mixer.settings.apply(mute=["bass", "vocals"])
    mixer.reset()
    assert not mixer.process(dry, stems).any()


def test_mute_is_the_input_without_the_stem() -> None:
    dry, stems = sound(1000)
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.set_mute("vocals", True)
    np.testing.assert_array_equal(mixer.process(dry, stems), dry - stems[3])


@pytest.mark.parametrize(("pan", "left", "right"), [(-1.0, 1.0, 0.0), (-0.5, 1.0, 0.5), (0.0, 1, 1), (1.0, 0.0, 1.0)])
def test_pan_is_a_balance_with_unity_at_the_centre(pan: float, left: float, right: float) -> None:
    dry, stems = sound(100)
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.apply(solo=["other"], pan={"other": pan})
    out = mixer.process(dry, stems)
    np.testing.assert_array_equal(out[0], np.float32(left) * stems[2, 0])
    np.testing.assert_array_equal(out[1], np.float32(right) * stems[2, 1])


def test_pan_leaves_mono_alone() -> None:
    dry, stems = sound(100, channels=1)
    mixer = Mixer(STEMS, 1, RATE)
    mixer.settings.set_pan("bass", -1.0)
    np.testing.assert_array_equal(mixer.process(dry, stems), dry)


def test_bypass_is_dry_whatever_else_is_set() -> None:
    dry, stems = sound(100)
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.apply(mute=STEMS, master_db=-20)
    mixer.settings.bypass = True
    assert mixer.process(dry, stems).tobytes() == dry.tobytes()


def test_every_change_ramps_over_ten_milliseconds() -> None:
    ramp = RATE // 100
    dry = np.ones((2, 2000), np.float32)
    stems = np.full((4, 2, 2000), 0.25, np.float32)
    changes: dict[str, tuple[Callable[[MixerSettings], None], float]] = {
        "mute": (lambda s: s.set_mute("bass", True), 0.75),
        "gain": (lambda s: s.set_gain("bass", -math.inf), 0.75),
        "solo": (lambda s: s.set_solo("bass", True), 0.25),
        "master": (lambda s: setattr(s, "master_db", -math.inf), 0.0),
        "pan": (lambda s: s.set_pan("bass", 1.0), 0.75),
    }
    for name, (change, end) in changes.items():
        out = run(Mixer(STEMS, 2, RATE), dry, stems, [500], [(700, change)])[0]
        np.testing.assert_array_equal(out[:700], 1.0, err_msg=name)
        np.testing.assert_allclose(out[700 : 700 + ramp], np.linspace(1, end, ramp + 1)[1:], atol=2e-6, err_msg=name)
        np.testing.assert_allclose(out[700 + ramp :], end, atol=1e-7, err_msg=name)
        assert np.abs(np.diff(out)).max() < 1.1 / ramp, name


def test_a_change_in_the_middle_of_a_ramp_goes_on_from_there() -> None:
    dry = np.ones((2, 3000), np.float32)
    stems = np.full((4, 2, 3000), 0.25, np.float32)
    mixer = Mixer(STEMS, 2, RATE)
    out = run(
        mixer,
        dry,
        stems,
        [],
        [
            (100, lambda s: s.set_mute("bass", True)),
            (300, lambda s: s.set_mute("bass", False)),
            (301, lambda s: s.set_mute("bass", True)),
            (420, lambda s: s.set_gain("bass", 6)),
        ],
    )[0]
    assert np.abs(np.diff(out)).max() < 0.3 / mixer.ramp_samples
    assert out[-1] == 0.75


def oracle(dry: Audio, stems: Audio, timeline: list[tuple[int, NDArray[np.float64]]], ramp: int) -> NDArray[np.float64]:
    """The formula in float64, one sample after the other, with linear ramps of every g, d, master and bypass."""

    def factors(values: NDArray[np.float64]) -> list[float]:
        gain, pan, mute, solo = (values[k * 4 : k * 4 + 4] for k in range(4))
        rows = []
        for s in range(4):
            g = 0.0 if mute[s] or (solo.any() and not solo[s]) or gain[s] <= -120 else 10 ** (gain[s] / 20)
            rows += [g * min(1.0, 1 - pan[s]), g * min(1.0, 1 + pan[s])]
        master = 10 ** (values[-3] / 20) if values[-3] > -120 else 0.0
        return [*rows, 0.0 if solo.any() else 1.0, master, float(values[-2])]

    out = np.zeros(dry.shape)
    now = factors(timeline[0][1])
    start, goal, since = list(now), list(now), [ramp] * len(now)
    pending = dict(timeline[1:])
    for t in range(dry.shape[1]):
        if t in pending:
            new = factors(pending[t])
            groups = [(0, 1), (2, 3), (4, 5), (6, 7), (8,), (9,), (10,)]
            for group in groups:  # both channels of a strip ramp together
                if any(new[i] != goal[i] for i in group):
                    for i in group:
                        start[i], goal[i], since[i] = now[i], new[i], 0
        for i in range(len(now)):
            if since[i] < ramp:
                since[i] += 1
                now[i] = start[i] + (goal[i] - start[i]) * since[i] / ramp
        d, master, bypass = now[8:]
        for c in range(2):
            mix = d * dry[c, t] + sum((now[2 * s + c] - d) * stems[s, c, t] for s in range(4))
            out[c, t] = (1 - bypass) * master * mix + bypass * dry[c, t]
    return out


@st.composite
def timelines(draw: st.DrawFn) -> list[tuple[int, NDArray[np.float64]]]:
    """Settings at time 0 and up to four changes of everything."""
    result = []
    for at in sorted({0, *draw(st.lists(st.integers(1, 899), max_size=4))}):
        s = MixerSettings(STEMS)
        for stem in STEMS:
            s.set_gain(stem, draw(st.sampled_from([0.0, 0.0, -120.0, -6.0, 12.0])))
            s.set_pan(stem, draw(st.sampled_from([0.0, 0.0, -1.0, 0.3])))
            s.set_mute(stem, draw(st.booleans()))
            s.set_solo(stem, draw(st.sampled_from([False, False, False, True])))
        s.master_db = draw(st.sampled_from([0.0, -3.0]))
        s.bypass = draw(st.sampled_from([False, False, True]))
        result.append((at, s.values))
    return result


def setter(values: NDArray[np.float64]) -> Callable[[MixerSettings], None]:
    return lambda s: np.copyto(s.values, values)


@given(timelines(), st.lists(st.integers(1, 899), max_size=12), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_any_settings_and_any_cut_follow_the_formula(
    timeline: list[tuple[int, NDArray[np.float64]]], cuts: list[int], max_block: int
) -> None:
    dry, stems = sound(900)
    changes = [(at, setter(values)) for at, values in timeline]
    rate = 12000  # a ramp of 120 samples, so that several fit
    whole = run(Mixer(STEMS, 2, rate), dry, stems, [], changes)
    cut = run(Mixer(STEMS, 2, rate, max_block=max_block), dry, stems, cuts, changes)
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_allclose(whole, oracle(dry, stems, timeline, 120), atol=3e-6)


@given(st.lists(st.integers(1, 4999), max_size=20), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_limiter_holds_the_ceiling_and_does_not_depend_on_cuts(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    loud = (rng.standard_normal((2, 5000)) * rng.uniform(0.1, 3, 5000)).astype(np.float32)
    whole, pieces = loud.copy(), loud.copy()
    PeakLimiter(RATE).process(whole)
    limiter = PeakLimiter(RATE)
    edges = sorted({0, 5000, *cuts})
    for a, b in itertools.pairwise(edges):
        limiter.process(pieces[:, a:b])
    np.testing.assert_array_equal(whole, pieces)
    assert np.abs(whole).max() <= CEILING
    gain = whole[0] / loud[0]
    assert (np.diff(gain) < 1.5 / (0.08 * RATE)).all(), "the gain comes back slowly"


def test_limiter_leaves_quiet_sound_alone_and_releases() -> None:
    quiet = np.random.default_rng(1).uniform(-0.9, 0.9, (2, 3000)).astype(np.float32)
    out = quiet.copy()
    PeakLimiter(RATE).process(out)
    assert out.tobytes() == quiet.tobytes()
    step = np.full((1, RATE), 0.5, np.float32)
    step[0, 0] = 2.0
    PeakLimiter(RATE).process(step)
    reduction = 1 - step[0] / 0.5
    reached = reduction[round(0.08 * RATE)] / (1 - CEILING / 2)
    assert reached == pytest.approx(math.exp(-1), rel=1e-3)


def test_limiter_switch_and_clip_count() -> None:
    dry, stems = np.full((2, 100), 1.2, np.float32), np.full((4, 2, 100), 0.3, np.float32)
    mixer = Mixer(STEMS, 2, RATE)
    assert mixer.process(dry, stems).max() == np.float32(1.2)
    assert mixer.meters.clipped == 200
    mixer.settings.limiter = True
    assert mixer.process(dry, stems).max() <= CEILING
    assert mixer.meters.clipped == 200
    mixer.reset()
    assert mixer.meters.clipped == 0


def test_meters_show_levels_after_the_fader() -> None:
    t = np.arange(RATE * 2) / RATE
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    stems = np.zeros((4, 2, len(t)), np.float32)
    stems[1], stems[3] = 0.5 * tone, 0.25 * tone
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.apply(gain={"bass": -6.0206}, mute=["vocals"])
    for a in range(0, len(t), 441):
        mixer.process(stems.sum(0)[:, a : a + 441], stems[:, :, a : a + 441])
    meters = mixer.meters.copy()
    assert meters.peak[1] == pytest.approx(0.25, rel=0.02)
    assert meters.rms[1] == pytest.approx(0.25 / math.sqrt(2), rel=0.02)
    assert meters.peak[3] == meters.peak[0] == 0
    assert meters.master_peak == pytest.approx(0.25, rel=0.02)
    assert meters.master_rms == pytest.approx(0.25 / math.sqrt(2), rel=0.02)
    mixer.process(np.zeros((2, RATE), np.float32), np.zeros((4, 2, RATE), np.float32))
    assert 20 * math.log10(mixer.meters.peak[1] / meters.peak[1]) == pytest.approx(-20, abs=0.1)
    assert meters.peak[1] == pytest.approx(0.25, rel=0.02), "a copy stays"


def test_nothing_is_allocated_while_it_runs() -> None:
    dry, stems = sound(4096)
    out = np.empty_like(dry)
    mixer = Mixer(STEMS, 2, RATE)
    mixer.settings.limiter = True

    def churn(times: int) -> None:
        for i in range(times):
            mixer.settings.set_gain("bass", -float(i % 7))
            mixer.settings.set_solo("vocals", i % 3 == 0)
            mixer.settings.bypass = i % 5 == 0
            mixer.process(dry, stems, out)

    churn(20)
    tracemalloc.start()
    churn(5)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    churn(200)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2000, "memory grew"
    assert peak - before < 4000, "an array as long as the block (4096 bytes of booleans, 16384 of floats) was made"


def test_settings_and_meters_may_live_in_given_memory() -> None:
    memory = np.zeros(MixerSettings.size(4))
    one, two = MixerSettings(STEMS, memory), MixerSettings(STEMS, memory)
    one.apply(mute=["bass"], gain={"vocals": -3}, pan={"other": 0.5}, master_db=-1)
    one.bypass = one.limiter = True
    assert (two.mute[1], two.gain_db[3], two.pan[2], two.master_db, two.bypass, two.limiter) == (
        1,
        -3,
        0.5,
        -1,
        True,
        True,
    )
    assert two.solo.sum() == 0


def test_wrong_values_are_named() -> None:
    s = MixerSettings(STEMS)
    with pytest.raises(StemNotFoundError, match=r"No stem 'vocal'.*drums, bass, other, vocals.*Did you mean 'vocals'"):
        s.set_mute("vocal", True)
    for db in (24.1, -121.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="-120 to 24 dB"):
            s.set_gain("bass", db)
        with pytest.raises(UsageError, match="master"):
            s.master_db = db
    for pan in (-1.01, 2, math.nan):
        with pytest.raises(UsageError, match="-1 \\(left\\) to 1 \\(right\\)"):
            s.set_pan("bass", pan)
    with pytest.raises(UsageError, match="19 float64"):
        MixerSettings(STEMS, np.zeros(5))
    with pytest.raises(UsageError, match="ramp_ms is 4"):
        Mixer(STEMS, 2, RATE, ramp_ms=4)
    with pytest.raises(UsageError, match="Settings or meters"):
        Mixer(("a",), 2, RATE, settings=s)
    mixer = Mixer(STEMS, 2, RATE)
    dry, stems = sound(10)
    with pytest.raises(ValueError, match="do not fit"):
        mixer.process(dry, stems[:3])
    with pytest.raises(ValueError, match="out is"):
        mixer.process(dry, stems, np.zeros((2, 11), np.float32))
