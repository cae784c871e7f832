"""Effects of a mixing desk on audio ``[2, T]`` at 44.1 kHz, with numpy and scipy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, oaconvolve, sosfilt

SAMPLERATE = 44100
Audio = NDArray[np.float32]


def peak_filter(audio: Audio, frequency: float, gain_db: float, quality: float) -> Audio:
    """Peaking filter (R. Bristow-Johnson's audio EQ cookbook); frequency in Hz."""
    gain, omega = 10 ** (gain_db / 40), 2 * np.pi * frequency / SAMPLERATE
    alpha, middle = np.sin(omega) / (2 * quality), -2 * np.cos(omega)
    section = np.array([[1 + alpha * gain, middle, 1 - alpha * gain, 1 + alpha / gain, middle, 1 - alpha / gain]])
    return sosfilt(section / section[0, 3], audio, axis=1).astype(np.float32)


def cut_below(audio: Audio, frequency: float, order: int = 2) -> Audio:
    """Butterworth high-pass."""
    return sosfilt(butter(order, frequency, "high", fs=SAMPLERATE, output="sos"), audio, axis=1).astype(np.float32)


def cut_above(audio: Audio, frequency: float, order: int = 2) -> Audio:
    """Butterworth low-pass."""
    return sosfilt(butter(order, frequency, "low", fs=SAMPLERATE, output="sos"), audio, axis=1).astype(np.float32)


def tone(audio: Audio, rng: np.random.Generator, depth_db: float = 5.0) -> Audio:
    """Two peak filters at random places: one instrument never sounds the same on two records."""
    for _ in range(2):
        frequency = float(np.exp(rng.uniform(np.log(100), np.log(9000))))
        audio = peak_filter(audio, frequency, rng.uniform(-depth_db, depth_db), rng.uniform(0.4, 1.2))
    return audio


def compress(audio: Audio, above_db: float, ratio: float, attack: float = 0.005, release: float = 0.1) -> Audio:
    """Feed-forward compressor; ``above_db`` is the threshold against the loudest 5 % of blocks, times in seconds."""
    block = 128
    blocks = -(-audio.shape[1] // block)
    padded = np.pad(audio, ((0, 0), (0, blocks * block - audio.shape[1])))
    level = 10 * np.log10(np.square(padded).reshape(2, blocks, block).mean((0, 2)) + 1e-10)
    wanted = np.minimum(0.0, (np.percentile(level, 95) + above_db - level) * (1 - 1 / ratio))
    fall, rise = (float(np.exp(-block / SAMPLERATE / time)) for time in (attack, release))
    gain, now = np.empty(blocks), 0.0
    for i, target in enumerate(wanted.tolist()):
        now = target + (now - target) * (fall if target < now else rise)
        gain[i] = now
    curve = np.interp(np.arange(audio.shape[1]), np.arange(blocks) * block + block / 2, 10 ** (gain / 20))
    return (audio * curve).astype(np.float32)


def saturate(audio: Audio, drive: float) -> Audio:
    """Soft clipping; ``drive`` is the level of the loud parts (their RMS) before the curve."""
    loud = float(np.percentile(np.abs(audio), 90)) + 1e-6
    return (np.tanh(audio * (drive / loud)) * (loud / np.tanh(drive))).astype(np.float32)


def amplifier(audio: Audio, drive: float, cabinet: float) -> Audio:
    """An overdriven guitar amplifier with a loudspeaker that ends at ``cabinet`` Hz."""
    pushed = saturate(cut_below(audio, 120.0, 1), drive)
    return cut_above(cut_below(pushed, 90.0), cabinet, 4)


def chorus(audio: Audio, rate: float, depth: float, wet: float) -> Audio:
    """Modulated delay, opposite on the two sides; rate in Hz, depth in seconds."""
    time = np.arange(audio.shape[1], dtype=np.float64)
    out = np.empty_like(audio)
    for side in range(2):
        sway = np.sin(2 * np.pi * rate / SAMPLERATE * time + side * np.pi)
        delay = (0.008 + depth * (1 + sway)) * SAMPLERATE
        out[side] = (1 - wet) * audio[side] + wet * np.interp(time - delay, time, audio[side], left=0.0)
    return out


def echo(audio: Audio, delay: float, feedback: float, wet: float) -> Audio:
    """Three repeats from side to side; delay in seconds."""
    out = audio.copy()
    for repeat in range(1, 4):
        late = round(repeat * delay * SAMPLERATE)
        if late < audio.shape[1]:
            source = audio if repeat % 2 else audio[::-1]
            out[:, late:] += wet * feedback ** (repeat - 1) * source[:, : audio.shape[1] - late]
    return out


def reverb(audio: Audio, rng: np.random.Generator, seconds: float, wet: float, bright: float = 6000.0) -> Audio:
    """Room of two independent decaying noises; ``seconds`` to fall by 60 dB, ``wet`` as RMS against the dry sound."""
    length = int(seconds * SAMPLERATE)
    late = int(rng.uniform(0.0, 0.03) * SAMPLERATE)
    room = rng.standard_normal((2, length)) * 10 ** (-3 * np.arange(length) / length)
    room = cut_above(np.pad(room, ((0, 0), (late, 0))), bright, 1)
    room *= wet / np.sqrt(np.square(room).sum(1).mean())
    tail = oaconvolve(audio, room.astype(np.float32), axes=1)[:, : audio.shape[1]]
    return (audio + tail).astype(np.float32)


def place(audio: Audio, pan: float, width: float) -> Audio:
    """Pan by constant power (-1 left, 1 right) after narrowing the sides (0 mono, 1 as it is)."""
    middle, side = audio.mean(0), (audio[0] - audio[1]) / 2 * width
    angle = (pan + 1) * np.pi / 4
    gains = np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)])
    return (np.stack([middle + side, middle - side]) * gains[:, None]).astype(np.float32)
