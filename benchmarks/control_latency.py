"""From a change of a fader to the first sample that it changes.

The engine plays noise from a file into a file, at the clock's pace, 48 kHz, blocks of 128. A client moves the master
fader; in the recording the first sample is looked for whose ratio to the input is another one. Its time is when a
device would play it, so the hop's worker slack and the block are in the figure.

api     `Engine.set_master`
osc     a datagram to the OSC server
web     a message on a socket of the web console, as its page sends them
midi    a controller's message, sent by a JACK client in C to the MIDI input
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import soundfile

from benchmarks.device_clock import DeviceClock
from benchmarks.hop import default
from benchmarks.record import Recorder, digits
from rtsep.audio.backends import FileConfig
from rtsep.console.live import Console
from rtsep.control.midi_in import MidiIn
from rtsep.control.midi_map import MidiControl, MidiMap, MidiMapping
from rtsep.control.osc import OscServer
from rtsep.control.registry import Registry, engine_registry
from rtsep.engine import Engine
from tests.control.osc_fuzz import message
from tests.integration.jack import INSTALL, jack_server, missing_tools, write_noise
from tests.integration.midi_controller import Controller

MASTER = "master/gain_db"
BLOCK, RATE = 128, 48_000
MOVES = {"quick": 20, "full": 100}
_ABOUT_S = 0.16
ROUNDS = 5

Move = Callable[[int], object]


def measure(recorder: Recorder, depth: str) -> None:
    """All ways in turn, on one engine each."""
    for way in ("api", "osc", "web", "midi"):
        if way == "midi" and (missing := missing_tools() + ([] if shutil.which("cc") else ["cc"])):
            recorder.missing(
                "control_latency", "fader to sample", f"{', '.join(missing)} not there: {INSTALL}", {"way": way}
            )
            continue
        one(recorder, way, MOVES[depth])


def one(recorder: Recorder, way: str, count: int) -> None:
    """One way to move the fader, `count` times."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        noise = write_noise(folder / "noise.wav", count * _ABOUT_S + 10)
        server = stack.enter_context(jack_server()) if way == "midi" else None
        config = FileConfig(str(folder / "noise.wav"), str(folder / "heard.wav"), blocksize=BLOCK)
        engine = stack.enter_context(Engine("default", backend=config))
        registry = engine_registry(engine)
        if server is None:
            move = mover(way, engine, registry, stack)
        else:
            knobs = stack.enter_context(Controller(server))
            mapping = MidiMapping.make(MidiControl("cc", 1, 7), registry.parameter(MASTER), "jump")
            stack.enter_context(MidiIn("knobs", MidiMap(registry, [mapping]).take))
            move = lambda k: knobs.turn((0xB0, 7, 70 + 13 * (k % 2)))  # noqa: E731
        time.sleep(1.0)
        clock = DeviceClock(engine)
        began, moved, rng = time.monotonic(), [], np.random.default_rng(recorder.seed)
        for k in range(count):
            time.sleep(0.1 + 0.05 * rng.random())
            before = registry.get(MASTER)
            moved.append(time.monotonic())
            move(k)
            while registry.get(MASTER) == before and time.monotonic() < moved[-1] + 1.0:
                time.sleep(0.0005)
        time.sleep(0.2)
        delay, hop_ms = engine.latency().total_samples, 1e3 * engine.info.hop_samples / engine.model_samplerate
        engine.stop()
        heard = soundfile.read(folder / "heard.wav", dtype="float32")[0]
    changes = first_changes(noise, heard, delay)
    times = pair(moved, [clock.played_s(frame, BLOCK) for frame in changes])
    facts = {"moves": count, "found": len(times), "changes": len(changes), "hop_ms": digits(hop_ms)}
    if not times:
        recorder.missing("control_latency", "fader to sample", "no change was found in the recording", {"way": way})
        return
    milliseconds = 1e3 * np.array(times)
    recorder.put(
        "control_latency",
        "fader to sample",
        float(np.median(milliseconds)),
        "ms",
        parameters={"way": way, "model": default().name, "block": BLOCK},
        rounds=[float(np.median(part)) for part in np.array_split(milliseconds, ROUNDS)],
        samples=milliseconds,
        facts=facts,
        began=began,
    )


def mover(way: str, engine: Engine, registry: Registry, stack: contextlib.ExitStack) -> Move:
    """Return what moves the fader, to -6 and -3 dB in turn."""
    if way == "api":
        return lambda k: engine.set_master(value(k))
    if way == "osc":
        osc = stack.enter_context(OscServer(registry, port=0))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        return lambda k: sender.sendto(message(f"/rtsep/{MASTER}", (value(k), "f")), osc.address)
    from websockets.sync.client import connect

    address = urlsplit(stack.enter_context(Console(engine, registry)).link).netloc
    page = stack.enter_context(connect(f"ws://{address}/live", origin=f"http://{address}", compression=None))
    page.send(json.dumps({"visible": False}))
    return lambda k: page.send(json.dumps({"set": {MASTER: value(k)}}))


def value(k: int) -> float:
    """The fader's position in move `k`, dB."""
    return -6.0 if k % 2 == 0 else -3.0


def first_changes(played: np.ndarray, heard: np.ndarray, delay: int) -> list[int]:
    """Return the frames at which the ratio of output [T, C] to delayed input begins to change.

    Where a fader rests the ratio is one number, to the last bit or two; a change is a ramp of 5 ms or more.
    """
    dry = played[: len(heard) - delay, 0].astype(float)
    wet = heard[delay:, 0].astype(float)[: len(dry)]
    dry = dry[: len(wet)]
    frames = np.flatnonzero(np.abs(dry) > 0.02)
    ratio = wet[frames] / dry[frames]
    moving = np.abs(np.diff(ratio)) > 1e-5
    starts = np.flatnonzero(moving)
    # A ramp is one stretch of moving samples; rests lie between them.
    first = [s for i, s in enumerate(starts) if i == 0 or s - starts[i - 1] > 1000]
    return [int(frames[s + 1]) + delay for s in first]


def pair(moved: list[float], changed: list[float]) -> list[float]:
    """Return the time from each move to its change.

    One change for each move: in their order, so that a slow one is seen as slow. Where one is missing, only changes
    that came before the next move are believed.
    """
    if len(moved) == len(changed) and all(t > at for at, t in zip(moved, changed, strict=True)):
        return [t - at for at, t in zip(moved, changed, strict=True)]
    found = []
    for at, until in zip(moved, [*moved[1:], moved[-1] + 0.5], strict=True):
        after = [t - at for t in changed if at < t < until]
        found += after[:1]
    return found
