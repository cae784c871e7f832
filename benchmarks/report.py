"""Write docs/performance.md, its pictures and the README's table of peers from the figures in benchmarks/results.

Nothing is typed by hand: of each figure the newest run counts, what was not measured says so, and a run on a busy
machine is marked. SDR comes from the models' metadata. The README is only written from a run on a quiet machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import goals
from benchmarks.model_cards import table
from benchmarks.record import ROOT
from rtsep.errors import FiguresError
from rtsep.figures import Figure, Run, read_figures
from rtsep.zoo import list_models
from rtsep.zoo.registry import read_info

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "performance"
README = ROOT / "README.md"
BEGIN, END = "<!-- peers: begin (make report) -->", "<!-- peers: end -->"
QUIET = 0.5
"""Load average up to which a machine counts as left alone when a run began."""


class Book:
    """Figures of several files: for each one the newest.

    Parameters
    ----------
    paths : sequence of path
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.runs: dict[str, Run] = {}
        self.files: dict[str, Path] = {}
        newest: dict[tuple[str, str, str], Figure] = {}
        for path in paths:
            runs, figures = read_figures(path)
            for run in runs:
                self.runs[run.run], self.files[run.run] = run, path
            for figure in figures:
                old = newest.get(figure.key)
                if old is None or self.runs[old.run].date <= self.runs[figure.run].date:
                    newest[figure.key] = figure
        self.figures = list(newest.values())

    def find(self, benchmark: str, figure: str | None = None, **parameters: Any) -> list[Figure]:
        """Return the figures of a benchmark that were measured, with these parameters."""
        return [
            f for f in self.figures
            if f.benchmark == benchmark and figure in (None, f.figure) and f.value is not None
            and all(f.parameters.get(key) == value for key, value in parameters.items())
        ]  # fmt: skip

    def one(self, benchmark: str, figure: str, **parameters: Any) -> Figure | None:
        """Return one of them."""
        return next(iter(self.find(benchmark, figure, **parameters)), None)

    def missing(self, benchmark: str) -> list[str]:
        """Say what of a benchmark was not measured and why."""
        gone = [f for f in self.figures if f.benchmark == benchmark and f.value is None]
        if not gone and not self.find(benchmark):
            return ["Not measured."]
        return [f"Not measured: {f.figure}{_of(f.parameters)}: {f.note}." for f in gone]

    def quiet(self, figures: Sequence[Figure]) -> bool:
        """Whether all these come from a machine that was left alone."""
        return all(float(self.runs[f.run].machine.get("load") or 0) <= QUIET for f in figures)


def _of(parameters: dict[str, Any]) -> str:
    words = ", ".join(f"{key} {value}" for key, value in parameters.items())
    return f" ({words})" if words else ""


