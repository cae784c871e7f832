#!/usr/bin/env python3
"""Choose the thresholds of a transcriber with the host's own tracker, on its training material.

``models.transcriber.calibrate`` tunes a reference decoder, which knows nothing of by-products. This runs the tracker
that plays live over the same stretches (every other one degraded) and prints, for each position of the dial, the onset
threshold and the factors for by-products with the best mean onset F1 (50 ms) of a stretch; frame thresholds stay as
they were calibrated. Held-out recordings play no part. With --write the onset thresholds go into the checkpoint, for
the next export; the factors are those of `StemTrackerSettings.for_kind`::

    python tools/tune_tracker.py notes-poly.onnx models/configs/notes-poly.toml --write runs/notes-poly/best.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.checkpoint import load_checkpoint, save_checkpoint
from models.train import read_config
from models.transcriber.evaluate import Graph
from models.transcriber.scoring import match
from models.transcriber.task import TranscriberTask
from rtsep.notes.tracker import StemTracker, StemTrackerSettings
from rtsep.notes.transcriber_info import TranscriberInfo, read_transcriber_info

ONSETS = (0.2, 0.3, 0.4, 0.5)
UNDERTONES, OVERTONES = (0.0, 0.4, 0.55, 0.7, 0.85), (0.35, 0.6, 0.8)


def track(posteriors: dict[str, np.ndarray], info: TranscriberInfo, settings: StemTrackerSettings) -> np.ndarray:
    """Notes [n, 4] of posteriors [N, P] whose latency is taken off."""
    tracker = StemTracker(info.midi_notes, settings)
    rows = zip(posteriors["onset"], posteriors["frame"], posteriors["velocity"], strict=True)
    events = [event for onset, frame, velocity in rows for event in tracker.push(onset, frame, velocity)]
    began: dict[int, Any] = {}
    notes = []
    for event in [*events, *tracker.release()]:
        if event.kind == "on":
            began[event.pitch] = event
        else:
            on = began.pop(event.pitch)
            start, end = on.moment * info.frame_s, event.moment * info.frame_s
            notes.append((start, max(end, start + 0.01), on.pitch, on.velocity))
    return np.array(sorted(notes), float).reshape(-1, 4)


def by_products(settings: StemTrackerSettings) -> Iterator[StemTrackerSettings]:
    """Factors for octaves below and overtones above."""
    for undertone in UNDERTONES:
        for overtone in OVERTONES:
            yield replace(settings, undertone=undertone, overtone=overtone)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transcriber", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--clips", type=int, default=24, help="stretches of 10 s")
    parser.add_argument("--write", type=Path, help="checkpoint to put the thresholds into")
    options = parser.parse_args()
    info, graph = read_transcriber_info(options.transcriber), Graph(options.transcriber)
    if info.kind == "monophonic":
        parser.error("one voice has a tracker of its own, rtsep/notes/voice.py")
    config, document = read_config(options.config)
    document["validation"] = {**document.get("validation", {}), "tuning_clips": options.clips}
    document["held_out"] = []
    material = [(a, n) for a, n in TranscriberTask(document, config).tuning_material() if len(n)]
    heard = [(graph.listen(audio), notes) for audio, notes in material]
    thresholds = {}
    for index, position in enumerate(info.dial):

        def f1(settings: StemTrackerSettings, index: int = index) -> float:
            found = [match(notes, track(p[index], info, settings), info.kind, 50).f1 for p, notes in heard]
            return float(np.mean(found))

        calibrated = StemTrackerSettings.for_kind(info.kind, position)
        best = max((replace(calibrated, onset=onset) for onset in ONSETS), key=f1)
        if info.kind == "polyphonic":
            best = max(by_products(best), key=f1)
        thresholds[position.name] = {"onset": best.onset, "on": best.on, "off": best.off}
        print(f"{position.name}: F1 {f1(best):.4f} {thresholds[position.name]}", end="")
        print(f" overtone {best.overtone} undertone {best.undertone}" if info.kind == "polyphonic" else "", flush=True)
    if options.write:
        model, extras = load_checkpoint(options.write, "transcriber")
        save_checkpoint(options.write, "transcriber", model, {**extras, "thresholds": thresholds})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
