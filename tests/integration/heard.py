"""When something that a page does is heard: the engine's JACK output with the time of day beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.integration.jack import Audio, JackServer

RATE, LEVEL = 48_000, 0.5
"""LEVEL is what the engine plays before anything is done: a constant, so that what goes out is the gain itself."""
_PATIENCE_S = 20.0
_CLOCK = """
import sys, time
import sounddevice
began = float(sys.argv[1])
def callback(out, frames, when, status):
    out[:] = (time.time() - began) / 1000
device = [d["index"] for d in sounddevice.query_devices() if d["name"] == "system"][0]
with sounddevice.OutputStream(device=device, channels=2, samplerate=48000, blocksize=0, callback=callback):
    print("ready", flush=True)
    sys.stdin.read()
"""
"""A JACK client whose signal is the time of day, so that a recording knows when each of its frames was played."""


@contextlib.contextmanager
def recording(server: JackServer, path: Path, seconds: float) -> Iterator[list[Audio]]:
    """Record what the engine plays, with the time of day beside it.

    Gives a list that holds, afterwards, ``[time in seconds, level]`` [2, T].
    """
    began = time.time()
    clock = subprocess.Popen(
        [sys.executable, "-c", _CLOCK, f"{began}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert clock.stdin is not None
    assert clock.stdout is not None
    found: list[Audio] = []
    try:
        assert clock.stdout.readline().strip() == b"ready"
        (port,) = [port for port in server.ports() if port.endswith(":out_0") and not port.startswith("rtsep:")]
        capture = server.capture(path, seconds, port, "rtsep:out_0")
        yield found
        both = server.captured(capture, path, seconds).T.astype(np.float64)
        found.append(np.stack([began + 1000 * both[0], both[1]]))
    finally:
        clock.stdin.close()
        clock.wait(_PATIENCE_S)
        clock.stdout.close()


def watch_events(page: Any) -> None:
    """Keep the time of day of everything a person does to the page."""
    page.evaluate(
        """() => { window.did = [];
        for (const kind of ['pointerdown', 'pointermove', 'pointerup', 'click', 'change']) document.addEventListener(
            kind, (e) => window.did.push([kind, (performance.timeOrigin + e.timeStamp) / 1000,
                                          document.activeElement?.getAttribute('aria-valuenow')]), true); }"""
    )


def did(page: Any, kind: str) -> list[float]:
    return [at for name, at, _ in page.evaluate("window.did") if name == kind]


def change_after(times: Audio, levels: Audio, event: float) -> tuple[float, float]:
    """Return how long after an event the level began to change, and until it was half-way, in milliseconds."""
    first = int(np.searchsorted(times, event))
    before = levels[first]
    assert first > 0
    part = levels[first : first + RATE // 2]
    moved = np.flatnonzero(np.abs(part - before) > 1e-4 * LEVEL)
    assert len(moved), "nothing changed within half a second"
    half = np.flatnonzero(np.abs(part - before) > 0.5 * np.abs(part - before).max())
    return 1000 * (times[first + moved[0]] - event), 1000 * (times[first + half[0]] - event)


def largest_step(levels: Audio) -> float:
    """The largest difference of two neighbouring samples, as a part of full change; a click is nearly 1."""
    return float(np.abs(np.diff(levels)).max() / (0.5 * LEVEL))
