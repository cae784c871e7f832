"""Chains on stems and on the master: equality where nothing is changed, alignment, swaps without a click."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsep.errors import PluginError, StemNotFoundError, UsageError
from rtsep.plugins import MASTER, PluginSpec
from rtsep.plugins.slot import SWAP_FADE_MS
from tests.plugins.conftest import HOP, RATE, Rig, noise, sine, worst_click

Make = Callable[..., Rig]
LATENCY = 700
FADE = round(SWAP_FADE_MS * RATE / 1000)

MIXES: list[dict[str, Any]] = [
    {},
    {"mute": ["vocals"]},
    {"solo": ["bass"], "pan": {"bass": 0.4}},
    {"gain": {"drums": -7.0, "other": 3.0}, "master_db": -2.0},
]


@pytest.mark.parametrize("mix", MIXES)
def test_empty_and_bypassed_chains_leave_every_bit(rig: Make, mix: dict[str, Any]) -> None:
    audio = noise(40 * HOP)
    plain = rig(plugins=False)
    plain.mixer.settings.apply(**mix)
    expected = plain.play(audio)
    empty, bypassed = rig(), rig()
    for target in ("vocals", "bass", MASTER):
        bypassed.host.set_chain(target, [PluginSpec("Distortion", bypass=True)] * 2, at_once=True)
    for made in (empty, bypassed):
        made.mixer.settings.apply(**mix)
        np.testing.assert_array_equal(made.play(audio), expected)
        np.testing.assert_array_equal(made.mixer.meters.values, plain.mixer.meters.values)


@pytest.mark.parametrize("mix", MIXES)
def test_a_bypassed_plugin_with_latency_leaves_every_bit_and_comes_later(
    rig: Make, bundle: Callable[..., Path], mix: dict[str, Any]
) -> None:
    audio = noise(40 * HOP)
    plain, late = rig(plugins=False), rig()
    spec = PluginSpec(str(bundle("Late", "-DLATE=300")), bypass=True)
    late.host.set_chain("vocals", [spec], at_once=True)
    late.host.set_chain(MASTER, [spec, spec], at_once=True)
    assert (late.chain.plugin_samples, late.chain.master_samples) == (300, 600)
    for made in (plain, late):
        made.mixer.settings.apply(**mix)
    expected = plain.play(audio)
    np.testing.assert_array_equal(late.play(audio)[:, 900:], expected[:, :-900])


def test_a_stem_is_changed_before_its_fader(rig: Make) -> None:
    """Half the vocals, by plugin, is half the vocals by fader; and a muted stem stays away whatever its plugin does."""
    audio = noise(40 * HOP)
    by_plugin, by_fader = rig(), rig(plugins=False)
    by_plugin.host.set_chain("vocals", [PluginSpec("Gain", {"gain_db": -6.0})], at_once=True)
    by_fader.mixer.settings.set_gain("vocals", -6.0)
    by_plugin.mixer.settings.set_pan("vocals", -0.5)
    by_fader.mixer.settings.set_pan("vocals", -0.5)
    np.testing.assert_allclose(by_plugin.play(audio)[:, HOP:], by_fader.play(audio)[:, HOP:], atol=1e-6)
    assert by_plugin.mixer.meters.rms[3] == pytest.approx(by_fader.mixer.meters.rms[3], rel=1e-2)

    muted, without = rig(), rig(plugins=False)
    muted.host.set_chain("vocals", [PluginSpec("Distortion")], at_once=True)
    for made in (muted, without):
        made.mixer.settings.set_mute("vocals", True)
    np.testing.assert_allclose(muted.play(audio), without.play(audio), atol=1e-6)


def test_solo_of_a_stem_with_a_plugin_is_what_the_plugin_gives(rig: Make) -> None:
    audio = noise(40 * HOP)
    made = rig()
    made.host.set_chain("other", [PluginSpec("Invert")], at_once=True)
    made.mixer.settings.set_solo("other", True)
    heard = made.play(audio)
    np.testing.assert_array_equal(heard[:, LATENCY:], -0.25 * audio[:, :-LATENCY])


def test_the_latency_of_one_stem_delays_all_others_and_an_impulse_confirms_it(
    rig: Make, bundle: Callable[..., Path]
) -> None:
    audio = np.zeros((2, 20 * HOP), np.float32)
    audio[:, 1000] = 0.5
    made = rig()
    made.host.set_chain("vocals", [PluginSpec(str(bundle("Late", "-DLATE=300")))], at_once=True)
    made.host.set_chain("bass", [PluginSpec("BrickwallLimiter", {"ceiling_db": 0.0})], at_once=True)
    made.host.set_chain(MASTER, [PluginSpec(str(bundle("Late", "-DLATE=300")))], at_once=True)
    assert made.chain.plugin_samples == 300, "the longest, 240 being the other"
    heard = made.play(audio)
    # All of the impulse in one sample: nothing of it anywhere else.
    at = 1000 + LATENCY + 600
    np.testing.assert_allclose(heard[:, at], 0.5, atol=1e-6)
    heard[:, at] = 0.0
    assert np.abs(heard).max() < 1e-6


def test_zam_plugins_on_a_stem_are_aligned_with_the_rest(rig: Make, zam: Path) -> None:
    audio = np.zeros((2, 20 * HOP), np.float32)
    audio[:, 1000] = 0.5
    made = rig()
    made.host.set_chain("vocals", [PluginSpec(str(zam / "ZaMaximX2.vst3"))], at_once=True)
    heard = made.play(audio)
    level = np.abs(heard[0])
    assert int(level.argmax()) == 1000 + LATENCY + 480
    assert level.max() > 0.45, "vocals and the rest come together again"
    assert np.sort(level)[-2] < 0.01


SWAPS = {
    "gain": ([PluginSpec("Gain", {"gain_db": -20.0})], 0),
    "reverb": ([PluginSpec("Reverb", {"room_size": 0.8})], 0),
    "late": (["Late"], 300),
    "two": ([PluginSpec("Invert"), "Late"], 300),
    "limiter": ([PluginSpec("BrickwallLimiter", {"lookahead_ms": 20.0})], 960),
}


@pytest.mark.parametrize("target", ["vocals", MASTER])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_chain_comes_and_goes_without_a_click(rig: Make, bundle: Callable[..., Path], target: str, swap: str) -> None:
    specs, latency = SWAPS[swap]
    specs = [PluginSpec(str(bundle("Late", "-DLATE=300"))) if spec == "Late" else spec for spec in specs]
    audio = sine(120 * HOP)
    made = rig()
    latencies = []

    def note() -> None:
        latencies.append(made.chain.plugin_samples + made.chain.master_samples)

    heard = made.play(
        audio,
        {
            30: lambda: made.host.set_chain(target, specs),
            55: note,
            60: lambda: made.host.set_chain(target, []),
            90: note,
        },
    )
    assert latencies == [latency, 0]
    # Before, and long after, it is the input again.
    np.testing.assert_array_equal(heard[:, LATENCY : 30 * HOP], audio[:, : 30 * HOP - LATENCY])
    np.testing.assert_array_equal(heard[:, 70 * HOP :], audio[:, 70 * HOP - LATENCY : -LATENCY])
    # A fade of 960 samples between two sines of 0.5 bends the curve by 1 / 960 of their difference at most.
    assert worst_click(heard[:, LATENCY + 1 :]) < 3 * worst_click(audio) + 1.0 / FADE
    at_once = rig()
    cut = at_once.play(audio, {30: lambda: at_once.host.set_chain(target, specs, at_once=True)})
    if latency:
        assert worst_click(cut[:, LATENCY + 1 :]) > 20 * worst_click(audio), "the detector hears a bare swap"


@pytest.mark.parametrize("target", ["vocals", MASTER])
@pytest.mark.parametrize("before", [[], [PluginSpec("Invert")]])
def test_a_new_plugin_is_heard_in_the_next_hop_as_if_it_had_been_there_a_moment_before(
    rig: Make, target: str, before: list[PluginSpec]
) -> None:
    """A comb of 3 ms: the echo of what was played before it came is there from the first sample on."""
    audio = sine(60 * HOP)
    comb = PluginSpec("Delay", {"delay_seconds": 0.003, "mix": 0.5})
    heard = []
    for warm_up_s, specs in ((None, []), (None, [comb]), (0.0, [comb])):
        made = rig()
        made.host.set_chain(target, before, at_once=True)
        for rack in (made.racks.stems, made.racks.master):
            rack.warm_up_s = warm_up_s
        heard.append(made.play(audio, {30: partial(made.host.set_chain, target, [*before, *specs], len(before))}))
    without, quick, slow = heard
    first = [int(np.flatnonzero(np.abs(out - without).max(axis=0) > 1e-5)[0]) for out in (quick, slow)]
    assert 30 * HOP <= first[0] < 30 * HOP + 16, "at the hop it came"
    assert 32 * HOP <= first[1] < 32 * HOP + 16, "after the fade-in of what it hears, where that costs too much"
    np.testing.assert_allclose(quick[:, 36 * HOP :], slow[:, 36 * HOP :], atol=1e-5)
    # Between the two the whole way is a straight line: the echo is not built up on the way.
    old, always = without[:, 30 * HOP : 30 * HOP + FADE], rig()
    always.host.set_chain(target, [*before, comb], at_once=True)
    new = always.play(audio)[:, 30 * HOP : 30 * HOP + FADE]
    ramp = np.arange(1, FADE + 1) / FADE
    np.testing.assert_allclose(quick[:, 30 * HOP : 30 * HOP + FADE], old + (new - old) * ramp, atol=1e-3)
    for out in (quick, slow):
        assert worst_click(out[:, LATENCY + 1 :]) < 3 * worst_click(audio) + 1.0 / FADE


def test_what_is_forgotten_is_not_heard_by_new_plugins_either(rig: Make) -> None:
    made = rig()
    made.host.set_chain("vocals", [PluginSpec("Gain", {"gain_db": 0.0})], at_once=True)
    made.play(noise(20 * HOP))
    made.chain.reset()
    echo = PluginSpec("Delay", {"delay_seconds": 0.01, "mix": 1.0})
    made.host.set_chain("vocals", [PluginSpec("Gain", {"gain_db": 0.0}), echo], 1)
    made.host.set_chain(MASTER, [echo])
    assert not made.play(np.zeros((2, 20 * HOP), np.float32)).any()


def test_plugins_that_a_chain_begins_with_play_on(rig: Make) -> None:
    """A long delay keeps its echo when something is added after it; loaded anew it would have lost it."""
    echo = PluginSpec("Delay", {"delay_seconds": 0.3, "mix": 1.0})
    audio = np.zeros((2, 80 * HOP), np.float32)
    audio[:, 10 * HOP] = 0.5
    heard = []
    for keep in (1, 0):
        made = rig()
        made.mixer.settings.set_solo("vocals", True)
        made.host.set_chain("vocals", [echo], at_once=True)
        swap = partial(made.host.set_chain, "vocals", [echo, PluginSpec("Invert")], keep)
        heard.append(made.play(audio, {25: swap}))
    at = 10 * HOP + LATENCY + round(0.3 * RATE)
    assert heard[0][0, at] == pytest.approx(-0.25, abs=1e-3)
    assert abs(heard[1][0, at]) < 1e-3


def test_swaps_in_quick_succession_end_at_the_last(rig: Make) -> None:
    made = rig()
    audio = sine(60 * HOP)

    def gain(db: float) -> Callable[[], object]:
        return lambda: made.host.set_chain(MASTER, [PluginSpec("Gain", {"gain_db": db})])

    heard = made.play(audio, {20: gain(-3.0), 21: gain(-40.0), 22: gain(-12.0), 23: gain(-6.0)})
    np.testing.assert_allclose(
        heard[:, 40 * HOP :], 10 ** (-6 / 20) * audio[:, 40 * HOP - LATENCY : -LATENCY], atol=1e-5
    )
    assert worst_click(heard[:, LATENCY + 1 :]) < 3 * worst_click(audio) + 1.0 / FADE
    made.host.watch()
    assert made.racks.master.settled


def test_what_was_played_is_taken_apart_by_the_host_alone(rig: Make, zam: Path) -> None:
    made = rig()
    made.host.set_chain("vocals", [PluginSpec(str(zam / "ZamTube.vst3"))])
    audio = noise(10 * HOP)
    made.play(audio)
    first = made.host.slot("vocals", 0)
    made.host.set_chain("vocals", [])
    made.host.watch()
    assert first.plugin.native is not None, "it still plays"
    made.play(audio)
    made.host.watch()
    with pytest.raises(IndexError):
        _ = first.plugin.native


def test_the_mixers_bypass_goes_round_the_master_too(rig: Make, bundle: Callable[..., Path]) -> None:
    made = rig()
    audio = sine(80 * HOP)
    late = PluginSpec(str(bundle("Late", "-DLATE=300")))
    made.host.set_chain(MASTER, [PluginSpec("Gain", {"gain_db": -20.0}), late], at_once=True)

    def bypass(on: bool) -> Callable[[], None]:
        def do() -> None:
            made.mixer.settings.bypass = on

        return do

    heard = made.play(audio, {20: bypass(True), 50: bypass(False)})
    shift = LATENCY + 300
    np.testing.assert_array_equal(heard[:, 23 * HOP : 50 * HOP], audio[:, 23 * HOP - shift : 50 * HOP - shift])
    np.testing.assert_allclose(heard[:, 60 * HOP :], 0.1 * audio[:, 60 * HOP - shift : -shift], atol=1e-6)
    assert worst_click(heard[:, shift + 1 :]) < 6 * worst_click(audio)


def test_a_reset_ends_all_tails_and_keeps_the_chains(rig: Make) -> None:
    made = rig()
    made.host.set_chain("vocals", [PluginSpec("Reverb", {"room_size": 1.0})], at_once=True)
    audio = noise(20 * HOP)
    first = made.play(audio)
    made.chain.reset()
    np.testing.assert_array_equal(made.play(audio), first)


def test_a_plugin_that_fails_is_told_once_and_the_mix_goes_on(rig: Make, bundle: Callable[..., Path]) -> None:
    made = rig()
    audio = noise(40 * HOP)
    made.host.set_chain("vocals", [PluginSpec(str(bundle()))], at_once=True)
    heard = made.play(audio, {10: lambda: made.host.set_parameter("vocals", 0, "fault", 1.0)})
    news = made.host.watch()
    assert [(x["target"], x["slot"], x["label"]) for x in news] == [("vocals", 0, "Faulty")]
    assert "NaN" in news[0]["fault"]
    assert made.host.watch() == []
    np.testing.assert_allclose(heard[:, LATENCY:], audio[:, :-LATENCY], atol=1e-6)


def test_a_parameter_that_brings_another_latency_loads_the_plugin_anew_and_aligns_everything(
    rig: Make, bundle: Callable[..., Path]
) -> None:
    made = rig()
    made.host.set_chain("vocals", [PluginSpec(str(bundle()))], at_once=True)
    first = made.host.slot("vocals", 0)
    audio = sine(90 * HOP)
    described: list[Any] = []

    def late(samples: float) -> Callable[[], None]:
        return lambda: described.append(made.host.set_parameter("vocals", 0, "late", samples))

    heard = made.play(audio, {20: late(512.0), 50: late(512.4)})
    assert described[0][0]["latency_samples"] == 512
    assert described[1] is None, "the same latency: set as it plays"
    assert made.host.slot("vocals", 0) is not first
    assert made.chain.plugin_samples == 512
    np.testing.assert_allclose(heard[:, 40 * HOP :], audio[:, 40 * HOP - LATENCY - 512 : -LATENCY - 512], atol=1e-6)
    assert worst_click(heard[:, LATENCY + 1 :]) < 3 * worst_click(audio) + 1.0 / FADE


def test_a_plugin_that_reports_another_latency_by_itself_is_aligned_anew(
    rig: Make, bundle: Callable[..., Path]
) -> None:
    made = rig()
    made.host.set_chain("vocals", [PluginSpec(str(bundle()))], at_once=True)
    slot = made.host.slot("vocals", 0)
    audio = noise(60 * HOP)
    news: list[dict[str, Any]] = []

    def change() -> None:  # not through the host: as if the plugin had decided so
        slot.post(slot.plugin.prepare("late", 512.0))

    heard = made.play(audio, {10: change, 12: lambda: news.extend(made.host.watch())})
    assert [x.get("latency_samples") for x in news] == [512]
    assert made.chain.plugin_samples == 512
    np.testing.assert_allclose(heard[:, 40 * HOP :], audio[:, 40 * HOP - LATENCY - 512 : -LATENCY - 512], atol=1e-6)


def test_live_a_chain_may_be_so_late_and_no_later_offline_it_may(rig: Make) -> None:
    live, offline = rig(live=True), rig()
    with pytest.raises(
        PluginError, match=r"PitchShift is \d+ samples late \(10\d\d ms\), and live a chain may be 100 ms"
    ):
        live.host.set_chain("vocals", [PluginSpec("PitchShift")])
    with pytest.raises(PluginError, match="silence"):
        offline.host.set_chain("vocals", [PluginSpec("PitchShift")])
    both = [PluginSpec("MP3Compressor"), PluginSpec("GSMFullRateCompressor")]
    live.host.set_chain("vocals", both[:1])
    with pytest.raises(PluginError, match="with the plugins before it 116 ms"):
        live.host.set_chain("vocals", both)
    assert [x["label"] for x in live.host.describe("vocals")] == ["MP3Compressor"], "the old chain plays on"
    offline.host.set_chain("vocals", both)
    assert len(offline.host.describe("vocals")) == 2


def test_wrong_places_are_named(rig: Make) -> None:
    host = rig().host
    with pytest.raises(StemNotFoundError, match="Did you mean 'vocals'"):
        host.set_chain("vocal", [])
    with pytest.raises(UsageError, match="no number 0"):
        host.set_parameter("vocals", 0, "gain_db", 1.0)
    host.set_chain("vocals", [PluginSpec("BrickwallLimiter")])
    with pytest.raises(UsageError, match="fixed while the plugin plays"):
        host.set_parameter("vocals", 0, "lookahead_ms", 1.0)


def test_a_parameter_is_heard_from_the_next_hop_on(rig: Make) -> None:
    made = rig()
    audio = noise(40 * HOP)
    made.host.set_chain(MASTER, [PluginSpec("Gain", {"gain_db": 0.0})], at_once=True)
    heard = made.play(audio, {20: lambda: made.host.set_parameter(MASTER, 0, "gain_db", -20.0)})
    np.testing.assert_allclose(heard[:, 21 * HOP :], 0.1 * audio[:, 21 * HOP - LATENCY : -LATENCY], atol=1e-6)
