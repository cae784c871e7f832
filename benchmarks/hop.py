"""How long a hop takes.

engine    in the running engine, on the clocked dummy device that plays noise: model, delay, mixer, as a user has it
session   `StreamingSession.step` alone, called as far apart as hops are, on music-like audio, at real-time priority
          where that is allowed
back to back    the same without gaps, which keeps caches and clock frequency up, and is what many benchmarks print

``busy``: one endless loop on each other core (on one where there is only one).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any

import numpy as np

from benchmarks.record import Recorder, digits, engine_histogram
from export.parity import music_like
from rtsep.audio.backends import DummyConfig
from rtsep.engine import Engine
from rtsep.engine.realtime import make_thread_realtime
from rtsep.engine.stats import percentile_ms
from rtsep.inference import StreamingSession
from rtsep.zoo import ZooEntry, list_models
from rtsep.zoo.registry import read_info, resolve
from tests.integration.jack import cpu_hogs

ROUNDS = 5
BLOCKS = {"quick": (128,), "full": (64, 128, 256, 512, 1024)}
SECONDS = {"quick": 1.5, "full": 5.0}
_WARM_S = 0.5


def providers() -> list[str]:
    """The execution providers that work here."""
    import onnxruntime

    return ["cpu", *(["cuda"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else [])]


def measure(recorder: Recorder, depth: str) -> None:
    """Every shipped model."""
    seconds = SECONDS[depth]
    counts = (1, 2) if depth == "full" else (1,)
    for busy in (False, True):
        hogs = max(1, (os.cpu_count() or 1) - 1) if busy else 0
        with cpu_hogs(hogs) if hogs else contextlib.nullcontext():
            for entry in list_models() if depth == "full" or not busy else [default()]:
                for provider in providers():
                    for threads in counts if provider == "cpu" else (1,):
                        for block in BLOCKS[depth] if threads == 1 else (128,):
                            parameters = {
                                "model": entry.name, "provider": provider, "threads": threads, "block": block,
                                "busy": busy,
                            }  # fmt: skip
                            in_engine(recorder, entry.name, parameters, seconds)
                        parameters = {"model": entry.name, "provider": provider, "threads": threads, "busy": busy}
                        alone(recorder, entry.name, parameters, seconds)


def in_engine(recorder: Recorder, model: str, parameters: dict[str, Any], seconds: float) -> None:
    """A model in the engine, on noise."""
    rate = _rate(model)
    config = DummyConfig(samplerate=rate, blocksize=parameters["block"], source="noise", seed=recorder.seed)
    began = time.monotonic()
    with Engine(model, backend=config, provider=parameters["provider"], threads=parameters["threads"]) as engine:
        engine.wait(_WARM_S)
        first, late = engine.hop_histogram(), engine.stats().late_hops
        seen, rounds = first, []
        for _ in range(ROUNDS):
            engine.wait(seconds / ROUNDS)
            now = engine.hop_histogram()
            rounds.append(percentile_ms(now - seen, 50))
            seen = now
        stats, latency = engine.stats(), engine.latency()
    counts = seen - first
    names = {"p50": 50, "p95": 95, "p99": 99, "p99.9": 99.9, "max": 100}
    found = {name: digits(percentile_ms(counts, percent)) for name, percent in names.items()}
    period = stats.hop_times.period_ms
    recorder.put(
        "hop",
        "engine",
        found["p50"],
        "ms",
        parameters=parameters,
        rounds=rounds,
        percentiles_={**found, "count": int(counts.sum())},
        histogram_=engine_histogram(counts) if parameters["block"] == 128 and parameters["threads"] == 1 else None,
        facts={
            "period_ms": digits(period), "rtf": digits(found["p99"] / period), "late": stats.late_hops - late,
            "realtime": stats.realtime, "latency_ms": digits(latency.total_ms), "samplerate": rate,
        },
        began=began,
    )  # fmt: skip


def alone(recorder: Recorder, model: str, parameters: dict[str, Any], seconds: float) -> None:
    """A session by itself, paced and back to back."""
    with StreamingSession(model, provider=parameters["provider"], threads=parameters["threads"]) as session:
        info = session.info
        rate = info.samplerates[0]
        period_s = info.hop_samples / rate
        audio = music_like(64 * info.hop_samples, info.channels, rate, recorder.seed)
        hops = [np.ascontiguousarray(hop) for hop in np.split(audio, 64, axis=1)]
        for figure, gap in (("session", period_s), ("back to back", 0.0)):
            began = time.monotonic()
            times, realtime = timed(session.step, hops, max(200, round(seconds / period_s)), gap)
            parts = np.array_split(times, ROUNDS)
            recorder.put(
                "hop",
                figure,
                float(np.median(times)),
                "ms",
                parameters=parameters,
                rounds=[float(np.median(part)) for part in parts],
                samples=times,
                facts={"period_ms": digits(1e3 * period_s), "realtime": realtime},
                began=began,
            )


def timed(step: Any, hops: list[np.ndarray], count: int, gap_s: float) -> tuple[np.ndarray, bool]:
    """Call `step` on the hops in turn, `gap_s` apart; return times in ms, and if it had real-time priority.

    Runs in a thread of its own, so that the priority ends with it. A call that took longer than the gap moves the
    following ones.
    """
    times, realtime = np.empty(count), False

    def run() -> None:
        nonlocal realtime
        realtime = bool(gap_s) and make_thread_realtime(60)
        for hop in hops[:20]:
            step(hop)
        due = time.perf_counter() + gap_s
        for k in range(count):
            wait = due - time.perf_counter()
            if gap_s and wait > 0:
                time.sleep(wait)
            before = time.perf_counter()
            step(hops[k % len(hops)])
            times[k] = 1e3 * (time.perf_counter() - before)
            due = max(due, before) + gap_s

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return times, realtime


def default() -> ZooEntry:
    """The model that runs when none is named."""
    path = resolve("default")
    return next(entry for entry in list_models() if entry.path == path)


def _rate(model: str) -> int:
    rates = read_info(resolve(model)).samplerates
    return 48_000 if 48_000 in rates else rates[0]
