"""How much a machine can do at once, and what a start costs.

streams     sessions stepped one after the other in one thread at real-time priority, paced as hops are: the most of
            which at most one hop in a thousand came late in a few seconds
offline     `rtsep.separate` of seconds of audio, one process on one core, and one process for each core at once
memory      what the engine process occupies (proportional set size, so that shared pages count once), and what each
            further session in one process adds
start       from `python` on the command line to the first hop that sounds, without a sound card
wheel       the file that `pip install` downloads, and the models in it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hop import default
from benchmarks.record import ROOT, Recorder, digits
from export.parity import music_like
from rtsep.engine.realtime import make_thread_realtime
from rtsep.inference import StreamingSession
from rtsep.zoo import list_models

ROUNDS = {"quick": 3, "full": 5}
_MOST_STREAMS = 256

_SEPARATE = """
import os, sys, time
core, model, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if core >= 0 and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {core})
import rtsep
from export.parity import music_like
rate = 44100
audio = music_like(round(seconds * rate), 2, rate)
rtsep.separate(audio[:, :rate], samplerate=rate, model=model)
print("ready", flush=True)
sys.stdin.readline()
before, used = time.perf_counter(), time.process_time()
rtsep.separate(audio, samplerate=rate, model=model)
print(time.perf_counter() - before, time.process_time() - used)
"""

_START = """
import time
import rtsep
from rtsep.audio.backends import DummyConfig
with rtsep.Engine("default", backend=DummyConfig(source="sine")) as engine:
    while engine.meters().master_peak <= 0:
        time.sleep(0.001)
    print("sounds", flush=True)
"""


def measure(recorder: Recorder, depth: str) -> None:
    """Everything, the slowest last."""
    rounds = ROUNDS[depth]
    models = [entry.name for entry in list_models()]
    start(recorder, rounds)
    wheel(recorder)
    memory(recorder, models if depth == "full" else [default().name])
    for model in models if depth == "full" else [default().name]:
        streams(recorder, model, min(rounds, 3), seconds=0.6 if depth == "quick" else 2.0)
    for model in models if depth == "full" else [default().name]:
        offline(recorder, model, rounds, seconds=5.0 if depth == "quick" else 30.0)


def start(recorder: Recorder, rounds: int) -> None:
    """From the command to sound."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", _START], stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            times.append(time.perf_counter() - began)
        if said.strip() != b"sounds":
            raise RuntimeError("the engine that was to be timed did not start")
    # The first one reads files into the cache.
    recorder.put("throughput", "start to first sound", float(np.median(times[1:])), "s", rounds=times[1:])
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rtsep", "--help"], capture_output=True, check=True, cwd=ROOT)
        times.append(time.perf_counter() - began)
    recorder.put("throughput", "rtsep --help", float(np.median(times[1:])), "s", rounds=times[1:])


def wheel(recorder: Recorder) -> None:
    """Build it and look inside."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            recorder.missing("throughput", "wheel", done.stderr.strip().splitlines()[-1][:200])
            return
        (path,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            inside = {info.filename: info.compress_size for info in archive.infolist()}
        graphs = sum(size for name, size in inside.items() if name.endswith(".onnx"))
        recorder.put(
            "throughput",
            "wheel",
            path.stat().st_size / 1e6,
            "MB",
            facts={"models_mb": digits(graphs / 1e6), "files": len(inside)},
        )


def memory(recorder: Recorder, models: list[str]) -> None:
    """Occupied by the engine, and added by each further stream."""
    from rtsep.audio.backends import DummyConfig
    from rtsep.engine import Engine

    for model in models:
        with Engine(model, backend=DummyConfig(source="noise")) as engine:
            engine.wait(1.5)
            size = proportional_mb(engine.pid)
        if size is None:
            recorder.missing("throughput", "memory of the engine", "this system does not tell", {"model": model})
            return
        recorder.put("throughput", "memory of the engine", size, "MB", parameters={"model": model})
        words = [sys.executable, "-c", _SESSIONS, model]
        sizes = json.loads(subprocess.run(words, capture_output=True, check=True, cwd=ROOT).stdout)
        each = np.diff(sizes)
        recorder.put(
            "throughput", "memory of a further stream", float(np.median(each)), "MB", parameters={"model": model},
            rounds=list(each[1:]),
        )  # fmt: skip


_SESSIONS = """
import json, os, sys
import numpy as np
from benchmarks.throughput import proportional_mb
from rtsep.inference import StreamingSession
kept, sizes = [], []
for _ in range(5):
    kept.append(StreamingSession(sys.argv[1], provider="cpu"))
    sizes.append(proportional_mb(os.getpid()))
