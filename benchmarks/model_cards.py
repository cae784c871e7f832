"""Measure every shipped model in one run and write docs/models: a card each and one table of all.

    python benchmarks/model_cards.py            # all, takes about 20 s a model
    python benchmarks/model_cards.py --check    # write nothing; exit 1 when a card is missing or differs in its facts

What is measured here are the step times, the models taking turns on one core so that their ratio holds on a noisy
machine. Everything else comes from the files: the graph's metadata (with the figures of ``python -m models.evaluate``)
and the card that the exporter wrote. In a card only the part between the two marks is written; what stands outside
is for people to write.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.parity import machine, music_like
from rtsep.contract import ModelInfo
from rtsep.inference import StreamingSession
from rtsep.zoo import ModelCard, ZooEntry, list_models

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "models"
BEGIN, END = "<!-- measured: begin (benchmarks/model_cards.py) -->", "<!-- measured: end -->"
TURNS, HOPS_PER_TURN = 12, 60


@dataclass
class Measured:
    """A model and the times of its steps in ms."""

    entry: ZooEntry
    info: ModelInfo
    card: ModelCard
    times_ms: np.ndarray

    @property
    def rate(self) -> int:
        """Rate in Hz that latency and RTF are given for: the first native one."""
        return self.info.samplerates[0]

    @property
    def period_ms(self) -> float:
        """Time a hop lasts."""
        return 1000 * self.info.hop_samples / self.rate

    @property
    def rtf(self) -> float:
        """Median step time over the time of a hop."""
        return float(np.median(self.times_ms)) / self.period_ms

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: the hop that is waited for and the model's own delay."""
        return 1000 * (self.info.hop_samples + self.info.latency_samples) / self.rate


def step_times(sessions: list[StreamingSession]) -> list[np.ndarray]:
    """Time the steps of all models in ms, a turn each, after a turn to warm up."""
    hops = []
    for session in sessions:
        info = session.info
        audio = music_like(HOPS_PER_TURN * info.hop_samples, info.channels, info.samplerates[0])
        hops.append([np.ascontiguousarray(part) for part in np.split(audio, HOPS_PER_TURN, axis=1)])
    times: list[list[float]] = [[] for _ in sessions]
    for turn in range(TURNS):
        for index, session in enumerate(sessions):
            for hop in hops[index]:
                before = time.perf_counter()
                session.step(hop)
                if turn:
                    times[index].append(1000 * (time.perf_counter() - before))
    return [np.array(taken) for taken in times]


def measure(entries: list[ZooEntry]) -> list[Measured]:
    """Time all shipped models."""
    sessions = [StreamingSession(entry.path, provider="cpu") for entry in entries]
    measured = []
    for entry, session, taken in zip(entries, sessions, step_times(sessions), strict=True):
        measured.append(Measured(entry, session.info, ModelCard.read(entry.card_path), taken))
        session.close()
    return measured


# --- tables -------------------------------------------------------------------------------------------------------


def number(value: object) -> str:
    """Return a cell."""
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def table(head: list[str], rows: list[list[object]]) -> list[str]:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(map(number, row))} |" for row in rows]


def facts(m: Measured) -> list[list[object]]:
    """Return what a model is and how fast it runs."""
    info, card = m.info, m.card
    p50, p99 = np.percentile(m.times_ms, [50, 99])
    rows: list[list[object]] = [
        ["stems", ", ".join(info.stems)],
        ["controls", ", ".join(f"{c.name} {list(c.shape) or ''}".strip() for c in info.controls) or "none"],
        ["notes", f"MIDI {info.notes.lowest_midi} to {info.notes.highest_midi}" if info.notes else "none"],
        ["rates, channels", f"{', '.join(f'{r / 1000:g}' for r in info.samplerates)} kHz, {info.channels}"],
        ["hop", f"{info.hop_samples} samples, {m.period_ms:.1f} ms at {m.rate / 1000:g} kHz"],
        ["latency", f"{info.hop_samples + info.latency_samples} samples, {m.latency_ms:.1f} ms"],
        [
            "size",
            f"{info.parameters:,} parameters, {card.size_bytes / 1e6:.2f} MB, {info.macs_per_second / 1e6:,.0f} MMAC/s",
        ],
        ["speed", f"hop p50 {p50:.2f} ms, p99 {p99:.2f} ms on one core; RTF {m.rtf:.3f} back to back"],
        ["parity", f"ONNX against PyTorch {card.parity['max_abs_error']:.1e} over {card.parity['seconds']:.0f} s"],
    ]
    if "steps" in card.training:
        training = card.training
        hours = f"{training['audio_hours']:.1f} h of audio, {training['wall_hours']:.1f} h on {training['device']}"
        rows.append(["training", f"{training['steps']} steps, {hours}"])
    rows.append(["licence of the weights", info.licence])
    return rows


