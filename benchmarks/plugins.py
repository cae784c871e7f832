"""What plugins cost a hop, and what it costs to change them while the engine plays; JSON on stdout.

    python benchmarks/plugins.py > plugins.json

hop      time of one plugin for one hop of stereo noise at 48 kHz, in microseconds, 5000 hops; ``none`` is a hop through
         a chain of the delay model without plugins, ``empty racks`` the same with racks that hold nothing, ``in the
         mix`` what a Gain on one stem makes of it
changes  with --changes SECONDS: chains of an engine on a JACK dummy at 128 change all the time, of up to three:
         by kind of change how many there were, and hops that were late within the next 50 to 200 ms
load     seconds from `set_chain` to its answer, and hops that were late meanwhile, on the clocked dummy device
"""

from __future__ import annotations

import argparse
import json
import random
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
from rtsep.plugins import MASTER, PluginSpec
from rtsep.plugins.catalog import EFFECTS as EFFECTS_BY_NAME
from rtsep.plugins.host import PluginHost, make_racks
from rtsep.plugins.loader import LoadedPlugin
from rtsep.plugins.slot import Slot
from tests.integration.jack import jack_server
from tests.support.graphs import make_delay_model
from tests.support.stalls import machine_stalls

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


def change_costs(seconds: float) -> dict[str, Any]:
    rng = random.Random(0)
    names = [*EFFECTS, "Limiter", "BrickwallLimiter", *FILES[:2], "ZamCompX2"]
    kinds: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, jack_server(RATE, 128):
        model = make_delay_model(Path(folder) / "m.onnx", hop=512, latency=700)
        with Engine(model) as engine, machine_stalls() as stalls:
            for name in names:  # so that all files are known
                engine.set_chain("bass", [PluginSpec(name)])
            engine.set_chain("bass", [])
            time.sleep(1.0)
            first, end = engine.stats(), time.monotonic() + seconds
            late = first.late_hops
            while time.monotonic() < end:
                target = rng.choice([*engine.info.stems, MASTER])
                slots, kind = engine.chains[target], rng.choice(["add", "add", "remove", "bypass", "parameter", "move"])
                if kind == "add" and len(slots) < 3:
                    name = rng.choice(names)
                    kind = "add an effect" if name in EFFECTS_BY_NAME else "add a file"
                    engine.add_plugin(target, PluginSpec(name))
                elif kind == "remove" and slots:
                    engine.remove_plugin(target, rng.randrange(len(slots)))
                elif kind == "bypass" and slots:
                    engine.set_plugin_bypass(target, 0, rng.random() < 0.5)
                elif kind == "move" and len(slots) > 1:
                    engine.move_plugin(target, 0, 1)
                elif kind == "parameter" and slots:
                    numbers = [x for x in slots[0].parameters.values() if x.kind == "number"]
                    if numbers:
                        x = rng.choice(numbers)
                        value = x.minimum + (x.maximum - x.minimum) * rng.random()
                        engine.set_plugin_parameter(target, 0, x.name, value)
                else:
                    continue
                time.sleep(0.05 + 0.15 * rng.random())
                now = engine.stats().late_hops
                count = kinds.setdefault(kind, [0, 0])
                count[0], count[1], late = count[0] + 1, count[1] + now - late, now
            last = engine.stats()
    return {
        "changes": {kind: {"count": count, "late": late} for kind, (count, late) in sorted(kinds.items())},
        "hops": last.hops - first.hops,
        "late": last.late_hops - first.late_hops,
        "silent_samples": last.silent_samples - first.silent_samples,
        "xruns": last.xruns.total - first.xruns.total,
        "machine_stalls": stalls.count,
        "max_ms": round(last.hop_times.max_ms, 1),
        "plugin_faults": last.plugin_faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hops", type=int, default=5000)
    parser.add_argument("--changes", type=float, metavar="SECONDS", help="this alone")
    arguments = parser.parse_args()
    if arguments.changes:
        print(json.dumps({"machine": machine(), **change_costs(arguments.changes)}, indent=2))
        return
    document: dict[str, Any] = {"machine": machine(), "load": load_costs()}
    document["realtime"] = make_thread_realtime(60)
    document["hop"] = {str(hop): hop_costs(hop, arguments.hops) for hop in (512, 1024)}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
