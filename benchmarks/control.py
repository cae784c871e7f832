"""Measure control surfaces on a live engine between JACK and UDP, without hardware; JSON on stdout.

    python benchmarks/control.py --model default --seconds 60 > control.json

Starts a JACK server of its own (``jackd -d dummy``, 48 kHz, 128 frames). What it prints:

osc, midi    milliseconds from the moment a message is sent (to the UDP port; to a JACK client in C that plays it in its
             next period) until the value stands where the audio process reads it; the next hop uses it
watched      processor time, per cent of a core, of the control process with two OSC subscribers to all meters
fuzz         datagrams that mean nothing, sent at ``--rate`` for ``--seconds``: how many parameters changed, what was
             counted, hops of the engine that were late meanwhile, and the processor time of the control process
alone        late hops in as long without them, just before
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtsep.control.midi_in import MidiIn
from rtsep.control.midi_map import MidiControl, MidiMap, MidiMapping
from rtsep.control.osc import OscServer
from rtsep.control.registry import Registry, engine_registry
from rtsep.engine import Engine
from tests.control.osc_fuzz import message
from tests.integration.jack import INSTALL, jack_server, missing_tools
from tests.integration.midi_controller import Controller
from tests.support.stalls import machine_stalls

ROOT = Path(__file__).resolve().parents[1]
GAIN = "stem/drums/gain_db"


def main() -> int:
    """Run everything and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of fuzzing")
    parser.add_argument("--rate", type=float, default=1500.0, help="datagrams a second of fuzzing")
    parser.add_argument("--moves", type=int, default=300, help="messages whose time is taken, each way")
    options = parser.parse_args()
    if missing := missing_tools():
        print(f"{', '.join(missing)} not installed; run: {INSTALL}", file=sys.stderr)
        return 1
    with (
        jack_server() as server,
        Engine(options.model, input_device="system", output_device="system") as engine,
        Controller(server) as knobs,
    ):
        registry = engine_registry(engine)
        mapping = MidiMapping.make(MidiControl("cc", 1, 7), registry.parameter(GAIN), "jump")
        with (
            OscServer(registry, port=0, meters=engine.meters) as osc,
            MidiIn("knobs", MidiMap(registry, [mapping]).take),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            document = {
                "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
                "model": engine.info.name,
                "osc_ms": times(
                    registry,
                    options.moves,
                    lambda k: sender.sendto(message(f"/rtsep/{GAIN}", (-float(k % 50), "f")), osc.address),
                ),
                "midi_ms": times(registry, options.moves, lambda k: knobs.turn((0xB0, 7, 1 + k % 90))),
                "watched_cpu_percent": watched(osc),
                "alone": alone(engine, options.seconds),
                "fuzz": fuzzed(registry, engine, osc, options.seconds, options.rate),
            }
    print(json.dumps(document, indent=2))
    return 0


def times(registry: Registry, count: int, move: Callable[[int], object]) -> dict[str, float]:
    """Percentiles of the time until a value that was sent is there."""
    taken, lost = [], 0
    rng = np.random.default_rng(2)
    for k in range(1, count + 1):
        time.sleep(0.02 + 0.02 * rng.random())
        before = registry.get(GAIN)
        began = time.perf_counter()
        move(k)
        while registry.get(GAIN) == before and time.perf_counter() - began < 1.0:
            time.sleep(0.0001)
        passed = time.perf_counter() - began
        if passed < 1.0:
            taken.append(1000 * passed)
        else:
            lost += 1
    found = {f"p{p}": round(float(np.percentile(taken, p)), 2) for p in (50, 95, 99)}
    return {**found, "max": round(max(taken), 2), "lost": lost}


def watched(osc: OscServer, seconds: float = 10.0) -> float:
    """Processor time of this process while two subscribers get all meters."""
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for client in clients:
        client.bind(("127.0.0.1", 0))
        client.sendto(message("/rtsep/subscribe/meters"), osc.address)
    time.sleep(0.5)
    before = time.process_time()
    time.sleep(seconds)
    used = time.process_time() - before
    for client in clients:
        client.sendto(message("/rtsep/unsubscribe"), osc.address)
        client.close()
    return round(100 * used / seconds, 2)


def alone(engine: Engine, seconds: float) -> dict[str, Any]:
    """What is late on this machine anyway."""
    before = engine.stats()
    with machine_stalls() as stalls:
        time.sleep(seconds)
    after = engine.stats()
    return {
        "hops": after.hops - before.hops,
        "late_hops": after.late_hops - before.late_hops,
        "machine_stalls_over_4_ms": stalls.count,
        "longest_machine_stall_ms": round(stalls.longest_ms, 2),
    }


def fuzzed(registry: Registry, engine: Engine, osc: OscServer, seconds: float, rate: float) -> dict[str, Any]:
    """Send what must change nothing, to every parameter, from a process of its own."""
    heard: list[Any] = []
    stop = registry.subscribe(lambda *change: heard.append(change))
    before, values, late, hops = osc.to_dict(), registry.values(), engine.stats().late_hops, engine.stats().hops
    words = [sys.executable, "-m", "tests.control.osc_fuzz", str(osc.address[1])]
    words += ["--seconds", str(seconds), "--rate", str(rate), "--paths", *values]
    used, began = time.process_time(), time.monotonic()
    with machine_stalls() as stalls:
        said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    used, passed = time.process_time() - used, time.monotonic() - began
    time.sleep(0.5)
    stop()
    after, stats = osc.to_dict(), engine.stats()
    return {
        "seconds": round(passed, 1),
        "sent": int(said.split()[0]),
        "changes": len(heard),
        "values_as_before": registry.values() == values,
        **{name: after[name] - before[name] for name in ("received", "acted", "refused", "garbage", "dropped")},
        "hops": stats.hops - hops,
        "late_hops": stats.late_hops - late,
        "cpu_percent": round(100 * used / passed, 1),
        "machine_stalls_over_4_ms": stalls.count,
        "longest_machine_stall_ms": round(stalls.longest_ms, 2),
    }


def _cpu() -> str:
    from rtsep.cli.common import machine

    return str(machine()["cpu"])


if __name__ == "__main__":
    sys.exit(main())
