"""Measure the transcribers as they run live, host tracker included, on real recordings that training never saw.

    python benchmarks/transcription.py rtsep/zoo/transcribers/*.onnx --json figures.json

For each transcriber and position of the dial: onset F1 at 20, 30 and 50 ms (times with the delay taken out, as recorded
files have them), when notes were given out after the annotated onset (audio time, without computing), false notes a
minute where there are none to hear, and processor time a stem.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.parity import machine
from models.transcriber.evaluate import KINDS, empty_material, held_out
from models.transcriber.scoring import TOLERANCES_MS, match, total
from rtsep.notes.stream import StemListener
from rtsep.notes.transcriber import Transcriber
from rtsep.notes.transcriber_info import read_transcriber_info

ROOT = Path(__file__).resolve().parents[1]
RATE, BLOCK = 16_000, 160


def listen(path: Path, latency: str, audio: np.ndarray) -> tuple[np.ndarray, dict[tuple[float, int], float], float]:
    """Return notes [n, 4], when each was given out, and the processor seconds it took."""
    listener = StemListener(Transcriber(path, 1, latency), [0], RATE)
    silence = np.zeros(RATE, np.float32)
    padded = np.concatenate([audio, silence]).astype(np.float32)
    began: dict[int, tuple[float, int]] = {}
    notes, given = [], {}
    started = time.process_time()
    for at in range(0, len(padded) - BLOCK + 1, BLOCK):
        for event in listener.push(padded[None, at : at + BLOCK]):
            if event.kind == "on":
                began[event.pitch] = (event.time_s, event.velocity)
                given[event.time_s, event.pitch] = (at + BLOCK) / RATE
            else:
                start, velocity = began.pop(event.pitch)
                notes.append((start, max(event.time_s, start + 0.01), event.pitch, velocity))
    return np.array(sorted(notes), float).reshape(-1, 4), given, time.process_time() - started


def delays(reference: np.ndarray, given: dict[tuple[float, int], float]) -> list[float]:
    """Milliseconds from annotated onsets to the notes given out, nearest of the pitch within 50 ms of the onset."""
    found = []
    for onset, _, pitch, _ in reference:
        near = [
            (abs(start - onset), at)
            for (start, p), at in given.items()
            if abs(p - pitch) <= 0.5 and abs(start - onset) < 0.05
        ]
        if near:
            found.append(1000 * (min(near)[1] - onset))
    return found


def measure(path: Path, data: Path, cache: Path) -> dict[str, Any]:
    """All figures of one transcriber."""
    info = read_transcriber_info(path)
    result: dict[str, Any] = {"name": info.name, "kind": info.kind, "parameters": info.parameters, "dial": {}}
    clips = [(b, c) for source in KINDS[info.kind] for b, c in held_out((source,), data, cache) if c.role == info.kind]
    for position in info.dial:
        matches: dict[int, list[Any]] = {t: [] for t in TOLERANCES_MS}
        late: list[float] = []
        rows, cpu, seconds = [], 0.0, 0.0
        for bank, clip in clips:
            audio = bank.read(clip)
            notes, given, took = listen(path, position.name, audio)
            cpu, seconds = cpu + took, seconds + len(audio) / RATE + 1
            found = {t: match(clip.notes, notes, info.kind, t) for t in TOLERANCES_MS}
            for t, m in found.items():
                matches[t].append(m)
            late += delays(clip.notes, given)
            rows.append({"clip": clip.name, "notes": len(clip.notes), "f1_50ms": round(found[50].f1, 3)})
        listener = StemListener(Transcriber(path, 1, position.name), [0], RATE)
        false = {
            what: round(60 * len(listen(path, position.name, audio)[0]) / (len(audio) / RATE), 2)
            for what, audio in empty_material(info.kind, data, cache)
        }
        both = total(matches[50])
        result["dial"][position.name] = {
            "declared_delay_ms": round(1000 * listener.delay_s, 1),
            **{f"f1_{t}ms": round(total(m).f1, 4) for t, m in matches.items()},
            "precision": round(both.precision, 4),
            "recall": round(both.recall, 4),
            "given_out_ms": {p: round(float(np.percentile(late, p)), 1) for p in (50, 90, 99)} if late else {},
            "false_notes_per_minute": false,
            "cpu_share_of_a_core": round(cpu / seconds, 4),
            "clips": rows,
        }
    return result


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transcribers", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder that holds notes/")
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--json", type=Path, help="write everything here, too")
    options = parser.parse_args()
    found_all = [measure(path, options.data, options.cache) for path in options.transcribers]
    document = {"machine": machine(), "transcribers": found_all}
    for found in found_all:
        print(f"{found['name']} ({found['kind']}, {found['parameters']:,} parameters)")
        for name, row in found["dial"].items():
            f1 = " / ".join(f"{row[f'f1_{t}ms']:.3f}" for t in TOLERANCES_MS)
            worst = max(row["false_notes_per_minute"].items(), key=lambda pair: pair[1])
            print(
                f"  {name:<8} {row['declared_delay_ms']:5.1f} ms  F1 {f1}  "
                f"P {row['precision']:.2f} R {row['recall']:.2f}  "
                f"given out p50/p99 {row['given_out_ms'].get(50)}/{row['given_out_ms'].get(99)} ms  "
                f"false {worst[1]:.1f}/min ({worst[0]})  {100 * row['cpu_share_of_a_core']:.1f} % of a core"
            )
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
