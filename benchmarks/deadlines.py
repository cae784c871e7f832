"""Late hops: the default model on a JACK dummy device at 48 kHz and 128 frames, minutes on end.

Once idle, then with as many endless loops as there are cores, with as many endless Python threads in the control
process, with a program that writes to gigabytes of memory, and with one that writes and syncs files. Beside the hops
that were late: the least that was ever queued for the device when a hop arrived, which is how near it came, and how
often the machine itself held up a sleeper of the highest priority by more than 4 ms. Without JACK the clocked dummy
device takes its place; it is a Python thread and late more easily.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from benchmarks.hop import default
from benchmarks.loads import LOADS, load
from benchmarks.record import Recorder, digits, engine_histogram
from rtsep.audio.backends import DummyConfig
from rtsep.engine import Engine
from tests.integration.jack import jack_server, missing_tools

SECONDS = {"quick": 5.0, "full": 30.0}


def measure(recorder: Recorder, depth: str) -> None:
    """Each kind of load in turn, or those that were asked for."""
    seconds = 60 * recorder.minutes if depth == "long" else SECONDS[depth]
    for name in recorder.loads or (LOADS[:2] if depth == "quick" else LOADS):
        one(recorder, name, seconds)


def one(recorder: Recorder, name: str, seconds: float) -> None:
    """One kind of load."""
    jack = not missing_tools()
    backend = {} if jack else {"backend": DummyConfig(samplerate=48_000, blocksize=128, source="noise")}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if jack:
            stack.enter_context(jack_server(48_000, 128))
        engine = stack.enter_context(Engine("default", **backend))
        stack.enter_context(load(name, Path(folder)))
        engine.wait(1.0)
        began, first, counts = time.monotonic(), engine.stats(), engine.hop_histogram()
        engine.wait(seconds)
        last, counts = engine.stats(), engine.hop_histogram() - counts
    t = last.hop_times
    parameters = {"model": default().name, "device": "jack" if jack else "clocked dummy", "block": 128, "load": name}
    parameters["minutes"] = digits(seconds / 60, 2)
    recorder.put(
        "deadlines",
        "late hops",
        last.late_hops - first.late_hops,
        "hops",
        parameters=parameters,
        percentiles_={
            "p50": t.p50_ms, "p95": t.p95_ms, "p99": t.p99_ms, "p99.9": t.p999_ms, "max": t.max_ms,
            "count": last.hops - first.hops,
        },
        histogram_=engine_histogram(counts),
        facts={
            "xruns": last.xruns.total - first.xruns.total,
            "silent_samples": last.silent_samples - first.silent_samples,
            "least_queued_ms": digits(last.ring_fill_min / 48),
            "realtime": last.realtime,
            "percentiles_of": "hop time, ms",
        },
        began=began,
    )  # fmt: skip
