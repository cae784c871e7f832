"""What the operating system can do for a thread that must not be late."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import time

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Below JACK's client threads (65 with ``jackd -P 70``): a device callback must be able to interrupt them.
WORKER_PRIORITY = 60
FILLER_PRIORITY = 61
# The other threads of the engine process: one that some other program interrupts while it holds the interpreter would
# hold up the worker.
SERVICE_PRIORITY = 10
# Notes have a constant delay to keep, and all audio goes before them.
NOTES_PRIORITY = 5

_MCL_CURRENT = 1


def make_thread_realtime(priority: int) -> bool:
    """Put the calling thread under SCHED_FIFO; return whether that was obtained (never raises)."""
    if not hasattr(os, "sched_setscheduler"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    return os.sched_getscheduler(0) == os.SCHED_FIFO


def make_thread_ordinary() -> None:
    """Put the calling thread back under the normal scheduler (never raises)."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class OverloadGuard:
    """Takes real-time priority away from a thread that needs a whole core.

    A model that is too slow would never sleep; at real-time priority it takes the machine with it, desktop and shell
    included, and is late all the same. Judged by processor time per hop, which other programs do not change.

    Parameters
    ----------
    period_s : float
        Time between two hops.
    priority : int
        SCHED_FIFO priority to have while all is well.

    Notes
    -----
    `start` and `after_hop` are for the thread itself; real-time safe.
    """

    WINDOW_S = 0.5
    TOO_MUCH, FINE_AGAIN = 0.9, 0.75

    def __init__(self, period_s: float, priority: int) -> None:
        self._period_s, self._priority = period_s, priority
        self.realtime = False
        self._wanted = False
        self._hops = 0
        self._began = self._cpu = 0.0

    def start(self) -> None:
        """Ask for real-time priority; `realtime` tells whether it was obtained."""
        self.realtime = self._wanted = make_thread_realtime(self._priority)
        self._began, self._cpu = time.monotonic(), time.thread_time()

    def set_period(self, period_s: float) -> None:
        """Another time between two hops from now on."""
        self._period_s = period_s
        self._began, self._cpu, self._hops = time.monotonic(), time.thread_time(), 0

    def after_hop(self) -> None:
        """Judge the last half second, if it is over."""
        self._hops += 1
        now = time.monotonic()
        if not self._wanted or now - self._began < self.WINDOW_S:
            return
        cpu = time.thread_time()
        load = (cpu - self._cpu) / (self._hops * self._period_s)
        self._began, self._cpu, self._hops = now, cpu, 0
        if self.realtime and load > self.TOO_MUCH:
            make_thread_ordinary()
            self.realtime = False
        elif not self.realtime and load < self.FINE_AGAIN:
            self.realtime = make_thread_realtime(self._priority)


def thread_usage() -> tuple[int, int]:
    """Return the processor time of the calling thread in microseconds and its page faults; zeros where nobody tells."""
    if resource is None or not hasattr(resource, "RUSAGE_THREAD"):
        return 0, 0
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return int(1e6 * (used.ru_utime + used.ru_stime)), used.ru_minflt + used.ru_majflt


def lock_memory() -> bool:
    """Keep all pages in use now from being swapped out; return whether that was obtained (never raises)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return int(ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT)) == 0
    except (OSError, AttributeError):
        return False


def settle_interpreter() -> None:
    """Stop the garbage collector and make threads hand over the interpreter quickly. Call once, after loading."""
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(0.0005)
