"""How far a hop is from what the machine could do at best; one thread.

peak            multiply-accumulates a second of a product of two 768 x 768 matrices, the best this machine does
bandwidth       bytes a second, reading as many as the model's weights are, again and again: from the cache they fit in
floor           the later of both: the hop's multiplications at peak, its bytes at that bandwidth
products alone  all products of the graph, each with its own shape as a graph of its own in ONNX Runtime: small ones
                are far from peak, and nothing that is built of them is faster
hop             `StreamingSession.step`, back to back, taking turns with the above
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.graph_costs import graph_costs
from benchmarks.record import Recorder, digits
from export.parity import music_like
from rtsep.inference import StreamingSession
from rtsep.zoo import list_models

ROUNDS = 5
_SIDE = 768


def measure(recorder: Recorder, depth: str) -> None:
    """Every shipped model."""
    for entry in list_models():
        one(recorder, entry, seconds=0.05 if depth == "quick" else 0.3)


def one(recorder: Recorder, entry: Any, seconds: float) -> None:
    """One model; `seconds` of each thing in a round."""
    began, costs = time.monotonic(), graph_costs(entry.path)
    rng = np.random.default_rng(recorder.seed)
    a, b = (rng.standard_normal((_SIDE, _SIDE)).astype(np.float32) for _ in range(2))
    product = np.empty_like(a)
    weights = rng.standard_normal(max(1, costs.weight_bytes // 4)).astype(np.float32)
    products = [alone(model) for model in costs.products]

    def all_products() -> None:
        for run in products:
            run()

    with StreamingSession(entry.path, provider="cpu") as session:
        info = session.info
        audio = music_like(64 * info.hop_samples, info.channels, info.samplerates[0], recorder.seed)
        hops = [np.ascontiguousarray(hop) for hop in np.split(audio, 64, axis=1)]
        place = iter(range(10**9))
        steps: dict[str, Callable[[], object]] = {
            "peak": lambda: np.matmul(a, b, out=product),
            "bandwidth": lambda: weights @ weights,
            "products": all_products,
            "hop": lambda: session.step(hops[next(place) % 64]),
        }
        for step in steps.values():
            per_call(step, seconds / 4)
        times = {name: np.empty(ROUNDS) for name in steps}
        for number in range(ROUNDS):
            for name, step in steps.items():
                times[name][number] = per_call(step, seconds)
    peak = _SIDE**3 / times["peak"]
    bandwidth = weights.nbytes / times["bandwidth"]
    floor = np.maximum(costs.macs / peak, costs.bytes / bandwidth)
    parameters = {"model": entry.name, "threads": 1}
    facts = {
        "macs": costs.macs, "weight_bytes": costs.weight_bytes, "bytes": costs.bytes, "hop_samples": info.hop_samples,
        "peak_gmac_s": digits(np.median(peak) / 1e9), "bandwidth_gb_s": digits(np.median(bandwidth) / 1e9),
        "bound_by": "multiplications" if np.median(costs.macs / peak) > np.median(costs.bytes / bandwidth) else "bytes",
    }  # fmt: skip
    for figure, unit, values in (
        ("floor", "us", 1e6 * floor),
        ("products alone", "us", 1e6 * times["products"]),
        ("hop", "us", 1e6 * times["hop"]),
        ("hop over floor", "times", times["hop"] / floor),
        ("hop over products alone", "times", times["hop"] / times["products"]),
    ):
        recorder.put(
            "floor", figure, float(np.median(values)), unit, parameters=parameters, rounds=list(values), facts=facts,
            began=began,
        )  # fmt: skip


def alone(model: Any) -> Callable[[], object]:
    """Return what runs a graph of one product in memory of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    for item in session.get_inputs():
        array = 0.1 * rng.standard_normal(item.shape).astype(np.float32)
        binding.bind_ortvalue_input(item.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for item in session.get_outputs():
        binding.bind_output(item.name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def per_call(step: Callable[[], object], seconds: float) -> float:
    """Return the median time of a call in seconds."""
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return float(np.median(times))
