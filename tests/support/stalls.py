"""Stalls: what the machine itself does to real-time threads, which no program on it can help.

A virtual machine of which the host takes a core away for 20 ms cannot be without late hops. Tests and benchmarks that
ask for exact counts of such events need to know when it happened.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A sleeper of 1 ms pinned to one core. For each awakening more than 4 ms late it writes: when, how late, which core.
_WATCHER = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
parent = os.getppid()
while os.getppid() == parent:
    began = time.monotonic()
    time.sleep(0.001)
    late = time.monotonic() - began - 0.001
    if late > 0.004:
        os.write(log, f"{began + 0.001 + late} {late} {sys.argv[1]}\\n".encode())
"""


Stall = tuple[float, float, str]


def worst_series(stalls: list[Stall], within_s: float = 0.06) -> float:
    """Return the longest time in seconds that one core stood still within so much time: what slack has to cover.

    One stall may be short and many come in a row: a kernel that is not preemptible makes huge pages one by one.
    """
    return max(
        (
            sum(late for end, late, core in stalls if core == on and 0.0 <= last - end < within_s)
            for last, _, on in stalls
        ),
        default=0.0,
    )


class StallWatch:
    """One watcher of the highest priority on each core, until `close`.

    Where the system refuses that priority nothing is seen, since a sleeper without it is late for many reasons.
    """

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="stalls-")
        os.close(handle)
        self._log = Path(name)
        self._watchers = [
            subprocess.Popen([sys.executable, "-S", "-c", _WATCHER, str(core), name], stderr=subprocess.DEVNULL)
            for core in sorted(os.sched_getaffinity(0))
        ]

    def since(self, began: float) -> list[float]:
        """Return the lateness in seconds of every stall that ended after `began` (`time.monotonic`)."""
        return [late for _, late, _ in self.stalls(began)]

    def stalls(self, began: float) -> list[Stall]:
        """Return the stalls that ended after `began`: when that was, how late in seconds, on which core."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [(float(end), float(late), core) for end, late, core in lines if float(end) > began]

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.kill()
            watcher.wait()
        self._log.unlink(missing_ok=True)


@dataclass
class MachineStalls:
    """Times a sleeper of the highest priority, one pinned to each core, woke up more than 4 ms late."""

    count: int = 0
    longest_ms: float = 0.0


@contextlib.contextmanager
def machine_stalls() -> Iterator[MachineStalls]:
    """Count the stalls of the machine until the end of the block; the figures are there after it."""
    watch, began, seen = StallWatch(), time.monotonic(), MachineStalls()
    try:
        yield seen
    finally:
        late = watch.since(began)
        watch.close()
        seen.count, seen.longest_ms = len(late), 1e3 * max(late, default=0.0)
