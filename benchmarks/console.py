"""Measure what the web console costs, on a JACK server without a sound card; JSON on stdout.

    python benchmarks/console.py --seconds 60 > console.json

For no page, one and two pages that are open (clients that take every frame, in a process of their own): the processor
time of the console process and of the control process as a part of one core, frames a second at each page, late hops
and xruns of the engine meanwhile, what late ones coincided with, how often the machine itself stood still for more than
4 ms, how long one core did within 60 ms, and how many huge pages Linux made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"  # see huge_pages

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rtsep.cli.common import machine
from rtsep.console.live import Console
from rtsep.control.registry import engine_registry
from rtsep.demo.song import render_song
from rtsep.engine import Engine
from tests.integration.jack import INSTALL, jack_server, missing_tools
from tests.support.stalls import StallWatch, worst_series

CLIENT = """
import sys, time
from websockets.sync.client import connect
address, seconds = sys.argv[1], float(sys.argv[2])
with connect(f"ws://{address}/live", origin=f"http://{address}", compression=None, max_queue=None) as socket:
    frames, size, began = 0, 0, time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        try:
            message = socket.recv(left)
        except TimeoutError:
            break
        if isinstance(message, bytes):
            frames, size = frames + 1, size + len(message)
print(frames / seconds, size / seconds)
"""


def main() -> int:
    """Run everything and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each run")
    parser.add_argument("--pages", default="0,1,2", help="how many are open in each run")
    parser.add_argument("--slack", type=int, default=1, help="hops the worker may be late")
    arguments = parser.parse_args()
    if missing := missing_tools():
        print(f"{', '.join(missing)} not installed; run: {INSTALL}", file=sys.stderr)
        return 1
    runs = [int(count) for count in arguments.pages.split(",")]
    song = render_song(samplerate=48_000, seconds=20.0)
    repeats = int(len(runs) * (arguments.seconds + 10) / 20) + 1
    document: dict[str, Any] = {"machine": machine(), "model": arguments.model, "slack": arguments.slack, "runs": []}
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        wav = Path(name) / "song.wav"
        # On the disk before anything is measured: writing it back holds a small machine up.
        soundfile.write(wav, np.tile(song.mixture, repeats).T, 48_000)
        os.sync()
        del song  # of what stays in memory Linux makes huge pages, which takes a core away for milliseconds each
        server = stack.enter_context(jack_server())
        engine = stack.enter_context(Engine(arguments.model, tap=True, slack_hops=arguments.slack))
        registry = engine_registry(engine)
        server.play(wav)
        with Console(engine, registry) as console:
            time.sleep(3)
            for pages in runs:
                document["runs"].append(measure(engine, console, pages, arguments.seconds))
    print(json.dumps(document, indent=2))
    return 0


def measure(engine: Engine, console: Console, pages: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one run."""
    address, known = urlsplit(console.link).netloc, {hop.number for hop in engine.late_hops()}
    watch = StallWatch()
    time.sleep(1.0)  # what begins is seen, too
    words = [sys.executable, "-c", CLIENT, address, f"{seconds}"]
    clients = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(pages)]
    before = engine.stats()
    pages_made = huge_pages()
    own, theirs, began = time.process_time(), cpu_s(console.pid), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    console_s, control_s, after = cpu_s(console.pid) - theirs, time.process_time() - own, engine.stats()
    stalls, series_s = watch.stalls(began), worst_series(watch.stalls(began))
    watch.close()
    rates = [tuple(map(float, client.communicate(timeout=60)[0].split())) for client in clients]
    return {
        "pages": pages,
        "seconds": round(took, 1),
        "console_percent_of_a_core": round(100 * console_s / took, 2),
        "control_percent_of_a_core": round(100 * control_s / took, 2),
        "frames_per_s": [round(frames, 2) for frames, _ in rates],
        "kilobytes_per_s": [round(size / 1000, 1) for _, size in rates],
        "hops": after.hops - before.hops,
        "late_hops": after.late_hops - before.late_hops,
        "late": [hop.to_dict() for hop in engine.late_hops() if hop.number not in known],
        "xruns": after.xruns.total - before.xruns.total,
        "machine_stalls": len(stalls),
        "longest_stall_ms": round(1000 * max((late for _, late, _ in stalls), default=0.0), 1),
        "worst_60_ms": round(1000 * series_s, 1),
        "huge_pages_made": None if pages_made is None else (huge_pages() or 0) - pages_made,
        "load_average": round(os.getloadavg()[0], 2),
    }


def huge_pages() -> int | None:
    """Huge pages that Linux has made of small ones so far; on a kernel that is not preemptible each stops a core."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed").read_text(encoding="ascii"))
    return None


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
