"""How the cost of a hop grows: with stems, with plugins, with streams in one batch.

stems     a hop through mixer and dry delay behind a graph that only delays, of 1 to 16 stems of 512 samples
plugins   what each effect costs, from ``benchmarks/plugins.py``
batch     one call for B streams at once, by stream: the models' checkpoints exported with that batch
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.floor import per_call
from benchmarks.record import Recorder
from rtsep.chain import HopChain
from rtsep.inference import StreamingSession
from rtsep.mixer.mixer import Mixer
from tests.support.graphs import make_delay_model

ROUNDS = 5
HOP, RATE = 512, 48_000


def measure(recorder: Recorder, depth: str) -> None:
    """All three; quick: stems alone."""
    seconds = 0.05 if depth == "quick" else 0.4
    stems(recorder, (1, 4, 16) if depth == "quick" else (1, 2, 4, 8, 16), seconds)
    if depth != "quick":
        plugins(recorder, 3000)
        batch(recorder, seconds)


def stems(recorder: Recorder, counts: tuple[int, ...], seconds: float) -> None:
    """Mixing."""
    rng = np.random.default_rng(recorder.seed)
    audio = (0.1 * rng.standard_normal((2, HOP))).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            names = [f"stem{k}" for k in range(count)]
            model = make_delay_model(Path(folder) / f"{count}.onnx", hop=HOP, latency=512, stems=names)
            with StreamingSession(model, provider="cpu") as session:
                mixer = Mixer(session.info.stems, 2, RATE)
                for k in range(count):
                    mixer.settings.set_gain(names[k], -3.0)
                chain = HopChain(session, mixer)
                rounds = [1e6 * per_call(lambda chain=chain: chain.process_hop(audio), seconds) for _ in range(ROUNDS)]
            recorder.put(
                "scaling", "mixing", float(np.median(rounds)), "us", parameters={"stems": count}, rounds=rounds
            )


def plugins(recorder: Recorder, hops: int) -> None:
    """Each effect by itself."""
    if importlib.util.find_spec("pedalboard") is None:
        recorder.missing("scaling", "plugin", "pedalboard is not installed: pip install 'rtsep[plugins]'")
        return
    from benchmarks.plugins import hop_costs

    began = time.monotonic()
    for name, found in hop_costs(HOP, hops).items():
        facts = {"p99_us": found["p99_us"], "max_us": found["max_us"]}
        recorder.put(
            "scaling", "plugin", found["p50_us"], "us", parameters={"plugin": name, "hop": HOP}, facts=facts,
            began=began,
        )  # fmt: skip


def batch(recorder: Recorder, seconds: float) -> None:
    """Streams at once in one call."""
    from benchmarks.batch import BoundModel, checkpoints, graph

    for name, path in checkpoints().items():
        for size in (1, 2, 4, 8, 16):
            bound = BoundModel(graph(path, size), size)
            per_call(bound.run, seconds)
            rounds = [1e6 * per_call(bound.run, seconds) / size for _ in range(ROUNDS)]
            recorder.put(
                "scaling", "batch, a stream", float(np.median(rounds)), "us",
                parameters={"model": name, "threads": 1, "streams": size}, rounds=rounds,
            )  # fmt: skip
