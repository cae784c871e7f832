"""What else a machine does while it is measured: other programs, Python threads, memory, disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.integration.jack import cpu_hogs

_MEMORY = """
import sys
import numpy as np
block = np.ones(int(sys.argv[1]) * 2**20 // 8)
while True:
    block += 1.0
"""
_DISK = """
import os, sys
data = os.urandom(2**22)
while True:
    with open(sys.argv[1], "wb") as file:
        for _ in range(16):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
"""


@contextlib.contextmanager
def gil_hogs(count: int) -> Iterator[None]:
    """Keep the interpreter of this process busy with endless Python loops."""
    stop = threading.Event()

    def spin() -> None:
        x = 0
        while not stop.is_set():
            for k in range(1000):
                x += k

    threads = [threading.Thread(target=spin, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def _child(*words: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", *words])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def memory_pressure() -> Iterator[None]:
    """Write to a quarter of the free memory again and again, 4 GiB at most: caches and memory bandwidth are gone."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    with _child(_MEMORY, str(min(4096, free // 4))):
        yield


@contextlib.contextmanager
def disk_writes(folder: Path) -> Iterator[None]:
    """Write 64 MiB to one file and sync it, again and again."""
    with _child(_DISK, str(folder / "written")):
        yield


LOADS = ("idle", "cpu hogs", "python threads", "memory", "disk")


@contextlib.contextmanager
def load(name: str, folder: Path) -> Iterator[None]:
    """Keep the machine busy in one of the ways of `LOADS`, with as many hogs as there are cores."""
    cores = os.cpu_count() or 1
    kinds = {
        "idle": contextlib.nullcontext,
        "cpu hogs": lambda: cpu_hogs(cores),
        "python threads": lambda: gil_hogs(cores),
        "memory": memory_pressure,
        "disk": lambda: disk_writes(folder),
    }
    with kinds[name]():
        yield