def scores(info: ModelInfo) -> list[str]:
    """Return the evaluation figures as tables: one row per dictionary of numbers."""
    figures = info.evaluation
    if not figures:
        return ["Not evaluated."]
    lines = [f"{figures['metric']}."] if "metric" in figures else []
    rows = {name: value for name, value in figures.items() if isinstance(value, dict)}
    shapes: dict[tuple[str, ...], list[str]] = {}
    for name, row in rows.items():
        shapes.setdefault(tuple(row), []).append(name)
    for columns, names in shapes.items():
        lines += ["", *table(["", *columns], [[name.replace("_", " "), *rows[name].values()] for name in names])]
    single = {k: v for k, v in figures.items() if isinstance(v, (int, float))}
    if single:
        lines += ["", ", ".join(f"{k.replace('_', ' ')} {number(v)}" for k, v in single.items()) + "."]
    return lines


def card_block(m: Measured) -> str:
    """Return the measured part of a card."""
    lines = [m.card.summary[0].upper() + m.card.summary[1:] + ".", "", *table(["", ""], facts(m)), ""]
    lines += ["### What it scores", "", *scores(m.info), ""]
    curves = FOLDER / f"{m.entry.name}-curves.png"
    if curves.exists():
        lines += [f"![Training loss and validation over the steps]({curves.name})", ""]
    lines += ["### What it was trained on", "", *(f"- {line}" for line in m.info.training_data)]
    return "\n".join(lines)


def overview(measured: list[Measured]) -> str:
    """Return the table of all models."""
    head = [
        "model",
        "stems",
        "parameters",
        "MMAC/s",
        "latency ms",
        "RTF",
        "drums",
        "bass",
        "other",
        "vocals",
        "query",
        "note F1",
    ]
    rows: list[list[object]] = []
    for m in measured:
        sdr, queries = m.info.evaluation.get("SDR", {}), m.info.evaluation.get("seen", {})
        rows.append(
            [
                f"[{m.entry.name}]({m.entry.name}.md)",
                ", ".join(m.info.stems),
                f"{m.info.parameters:,}",
                f"{m.info.macs_per_second / 1e6:,.0f}",
                f"{m.latency_ms:.1f}",
                f"{m.rtf:.3f}",
                *(sdr.get(stem) for stem in ("drums", "bass", "other", "vocals")),
                queries.get("SDR"),
                queries.get("note_f1"),
            ]
        )
    facts = machine()
    return "\n".join(
        [
            *table(head, rows),
            "",
            "SDR in dB, median of museval's over the validation songs; for models that separate by query, of duets of "
            "instruments that were trained on (its card has those that were not). Latency is the algorithmic one at "
            "the first native rate. RTF: one core, back to back, the models taking turns in one run on "
            f"{facts['cpu']}, ONNX Runtime {facts['onnxruntime']}.",
        ]
    )


def replaced(path: Path, title: str, block: str) -> str:
    """Return a page with its measured part renewed; a new page when there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{BEGIN}\n{END}\n"
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{path} must hold these two lines once each: {BEGIN} and {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def stale(entries: list[ZooEntry]) -> list[str]:
    """Return which cards do not name the weights' facts; times differ from run to run and are not compared."""
    problems = []
    for entry in entries:
        path = FOLDER / f"{entry.name}.md"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = [f"{entry.info.parameters:,} parameters", *scores(entry.info), *entry.info.training_data]
        problems += [f"{path}: {line!r} is missing" for line in wanted if line and line not in text]
    return problems


def main() -> int:
    """Measure and write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--json", type=Path, help="write the step times here too")
    arguments = parser.parse_args()
    entries = list(list_models())
    if arguments.check:
        problems = stale(entries)
        print("\n".join(problems) or "all cards agree with the models")
        return int(bool(problems))
    measured = measure(entries)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for m in measured:
        path = FOLDER / f"{m.entry.name}.md"
        path.write_text(replaced(path, m.entry.name, card_block(m)), encoding="utf-8")
    path = FOLDER / "README.md"
    path.write_text(replaced(path, "Models", overview(measured)), encoding="utf-8")
    if arguments.json:
        times: dict[str, Any] = {
            m.entry.name: {"rtf": m.rtf, "p99_ms": float(np.percentile(m.times_ms, 99))} for m in measured
        }
        arguments.json.write_text(json.dumps({"machine": machine(), "models": times}, indent=1) + "\n")
    print(path.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
