"""Whole songs through the reference form."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import soxr
import torch

from models.metatasnet.loader import config_of
from models.metatasnet.offline import fit_to_mixture, separate
from models.metatasnet.reference import MetaTasNet
from tests.models.metatasnet.upstream import TINY


@pytest.fixture(scope="module")
def model() -> MetaTasNet:
    torch.manual_seed(0)
    return MetaTasNet(config_of(argparse.Namespace(**TINY))).eval()


def song(seconds: float = 1.3, rate: int = 44100) -> np.ndarray:
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * rate)) / rate
    tones = np.stack([np.sin(2 * np.pi * f * time) for f in (220.0, 331.0)])
    return (0.3 * tones + 0.02 * rng.standard_normal(tones.shape)).astype(np.float32)


def test_stems_have_the_songs_shape_and_follow_the_reference(model: MetaTasNet) -> None:
    audio = song(rate=16000)  # the tiny model's highest rate: nothing is resampled on the way back
    stems = separate(model, audio, 16000, least_squares=False)
    assert stems.shape == (4, 2, audio.shape[1])
    low = soxr.resample(audio[0], 16000, 8000, quality="HQ")
    frames = -(-len(low) // 20)
    inputs = [np.pad(x, (0, frames * 20 * s - len(x))) for x, s in ((low, 1), (audio[0], 2))]
    with torch.no_grad():
        expected = model([torch.from_numpy(x / x.std(ddof=1)).float()[None, None] for x in inputs])[-1]
    got = stems[:, 0] / inputs[1].std(ddof=1)
    np.testing.assert_allclose(
        got, expected[0, :, 0, : audio.shape[1]].numpy(), atol=1e-3 * float(expected.abs().max())
    )


def test_least_squares_fits_every_channel_to_the_mixture(model: MetaTasNet) -> None:
    audio = song()
    stems = separate(model, audio, 44100)
    raw = separate(model, audio, 44100, least_squares=False)
    for channel in range(2):
        error = np.linalg.norm(audio[channel] - stems[:, channel].sum(0))
        assert error <= np.linalg.norm(audio[channel] - raw[:, channel].sum(0))
        assert error <= np.linalg.norm(audio[channel]) * (1 + 1e-6)


def test_gains_are_recovered() -> None:
    stems = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    gains = np.array([0.5, -2.0, 3.0, 1.0], np.float32)
    np.testing.assert_allclose(fit_to_mixture(stems, gains @ stems), gains, atol=1e-4)


def test_level_does_not_matter_and_silence_stays_silent(model: MetaTasNet) -> None:
    audio = song()
    loud = separate(model, audio, 44100)
    np.testing.assert_allclose(separate(model, 0.1 * audio, 44100), 0.1 * loud, atol=2e-3 * np.abs(0.1 * loud).max())
    silent = separate(model, np.zeros((1, 30000), np.float32), 44100)
    assert np.isfinite(silent).all()
    assert np.abs(silent).max() < 1e-4


def test_chunks_join_where_they_were_cut(model: MetaTasNet) -> None:
    audio = song(6.0)
    whole = separate(model, audio, 44100)
    # With the whole song as overlap, every chunk sees everything: only the cuts are left to go wrong.
    chunks = separate(model, audio, 44100, chunk_seconds=1.0, overlap_seconds=10.0)
    np.testing.assert_allclose(chunks, whole, atol=1e-4 * np.abs(whole).max())
    short = separate(model, audio, 44100, chunk_seconds=1.0, overlap_seconds=0.5)
    assert not np.allclose(short, whole, atol=1e-3 * np.abs(whole).max())  # statistics of a chunk are its own


@pytest.mark.parametrize("shape", [(2, 0), (100,)])
def test_wrong_shapes_are_named(model: MetaTasNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"audio must be \[C, T\]"):
        separate(model, np.zeros(shape, np.float32), 44100)


def test_nan_is_refused(model: MetaTasNet) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        separate(model, np.full((1, 4000), np.nan, np.float32), 44100)
