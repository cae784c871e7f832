"""A model and a recording that every test here can use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.support.graphs import make_delay_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stems .5, .25, .125, .125 of the input, 700 samples late, hop 512: latency and hop share no multiple."""
    path = tmp_path_factory.mktemp("model") / "delay.onnx"
    return make_delay_model(path, hop=512, latency=700, gains=(0.5, 0.25, 0.125, 0.125))


@pytest.fixture(scope="session")
def recording() -> NDArray[np.float32]:
    """Band-limited stereo noise [2, 20011], so that resampling there and back loses little."""
    noise = np.random.default_rng(5).standard_normal((2, 20011))
    spectrum = np.fft.rfft(noise)
    spectrum[:, len(spectrum[0]) // 12 :] = 0
    audio = np.fft.irfft(spectrum, 20011)
    fade = np.minimum(1, np.minimum(np.arange(20011), np.arange(20011)[::-1]) / 2000)
    return (0.3 * fade * audio / np.abs(audio).max()).astype(np.float32)


@pytest.fixture
def song(tmp_path: Path, recording: NDArray[np.float32]) -> Path:
    """The recording as a float WAV at 44.1 kHz."""
    path = tmp_path / "song.wav"
    soundfile.write(path, recording.T, 44100, subtype="FLOAT")
    return path
