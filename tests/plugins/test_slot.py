"""One plugin in its place: bypass, failure, and what is heard meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtsep.plugins import PluginSpec
from rtsep.plugins.loader import LoadedPlugin
from rtsep.plugins.slot import BAD_HOPS, SLOW_HOPS, Abandoned, Slot
from tests.plugins.conftest import HOP, RATE, Audio, noise, sine, worst_click


def make(spec: PluginSpec, **settings: bool | float | None) -> Slot:
    return Slot(LoadedPlugin(spec, 2, RATE, HOP), 2, RATE, HOP, **settings)  # type: ignore[arg-type]


def play(slot: Slot, audio: Audio, at_hop: dict[int, Callable[[], object]] | None = None) -> Audio:
    out = []
    for number, start in enumerate(range(0, audio.shape[1] - HOP + 1, HOP)):
        if at_hop and number in at_hop:
            at_hop[number]()
        out.append(slot.process(np.ascontiguousarray(audio[:, start : start + HOP])).copy())
    return np.concatenate(out, axis=1)


def fault(slot: Slot, value: float) -> None:
    slot.post(slot.plugin.prepare("fault", value))


def test_a_bypassed_plugin_is_the_input_bit_for_bit(bundle: Callable[..., Path]) -> None:
    audio = noise(20 * HOP)
    slot = make(PluginSpec("Distortion"), bypass=True)
    block = audio[:, :HOP].copy()
    assert slot.process(block) is block
    assert not slot.active
    late = make(PluginSpec(str(bundle("Late", "-DLATE=300")), {"fault": 0.0}), bypass=True)
    heard = play(late, audio)
    np.testing.assert_array_equal(heard[:, 300:], audio[:, :-300])
    assert not heard[:, :300].any()


def test_bypass_fades_and_ends_at_the_input_and_at_the_plugin() -> None:
    audio = sine(40 * HOP)
    slot = make(PluginSpec("Gain", {"gain_db": -20.0}))

    def switch(on: bool) -> Callable[[], None]:
        def do() -> None:
            slot.on = on

        return do

    heard = play(slot, audio, {10: switch(False), 25: switch(True)})
    np.testing.assert_array_equal(heard[:, 12 * HOP : 25 * HOP], audio[:, 12 * HOP : 25 * HOP])
    np.testing.assert_allclose(heard[:, 30 * HOP :], 0.1 * audio[:, 30 * HOP :], atol=1e-6)
    assert worst_click(heard) < 3 * worst_click(audio)
    # The detector hears what a switch without a fade does.
    cut = np.concatenate([0.1 * audio[:, : 10 * HOP + 55], audio[:, 10 * HOP + 55 :]], axis=1)
    assert worst_click(cut) > 20 * worst_click(audio)


def test_nan_is_never_heard_and_ends_the_plugin_with_its_name_and_no_click(bundle: Callable[..., Path]) -> None:
    audio = sine(40 * HOP)
    slot = make(PluginSpec(str(bundle("Late", "-DLATE=300"))))
    heard = play(slot, audio, {20: lambda: fault(slot, 1.0)})
    assert np.isfinite(heard).all()
    assert slot.fault == f"gave NaN or infinity {BAD_HOPS} hops in a row"
    assert slot.nonfinite_blocks == BAD_HOPS
    np.testing.assert_allclose(heard[:, 300:], audio[:, :-300], atol=1e-6)
    assert not slot.active


def test_one_bad_hop_is_covered_and_the_plugin_comes_back() -> None:
    """A gain beyond all bounds makes infinity of a real plugin, for one hop."""
    audio = sine(40 * HOP)
    slot = make(PluginSpec("Gain", {"gain_db": -6.0}))

    def gain(db: float) -> Callable[[], None]:
        return lambda: slot.post(((slot.plugin.native, "gain_db", db),))

    heard = play(slot, audio, {20: gain(10_000.0), 21: gain(-6.0)})
    assert np.isfinite(heard).all()
    assert slot.fault is None
    assert slot.nonfinite_blocks == 1
    np.testing.assert_allclose(heard[:, 25 * HOP :], 10 ** (-6 / 20) * audio[:, 25 * HOP :], atol=1e-5)
    step = abs(float(audio[0, 20 * HOP] - heard[0, 20 * HOP - 1]))
    assert step > 0.09
    assert worst_click(heard) < 0.1 * step, "a bend, no step"


def test_a_plugin_that_is_slow_several_hops_in_a_row_is_left_out(bundle: Callable[..., Path]) -> None:
    slot = make(PluginSpec(str(bundle())), budget_s=0.02)  # it takes 30 ms
    audio = noise(20 * HOP)
    heard = play(slot, audio, {5: lambda: fault(slot, 2.0)})
    assert slot.slow_blocks >= SLOW_HOPS
    assert slot.fault is not None
    assert slot.fault.startswith("too slow: 3")
    np.testing.assert_array_equal(heard, audio)
    patient = make(PluginSpec(str(bundle())))
    play(patient, audio, {5: lambda: fault(patient, 2.0)})
    assert patient.fault is None, "offline a plugin may take its time"


def test_a_plugin_that_raises_is_left_out_with_what_it_said() -> None:
    slot = make(PluginSpec("Gain"))
    audio = noise(10 * HOP)
    heard = play(slot, audio, {5: lambda: slot.post(((slot.plugin.native, "no_such_thing", 1.0),))})
    assert slot.fault is not None
    assert "AttributeError" in slot.fault
    np.testing.assert_allclose(heard[:, 8 * HOP :], audio[:, 8 * HOP :])


def test_a_thread_that_was_given_up_does_not_go_on(bundle: Callable[..., Path]) -> None:
    slot = make(PluginSpec(str(bundle("Slow", "-DSLOW_MS=300"))))
    fault(slot, 2.0)
    ended: list[str] = []

    def work() -> None:
        try:
            slot.process(noise(HOP))
        except Abandoned as error:
            ended.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 10
    while not slot.entered_ns and time.monotonic() < until:
        time.sleep(0.001)
    slot.fail("hung")
    slot.abandoned = True
    block = noise(HOP)
    assert slot.process(block) is not None, "another thread goes on without the plugin"
    thread.join(10)
    assert ended == ["Slow"]


@pytest.mark.parametrize("cut", [1, 64, 500, 512])
def test_the_result_does_not_depend_on_how_a_bypass_is_cut(cut: int) -> None:
    audio = noise(8 * HOP)
    results = []
    for size in (HOP, cut):
        slot = make(PluginSpec("Gain", {"gain_db": -20.0}))
        slot.on = False
        starts = range(0, 4000 // size * size, size)
        results.append(
            np.concatenate([slot.process(np.ascontiguousarray(audio[:, k : k + size])).copy() for k in starts], axis=1)
        )
    n = min(r.shape[1] for r in results)
    np.testing.assert_allclose(results[0][:, :n], results[1][:, :n], atol=1e-5)
