"""The pitch of a steady sound by autocorrelation: independent of anything in rtsep."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pitch_of(audio: NDArray[np.float32], rate: int = 16_000) -> float:
    """Hertz by the first high peak of the normalised autocorrelation, at an eighth of a sample."""
    audio = audio.astype(np.float64) - audio.mean()
    size, fine = len(audio), 8
    power = np.abs(np.fft.rfft(audio, 2 * size)) ** 2
    correlation = fine * np.fft.irfft(power, fine * 2 * size)[: fine * size // 2]
    energy = np.concatenate([[0.0], np.cumsum(audio**2)])
    lags = np.arange(len(correlation)) // fine
    r = correlation / np.sqrt(energy[size - lags] * (energy[size] - energy[lags]))
    inner = np.flatnonzero((r[1:-1] > r[:-2]) & (r[1:-1] >= r[2:])) + 1
    peaks = inner[inner > 4 * fine]  # 4 samples: 4 kHz
    k = next(k for k in peaks if r[k] > r[peaks].max() - 0.03)
    shift = 0.5 * (r[k - 1] - r[k + 1]) / (r[k - 1] - 2 * r[k] + r[k + 1])
    return float(rate * fine / (k + shift))


def cents(hertz: float, wanted: float) -> float:
    return 1200 * np.log2(hertz / wanted)
