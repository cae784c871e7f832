"""Real plugins as blocks of equal length: latency, channels, parameters."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pedalboard
import pytest

from rtsep.errors import PluginError, UsageError
from rtsep.plugins import PluginSpec
from rtsep.plugins.catalog import EFFECTS
from rtsep.plugins.loader import LoadedPlugin
from tests.plugins.conftest import HOP, RATE, Audio, noise


def play(plugin: LoadedPlugin, audio: Audio, block: int = HOP) -> Audio:
    starts = range(0, audio.shape[1] - block + 1, block)
    return np.concatenate(
        [plugin.process(np.ascontiguousarray(audio[:, k : k + block])).copy() for k in starts], axis=1
    )


def impulse(at: int = 3000, hops: int = 40, channels: int = 2) -> Audio:
    audio = np.zeros((channels, hops * HOP), np.float32)
    audio[:, at] = 0.5
    return audio


@pytest.mark.parametrize("name", [name for name in EFFECTS if name != "Convolution"])
def test_the_catalogue_says_what_pedalboard_does(name: str) -> None:
    """Defaults are pedalboard's own, every edge of a range is accepted and gives finite sound, nothing is left out."""
    kind = getattr(pedalboard, name)
    made = kind()
    theirs = {key for key, value in vars(kind).items() if isinstance(value, property)}
    ours = {parameter.name for parameter in EFFECTS[name].parameters}
    assert ours == theirs - {"quality"}
    for parameter in EFFECTS[name].parameters:
        if parameter.kind == "number":
            assert getattr(made, parameter.name) == pytest.approx(parameter.default, rel=1e-5)
            for edge in (parameter.minimum, parameter.maximum):
                plugin = LoadedPlugin(PluginSpec(name, {parameter.name: edge}), 2, RATE, HOP)
                assert np.isfinite(play(plugin, noise(20 * HOP))).all()


@pytest.mark.parametrize("name", [name for name in EFFECTS if name != "Convolution"])
def test_an_effect_gives_what_it_takes_and_starts_from_silence(name: str) -> None:
    plugin = LoadedPlugin(PluginSpec(name), 2, RATE, HOP)
    audio = noise(120 * HOP)
    first = play(plugin, audio)
    assert first.shape == audio.shape
    plugin.reset()
    np.testing.assert_array_equal(play(plugin, audio), first)
    assert not first[:, : plugin.latency_samples].any()


@pytest.mark.parametrize("name", ["BrickwallLimiter", "MP3Compressor", "Gain", "Reverb"])
def test_the_latency_of_an_effect_is_where_its_impulse_is(name: str) -> None:
    plugin = LoadedPlugin(PluginSpec(name, {"wet_level": 0.0} if name == "Reverb" else {}), 2, RATE, HOP)
    heard = np.abs(play(plugin, impulse())).max(axis=0)
    assert int(heard.argmax()) == 3000 + plugin.latency_samples
    assert (plugin.latency_samples > 0) == (name in ("BrickwallLimiter", "MP3Compressor"))


def test_pitch_shift_is_a_second_late_and_found_to_be_silent_by_blocks() -> None:
    plugin = LoadedPlugin(PluginSpec("PitchShift"), 2, RATE, HOP)
    assert 40_000 < plugin.latency_samples < 60_000
    assert not plugin.streams
    assert not play(plugin, noise(160 * HOP)).any()
    for name in ("BrickwallLimiter", "MP3Compressor", "GSMFullRateCompressor", "Resample"):
        assert LoadedPlugin(PluginSpec(name), 2, RATE, HOP).streams, name


def test_zam_plugins_report_what_an_impulse_confirms(zam: Path) -> None:
    plugin = LoadedPlugin(PluginSpec(str(zam / "ZaMaximX2.vst3")), 2, RATE, HOP)
    assert plugin.latency_samples == 480
    heard = np.abs(play(plugin, impulse())).max(axis=0)
    assert int(heard.argmax()) == 3480


def test_loading_a_file_leaves_the_numbers_of_its_host_alone(zam: Path) -> None:
    # Debian's zam-plugins are built with -ffast-math, which switches subnormal numbers off for the loading thread.
    for name in ("ZamTube", "ZamComp", "ZaMaximX2"):
        LoadedPlugin(PluginSpec(str(zam / f"{name}.vst3")), 2, RATE, HOP).close()
        assert float(np.array([5e-324])[0] * 1.0) > 0


def test_a_plugin_built_here_reports_its_delay_and_has_it(bundle: Callable[..., Path]) -> None:
    plugin = LoadedPlugin(PluginSpec(str(bundle("Late", "-DLATE=300"))), 2, RATE, HOP)
    assert plugin.latency_samples == 300
    audio = noise(20 * HOP)
    np.testing.assert_array_equal(play(plugin, audio)[:, 300:], audio[:, :-300])


