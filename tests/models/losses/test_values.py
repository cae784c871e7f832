"""Every loss against the same computed by loops in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.losses import Estimates, get_loss, list_losses
from models.streaming.stft import asymmetric_windows

from .conftest import HOP, WINDOW

EPS = float(np.finfo(np.float32).eps)


class Arrays:
    """The parts of estimates as float64, with a synthesis of its own."""

    def __init__(self, estimates: Estimates) -> None:
        self.m = estimates.masks.detach().double().numpy()
        self.x = estimates.mixture.numpy().astype(complex)
        self.y = estimates.targets.numpy().astype(complex)
        self.batch, self.stems, self.channels, self.frames, _ = self.m.shape
        self.mag = self.m * np.abs(self.x)[:, None]
        self.target = np.abs(self.y)
        phase = np.angle(self.x)[:, None] - np.angle(self.y)
        self.psa = np.abs(self.y) * np.cos(phase)
        self.psa_root = np.sqrt(np.abs(self.y)) * np.cos(phase)
        self.wave_target = estimates.waveforms.double().numpy()[..., :-HOP]
        analysis, synthesis = (w.double().numpy() for w in asymmetric_windows(WINDOW, HOP))
        synthesis = synthesis * analysis.sum() / 2
        line = np.zeros((*self.m.shape[:3], (self.frames + 1) * HOP))
        for n in range(self.frames):
            frame = np.fft.irfft(self.m[:, :, :, n] * self.x[:, None, :, n], n=WINDOW)
            line[..., n * HOP : n * HOP + 2 * HOP] += frame[..., -2 * HOP :] * synthesis
        self.wave = line[..., HOP:-HOP]  # frame n ends at sample (n + 1) HOP of the input

    def per_stem(self, e: np.ndarray, t: np.ndarray, power: int) -> list[float]:
        return [np.mean(np.abs(e[:, s] - t[:, s]) ** power) for s in range(self.stems)]

    def per_item(self, e: np.ndarray, t: np.ndarray, ratio: Callable[[np.ndarray, np.ndarray], float]) -> float:
        values = [ratio(e[b, s].ravel(), t[b, s].ravel()) for b in range(self.batch) for s in range(self.stems)]
        return float(np.mean(values))


def si_sdr(e: np.ndarray, s: np.ndarray) -> float:
    a = e @ s / (s @ s) * s
    return -10 * np.log10((a @ a) / ((e - a) @ (e - a)))


def min_snr(e: np.ndarray, s: np.ndarray) -> float:
    snr = 10 * np.log10((s @ s) / ((e - s) @ (e - s)))
    return -min(snr, snr + 20 * np.log10(abs(e @ s) / (s @ s)))


def soft_snr(e: np.ndarray, s: np.ndarray) -> float:
    return 20 * np.tanh(-10 * np.log10((s @ s) / ((e - s) @ (e - s))) / 20)


def irm(a: Arrays) -> np.ndarray:
    return a.target / a.target.sum(1, keepdims=True)


def cross_entropy(logits: np.ndarray, a: Arrays) -> float:
    total, count = 0.0, 0
    for b, c, n, f in np.ndindex(*a.x.shape):
        z = logits[b, :, c, n, f]
        total -= z[np.argmax(a.target[b, :, c, n, f])] - np.log(np.sum(np.exp(z)))
        count += 1
    return total / count


def binary_cross_entropy(logits: np.ndarray, a: Arrays) -> float:
    total, count = 0.0, 0
    for b, c, n, f in np.ndindex(*a.x.shape):
        winner = np.argmax(a.target[b, :, c, n, f])
        for s in range(a.stems):
            p = 1 / (1 + np.exp(-logits[b, s, c, n, f]))
            total -= np.log(p if s == winner else 1 - p)
        count += 1
    return total / count


def dissimilarity(a: Arrays, *, own: bool) -> float:
    total = 0.0
    for s in range(a.stems):
        total += np.mean((a.mag[:, s] - a.target[:, s]) ** 2)
        for t in range(a.stems):
            if own or t != s:
                total -= 0.1 * np.mean((a.mag[:, s] - a.target[:, t]) ** 2)
    return total


def snr_psa_upstream(a: Arrays) -> float:
    values = [soft_snr(a.mag[:, s].ravel(), a.psa_root[:, s].ravel()) for s in range(a.stems)]
    return float(np.mean(values))


def decibels(values: list[float]) -> float:
    return float(np.sum(10 * np.log10(values)))


BY_HAND: dict[str, Callable[[Arrays], float]] = {
    "l2_freq": lambda a: sum(a.per_stem(a.mag, a.target, 2)),
    "l1_freq": lambda a: sum(a.per_stem(a.mag, a.target, 1)),
    "l2_mask": lambda a: sum(a.per_stem(a.m, irm(a), 2)),
    "l1_mask": lambda a: sum(a.per_stem(a.m, irm(a), 1)),
    "l2_time": lambda a: sum(a.per_stem(a.wave, a.wave_target, 2)),
    "l1_time": lambda a: sum(a.per_stem(a.wave, a.wave_target, 1)),
    "log_l2_time": lambda a: decibels(a.per_stem(a.wave, a.wave_target, 2)),
    "log_l1_time": lambda a: decibels(a.per_stem(a.wave, a.wave_target, 1)),
    "log_l2_freq": lambda a: decibels(a.per_stem(a.mag, a.target, 2)),
    "log_l1_freq": lambda a: decibels(a.per_stem(a.mag, a.target, 1)),
    "si_sdr_time": lambda a: a.per_item(a.wave, a.wave_target, si_sdr),
    "si_sdr_freq": lambda a: a.per_item(a.mag, a.target, si_sdr),
    "min_snr_sd_sdr": lambda a: a.per_item(a.wave, a.wave_target, min_snr),
    "cross_entropy": lambda a: cross_entropy(np.log(a.m), a),
    "binary_cross_entropy": lambda a: binary_cross_entropy(np.log(a.m / (1 - a.m)), a),
    "psa": lambda a: sum(a.per_stem(a.mag, a.psa, 2)),
    "snr_psa": lambda a: a.per_item(a.mag, a.psa, soft_snr),
    "dissimilarity": lambda a: dissimilarity(a, own=False),
    "si_sdr_time_upstream": lambda a: si_sdr(a.wave.ravel(), a.wave_target.ravel()),
    "si_sdr_freq_upstream": lambda a: si_sdr(a.mag.ravel(), a.target.ravel()),
    "min_snr_sd_sdr_upstream": lambda a: min_snr(a.wave.ravel(), a.wave_target.ravel()),
    "cross_entropy_upstream": lambda a: cross_entropy(a.m, a),
    "binary_cross_entropy_upstream": lambda a: binary_cross_entropy(a.m, a),
    "snr_psa_upstream": snr_psa_upstream,
    "dissimilarity_upstream": lambda a: dissimilarity(a, own=True),
}


def test_every_loss_without_a_network_is_computed_by_hand() -> None:
    assert set(list_losses()) - set(BY_HAND) == {"adversarial", "deep_feature"}


@pytest.mark.parametrize("name", BY_HAND)
def test_value(make: Callable[..., Estimates], name: str) -> None:
    estimates = make(masks=0.05 + 0.9 * torch.rand(3, 4, 2, 12, 129))
    expected = BY_HAND[name](Arrays(estimates))
    assert float(get_loss(name)(estimates).detach()) == pytest.approx(expected, rel=2e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "by_hand"), [("cross_entropy", cross_entropy), ("binary_cross_entropy", binary_cross_entropy)]
)
def test_logits_take_the_place_of_masks(
    make: Callable[..., Estimates], name: str, by_hand: Callable[[np.ndarray, Arrays], float]
) -> None:
    torch.manual_seed(5)
    logits = 3 * torch.randn(3, 4, 2, 12, 129)
    estimates = make(logits=logits)
    expected = by_hand(logits.double().numpy(), Arrays(estimates))
    assert float(get_loss(name)(estimates).detach()) == pytest.approx(expected, rel=1e-4)
