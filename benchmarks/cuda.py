"""A hop on a GPU.

For each shipped model's checkpoint, exported with a batch of 1 to 4096 streams: fp32, tf32 and fp16, with and without
CUDA graphs; everything bound to the device, audio up and stems down again in every call, as a live host needs it.
Calls back to back, and calls as far apart as hops are, where GPUs clock down between two and spike. Streams in time:
the largest of these batches whose slowest call in a thousand takes less than a hop. Without a GPU one line says so.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.batch import BoundModel, checkpoints, graph
from benchmarks.hop import timed
from benchmarks.record import Recorder, digits
from rtsep.figures import Figure
from rtsep.zoo.registry import read_info, resolve

BATCHES = {"quick": (1, 64), "full": (1, 4, 16, 64, 256, 1024, 4096)}
PRECISIONS: dict[str, dict[str, str]] = {
    "fp32": {"use_tf32": "0"},
    "tf32": {"use_tf32": "1"},
    "fp16": {"use_tf32": "0"},
}
ROUNDS = 5


def measure(recorder: Recorder, depth: str) -> None:
    """All of it, where there is a GPU."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        recorder.missing("cuda", "hop", "no CUDA provider in this ONNX Runtime; README.md says how to install it")
        return
    facts = {"gpu": _gpu()}
    for name, path in checkpoints().items():
        for batch in BATCHES[depth]:
            for precision, options in PRECISIONS.items():
                for graphs in ("0", "1"):
                    parameters = {
                        "model": name, "streams": batch, "precision": precision, "cuda_graph": graphs == "1",
                    }  # fmt: skip
                    try:
                        data = graph(path, batch, half=precision == "fp16")
                        bound = BoundModel(data, batch, "cuda", {**options, "enable_cuda_graph": graphs})
                        one(recorder, bound, name, parameters, facts, depth)
                    except (
                        Exception
                    ) as error:  # a precision or a batch that this GPU cannot do says so, the rest goes on
                        recorder.missing("cuda", "hop", " ".join(str(error).split())[:200], parameters)

    for parameters, batch, facts_of in largest(recorder.figures):
        recorder.put(
            "cuda", "streams in time", batch, "streams", better="higher", parameters=parameters, facts=facts_of
        )


def largest(figures: Sequence[Figure]) -> list[tuple[dict[str, Any], int, dict[str, Any]]]:
    """Return for each model, precision and way the most streams that stay in time, 0 for none."""
    found: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {}
    for f in figures:
        if f.benchmark != "cuda" or f.figure != "paced" or f.percentiles is None:
            continue
        parameters = {key: value for key, value in f.parameters.items() if key != "streams"}
        key = json.dumps(parameters, sort_keys=True)
        in_time = f.parameters["streams"] if f.percentiles["p99.9"] < f.facts["period_ms"] else 0
        before = found[key][1] if key in found else 0
        found[key] = parameters, max(before, in_time), {"period_ms": f.facts["period_ms"]}
    return list(found.values())


def one(
    recorder: Recorder, bound: BoundModel, model: str, parameters: dict[str, Any], facts: dict[str, Any], depth: str
) -> None:
    """Paced and back to back."""
    info = read_info(resolve(model))
    period_s = info.hop_samples / info.samplerates[0]
    rng = np.random.default_rng(recorder.seed)
    shape = (parameters["streams"], info.channels, info.hop_samples)
    hops = [(0.1 * rng.standard_normal(shape)).astype(np.float32) for _ in range(4)]
    count = 200 if depth == "quick" else 2000
    for figure, gap_s in (("back to back", 0.0), ("paced", period_s)):
        began = time.monotonic()
        times, realtime = timed(bound.step, hops, count, gap_s)
        recorder.put(
            "cuda",
            figure,
            float(np.median(times)),
            "ms",
            parameters=parameters,
            rounds=[float(np.median(part)) for part in np.array_split(times, ROUNDS)],
            samples=times,
            facts={**facts, "period_ms": digits(1e3 * period_s), "realtime": realtime},
            began=began,
        )


def _gpu() -> str:
    words = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