print(json.dumps(sizes))
"""


def proportional_mb(pid: int) -> float | None:
    """Return the proportional set size of a process in MB; None where the system does not tell."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return None


def streams(recorder: Recorder, model: str, rounds: int, seconds: float) -> None:
    """The most sessions that one core holds."""
    began = time.monotonic()
    with StreamingSession(model, provider="cpu") as session:
        info = session.info
    rate = info.samplerates[0]
    period = info.hop_samples / rate
    audio = music_like(16 * info.hop_samples, info.channels, rate, recorder.seed)
    hops = [np.ascontiguousarray(hop) for hop in np.split(audio, 16, axis=1)]
    sessions = [StreamingSession(model, provider="cpu")]
    found = []
    for _ in range(rounds):
        low, high = 0, 1
        while high <= _MOST_STREAMS and _holds(sessions, model, high, hops, period, seconds):
            low, high = high, 2 * high
        while high - low > max(1, low // 8):
            middle = (low + high) // 2
            low, high = (middle, high) if _holds(sessions, model, middle, hops, period, seconds) else (low, middle)
        found.append(low)
    recorder.put(
        "throughput",
        "streams a core",
        float(np.median(found)),
        "streams",
        better="higher",
        parameters={"model": model},
        rounds=found,
        facts={"period_ms": digits(1e3 * period), "resolution": "an eighth"},
        began=began,
    )


def _holds(
    sessions: list[StreamingSession], model: str, count: int, hops: list[np.ndarray], period: float, seconds: float
) -> bool:
    """Whether `count` streams at once stay in time."""
    while len(sessions) < count:
        sessions.append(StreamingSession(model, provider="cpu"))
    late, total = 0, max(50, round(seconds / period))

    def run() -> None:
        nonlocal late
        make_thread_realtime(60)
        due = time.perf_counter() + period
        for k in range(total):
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            for session in sessions[:count]:
                session.step(hops[k % len(hops)])
            due += period
            late += time.perf_counter() > due
            if late > 1 + total // 1000:
                return

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return late <= 1 + total // 1000


def offline(recorder: Recorder, model: str, rounds: int, seconds: float) -> None:
    """Audio seconds a second, on one core and on all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    for name, used in (("one core", cores[-1:]), ("all cores", cores)):
        began, speeds, shares = time.monotonic(), [], []
        for _ in range(rounds):
            speed, share = _separated(model, used, seconds)
            speeds.append(speed)
            shares.append(share)
        parameters = {"model": model, "on": name}
        recorder.put(
            "throughput", "separate", float(np.median(speeds)), "x real time", better="higher", parameters=parameters,
            rounds=speeds, facts={"processes": len(used), "audio_s": seconds}, began=began,
        )  # fmt: skip
        if name == "one core":
            recorder.put(
                "throughput", "separate, processor time", float(np.median(shares)), "CPU s/s", parameters=parameters,
                rounds=shares,
            )  # fmt: skip


def _separated(model: str, cores: list[int], seconds: float) -> tuple[float, float]:
    """Return audio seconds a second of all processes together, and processor seconds per second of audio."""
    words = [sys.executable, "-c", _SEPARATE]
    running: list[subprocess.Popen[Any]] = [
        subprocess.Popen(
            [*words, str(core), model, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for core in cores
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    took = [tuple(map(float, process.communicate()[0].split())) for process in running]
    longest = max(wall for wall, _ in took)
    return len(cores) * seconds / longest, sum(cpu for _, cpu in took) / (len(cores) * seconds)
