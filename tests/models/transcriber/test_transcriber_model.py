"""Causality to the sample, chunk invariance, and what comes out of silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.parity import music_like
from models.transcriber.features import LogFrequency
from models.transcriber.model import KINDS, TranscriberConfig
from tests.models.transcriber.small import HOP, RATE, small_model


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_any_cut_into_hops_gives_the_same(kind: str) -> None:
    model = small_model(kind)
    audio = torch.from_numpy(music_like(120 * HOP, 1, RATE))[None]
    with torch.no_grad():
        whole, _ = model(audio)
        for cuts in ([1] * 120, [7, 1, 50, 2, 60]):
            state, pieces, at = None, [], 0
            for hops in cuts:
                notes, state = model(audio[..., at * HOP : (at + hops) * HOP], state)
                pieces.append(notes)
                at += hops
            for name, expected in whole.items():
                got = torch.cat([piece[name] for piece in pieces], dim=2)
                assert got.shape == expected.shape
                assert (got - expected).abs().max() < 1e-5


def test_the_future_beyond_the_declared_latency_changes_nothing(kind: str) -> None:
    model = small_model(kind)
    frame, frames = 60, 90
    audio = music_like(frames * HOP, 1, RATE)
    with torch.no_grad():
        before, _ = model(torch.from_numpy(audio)[None])
        for d, latency in enumerate(model.latencies):
            # Frame f is complete when the input has come to (f + 1) hops plus the latency.
            known = (frame + 1) * HOP + latency
            other = audio.copy()
            other[:, known:] = np.random.default_rng(1).standard_normal(other[:, known:].shape)
            after, _ = model(torch.from_numpy(other)[None])
            step = frame + latency // HOP
            for name in before:
                assert torch.equal(before[name][:, d, : step + 1], after[name][:, d, : step + 1]), name
            assert not torch.equal(before["onset"][:, d, step + 1 :], after["onset"][:, d, step + 1 :])


def test_the_last_samples_before_it_do_count(kind: str) -> None:
    """The latency is not merely declared: audio within it reaches the frame."""
    model = small_model(kind)
    audio = music_like(60 * HOP, 1, RATE)
    with torch.no_grad():
        before, _ = model(torch.from_numpy(audio)[None])
        audio[:, -HOP // 2 :] += 0.5
        after, _ = model(torch.from_numpy(audio)[None])
    for d in range(len(model.latencies)):
        assert not torch.equal(before["onset"][:, d, -1], after["onset"][:, d, -1])


def test_stems_of_a_batch_do_not_meet(kind: str) -> None:
    model = small_model(kind)
    audio = torch.from_numpy(np.stack([music_like(40 * HOP, 1, RATE, seed) for seed in (0, 1, 2)]))
    with torch.no_grad():
        together, state = model(audio)
        alone, alone_state = model(audio[1:2])
    for name in together:
        assert (together[name][1:2] - alone[name]).abs().max() < 1e-5
    for path, value in state.items():
        assert (value[1:2] - alone_state[path]).abs().max() < 1e-4


def test_a_new_model_is_nearly_silent(kind: str) -> None:
    from models.transcriber.model import StreamingTranscriber
    from tests.models.transcriber.small import SMALL

    torch.manual_seed(0)
    model = StreamingTranscriber(SMALL[kind]).eval()
    with torch.no_grad():
        notes, _ = model(torch.zeros(1, 1, 100 * HOP))
    assert notes["onset"].max() < 0.1
    assert notes["frame"].max() < 0.1
    if kind == "monophonic":
        assert (notes["pitch"] == 0).all()


def test_features_are_zero_for_silence_and_peak_at_the_pitch() -> None:
    features = LogFrequency(RATE, HOP, 4096, 1024, 21, 99, 3)
    silence, _ = features(torch.zeros(1, 1, 30 * HOP))
    assert torch.equal(silence, torch.zeros_like(silence))
    for midi in (45, 60, 81):
        time = torch.arange(60 * HOP) / RATE
        tone = torch.sin(2 * torch.pi * 440 * 2 ** ((midi - 69) / 12) * time)
        levels, _ = features(tone[None, None])
        loudest = int(levels[0, 0, -1].argmax())
        assert abs(loudest - (3 * (midi - 21) + 1)) <= 1
        assert 0.95 < float(levels[0, 0, -1].max()) < 1.05  # a full-scale sine is 1


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        TranscriberConfig.from_dict({"kind": "trumpet"})
    with pytest.raises(ValueError, match="lookahead"):
        TranscriberConfig.from_dict({"lookahead": [6, 3, 14]})
    with pytest.raises(TypeError, match="chanels"):
        TranscriberConfig.from_dict({"chanels": 3})