def number(value: float | None, digits: int = 3) -> str:
    """Return a cell."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def with_spread(figure: Figure | None, digits: int = 3) -> str:
    """Return the value and the range of its rounds."""
    if figure is None or figure.value is None:
        return "-"
    text = number(figure.value, digits)
    if len(figure.rounds) > 1:
        low, high = min(figure.rounds), max(figure.rounds)
        text += f" ({number(low, digits)} to {number(high, digits)})"
    return text


def percentile_cells(figure: Figure) -> list[str]:
    """Return p50, p95, p99, p99.9 and max."""
    found = figure.percentiles or {}
    return [number(found.get(name)) for name in ("p50", "p95", "p99", "p99.9", "max")]


PERCENTILES = ["p50", "p95", "p99", "p99.9", "max"]


# --- sections -----------------------------------------------------------------------------------------------


def runs_section(book: Book) -> list[str]:
    """What was measured, where."""
    rows: list[list[object]] = []
    used = {f.run for f in book.figures}
    for name, run in book.runs.items():
        if name not in used:
            continue
        m, v = run.machine, run.versions
        rows.append(
            [
                f"`{run.command}`", run.commit, run.date[:16].replace("T", " "),
                f"{m.get('cpu')}, {m.get('cores')} cores",
                m.get("kernel"), m.get("governor"), "yes" if m.get("realtime") else "no", m.get("load"),
                v.get("onnxruntime"),
            ]
        )  # fmt: skip
    head = ["command", "commit", "date (UTC)", "processor", "kernel", "governor", "real-time priority", "load before"]
    out = [*table([*head, "ONNX Runtime"], rows), ""]
    busy = [run.command for name, run in book.runs.items() if name in used and float(run.machine["load"] or 0) > QUIET]
    if busy:
        out += [
            "**The machine was busy with other programs when these began: "
            + ", ".join(f"`{command}`" for command in busy)
            + ". Their times are upper bounds, not what the machine does when it is left alone.**",
            "",
        ]
    return out


def models_section(book: Book) -> list[str]:
    """Speed, latency and quality side by side."""
    rows: list[list[object]] = []
    for entry in list_models():
        info = read_info(entry.path)
        rate = info.samplerates[0]
        alone = book.one("hop", "session", model=entry.name, threads=1, busy=False, provider="cpu")
        engine = book.one("hop", "engine", model=entry.name, threads=1, busy=False, provider="cpu", block=128)
        cost = book.one("peers", "separation", system=entry.name, **{"in": "ONNX Runtime"})
        trip = book.one("round_trip", "total", model=entry.name, period=128, signal="noise")
        sdr = info.evaluation.get("mean_sdr")
        f1 = (info.evaluation.get("unseen") or {}).get("note_f1")
        rows.append(
            [
                entry.name, f"{1000 * (info.hop_samples + info.latency_samples) / rate:.1f}",
                number(trip.value if trip else None),
                number(alone.value / alone.facts["period_ms"] if alone and alone.value else None),
                number(engine.facts["rtf"] if engine else None), with_spread(cost), number(sdr), number(f1),
                f"{info.parameters / 1e6:.1f} M",
            ]
        )  # fmt: skip
    head = ["model", "hop + model ms", "round trip ms, JACK 128", "RTF p50", "RTF p99, engine", "CPU s a second"]
    out = [*table([*head, "SDR dB", "note F1", "parameters"], rows), ""]
    out += [
        "SDR: median over seconds, then over the validation songs, mean of four stems (docs/models). Note F1: of a "
        "model with notes of its own. RTF: time of a hop over its duration.",
        "",
    ]
    if (PICTURES / "sdr.svg").exists():
        out += ["![SDR against CPU cost](performance/sdr.svg)", ""]
    return out


def hop_section(book: Book) -> list[str]:
    """Hop times."""
    rows: list[list[object]] = [
        [
            f.parameters["model"], f.parameters["provider"], f.parameters["threads"], f.parameters["block"],
            "yes" if f.parameters["busy"] else "no", *percentile_cells(f), number(f.facts["rtf"]),
            f"{f.facts['late']} of {(f.percentiles or {}).get('count')}",
        ]
        for f in book.find("hop", "engine")
    ]  # fmt: skip
    head = ["model", "provider", "threads", "block", "busy", *PERCENTILES, "RTF (p99)", "late"]
    out = ["In the engine, on the clocked dummy device, ms:", "", *table(head, rows), ""]
    rows = [
        [
            f.parameters["model"], f.parameters["threads"], "yes" if f.parameters["busy"] else "no",
            "as far apart as hops are" if f.figure == "session" else f.figure, *percentile_cells(f),
        ]
        for f in [*book.find("hop", "session"), *book.find("hop", "back to back")]
    ]  # fmt: skip
    out += ["`StreamingSession.step` alone, ms:", "", *table(["model", "threads", "busy", "calls", *PERCENTILES], rows)]
    if (PICTURES / "hops.svg").exists():
        out += ["", "![Hop times](performance/hops.svg)"]
    return [*out, "", *book.missing("hop")]


def trip_section(book: Book) -> list[str]:
    """Round trips."""
    rows: list[list[object]] = [
        [
            f.parameters["model"], f.parameters["period"], f.parameters["signal"], number(f.value, 4),
            number(f.facts["computed_ms"], 4), f"{f.facts['measured_stream_samples']}",
            f"{f.facts['computed_stream_samples']}", f"{f.facts['equal']} of {f.facts['segments']}",
        ]
        for f in book.find("round_trip")
    ]  # fmt: skip
    head = [
        "model",
        "JACK period",
        "signal",
        "measured ms",
        "computed ms",
        "of it between clients, samples",
        "computed",
    ]
    return [*table([*head, "segments equal"], rows), "", *book.missing("round_trip")]


def simple_section(benchmark: str, columns: Sequence[str], facts: Sequence[str] = ()) -> Callable[[Book], list[str]]:
    """Return what makes a table of percentiles by parameters."""

    def section(book: Book) -> list[str]:
        rows: list[list[object]] = [
            [f.figure, *(f.parameters.get(c, "") for c in columns), *percentile_cells(f), f.unit,
             *(f.facts.get(name, "") for name in facts)]
            for f in book.find(benchmark)
        ]  # fmt: skip
        head = ["", *columns, *PERCENTILES, "unit", *(name.replace("_", " ") for name in facts)]
        return [*table(head, rows), "", *book.missing(benchmark)]

    return section


def deadline_section(book: Book) -> list[str]:
    """Late hops."""
    rows: list[list[object]] = [
        [
            f.parameters["load"], f.parameters["device"], number(f.parameters["minutes"]),
            f"{number(f.value)} of {(f.percentiles or {}).get('count')}", *percentile_cells(f)[2:],
            f.facts["least_queued_ms"], f.facts["xruns"], f.facts.get("stalls"), f.facts.get("longest_stall_ms"),
        ]
        for f in book.find("deadlines")
    ]  # fmt: skip
    head = ["load", "device", "minutes", "late hops", "hop p99 ms", "p99.9", "max", "least queued ms", "xruns"]
    return [*table([*head, "machine stalls > 4 ms", "longest ms"], rows), "", *book.missing("deadlines")]


def value_section(benchmark: str) -> Callable[[Book], list[str]]:
    """Return what makes a table of values with their spread."""

    def section(book: Book) -> list[str]:
        rows: list[list[object]] = [
            [f.figure, ", ".join(f"{k} {v}" for k, v in f.parameters.items()), with_spread(f), f.unit]
            for f in book.find(benchmark)
        ]
        return [*table(["", "of", "median (range of rounds)", "unit"], rows), "", *book.missing(benchmark)]

    return section


def floor_section(book: Book) -> list[str]:
    """Time over floor."""
    rows: list[list[object]] = []
    for floor in book.find("floor", "floor"):
        p = floor.parameters
        rows.append(
            [
                p["model"], f"{floor.facts['macs'] / 1e6:.1f} M", f"{floor.facts['bytes'] / 1e6:.1f} MB",
                number(floor.facts["peak_gmac_s"]), number(floor.facts["bandwidth_gb_s"]), number(floor.value),
                floor.facts["bound_by"],
                *(number(f.value if (f := book.one("floor", name, **p)) else None)
                  for name in ("products alone", "hop")),
                *(with_spread(book.one("floor", name, **p)) for name in ("hop over floor", "hop over products alone")),
            ]
        )  # fmt: skip
    head = ["model", "MACs a hop", "bytes a hop", "peak GMAC/s", "bandwidth GB/s", "floor us", "bound by"]
    head += ["products alone us", "hop us", "hop over floor", "hop over products alone"]
    return [*table(head, rows), "", *book.missing("floor")]


def peers_table(book: Book) -> list[str]:
    """Cost of all separators."""
    found = sorted(book.find("peers", "separation"), key=lambda f: f.value or 0)
    rows: list[list[object]] = []
    for f in found:
        hs = book.one("peers", "times the cost", peer="HS-TasNet, PyTorch", model=f.parameters["system"])
        ours = f.parameters["in"] == "ONNX Runtime"
        name = f.parameters["system"] if ours else f"{f.parameters['system']} ({f.facts['note']})"
        rows.append([name, number(f.facts["latency_ms"]), with_spread(f), with_spread(hs) if ours else "-"])
    return table(["system", "latency ms", "CPU s a second", "HS-TasNet takes times as much"], rows)


def peers_section(book: Book) -> list[str]:
    """Separators, transcribers, ratios."""
    out = [*peers_table(book), "", "One stem on a live input:", ""]
    rows: list[list[object]] = [
        [f.parameters["system"], f.parameters["dial"], with_spread(f)] for f in book.find("peers", "transcription")
    ]
    out += [*table(["system", "dial", "CPU s a second"], rows), "", "Ratios, round by round:", ""]
    rows = [[f.parameters["peer"], f.parameters["model"], with_spread(f)] for f in book.find("peers", "times the cost")]
    out += [*table(["peer", "takes times as much as", "median (range of rounds)"], rows), ""]
    quality = book.find("note_quality", "F1")
    if quality:
        rows = [
            [f.parameters["kind"], f.parameters["system"], number(f.value), number(f.facts["core"])] for f in quality
        ]
        out += ["Heard on recordings:", "", *table(["", "system", "F1 within 50 ms", "of a core"], rows), ""]
    return [*out, *book.missing("peers")]


SECTIONS: tuple[tuple[str, str, Callable[[Book], list[str]]], ...] = (
    ("The models", "", models_section),
    ("Goals", "", lambda book: goals(book)),
    ("A hop", "hop", hop_section),
    ("Round trip", "round_trip", trip_section),
    ("From a fader to the sound", "control_latency",
     simple_section("control_latency", ("way", "block"), ("moves", "found"))),
    ("From an onset to its MIDI", "note_latency",
     simple_section("note_latency", ("stem", "dial"), ("onsets", "matched", "declared_ms"))),
    ("Deadlines", "deadlines", deadline_section),
    ("Throughput", "throughput", value_section("throughput")),
    ("Growth", "scaling", value_section("scaling")),
    ("Against the floor", "floor", floor_section),
    ("Peers", "peers", peers_section),
    ("CUDA", "cuda", simple_section("cuda", ("model", "streams", "precision", "cuda_graph"))),
)  # fmt: skip


def explanation(name: str) -> list[str]:
    """Return what a benchmark's module says of itself, as a block that keeps its columns."""
    source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    text = source.split('"""')[1].strip()
    return ["```text", *text.splitlines(), "```", ""]


