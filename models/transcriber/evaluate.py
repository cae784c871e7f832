"""Measure an exported transcriber: ``python -m models.transcriber.evaluate MODEL.onnx [--json]``.

The graph runs hop by hop, as it does live; the reference decoder (:mod:`models.transcriber.decoder`) turns its
posteriors into notes with the thresholds in the file. Printed are, for each held-out recording and each position of
the latency dial, onset F1 at 20, 30 and 50 ms on times with the declared latency taken off, counts of notes, and the
notes a minute that were found in silence, in noise, and in instruments of other kinds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.data.clips import HELD_OUT, SAMPLERATE, Bank, Clip, open_bank
from models.data.readers import Audio, DataError
from models.registry import load
from models.transcriber.decoder import Notes, Thresholds, decode
from models.transcriber.scoring import TOLERANCES_MS, Matches, Posteriors, match, per_minute, total

KEY = "rtsep-transcriber"
EMPTY_SECONDS, NOISE_DB = 30.0, -30.0
KINDS = {"polyphonic": ("note-files",), "monophonic": ("note-files", "ssvd"), "drums": ("mdb-drums",)}
FOLDERS = {"note-files": "notes", "ssvd": "notes/ssvd-train", "mdb-drums": "notes/drums"}
# Recordings of instruments that a kind is not made for.
OTHERS = {"polyphonic": ("drums",), "monophonic": ("drums",), "drums": ("polyphonic", "monophonic")}


class GraphError(Exception):
    """The file is no transcriber."""


class Graph:
    """An exported transcriber on one thread.

    Parameters
    ----------
    path : Path

    Raises
    ------
    GraphError
        The file holds no metadata of a transcriber.

    Attributes
    ----------
    document : dict
        Its metadata.
    """

    def __init__(self, path: Path) -> None:
        # Models do not depend on the runtime (pyproject's import rules); this command alone opens what was exported.
        options = load("onnxruntime:SessionOptions")()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = load("onnxruntime:InferenceSession")(str(path), options, providers=["CPUExecutionProvider"])
        text = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise GraphError(f"{path} is no transcriber: it has no metadata under {KEY!r}.")
        self.document: dict[str, Any] = json.loads(text)
        self.hop = int(self.document["hop_samples"])
        self.dial = [position["name"] for position in self.document["dial"]]
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.states = {i.name: i.shape[1:] for i in self.session.get_inputs() if i.name.startswith("state_in/")}
        self.step_ms: list[float] = []

    def listen(self, audio: Audio) -> list[Posteriors]:
        """Posteriors of ``[T]`` for each position of the dial, hop by hop, its latency taken off."""
        latencies = [int(position["latency_samples"]) // self.hop for position in self.document["dial"]]
        frames = len(audio) // self.hop
        steps = frames + max(latencies)
        padded = np.zeros(steps * self.hop, np.float32)
        padded[: frames * self.hop] = audio[: frames * self.hop]
        feed = {name: np.zeros((1, *shape), np.float32) for name, shape in self.states.items()}
        notes: dict[str, list[np.ndarray]] = {name: [] for name in self.outputs if name.startswith("notes/")}
        for index in range(steps):
            hop = padded[None, None, index * self.hop : (index + 1) * self.hop]
            before = time.perf_counter()
            values = dict(zip(self.outputs, self.session.run(None, {"audio": hop, **feed}), strict=True))
            self.step_ms.append(1000 * (time.perf_counter() - before))
            feed = {name: values["state_out/" + name.removeprefix("state_in/")] for name in feed}
            for name, rows in notes.items():
                rows.append(values[name][0, :, 0])  # [D, P] or [D]
        stacked = {name.removeprefix("notes/"): np.stack(rows, axis=1) for name, rows in notes.items()}  # [D, N, P]
        return [
            {name: values[d, ahead : ahead + frames] for name, values in stacked.items()}
            for d, ahead in enumerate(latencies)
        ]

    def transcribe(self, audio: Audio) -> dict[str, Notes]:
        """Notes of ``[T]`` by position of the dial."""
        found = {}
        for name, p in zip(self.dial, self.listen(audio), strict=True):
            limits = Thresholds.from_dict(self.document["thresholds"][name])
            kind, midi_notes = self.document["kind"], self.document["midi_notes"]
            found[name] = decode(p["onset"], p["frame"], p["velocity"], limits, kind, midi_notes)
        return found


def held_out(kinds: tuple[str, ...], data: Path, cache: Path) -> list[tuple[Bank, Clip]]:
    """Held-out recordings of some readers of :data:`models.data.clips.HELD_OUT`."""
    found = []
    for name in kinds:
        bank = open_bank(f"held-out-{name}", data / FOLDERS[name], HELD_OUT[name], cache)
        found += [(bank, clip) for clip in bank.clips]
    return found


def empty_material(kind: str, data: Path, cache: Path) -> list[tuple[str, Audio]]:
    """What holds no notes for a kind: silence, white and pink noise, held-out instruments of other kinds."""
    rng = np.random.default_rng(7)
    samples = int(EMPTY_SECONDS * SAMPLERATE)
    white = rng.standard_normal(samples)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 20.0), samples)
    level = 10 ** (NOISE_DB / 20)
    material = [("silence", np.zeros(samples, np.float32))]
    for name, noise in (("white noise", white), ("pink noise", pink)):
        material.append((name, (level * noise / np.sqrt(np.mean(noise**2))).astype(np.float32)))
    for bank, clip in held_out(("note-files", "mdb-drums"), data, cache):
        if clip.role in OTHERS[kind]:
            material.append((clip.name, bank.read(clip)))
    return material


def evaluate(graph: Graph, data: Path, cache: Path, most: int = 0) -> dict[str, Any]:
    """Return all figures; ``most`` limits the recordings of each source (0: all)."""
    kind = graph.document["kind"]
    clips: list[dict[str, Any]] = []
    counts: dict[str, dict[int, list[Matches]]] = {name: {t: [] for t in TOLERANCES_MS} for name in graph.dial}
    for source in KINDS[kind]:
        chosen = [(b, c) for b, c in held_out((source,), data, cache) if c.role == kind]
        for bank, clip in chosen[: most or None]:
            row: dict[str, Any] = {"clip": clip.name, "source": source, "notes": len(clip.notes)}
            for name, notes in graph.transcribe(bank.read(clip)).items():
                matches = {t: match(clip.notes, notes, kind, t) for t in TOLERANCES_MS}
                row[name] = {"notes": len(notes), **{f"f1_{t}ms": round(m.f1, 4) for t, m in matches.items()}}
                row[name] |= {"precision": round(matches[50].precision, 4), "recall": round(matches[50].recall, 4)}
                for t, m in matches.items():
                    counts[name][t].append(m)
            clips.append(row)
    overall = {
        name: {
            **{f"f1_{t}ms": round(total(rows).f1, 4) for t, rows in by.items()},
            "precision": round(total(by[50]).precision, 4),
            "recall": round(total(by[50]).recall, 4),
        }
        for name, by in counts.items()
    }
    false = {}
    for what, audio in empty_material(kind, data, cache):
        found = graph.transcribe(audio)
        false[what] = {name: round(per_minute(n, len(audio) // graph.hop), 2) for name, n in found.items()}
    p50, p99 = np.percentile(graph.step_ms, [50, 99])
    return {
        "model": graph.document["name"],
        "kind": kind,
        "overall": overall,
        "clips": clips,
        "false_notes_per_minute": false,
        "step_ms": {"p50": round(float(p50), 4), "p99": round(float(p99), 4)},
    }


def lines(figures: dict[str, Any], dial: list[str]) -> list[str]:
    """The figures for a terminal."""
    out = [f"{figures['model']} ({figures['kind']}): onset F1 at {' / '.join(map(str, TOLERANCES_MS))} ms"]
    for row in [*figures["clips"], {"clip": "all", "notes": sum(r["notes"] for r in figures["clips"])}]:
        cells = []
        for name in dial:
            value = row.get(name) or figures["overall"][name]
            f1 = " ".join(f"{value[f'f1_{t}ms']:.3f}" for t in TOLERANCES_MS)
            extra = f" ({value['notes']})" if "notes" in value else ""
            cells.append(f"{name} {f1} P {value['precision']:.2f} R {value['recall']:.2f}{extra}")
        out.append(f"{row['clip']:<22} {row['notes']:>4} notes  " + "   ".join(cells))
    out.append("false notes a minute")
    for what, value in figures["false_notes_per_minute"].items():
        out.append(f"{what:<22} " + "   ".join(f"{name} {value[name]:.1f}" for name in dial))
    out.append(f"step p50 {figures['step_ms']['p50']:.3f} ms, p99 {figures['step_ms']['p99']:.3f} ms, one thread, B=1")
    return out


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds notes/")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--most", type=int, default=0, help="recordings of each source; 0 for all")
    options = parser.parse_args(argv)
    if not options.model.is_file():
        parser.error(f"there is no file {options.model}")
    try:
        graph = Graph(options.model)
        figures = evaluate(graph, options.data, options.cache, options.most)
    except (GraphError, DataError) as error:
        parser.exit(1, f"error: {error}\n")
    print(json.dumps(figures, indent=1) if options.json else "\n".join(lines(figures, graph.dial)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
