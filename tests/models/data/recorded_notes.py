"""Folders of recorded single notes as sample libraries have them, made of partials, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16000
PARTIALS = {"reed": (1.0, 0.1, 0.6, 0.1, 0.4), "horn": (1.0, 0.7, 0.3, 0.1), "string": (0.6, 1.0, 0.8, 0.5, 0.4, 0.3)}


def tone(name: str, midi: float, seconds: float, rate: int = RATE) -> NDArray[np.float64]:
    """A steady note with a short attack and release."""
    time = np.arange(int(seconds * rate)) / rate
    hertz = 440.0 * 2 ** ((midi - 69) / 12)
    wave = sum(
        a * np.sin(2 * np.pi * hertz * (k + 1) * time + k)
        for k, a in enumerate(PARTIALS[name])
        if hertz * (k + 1) < rate / 2
    )
    ramp = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.02)
    return 0.2 * wave * ramp


def write_notes(
    root: Path, lowest: int = 50, highest: int = 74, step: int = 2, seconds: float = 0.8, silence: float = 0.25
) -> Path:
    """Write every `step`-th note of three instruments, with silence around each."""
    for name in PARTIALS:
        (root / name).mkdir(parents=True)
        for midi in range(lowest, highest + 1, step):
            pad = np.zeros(int(silence * RATE))
            audio = np.concatenate([pad, tone(name, midi, seconds), pad])
            soundfile.write(root / name / f"{midi:03d}_forte_1.flac", audio, RATE)
    return root


def pitch_of(audio: NDArray[np.float32], rate: int = RATE, lowest: float = 60.0) -> float:
    """MIDI number of a steady sound, from its autocorrelation (with the peak interpolated)."""
    size = 1 << (2 * len(audio)).bit_length()
    line = np.fft.irfft(np.abs(np.fft.rfft(audio * np.hanning(len(audio)), size)) ** 2, size)
    line = line[: len(audio)] / np.maximum(
        1e-9, np.correlate(np.hanning(len(audio)), np.hanning(len(audio)), "full")[len(audio) - 1 :]
    )
    first = int(rate / 2000)
    region = line[first : int(rate / lowest)]
    peaks = [i for i in range(1, len(region) - 1) if region[i - 1] <= region[i] >= region[i + 1]]
    best = max(region[i] for i in peaks)
    lag = next(i for i in peaks if region[i] > 0.9 * best)  # the shortest period of the good ones
    a, b, c = region[lag - 1 : lag + 2]
    period = first + lag + 0.5 * (a - c) / (a - 2 * b + c)
    return float(69 + 12 * np.log2(rate / period / 440))
