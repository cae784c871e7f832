"""Plugins in a running engine: changed while it plays, failing while it plays, and the same as offline."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import rtsep
from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.engine import Engine
from rtsep.errors import EngineError, PluginError, StemNotFoundError, UsageError
from rtsep.plugins import MASTER, PluginSpec
from rtsep.plugins.scan import scan
from tests.plugins.conftest import HOP, RATE, noise
from tests.support.graphs import make_delay_model

Bundle = Callable[..., Path]


def wait_for(reached: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "not reached"
        time.sleep(0.01)


def heard_level(engine: Engine) -> float:
    return float(engine.meters().master_rms)


CHAINS: list[dict[str, list[PluginSpec]]] = [
    {"vocals": [PluginSpec("Reverb", {"room_size": 0.7})], MASTER: [PluginSpec("Compressor", {"threshold_db": -30.0})]},
    {"drums": [PluginSpec("BrickwallLimiter", {"ceiling_db": -12.0})], MASTER: [PluginSpec("BrickwallLimiter")]},
]


@pytest.mark.parametrize("chains", CHAINS)
@pytest.mark.parametrize("block", [128, 512])
def test_live_is_offline_bit_for_bit(model: Path, tmp_path: Path, chains: dict[str, Any], block: int) -> None:
    audio = noise(60 * HOP)
    path, out = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(path, audio.T, RATE, subtype="FLOAT")
    backend = FileConfig(str(path), str(out), blocksize=block, realtime=False)
    with Engine(model, backend=backend, chains=chains, mute=["bass"], gain={"other": -3.0}) as engine:
        assert engine.wait(30.0)
        shift = engine.latency().total_samples
        assert engine.latency()["plugins"].samples == (480 if "drums" in chains else 0)
    live = soundfile.read(out, dtype="float32", always_2d=True)[0].T
    result = rtsep.separate(audio, samplerate=RATE, model=model, chains=chains, mute=["bass"], gain={"other": -3.0})
    assert result.mix is not None
    assert live.shape[1] == audio.shape[1] + shift
    np.testing.assert_array_equal(live[:, shift:], result.mix)


def test_stems_of_a_separation_are_what_their_plugins_make_of_them_and_in_time(model: Path, bundle: Bundle) -> None:
    audio = noise(60 * HOP)
    late = PluginSpec(str(bundle("Late", "-DLATE=300")))
    chains = {"vocals": [PluginSpec("Invert"), late], "drums": [PluginSpec("Invert")], MASTER: [late]}
    result = rtsep.separate(audio, samplerate=RATE, model=model, chains=chains)
    assert result.latency_samples == 700 + 600
    np.testing.assert_array_equal(result.stems["vocals"], -0.5 * audio)
    np.testing.assert_array_equal(result.stems["drums"], -0.125 * audio)
    np.testing.assert_array_equal(result.stems["other"], 0.25 * audio)
    assert result.mix is not None
    np.testing.assert_allclose(result.mix, -0.25 * audio, atol=1e-6)


@pytest.mark.parametrize("residual", [None, "other"])
@pytest.mark.parametrize(("samplerate", "channels"), [(96_000, 2), (22_050, 2), (48_000, 1)])
def test_at_other_rates_and_in_mono_models_plugins_are_aligned_too(
    tmp_path: Path, bundle: Bundle, samplerate: int, channels: int, residual: str | None
) -> None:
    """A delay on one stem and on the master leaves the mix the input, later; a gain of -inf takes a stem away."""
    model = make_delay_model(tmp_path / "m.onnx", hop=HOP, latency=700, channels=channels, residual_stem=residual)
    times = np.arange(samplerate) / samplerate
    burst = (0.5 * np.sin(2 * np.pi * 500 * times) * np.exp(-(((times - 0.4) / 0.03) ** 2))).astype(np.float32)
    audio = np.stack([burst, burst])
    late = PluginSpec(str(bundle("Late", "-DLATE=300")))
    result = rtsep.separate(audio, samplerate=samplerate, model=model, chains={"vocals": [late], MASTER: [late]})
    assert result.mix is not None
    np.testing.assert_allclose(result.mix, audio, atol=2e-3)
    np.testing.assert_allclose(result.stems["vocals"], 0.5 * audio, atol=2e-3)
    quiet = PluginSpec("Gain", {"gain_db": -120.0})
    for stem, left in (("vocals", 0.5), ("other", 0.75)):
        result = rtsep.separate(audio, samplerate=samplerate, model=model, chains={stem: [quiet]})
        assert result.mix is not None
        np.testing.assert_allclose(result.mix, left * audio, atol=2e-3)
        np.testing.assert_allclose(result.stems[stem], 0.0, atol=2e-3)

    path, out = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(path, audio.T, samplerate, subtype="FLOAT")
    backend = FileConfig(str(path), str(out), realtime=False)
    with Engine(model, backend=backend, chains={"vocals": [quiet, late], MASTER: [late]}) as engine:
        assert engine.wait(30.0)
        shift = engine.latency().total_samples
    live = soundfile.read(out, dtype="float32", always_2d=True)[0].T
    np.testing.assert_allclose(live[:, shift:], 0.5 * audio, atol=2e-3)


def test_plugins_come_move_change_and_go_while_it_plays(model: Path, zam: Path) -> None:
    with Engine(model, backend=DummyConfig(source="noise"), slack_hops=4) as engine:
        wait_for(lambda: heard_level(engine) > 0.08)
        before = engine.latency().total_samples
        engine.set_chain(MASTER, [PluginSpec("Gain", {"gain_db": -40.0})])
        wait_for(lambda: heard_level(engine) < 0.01)
        engine.set_plugin_parameter(MASTER, 0, "gain_db", -3.0)
        wait_for(lambda: heard_level(engine) > 0.05)
        engine.set_plugin_parameter(MASTER, 0, "gain_db", -40.0)
        wait_for(lambda: heard_level(engine) < 0.01)
        engine.set_plugin_bypass(MASTER, 0)
        wait_for(lambda: heard_level(engine) > 0.08)
        engine.set_plugin_bypass(MASTER, 0, False)
        wait_for(lambda: heard_level(engine) < 0.01)
        engine.remove_plugin(MASTER, 0)
        wait_for(lambda: heard_level(engine) > 0.08)

        engine.add_plugin("vocals", PluginSpec(str(zam / "ZaMaximX2.vst3"), {"release_ms": 40.0}))
        engine.add_plugin("vocals", PluginSpec("Invert"))
        engine.add_plugin("vocals", PluginSpec("Gain"), at=1)
        assert [slot.label for slot in engine.chains["vocals"]] == ["ZaMaximX2", "Gain", "Invert"]
        engine.move_plugin("vocals", 0, 2)
        assert [slot.label for slot in engine.chains["vocals"]] == ["Gain", "Invert", "ZaMaximX2"]
        wait_for(lambda: engine.latency().total_samples == before + 480)
        assert engine.latency()["plugins"].samples == 480
        specs = engine.chain_specs()
        assert list(specs) == ["vocals"]
        assert specs["vocals"][2].parameters == {"release_ms": 40.0}
        assert specs["vocals"][2].raw_state
        # What a setup file keeps makes the same chain again.
        engine.set_chain("vocals", [PluginSpec.from_dict(spec.to_dict()) for spec in specs["vocals"]])
        assert [slot.label for slot in engine.chains["vocals"]] == ["Gain", "Invert", "ZaMaximX2"]
        engine.set_chain("vocals", [])
        wait_for(lambda: engine.latency().total_samples == before)
        assert engine.running
        assert engine.plugin_news() == []
        assert engine.stats().plugin_faults == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what a process has loaded")
def test_pedalboard_is_there_before_the_first_plugin_is(model: Path) -> None:
    with Engine(model, backend=DummyConfig()) as engine:
        assert "pedalboard_native" in Path(f"/proc/{engine.pid}/maps").read_text()


def test_what_is_fixed_at_loading_is_loaded_anew(model: Path) -> None:
    with Engine(model, backend=DummyConfig(), chains={"bass": [PluginSpec("BrickwallLimiter")]}) as engine:
        assert engine.latency()["plugins"].samples == 240
        engine.set_plugin_parameter("bass", 0, "lookahead_ms", 10.0)
        wait_for(lambda: engine.latency()["plugins"].samples == 480)
        assert engine.chains["bass"][0].latency_samples == 480


def test_a_parameter_that_brings_another_latency_is_aligned_while_it_plays(model: Path, bundle: Bundle) -> None:
    chains = {"bass": [PluginSpec(str(bundle()))]}
    with Engine(model, backend=DummyConfig(source="noise"), chains=chains) as engine:
        before = engine.latency().total_samples
        engine.set_plugin_parameter("bass", 0, "late", 512.0)
        wait_for(lambda: engine.latency().total_samples == before + 512)
        assert engine.chains["bass"][0].latency_samples == 512
        assert engine.chains["bass"][0].spec.parameters == {"late": 512.0}


@pytest.mark.parametrize(("fault", "said"), [(1.0, "NaN or infinity"), (2.0, "too slow"), (3.0, "hung")])
def test_a_plugin_that_fails_is_left_out_and_named_and_the_audio_goes_on(
    model: Path, bundle: Bundle, fault: float, said: str
) -> None:
    chains = {"vocals": [PluginSpec("Gain", {"gain_db": 0.0}), PluginSpec(str(bundle()))]}
    with Engine(model, backend=DummyConfig(source="noise"), chains=chains, slack_hops=4) as engine:
        wait_for(lambda: heard_level(engine) > 0.08)
        engine.set_plugin_parameter("vocals", 1, "fault", fault)
        wait_for(lambda: engine.chains["vocals"][1].fault is not None)
        assert said in str(engine.chains["vocals"][1].fault)
        assert engine.chains["vocals"][0].fault is None
        (news,) = engine.plugin_news()
        assert news.startswith("Faulty on vocals is left out: ")
        assert engine.stats().plugin_faults == 1
        hops = engine.stats().hops
        wait_for(lambda: engine.stats().hops > hops + 50)
        wait_for(lambda: heard_level(engine) > 0.08)
        assert engine.running
        engine.set_chain("vocals", [PluginSpec(str(bundle()))])
        assert engine.chains["vocals"][0].fault is None, "set anew it gets another try"
        hops = engine.stats().hops
        wait_for(lambda: engine.stats().hops > hops + 20)


def test_plugins_stay_when_another_model_takes_over(model: Path, bundle: Bundle, tmp_path: Path) -> None:
    """Hops of another length: every plugin is a new one, set as the old; the one that failed is not taken along."""
    other = make_delay_model(tmp_path / "other.onnx", hop=256, latency=300)
    late = PluginSpec(str(bundle("Late", "-DLATE=300")))
    chains = {"vocals": [PluginSpec(str(bundle())), late], MASTER: [PluginSpec("Gain", {"gain_db": -40.0})]}
    with Engine(model, backend=DummyConfig(source="noise"), chains=chains, slack_hops=4) as engine:
        wait_for(lambda: 0.0005 < heard_level(engine) < 0.002)
        engine.set_plugin_parameter("vocals", 0, "fault", 1.0)
        wait_for(lambda: engine.chains["vocals"][0].fault is not None)
        engine.set_plugin_parameter(MASTER, 0, "gain_db", -20.0)
        wait_for(lambda: 0.005 < heard_level(engine) < 0.02)
        engine.change_model(other)
        assert engine.info.hop_samples == 256
        assert [slot.label for slot in engine.chains["vocals"]] == ["Late"]
        assert engine.chains[MASTER][0].spec.parameters == {"gain_db": -20.0}
        assert engine.latency()["plugins"].samples == 300
        hops = engine.stats().hops
        wait_for(lambda: engine.stats().hops > hops + 50)
        assert 0.005 < heard_level(engine) < 0.02
        engine.set_plugin_parameter(MASTER, 0, "gain_db", 0.0)
        wait_for(lambda: heard_level(engine) > 0.08)
        engine.set_chain("vocals", [])
        wait_for(lambda: engine.latency()["plugins"].samples == 0)


def test_a_plugin_that_dies_while_it_plays_ends_the_engine_with_its_name_and_is_not_loaded_again(
    model: Path, bundle: Bundle
) -> None:
    chains = {"vocals": [PluginSpec("Gain"), PluginSpec(str(bundle()))]}
    engine = Engine(model, backend=DummyConfig(source="noise"), chains=chains)
    engine.start()
    try:
        wait_for(lambda: heard_level(engine) > 0.01)
        with contextlib.suppress(EngineError):  # its answer may or may not come first
            engine.set_plugin_parameter("vocals", 1, "fault", 4.0)
        with pytest.raises(EngineError, match=r"signal 6, while Faulty on vocals worked"):
            engine.wait(20.0)
    finally:
        engine.stop()
    with pytest.raises(PluginError, match=r"not loaded: it crashed .* while the engine played.*--rescan"):
        Engine(model, backend=DummyConfig(), chains=chains).start()
    assert scan(bundle(), rescan=True).ok


@pytest.mark.parametrize(
    ("chains", "kind", "message"),
    [
        ({"vocal": [PluginSpec("Gain")]}, StemNotFoundError, "Did you mean 'vocals'"),
        ({"vocals": [PluginSpec("Gian")]}, PluginError, "Did you mean 'Gain'"),
        ({"vocals": [PluginSpec("Gain", {"gain_db": 100.0})]}, UsageError, "allowed is -120 to 48 dB"),
        ({"vocals": [PluginSpec("PitchShift")]}, PluginError, r"10\d\d ms"),
        ({"vocals": [PluginSpec("/nowhere.vst3")]}, PluginError, r"No plugin at /nowhere\.vst3"),
    ],
)
def test_wrong_chains_are_refused_before_and_while_it_plays(
    model: Path, chains: dict[str, list[PluginSpec]], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Engine(model, backend=DummyConfig(), chains=chains).start()
    ((target, specs),) = chains.items()
    with Engine(model, backend=DummyConfig(), chains={"vocals": [PluginSpec("Invert")]}) as engine:
        with pytest.raises(kind, match=message):
            engine.set_chain(target, specs)
        assert [slot.label for slot in engine.chains["vocals"]] == ["Invert"]
        assert not engine.wait(0.1)


def test_crashing_and_hanging_files_never_reach_the_engine(
    model: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtsep.plugins.scan.TIMEOUT_S", 4.0)
    with Engine(model, backend=DummyConfig(source="noise")) as engine:
        hops = engine.stats().hops
        with pytest.raises(PluginError, match=r"Crash\.vst3 is not loaded: it crashed"):
            engine.set_chain("vocals", [PluginSpec(str(bundle("Crash", "-DCRASH_AT_LOAD")))])
        with pytest.raises(PluginError, match=r"Hang\.vst3 is not loaded: it hung"):
            engine.set_chain("vocals", [PluginSpec(str(bundle("Hang", "-DHANG_AT_LOAD")))])
        assert engine.running
        assert engine.stats().hops > hops + 100


def test_before_the_start_there_is_nothing_to_set(model: Path) -> None:
    with pytest.raises(UsageError, match="not started"):
        Engine(model, backend=DummyConfig()).set_chain("vocals", [])