def page(book: Book) -> str:
    """Return the whole document."""
    out = [
        "# Performance",
        "",
        "Written by `make report` from the JSON lines in `benchmarks/results`; `make bench-quick` (under 5 minutes), "
        "`make bench` (under 60) and `make bench-long` measure. `rtsep bench --compare A B` says what two files differ "
        "in. Spread: the range of the rounds of one run.",
        "",
        *runs_section(book),
    ]
    for title, name, section in SECTIONS:
        out += [f"## {title}", "", *(explanation(name) if name else []), *section(book), ""]
    text = "\n".join(out)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def readme_part(book: Book) -> list[str] | None:
    """Return the README's lines about peers; None when there are no figures of a quiet machine."""
    found = book.find("peers", "separation")
    if not found or not book.quiet(found):
        return None
    run = book.runs[found[0].run]
    return [
        f"What live separation costs, in turns in one run ({run.machine['cpu']}, one thread; the peers with random "
        "weights, which cost the same; all of it in [docs/performance.md](docs/performance.md)):",
        "",
        *peers_table(book),
        "",
        "`python -m benchmarks run --full --only peers` measures it again.",
    ]


def main(options: argparse.Namespace) -> int:
    """Write everything."""
    paths = options.files or sorted(RESULTS.glob("*.jsonl"))
    if not paths:
        raise FiguresError(f"{RESULTS} holds no figures. Measure some with: make bench-quick")
    book = Book(paths)
    from benchmarks.plots import draw

    PICTURES.mkdir(exist_ok=True)
    pictures = draw(book, PICTURES)
    PAGE.write_text(page(book), encoding="utf-8")
    print(PAGE, *pictures, sep="\n")
    text = README.read_text(encoding="utf-8")
    part = readme_part(book)
    if part is None:
        print("README.md is left as it is: no peers were measured on a machine that was left alone", file=sys.stderr)
    elif BEGIN in text and END in text:
        before, rest = text.split(BEGIN, 1)
        after = rest.split(END, 1)[1]
        README.write_text("\n".join([before + BEGIN, *part, END + after]), encoding="utf-8")
        print(README)
    return 0