def test_a_mono_plugin_gets_one_of_its_kind_per_channel(zam: Path) -> None:
    plugin = LoadedPlugin(PluginSpec(str(zam / "ZamTube.vst3"), {"tube_drive": 5.0}), 2, RATE, HOP)
    audio = noise(20 * HOP)
    both = play(plugin, audio)
    mono = LoadedPlugin(PluginSpec(str(zam / "ZamTube.vst3"), {"tube_drive": 5.0}), 1, RATE, HOP)
    # ZamTube itself is not the same twice: up to 1e-4 apart, with the same input and from the same start.
    np.testing.assert_allclose(both[1:], play(mono, audio[1:]), atol=1e-3)
    assert np.abs(both[0] - both[1]).max() > 0.01


def test_a_stereo_plugin_takes_one_channel(bundle: Callable[..., Path]) -> None:
    plugin = LoadedPlugin(PluginSpec(str(bundle())), 1, RATE, HOP)
    audio = noise(10 * HOP, channels=1)
    np.testing.assert_array_equal(play(plugin, audio), audio)


def test_parameters_of_a_file_have_ranges_and_are_set(zam: Path) -> None:
    plugin = LoadedPlugin(PluginSpec(str(zam / "ZamComp.vst3"), {"attack_ms": 20.0}), 2, RATE, HOP)
    attack = plugin.parameters["attack_ms"]
    assert (attack.minimum, attack.maximum, attack.unit) == (pytest.approx(0.1), 100.0, "ms")
    assert plugin.native.attack_ms == pytest.approx(20.0, abs=0.1)
    plugin.apply(plugin.prepare("attack_ms", 50.0))
    assert plugin.native.attack_ms == pytest.approx(50.0, abs=0.1)
    plugin.process(noise(HOP))  # takes over what was set
    state = plugin.state()
    assert state
    again = LoadedPlugin(PluginSpec(str(zam / "ZamComp.vst3"), raw_state=state), 2, RATE, HOP)
    assert again.native.attack_ms == pytest.approx(50.0, abs=0.1)
    with pytest.raises(UsageError, match=r"allowed is 0\.1 to 100 ms"):
        plugin.prepare("attack_ms", 200.0)
    assert "sample_rate_frames" not in plugin.parameters


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (PluginSpec("Reverb", {"room": 1.0}), UsageError, "Did you mean 'room_size'"),
        (PluginSpec("Reverb", {"room_size": 2.0}), UsageError, "allowed is 0 to 1"),
        (PluginSpec("Reverb", {"room_size": float("nan")}), UsageError, "cannot be nan"),
        (PluginSpec("Reverb", {"room_size": "big"}), UsageError, "cannot be big"),
        (PluginSpec("LadderFilter", {"mode": "LPF13"}), UsageError, "Did you mean 'LPF12'"),
        (PluginSpec("BrickwallLimiter", {"true_peak": "maybe"}), UsageError, "true or false"),
        (PluginSpec("Reverp"), PluginError, "Did you mean 'Reverb'"),
        (PluginSpec("/nowhere/x.vst3"), PluginError, r"No plugin at /nowhere/x\.vst3"),
        (PluginSpec("Convolution"), UsageError, "needs a recorded room"),
        (PluginSpec("Convolution", {"impulse_response_filename": "/no.wav"}), PluginError, "cannot be made"),
    ],
)
def test_what_cannot_be_is_named(spec: PluginSpec, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        LoadedPlugin(spec, 2, RATE, HOP)


def test_a_filter_above_the_half_of_the_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="at 22050 Hz it must be below"):
        LoadedPlugin(PluginSpec("LowpassFilter", {"cutoff_frequency_hz": 12_000.0}), 2, 22_050, HOP)


def test_a_closed_plugin_leaves_nothing_where_the_collector_is_off(zam: Path) -> None:
    """As in an engine, which may swap chains for hours."""

    def alive() -> int:
        gc.unfreeze()
        return sum(issubclass(type(thing), pedalboard.VST3Plugin) for thing in gc.get_objects())

    gc.collect()
    before = alive()
    gc.disable()
    try:
        for _ in range(3):
            plugin = LoadedPlugin(PluginSpec(str(zam / "ZamTube.vst3")), 2, RATE, HOP)
            plugin.latency_with("tube_drive", 3.0)
            assert alive() > before
            plugin.close()
        assert alive() == before
    finally:
        gc.enable()


def test_junk_is_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "junk.vst3").write_bytes(b"no plugin")
    with pytest.raises(PluginError, match="cannot be loaded"):
        LoadedPlugin(PluginSpec(str(tmp_path / "junk.vst3")), 2, RATE, HOP)


def test_files_load_on_the_main_thread_only(bundle: Callable[..., Path]) -> None:
    errors: list[BaseException] = []
    spec = PluginSpec(str(bundle()))

    def load() -> None:
        try:
            LoadedPlugin(spec, 2, RATE, HOP)
        except PluginError as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
