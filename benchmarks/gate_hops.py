"""Some hops of each model, marked off for callgrind: ``python -m benchmarks.gate_hops MARKS.so HOPS TIMES MODEL``."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np

from rtsep.chain import HopChain
from rtsep.inference import StreamingSession
from rtsep.mixer.mixer import Mixer

WARM = 2


def opened(model: str) -> tuple[HopChain, Any]:
    """Return what the engine's worker runs for each hop, with a fader moved, and a hop of noise for it."""
    session = StreamingSession(model, provider="cpu", threads=1)
    info = session.info
    mixer = Mixer(info.stems, info.channels, info.samplerates[0])
    mixer.settings.set_gain(info.stems[0], -3.0)
    shape = (info.channels, info.hop_samples)
    return HopChain(session, mixer), (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def main() -> None:
    """Mark off each model's hops by its name."""
    marks = ctypes.CDLL(sys.argv[1])
    hops, times = int(sys.argv[2]), int(sys.argv[3])
    for model in sys.argv[4:]:
        chain, audio = opened(model)
        for _ in range(WARM):
            chain.process_hop(audio)
        gc.collect()
        gc.disable()
        for _ in range(times):
            marks.begin()
            for _ in range(hops):
                chain.process_hop(audio)
            marks.end(model.encode())
        gc.enable()


if __name__ == "__main__":
    main()
