"""Meta-TasNet's losses against loops in plain numpy, written from the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.metatasnet.losses import (
    LossWeights,
    active_sources,
    dissimilarity,
    meta_tasnet_loss,
    si_sdr,
    similarity,
)

BATCH, STEMS, SAMPLES, FRAMES, LATENTS = 3, 4, 50, 6, 7


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates, targets (some silent) and latents."""
    rng = np.random.default_rng(seed)
    estimate = torch.from_numpy(rng.standard_normal((BATCH, STEMS, 1, SAMPLES)))
    target = torch.from_numpy(rng.standard_normal((BATCH, STEMS, 1, SAMPLES)))
    target[0, 1] = 0.0
    target[2, 3] = 0.0
    return estimate, target, torch.from_numpy(rng.standard_normal((BATCH, STEMS, FRAMES, LATENTS)))


def plain_si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    scale = sum(e * t for e, t in zip(estimate, target, strict=True)) / (sum(t * t for t in target) + 1e-8)
    signal = max(sum((scale * t) ** 2 for t in target), 1e-8)
    error = max(sum((e - scale * t) ** 2 for e, t in zip(estimate, target, strict=True)), 1e-8)
    return 10 * math.log10(signal / error)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_si_sdr_is_the_mean_over_active_items() -> None:
    estimate, target, _ = data()
    got = si_sdr(estimate, target, active_sources(target))
    for stem in range(STEMS):
        active = [b for b in range(BATCH) if bool((target[b, stem] != 0).any())]
        values = [plain_si_sdr(estimate[b, stem, 0].numpy(), target[b, stem, 0].numpy()) for b in active]
        assert float(got[stem]) == pytest.approx(np.mean(values), abs=1e-9)


def test_si_sdr_ignores_the_level_and_a_stem_silent_everywhere() -> None:
    estimate, target, _ = data()
    target[:, 2] = 0.0
    active = active_sources(target)
    got = si_sdr(estimate, target, active)
    assert float(got[2]) == 0.0
    torch.testing.assert_close(si_sdr(estimate * 7, target, active), got, rtol=1e-6, atol=1e-6)
    assert float(si_sdr(target * 0.3, target, active)[0]) > 80


def test_dissimilarity_is_over_pairs_that_both_play() -> None:
    _, target, latents = data()
    active = active_sources(target).amax(-1)
    magnitudes = latents.abs().numpy()
    total = np.zeros(FRAMES)
    count = 0
    for b in range(BATCH):
        for i in range(STEMS):
            for j in range(i + 1, STEMS):
                if active[b, i] and active[b, j]:
                    count += 1
                    total += [cosine(magnitudes[b, i, n], magnitudes[b, j, n]) for n in range(FRAMES)]
    assert count == 12  # of 18 pairs
    assert float(dissimilarity(latents, active)) == pytest.approx((total / count).mean(), abs=1e-7)


def test_similarity_is_between_neighbours_in_the_batch() -> None:
    _, target, latents = data()
    active = active_sources(target).amax(-1)
    values = latents.numpy()
    total = np.zeros(FRAMES)
    count = 0
    for b in range(BATCH):
        before = (b - 1) % BATCH
        for i in range(STEMS):
            if active[b, i] and active[before, i]:
                count += 1
                total += [cosine(values[b, i, n], values[before, i, n]) for n in range(FRAMES)]
    assert float(similarity(latents, active)) == pytest.approx((total / count).mean(), abs=1e-7)


def test_the_sum_has_upstreams_weights() -> None:
    estimate, target, latents = data()
    reconstruction = data(1)[0][:, 0]
    active = active_sources(target)
    mixture = target.sum(1)
    parts = (
        float(si_sdr(estimate, target, active).sum()),
        float(np.mean([plain_si_sdr(reconstruction[b, 0].numpy(), mixture[b, 0].numpy()) for b in range(BATCH)])),
        float(dissimilarity(latents, active.amax(-1))),
        float(similarity(latents, active.amax(-1))),
    )
    got = float(meta_tasnet_loss(estimate, target, reconstruction, latents))
    assert got == pytest.approx(-parts[0] - 0.05 * parts[1] + 3.0 * parts[2] - 2.0 * parts[3], abs=1e-6)
    alone = float(meta_tasnet_loss(estimate, target, reconstruction, latents, LossWeights(0.0, 0.0, 0.0)))
    assert alone == pytest.approx(-parts[0], abs=1e-9)


def test_channels_count_like_items_of_the_batch() -> None:
    estimate, target, _ = data()
    stereo = [torch.cat([x, y], dim=2) for x, y in ((estimate, estimate.roll(1, 0)), (target, target.roll(1, 0)))]
    tall = [torch.cat([x, x.roll(1, 0)], dim=0) for x in (estimate, target)]
    torch.testing.assert_close(
        si_sdr(stereo[0], stereo[1], active_sources(stereo[1])), si_sdr(tall[0], tall[1], active_sources(tall[1]))
    )


def test_gradients_are_finite_when_everything_is_silent() -> None:
    estimate = torch.zeros(2, 4, 1, 20, requires_grad=True)
    latents = torch.zeros(2, 4, 3, 5, requires_grad=True)
    loss = meta_tasnet_loss(estimate, torch.zeros(2, 4, 1, 20), estimate.sum(1), latents)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert estimate.grad is not None
    assert bool(torch.isfinite(estimate.grad).all())
