"""The exported graph against PyTorch, and how long its steps take."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.wrap import StreamingModel, call, control_specs
from rtsep.inference import StreamingSession

FloatArray = NDArray[np.float32]

TOLERANCE = 1e-4
"""Largest absolute difference, full scale 1.0, between graph and PyTorch, and between summed stems and audio."""


def music_like(samples: int, channels: int, samplerate: int, seed: int = 0) -> FloatArray:
    """Return random audio that moves as music does: notes with partials, drum hits, hiss, rests.

    Parameters
    ----------
    samples, channels, samplerate : int
        Size, and rate in Hz.
    seed : int
        Of the random generator.

    Returns
    -------
    ndarray
        float32 ``[C, T]``, peak 0.9.
    """
    random = np.random.default_rng(seed)
    audio = np.zeros((channels, samples))
    beat = int(0.17 * samplerate)
    for start in range(0, samples, beat):
        length = min(int(random.uniform(0.2, 1.2) * samplerate), samples - start)
        time_s = np.arange(length) / samplerate
        gains = random.uniform(0.1, 1.0, (channels, 1))
        if random.random() < 0.85:
            pitch_hz = 55.0 * 2.0 ** (random.integers(0, 48) / 12)
            partials = range(1, 12)
            wobble = 0.3 * np.sin(2 * np.pi * 5.0 * time_s)
            tone = sum(
                np.sin(2 * np.pi * pitch_hz * n * time_s + n * wobble + random.uniform(0, 6)) / n**1.3
                for n in partials
                if pitch_hz * n < samplerate / 2
            )
            audio[:, start : start + length] += gains * tone * np.exp(-time_s * random.uniform(1, 6))
        if random.random() < 0.6:
            hit = random.standard_normal(length) * np.exp(-time_s * random.uniform(15, 60))
            audio[:, start : start + length] += gains * hit
    audio += 1e-3 * random.standard_normal(audio.shape)
    # A rest: exact silence is where states settle and divisions by a level go wrong.
    rest = slice(int(0.45 * samples), int(0.52 * samples))
    audio[:, rest] = 0.0
    return (0.9 * audio / max(float(np.abs(audio).max()), 1e-9)).astype(np.float32)


@dataclass(frozen=True)
class Parity:
    """How far the graph is from PyTorch.

    Attributes
    ----------
    max_abs_error : float
        Stems and notes, hop by hop in ONNX Runtime, against the whole clip as one chunk in PyTorch; full scale 1.0.
    sum_error : float
        Largest absolute difference between the sum of the stems and the delayed audio.
    seconds : float
        Length of the audio compared.
    samplerate : int
        Hz.
    audio : ndarray
        What went through both, ``[C, T]``.
    """

    max_abs_error: float
    sum_error: float
    seconds: float
    samplerate: int
    audio: FloatArray


def compare(model: StreamingModel, session: StreamingSession, seconds: float, seed: int = 0) -> Parity:
    """Run the same audio through PyTorch at once and through the session hop by hop, notes included.

    Controls are drawn at random from their ranges, since a default can hide a part of the graph; the session has
    their defaults again afterwards.
    """
    samplerate = max(model.samplerates)
    hop = model.hop_samples
    hops = -(-int(seconds * samplerate) // hop)
    audio = music_like(hops * hop, model.channels, samplerate, seed)
    random = np.random.default_rng(seed)
    specs = control_specs(model)
    values = {s.name: random.uniform(s.minimum, s.maximum, s.shape).astype(np.float32) for s in specs}
    with torch.no_grad():
        batch = torch.from_numpy(audio).unsqueeze(0)  # [1, C, T]
        controls = {name: torch.from_numpy(np.asarray(value)).unsqueeze(0) for name, value in values.items()}
        expected, expected_notes, _ = call(model, batch, None, controls)
    reference = expected[0].numpy()  # [S, C, T]
    session.reset()
    for name, value in values.items():
        session.set_control(name, value)
    stems = np.empty_like(reference)
    note_hops: list[dict[str, FloatArray]] = []
    for start in range(0, audio.shape[1], hop):
        stems[:, :, start : start + hop] = session.step(np.ascontiguousarray(audio[:, start : start + hop]))
        if expected_notes:
            note_hops.append({name: array.copy() for name, array in session.notes.items()})
    for spec in specs:
        session.set_control(spec.name, np.reshape(spec.default, spec.shape))
    session.reset()
    difference = _largest(stems - reference)
    for name, tensor in expected_notes.items():
        played = np.concatenate([notes[name.partition("/")[2]] for notes in note_hops], axis=1)  # [S', N, P]
        difference = max(difference, _largest(played - tensor[0].numpy()))
    latency = model.latency
    delayed = np.concatenate([np.zeros((audio.shape[0], latency), np.float32), audio], axis=1)[:, : audio.shape[1]]
    return Parity(
        max_abs_error=difference,
        sum_error=_largest(stems.sum(axis=0) - delayed),
        seconds=audio.shape[1] / samplerate,
        samplerate=samplerate,
        audio=audio,
    )


def benchmark(session: StreamingSession, audio: FloatArray, hops: int = 400) -> dict[str, Any]:
    """Time single steps.

    Parameters
    ----------
    session : StreamingSession
    audio : ndarray
        float32 ``[C, T]``, at least one hop; repeated as needed.
    hops : int
        Steps timed.

    Returns
    -------
    dict
        ``machine``, ``threads``, ``hops``, ``p50_ms``, ``p95_ms``, ``p99_ms``, ``max_ms``, and ``rtf``: mean step
        time over hop duration, by native rate.
    """
    hop = session.info.hop_samples
    blocks = [np.ascontiguousarray(audio[:, i : i + hop]) for i in range(0, audio.shape[1] - hop + 1, hop)]
    times_ms = np.empty(hops)
    for index in range(-10, hops):
        block = blocks[index % len(blocks)]
        before = time.perf_counter()
        session.step(block)
        if index >= 0:
            times_ms[index] = 1000 * (time.perf_counter() - before)
    session.reset()
    p50, p95, p99 = (round(float(value), 4) for value in np.percentile(times_ms, [50, 95, 99]))
    mean = float(times_ms.mean())
    return {
        "machine": machine(),
        "threads": session.threads,
        "hops": hops,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": round(float(times_ms.max()), 4),
        "rtf": {str(rate): round(mean * rate / (1000 * hop), 4) for rate in session.info.samplerates},
    }


def machine() -> Mapping[str, Any]:
    """Return what the figures of a benchmark depend on."""
    import onnxruntime

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _largest(difference: FloatArray) -> float:
    # NaN compares false with every tolerance, so it is turned into what it means here.
    largest = float(np.abs(difference).max())
    return largest if np.isfinite(largest) else float("inf")
