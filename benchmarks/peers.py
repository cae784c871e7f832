"""Other live separators and transcribers beside ours, in turns in one run, each from its package.

separation      ``benchmarks/separation_peers.py``: processor seconds per second of audio, one thread, hop by hop, with
                the latency that each has. HS-TasNet and Open-Unmix have random weights, which cost the same; our
                models are there twice, in ONNX Runtime and as PyTorch runs them line by line
transcription   one stem on a live input: ours at each position of the dial, basic-pitch on a window of 2 s every 40 ms,
                aubio; cost only. How well they hear is scored by ``--only note_quality``, on recordings

The packages are installed into ``build/peers`` by pip, without what they need beyond PyTorch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.record import ROOT, Recorder, digits
from rtsep.notes.transcriber_info import DIAL

FOLDER = ROOT / "build" / "peers"
PINNED = ROOT / "benchmarks" / "peers.txt"


def measure(recorder: Recorder, depth: str) -> None:
    """Both."""
    install()
    separation(recorder, rounds=5, seconds=1.0 if depth == "quick" else 5.0)
    if depth == "quick":
        transcription(recorder, ("normal",), rounds=2, seconds=2.0)
    else:
        transcription(recorder, DIAL, rounds=5, seconds=10.0)


def install() -> None:
    """Put the pinned packages where they disturb nothing, unless they are there."""
    mark = FOLDER / "installed.txt"
    if mark.exists() and mark.read_text() == PINNED.read_text():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER), "-r", str(PINNED)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not install {PINNED.name}: {done.stderr.strip()[-300:]}")
    mark.write_text(PINNED.read_text())


def separation(recorder: Recorder, rounds: int, seconds: float) -> None:
    """CPU seconds a second, and how many times as much each peer takes as the default model."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "figures.json"
        words = [sys.executable, "benchmarks/separation_peers.py", "--peers", str(FOLDER), "--json", str(path)]
        words += ["--rounds", str(rounds), "--seconds", str(seconds)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            raise RuntimeError(f"separation_peers.py: {done.stderr.strip()[-300:]}")
        document = json.loads(path.read_text())
    systems = document["systems"]
    for system in systems:
        facts = {key: system[key] for key in ("note", "parameters", "hop")}
        recorder.put(
            "peers",
            "separation",
            float(np.median(system["costs"])),
            "CPU s/s",
            parameters={"system": system["name"], "in": "ONNX Runtime" if system["note"] == "rtsep" else "PyTorch"},
            rounds=system["costs"],
            facts={**facts, "latency_ms": digits(system["latency_ms"]), "torch": document["torch"]},
            began=began,
        )
    ours = [system for system in systems if system["note"] == "rtsep"]
    for peer in systems:
        for system in ours:
            same = peer["name"] == system["name"] and peer is not system
            if peer["note"] == "PyTorch, random weights" or same:
                ratios = np.array(peer["costs"]) / np.array(system["costs"])
                recorder.put(
                    "peers", "times the cost", float(np.median(ratios)), "times", better="higher",
                    parameters={"peer": f"{peer['name']}, PyTorch", "model": system["name"]}, rounds=list(ratios),
                    facts={"peer_latency_ms": digits(peer["latency_ms"]), "latency_ms": digits(system["latency_ms"])},
                )  # fmt: skip


def transcription(recorder: Recorder, dials: Sequence[str], rounds: int, seconds: float) -> None:
    """CPU seconds a second of one stem."""
    sys.path.insert(0, str(FOLDER))
    from benchmarks.transcription_peers import RATE, BasicPitchLive, aubio, rtsep
    from export.parity import music_like

    live = BasicPitchLive()
    systems: dict[tuple[str, str], Callable[[np.ndarray], float]] = {
        (f"rtsep {kind}", dial): (lambda audio, kind=kind, dial=dial: rtsep(kind, dial)(audio).cpu_s)
        for kind in ("polyphonic", "monophonic", "drums")
        for dial in dials
    }
    systems["basic-pitch live", ""] = lambda audio: live.windows(audio)[1]
    if shutil.which("aubionotes"):
        systems["aubio", ""] = lambda audio: aubio(audio).cpu_s
    else:
        recorder.missing("peers", "transcription", "apt install aubio-tools", {"system": "aubio", "dial": ""})
    costs: dict[tuple[str, str], list[float]] = {key: [] for key in systems}
    kept = []  # the systems know a recording by its address
    for number in range(rounds + 1):
        audio = music_like(round(seconds * RATE), 1, RATE, seed=recorder.seed + number)[0]
        kept.append(audio)
        for key, system in systems.items():
            cost = system(audio) / (seconds + 1)  # every one hears a second of silence after it
            if number:
                costs[key].append(cost)
    for (name, dial), found in costs.items():
        recorder.put(
            "peers", "transcription", float(np.median(found)), "CPU s/s", parameters={"system": name, "dial": dial},
            rounds=found,
        )  # fmt: skip
    for (name, dial), found in costs.items():
        if name.startswith("rtsep"):
            ratios = np.array(costs["basic-pitch live", ""]) / np.array(found)
            recorder.put(
                "peers", "times the cost", float(np.median(ratios)), "times", better="higher",
                parameters={"peer": "basic-pitch live", "model": f"{name} {dial}"}, rounds=list(ratios),
            )  # fmt: skip
