"""What plugins cost a hop, and what it costs to change them while the engine plays; JSON on stdout.

    python benchmarks/plugins.py > plugins.json

hop      time of one plugin for one hop of stereo noise at 48 kHz, in microseconds, 5000 hops; ``none`` is a hop through
         a chain of the delay model without plugins, ``empty racks`` the same with racks that hold nothing, ``in the
         mix`` what a Gain on one stem makes of it
load     seconds from `set_chain` to its answer, and hops that were late meanwhile, on the clocked dummy device
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtsep.audio.backends import DummyConfig
from rtsep.chain import HopChain
from rtsep.cli.common import machine
from rtsep.engine import Engine
from rtsep.engine.realtime import make_thread_realtime
from rtsep.inference.session import StreamingSession
from rtsep.mixer.mixer import Mixer
from rtsep.plugins import PluginSpec
from rtsep.plugins.host import PluginHost, make_racks
from rtsep.plugins.loader import LoadedPlugin
from rtsep.plugins.slot import Slot
from tests.support.graphs import make_delay_model

RATE, WARM = 48_000, 200
EFFECTS = ("Gain", "Compressor", "Reverb")
FILES = ("ZaMaximX2", "ZamComp", "ZamTube", "ZamEQ2")
FOLDER = Path("/usr/lib/vst3")


def timed(step: Callable[[], Any], hops: int) -> dict[str, float]:
    """Return p50, p99 and the maximum of `hops` calls, in microseconds."""
    for _ in range(WARM):
        step()
    times = np.empty(hops)
    for k in range(hops):
        began = time.perf_counter_ns()
        step()
        times[k] = (time.perf_counter_ns() - began) / 1000.0
    p50, p99 = np.percentile(times, (50, 99))
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1), "max_us": round(float(times.max()), 1)}


def hop_costs(hop: int, hops: int) -> dict[str, Any]:
    audio = (0.1 * np.random.default_rng(0).standard_normal((2, hop))).astype(np.float32)
    found: dict[str, Any] = {}
    names = [*EFFECTS, *(str(FOLDER / f"{name}.vst3") for name in FILES if (FOLDER / f"{name}.vst3").exists())]
    for name in names:
        slot = Slot(LoadedPlugin(PluginSpec(name), 2, RATE, hop), 2, RATE, hop)
        found[slot.label] = timed(lambda slot=slot: slot.process(audio), hops)
    with tempfile.TemporaryDirectory() as folder:
        model = make_delay_model(Path(folder) / "m.onnx", hop=hop, latency=700)
        for what in ("none", "empty racks", "in the mix"):
            with StreamingSession(model, provider="cpu") as session:
                stems = session.info.stems
                mixer = Mixer(stems, 2, RATE)
                racks = make_racks(stems, 2, hop, RATE, output_channels=2, samplerate=RATE, settings=mixer.settings)
                if what == "in the mix":
                    PluginHost(racks, stems, live=True).set_chain("vocals", [PluginSpec("Gain")], at_once=True)
                chain = HopChain(session, mixer, None if what == "none" else racks)
                found[what] = timed(lambda chain=chain: chain.process_hop(audio), hops)
    return found


def load_costs() -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model = make_delay_model(Path(folder) / "m.onnx", hop=512, latency=700)
        with Engine(model, backend=DummyConfig(source="noise")) as engine:
            time.sleep(1.0)
            for name in (*EFFECTS, *(name for name in FILES if (FOLDER / f"{name}.vst3").exists())):
                spec = PluginSpec(name)
                engine.set_chain("drums", [spec])  # a first time, so that the file is known
                engine.set_chain("drums", [])
                time.sleep(0.5)
                late, began = engine.stats().late_hops, time.monotonic()
                engine.add_plugin("bass", spec)
                seconds = time.monotonic() - began
                time.sleep(0.5)
                found.append({"plugin": name, "load_s": round(seconds, 3), "late": engine.stats().late_hops - late})
            times = engine.stats().hop_times
            rest = {
                "p50_ms": times.p50_ms,
                "p99_ms": times.p99_ms,
                "max_ms": times.max_ms,
                "period_ms": times.period_ms,
            }
            found.append({"plugin": "all of them play", **rest})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hops", type=int, default=5000)
    arguments = parser.parse_args()
    document: dict[str, Any] = {"machine": machine(), "load": load_costs()}
    document["realtime"] = make_thread_realtime(60)
    document["hop"] = {str(hop): hop_costs(hop, arguments.hops) for hop in (512, 1024)}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
