"""A small real transcriber: a bank of windowed sinusoids, three positions of the dial that wait 3, 6 and 14 frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.query_graphs import Graph, hertz

RATE, HOP, WINDOW = 16_000, 160, 1280
WAITS = {"tight": 3, "normal": 6, "quality": 14}
"""Frames by which each position's outputs are late; half of the window, which is where a bank's level has risen."""
PIANO = tuple(range(21, 109))


def make_transcriber(
    path: Path, *, kind: str = "polyphonic", midi_notes: Sequence[int] = PIANO, document: dict[str, Any] | None = None
) -> Path:
    """Write a transcriber whose frame posterior is 1 where a pitch of 0.05 or more is heard louder than its neighbours.

    Onset: the rise of the frame posterior. Velocity: the amplitude.
    """
    notes, longest = len(midi_notes), max(WAITS.values())
    g = Graph()
    g.takes("audio", "B", 1, HOP)
    g.takes("state_in/line", "B", 1, WINDOW)
    g.takes("state_in/past", "B", longest + 2, 2 * notes)
    line = g.node("Concat", ["state_in/line", "audio"], "line", axis=2)
    ends = (g.ints("hop", HOP), g.ints("end", WINDOW + HOP), g.ints("axis", 2))
    g.node("Slice", [line, *ends], "state_out/line")
    time, hann = np.arange(WINDOW), np.hanning(WINDOW)
    angle = 2 * np.pi * np.array([hertz(note) for note in midi_notes]) * time[:, None] / RATE
    bank = np.concatenate([np.cos(angle), np.sin(angle)], 1) * hann[:, None] * 2 / hann.sum()
    parts = g.node("MatMul", ["state_out/line", g.const("bank", bank)], "parts")  # [B, 1, 2 P]
    pairs = g.node("Reshape", [g.node("Mul", [parts, parts], "squares"), g.ints("pairs", 0, 1, 2, notes)], "paired")
    level = g.node("Sqrt", [g.node("ReduceSum", [pairs, g.ints("two", 2)], "power", keepdims=0)], "level")  # [B, 1, P]
    loudest = g.node("ReduceMax", [level, g.ints("last", 2)], "loudest", keepdims=1)
    floor = g.node("Max", [loudest, g.const("silence", [0.05])], "floor")
    # 1 at the loudest pitch, 0 from 1 dB below it on.
    near = g.node(
        "Div", [g.node("Sub", [level, g.node("Mul", [floor, g.const("edge", [0.9])], "low")], "over"), floor], "near"
    )
    frame = g.node(
        "Clip",
        [g.node("Mul", [near, g.const("steep", [10.0])], "rise"), g.const("zero", 0.0), g.const("one", 1.0)],
        "frame",
    )
    capped = g.node("Clip", [level, "zero", "one"], "capped")
    both = g.node("Concat", [frame, capped], "both", axis=2)  # [B, 1, 2 P]
    past = g.node("Concat", ["state_in/past", both], "all", axis=1)  # [B, longest + 3, 2 P], newest last
    g.node("Slice", [past, g.ints("from1", 1), g.ints("to", longest + 3), g.ints("time_axis", 1)], "state_out/past")
    for name, which, lag in (("frame", 0, 0), ("velocity", 1, 0), ("before", 0, 1)):
        rows = []
        for index, wait in enumerate(WAITS.values()):
            # The bank itself sees half a window late; what is left of the wait is waited here.
            at = longest + 2 - max(0, wait - WINDOW // 2 // HOP) - lag
            rows.append(
                g.node(
                    "Slice",
                    [
                        past,
                        g.ints(f"{name}{index}a", at, which * notes),
                        g.ints(f"{name}{index}b", at + 1, (which + 1) * notes),
                        g.ints(f"{name}{index}c", 1, 2),
                    ],
                    f"{name}{index}",
                )
            )
        stacked = g.node("Concat", rows, f"{name}_all", axis=1)  # [B, D, P]
        out = f"notes/{name}" if name != "before" else "before_4"
        g.node("Unsqueeze", [stacked, g.ints(f"{name}_axis", 2)], out)  # [B, D, 1, P]
    g.node("Relu", [g.node("Sub", ["notes/frame", "before_4"], "risen")], "notes/onset")
    for name in ("onset", "frame", "velocity"):
        g.gives(f"notes/{name}", "B", len(WAITS), 1, notes)
    if kind == "monophonic":
        pitched = g.node("Mul", ["notes/frame", g.const("numbers", list(midi_notes))], "pitched")
        g.node("ReduceMax", [pitched, g.ints("pitch_axis", 3)], "notes/pitch", keepdims=0)
        g.gives("notes/pitch", "B", len(WAITS), 1)
    g.gives("state_out/line", "B", 1, WINDOW)
    g.gives("state_out/past", "B", longest + 2, 2 * notes)
    properties = {
        "format": 1,
        "name": f"test-{kind}",
        "version": "1",
        "kind": kind,
        "samplerate": RATE,
        "hop_samples": HOP,
        "frames_per_hop": 1,
        "midi_notes": list(midi_notes),
        "dial": [{"name": name, "latency_samples": max(wait * HOP, WINDOW // 2)} for name, wait in WAITS.items()],
        "thresholds": {name: {"on": 0.5, "off": 0.3, "onset": 0.4} for name in WAITS},
        "parameters": 0,
        "macs_per_second": 0,
        "licence": "MIT",
        "training_data": [],
        "git_commit": "0" * 40,
        "weights_sha256": "0" * 64,
        "evaluation": {},
    }
    return g.write(path, {"rtsep-transcriber": {**properties, **(document or {})}})
