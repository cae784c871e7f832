"""From input to output between JACK clients that know nothing of rtsep, beside the sum that rtsep prints.

``benchmarks/live_jack.py`` does the work: ecasound plays noise, jack_capture records what was sent beside what came
back, and every 85 ms of it is correlated. Single clicks, at 128 frames, show the same to the sample.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.hop import default
from benchmarks.live_jack import impulses, round_trip
from benchmarks.record import Recorder, digits
from rtsep.zoo import list_models
from rtsep.zoo.registry import read_info, resolve
from tests.integration.jack import INSTALL, missing_tools

PERIODS = {"quick": (128,), "full": (64, 128, 256, 512, 1024)}


def measure(recorder: Recorder, depth: str) -> None:
    """Every model at every JACK period; quick: the default model and the one with the least latency at one."""
    if missing := missing_tools():
        recorder.missing("round_trip", "total", f"{', '.join(missing)} not there: {INSTALL}")
        return
    models = [entry.name for entry in list_models()]
    if depth != "full":
        models = list(dict.fromkeys([default().name, read_info(resolve("live")).name]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in models:
            for period in PERIODS[depth]:
                began = time.monotonic()
                put(recorder, "noise", model, period, round_trip(model, folder, period, 1), began)
            began = time.monotonic()
            put(recorder, "clicks", model, 128, impulses(model, folder, 128, 1), began)


def put(recorder: Recorder, signal: str, model: str, period: int, found: dict, began: float) -> None:
    """Write down the most frequent lag, device included."""
    computed, lags = found["computed"], {int(lag): n for lag, n in found["measured_samples"].items()}
    parameters = {"model": model, "period": period, "signal": signal}
    if not lags:
        recorder.missing("round_trip", "total", "nothing came back", parameters)
        return
    rate, stream = computed["samplerate"], computed["stream_samples"]
    outside = computed["total_samples"] - stream
    most = max(lags, key=lambda lag: lags[lag])
    recorder.put(
        "round_trip",
        "total",
        1e3 * (most + outside) / rate,
        "ms",
        parameters=parameters,
        facts={
            "computed_ms": digits(computed["total_ms"], 6), "measured_stream_samples": most,
            "computed_stream_samples": stream, "equal": lags.get(stream, 0), "segments": sum(lags.values()),
            "others": {str(lag): n for lag, n in list(lags.items())[:6] if lag != stream}, "samplerate": rate,
            "late_hops": found["late_hops"], "hops": found["hops"],
        },
        began=began,
    )  # fmt: skip
