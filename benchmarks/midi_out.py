"""When notes really go out: emission error, the caller's cost, and the time to recover; JSON on stdout.

    python benchmarks/midi_out.py > midi_out.json
    python benchmarks/midi_out.py --hogs 2          # with busy processes beside it

emission_ms   how much later than its due time a note was handed to the driver. Notes come at random gaps, 100 ms ahead,
              as a transcriber gives them. The ``log:`` port stamps each with the clock the due times are of.
send_us       what `MidiOutput.send` costs its caller.
respawn_ms    from SIGKILL of the port process to the first note-off of the next one.
orphan_ms     from SIGKILL of the parent to the last note-off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtsep.cli.common import machine
from rtsep.notes.messages import NoteMessage, default_strips
from rtsep.notes.output import MidiOutput
from rtsep.notes.ports import child_environment

STRIPS = default_strips(["drums", "bass", "other", "vocals"])


def read(path: Path) -> list[tuple[float, bytes]]:
    """Times and bytes in a log port's file."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [(entry["t"], bytes.fromhex(entry["bytes"])) for entry in map(json.loads, lines)]


def summary(values: Sequence[float], scale: float) -> dict[str, float]:
    """Return median, 99th percentile and maximum."""
    ordered = sorted(values)
    return {
        "p50": round(scale * ordered[len(ordered) // 2], 3),
        "p99": round(scale * ordered[int(0.99 * (len(ordered) - 1))], 3),
        "max": round(scale * ordered[-1], 3),
        "count": len(ordered),
    }


def emission(folder: Path, notes: int, per_second: float) -> dict[str, object]:
    """Play random notes in real time; return errors and costs."""
    path, rng = folder / "emission.jsonl", random.Random(3)
    due: list[float] = []
    costs: list[float] = []
    with MidiOutput(f"log:{path}", STRIPS) as output:
        at = time.monotonic() + 0.3
        for k in range(notes):
            at += rng.expovariate(per_second)
            time.sleep(max(0.0, at - 0.1 - time.monotonic()))
            pitch = 30 + k % 60
            batch = [NoteMessage(at, 2, "on", pitch, 90), NoteMessage(at + 0.05, 2, "off", pitch)]
            began = time.perf_counter()
            output.send(batch)
            costs.append(time.perf_counter() - began)
            due.append(at)
        time.sleep(0.5)
        status = output.status
    begun = [t for t, data in read(path) if data[0] & 0xF0 == 0x90]
    errors = [t - d for t, d in zip(begun, sorted(due), strict=False)]
    return {
        "emission_ms": summary(errors, 1e3),
        "send_us": summary(costs, 1e6),
        "late": status.late,
        "dropped": status.dropped,
        "played": len(begun),
    }


def respawn(folder: Path, times: int) -> dict[str, float]:
    """Kill the port process again and again."""
    path, waits = folder / "respawn.jsonl", []
    with MidiOutput(f"log:{path}", STRIPS) as output:
        for _ in range(times):
            output.send([NoteMessage(time.monotonic(), 1, "on", 60, 90)])
            time.sleep(1.3)
            killed = time.monotonic()
            os.kill(output.status.pid, signal.SIGKILL)
            while True:
                ends = [t for t, data in read(path) if data[0] & 0xF0 == 0x80 and t > killed]
                if ends:
                    break
                time.sleep(0.01)
            waits.append(ends[0] - killed)
    return summary(waits, 1e3)


HOLDER = """
import sys, time
from rtsep.notes.messages import NoteMessage, default_strips
from rtsep.notes.output import MidiOutput
output = MidiOutput(sys.argv[1], default_strips(["drums", "bass", "other", "vocals"]))
output.send([NoteMessage(time.monotonic(), stem, "on", 40 + k, 90) for stem in range(4) for k in range(8)])
time.sleep(0.3)
print(flush=True)
time.sleep(60)
"""


def orphan(folder: Path, times: int) -> dict[str, float]:
    """Kill the parent while it holds 32 notes."""
    waits = []
    for k in range(times):
        path = folder / f"orphan{k}.jsonl"
        command = [sys.executable, "-c", HOLDER, f"log:{path}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=child_environment()) as parent:
            assert parent.stdout is not None
            parent.stdout.readline()
            killed = time.monotonic()
            parent.kill()
        time.sleep(1.0)
        waits.append(max(t for t, data in read(path) if data[0] & 0xF0 == 0x80) - killed)
    return summary(waits, 1e3)


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep cores busy with processes of normal priority."""
    running = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=1000)
    parser.add_argument("--per-second", type=float, default=50.0)
    parser.add_argument("--hogs", type=int, default=0)
    parser.add_argument("--times", type=int, default=5, help="of each kill")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, hogs(arguments.hogs):
        folder = Path(name)
        result = {
            "machine": machine(),
            "hogs": arguments.hogs,
            "per_second": arguments.per_second,
            **emission(folder, arguments.notes, arguments.per_second),
            "respawn_ms": respawn(folder, arguments.times),
            "orphan_ms": orphan(folder, arguments.times),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
