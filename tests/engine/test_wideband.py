"""Models at another rate, or in mono: what they never saw stays as it was captured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rtsep
from rtsep.chain import HopChain
from rtsep.engine.runner import ChainRunner
from rtsep.inference.session import StreamingSession
from rtsep.mixer.mixer import Mixer
from tests.engine.conftest import noise
from tests.engine.test_worker import play
from tests.support.graphs import make_delay_model

Audio = NDArray[np.float32]
STEMS = ("query", "rest")


def model_at(folder: Path, rate: int, channels: int, residual: str | None = "rest", hop: int = 160) -> Path:
    path = folder / f"{rate}-{channels}-{residual}-{hop}.onnx"
    if not path.exists():
        make_delay_model(
            path,
            hop=hop,
            latency=hop,
            channels=channels,
            stems=STEMS,
            gains=(0.25, 0.75),
            samplerates=(rate,),
            residual_stem=residual,
        )
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=st.integers(1, 1200),
    rate=st.sampled_from([8000, 16000, 44100, 48000]),
    samplerate=st.sampled_from([16000, 22050, 44100, 48000, 96000]),
    mono=st.booleans(),
    residual=st.sampled_from(["rest", None]),
    frames=st.integers(1, 9000),
)
def test_faders_at_zero_give_the_input_at_any_rate(
    tmp_path: Path, block: int, rate: int, samplerate: int, mono: bool, residual: str | None, frames: int
) -> None:
    audio = noise(frames)
    path = model_at(tmp_path, rate, 1 if mono else 2, residual)
    heard, worker = play(path, audio, block=block, samplerate=samplerate)
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    np.testing.assert_array_equal(heard[shift : shift + frames], audio)


def sines(samplerate: int, seconds: float = 1.0) -> tuple[Audio, Audio]:
    """What a 16 kHz model hears (1 kHz, the same on both channels) and what it does not (15 kHz, left), [T, 2]."""
    time = np.arange(round(seconds * samplerate)) / samplerate
    low, high = 0.3 * np.sin(2 * np.pi * 1000 * time), 0.2 * np.sin(2 * np.pi * 15000 * time)
    both = np.stack([low, low], 1).astype(np.float32)
    return both, np.stack([high, 0 * high], 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("mix", "low_gain", "high_gain"),
    [
        ({"mute": ["query"]}, 0.75, 1.0),
        ({"mute": ["rest"]}, 0.25, 0.0),
        ({"solo": ["query"]}, 0.25, 0.0),
        ({"solo": ["rest"]}, 0.75, 1.0),
        ({"gain": {"query": 6.0206}}, 1.25, 1.0),
        ({"gain": {"rest": -6.0206}}, 0.625, 0.5),
        ({"master_db": -6.0206, "mute": ["query"]}, 0.375, 0.5),
    ],
)
def test_residual_stem_has_what_the_model_never_saw(
    tmp_path: Path, channels: int, mix: dict[str, Any], low_gain: float, high_gain: float
) -> None:
    low, high = sines(48000)
    heard, worker = play(model_at(tmp_path, 16000, channels), low + high, block=128, samplerate=48000, **mix)
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    middle = slice(12000, 36000)
    wanted = low_gain * low + high_gain * high
    assert np.abs(heard[shift:][middle] - wanted[middle]).max() < 3e-3


def test_without_a_residual_stem_the_dry_signal_has_it(tmp_path: Path) -> None:
    low, high = sines(48000)
    path = model_at(tmp_path, 16000, 1, residual=None)
    heard, worker = play(path, low + high, block=128, samplerate=48000, mute=["rest"])
    assert worker.plan is not None
    shift = worker.plan.report.total_samples
    wanted = 0.25 * low + high
    assert np.abs(heard[shift:][12000:36000] - wanted[12000:36000]).max() < 3e-3


@pytest.mark.parametrize(("rate", "samplerate"), [(16000, 48000), (16000, 44100), (48000, 96000)])
def test_a_fader_that_moves_does_not_click(tmp_path: Path, rate: int, samplerate: int) -> None:
    """Above the music's band nothing appears but what the ramp itself makes."""
    time = np.arange(2 * samplerate) / samplerate
    audio = np.tile((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), (1, 1))
    with StreamingSession(model_at(tmp_path, rate, 1), provider="cpu") as session:
        mixer = Mixer(STEMS, 1, rate, output_samplerate=samplerate)
        runner = ChainRunner(HopChain(session, mixer), samplerate, rate, channels=1)
        out, at, hop = [], 0, 0
        while at + runner.needed <= audio.shape[1]:
            count = runner.needed
            if hop % 40 == 20:
                mixer.settings.set_solo("query", hop % 80 == 20)
            out.append(runner.run(audio[:, at : at + count]).copy())
            at, hop = at + count, hop + 1
    heard = np.concatenate(out, axis=1)[0]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    above = round(3000 * len(heard) / samplerate)
    assert 20 * np.log10(spectrum[above:].max() / spectrum.max()) < -80
    # Soloed it is a quarter of the input, otherwise the input.
    level = [np.abs(heard[a : a + samplerate // 100]).max() for a in range(0, len(heard) - samplerate // 100, 480)]
    assert min(level[20:]) == pytest.approx(0.125, abs=2e-3)
    assert max(level) == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize("samplerate", [22050, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_of_a_file_sum_to_it(tmp_path: Path, samplerate: int, channels: int) -> None:
    audio = np.ascontiguousarray(noise(2 * samplerate).T)
    result = rtsep.separate(audio, samplerate=samplerate, model=model_at(tmp_path, 16000, channels))
    assert all(stem.shape == audio.shape for stem in result.stems.values())
    np.testing.assert_allclose(sum(result.stems.values()), audio, atol=1e-6)
    assert result.mix is not None
    np.testing.assert_array_equal(result.mix, audio)
    muted = rtsep.separate(audio, samplerate=samplerate, model=model_at(tmp_path, 16000, channels), mute=["query"])
    assert muted.mix is not None
    np.testing.assert_allclose(muted.mix, muted.stems["rest"], atol=1e-6)
