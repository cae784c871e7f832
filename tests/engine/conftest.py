"""Fixtures of the engine tests: models with known answers, noise files, and the offline chain to compare with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from rtsep.chain import HopChain
from rtsep.inference.session import StreamingSession
from rtsep.mixer.mixer import Mixer
from tests.support.graphs import make_delay_model

Audio = NDArray[np.float32]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four stems, hop 512, latency 700, native at 44.1 and 48 kHz."""
    gains = (0.5, 0.25, 0.125, 0.125)
    return make_delay_model(tmp_path_factory.mktemp("model") / "delay.onnx", hop=512, latency=700, gains=gains)


def noise(frames: int, channels: int = 2, seed: int = 0) -> Audio:
    """Return seeded noise [T, C] at -20 dBFS."""
    return (0.1 * np.random.default_rng(seed).standard_normal((frames, channels))).astype(np.float32)


@pytest.fixture
def noise_file(tmp_path: Path) -> Callable[..., tuple[Path, Audio]]:
    """Return a function that writes noise to a float WAV and gives path and frames [T, C]."""

    def write(frames: int = 48_000, samplerate: int = 48_000, channels: int = 2) -> tuple[Path, Audio]:
        path = tmp_path / f"noise-{frames}-{samplerate}-{channels}.wav"
        audio = noise(frames, channels)
        soundfile.write(path, audio, samplerate, subtype="FLOAT")
        return path, audio

    return write


def read_frames(path: str | os.PathLike[str]) -> Audio:
    """Return all frames [T, C] of a file."""
    frames: Audio = soundfile.read(path, dtype="float32", always_2d=True)[0]
    return frames


def offline(model: Path, audio: Audio, samplerate: int = 48_000, **settings: Any) -> Audio:
    """Return what the offline chain makes of ``audio`` [T, C]: [T', C], whole hops, the model's latency still in it."""
    with StreamingSession(model, provider="cpu") as session:
        mixer = Mixer(session.info.stems, session.info.channels, samplerate)
        mixer.settings.apply(**settings)
        chain = HopChain(session, mixer)
        hop = session.info.hop_samples
        padded = np.zeros((-(-len(audio) // hop) * hop, audio.shape[1]), np.float32)
        padded[: len(audio)] = audio
        hops = [
            chain.process_hop(np.ascontiguousarray(padded[start : start + hop].T)).T.copy()
            for start in range(0, len(padded), hop)
        ]
    return np.concatenate(hops)
