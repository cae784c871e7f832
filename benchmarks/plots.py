"""Pictures of docs/performance.md: quality against cost, and how hop times are spread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtsep.zoo import list_models
from rtsep.zoo.registry import read_info

if TYPE_CHECKING:
    from benchmarks.report import Book

COLOURS = ("#1b6ca8", "#c8553d", "#2a8a57", "#7a4fa0", "#b8860b", "#444444", "#0b8a8a", "#a83279")


def draw(book: Book, folder: Path) -> list[Path]:
    """Draw what there are figures for; return the files."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "rtsep"  # the same figures make the same file
    mpl.rcParams["svg.fonttype"] = "none"
    drawn = [quality(book, folder / "sdr.svg"), hops(book, folder / "hops.svg")]
    return [path for path in drawn if path is not None]


def quality(book: Book, path: Path) -> Path | None:
    """SDR against CPU seconds a second; the colour says the latency. Peers without trained weights are lines."""
    import matplotlib.pyplot as plt

    points: list[tuple[float, float, float, str]] = []
    for entry in list_models():
        info = read_info(entry.path)
        cost = book.one("peers", "separation", system=entry.name, **{"in": "ONNX Runtime"})
        sdr = info.evaluation.get("mean_sdr")
        if cost is not None and cost.value is not None and sdr is not None:
            points.append((cost.value, sdr, cost.facts["latency_ms"], entry.name))
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    latencies = sorted({round(latency) for _, _, latency, _ in points})
    for number, latency in enumerate(latencies):
        group = [p for p in points if round(p[2]) == latency]
        axes.scatter(*zip(*((x, y) for x, y, _, _ in group), strict=True), color=COLOURS[number], s=60, zorder=3,
                     label=f"{latency} ms latency")  # fmt: skip
    top = max(y for _, y, _, _ in points) + 0.35
    bottom = min(y for _, y, _, _ in points) - 0.35
    for number, (x, y, _, name) in enumerate(sorted(points)):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(6, 7 if number % 2 else -14), fontsize=9)
    peers = [
        (peer.value, f"{peer.parameters['system']}, {peer.facts['latency_ms']:.0f} ms")
        for peer in book.find("peers", "separation", **{"in": "PyTorch"})
        if peer.facts["note"] == "PyTorch, random weights" and peer.value is not None
    ]
    for number, (cost, label) in enumerate(sorted(peers)):
        axes.axvline(cost, color="#999999", linewidth=1, linestyle="--", zorder=1)
        # Lines can be close together: names stand at the bottom and at the top in turn.
        y, side = (bottom, "bottom") if number % 2 else (top, "top")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(cost, y, f" {label} ", rotation=90, fontsize=8, color="#666666", ha="center", va=side, bbox=box)
    axes.set(
        xscale="log", ylim=(bottom, top), xlabel="CPU seconds for a second of audio, one thread",
        ylabel="SDR dB, mean of four stems",
    )  # fmt: skip
    low, high = axes.get_xlim()
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low < tick < high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(True, which="major", color="#dddddd", zorder=0)
    axes.legend(loc="upper left", fontsize=9)
    return _save(figure, path)


def hops(book: Book, path: Path) -> Path | None:
    """Histograms of the time of a hop in the engine, over its duration; idle and with the other cores busy."""
    import matplotlib.pyplot as plt

    found = [f for f in book.find("hop", "engine", threads=1, block=128, provider="cpu") if f.histogram]
    if not found:
        return None
    figure, rows = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    names = sorted({f.parameters["model"] for f in found})
    for axes, busy in zip(rows, (False, True), strict=True):
        for f in found:
            if f.parameters["busy"] != busy:
                continue
            assert f.histogram is not None
            edges, counts = np.array(f.histogram["edges"]), np.array(f.histogram["counts"], float)
            colour = COLOURS[names.index(f.parameters["model"]) % len(COLOURS)]
            axes.stairs(100 * counts / counts.sum(), edges / f.facts["period_ms"], color=colour, linewidth=1.4,
                        label=f.parameters["model"])  # fmt: skip
        axes.axvline(1.0, color="#888888", linestyle="--", linewidth=1)
        axes.set(xscale="log", yscale="log", ylabel="% of hops", title="other cores busy" if busy else "idle")
        axes.grid(True, color="#eeeeee")
    ticks = [
        t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if rows[1].get_xlim()[0] < t < rows[1].get_xlim()[1]
    ]
    rows[1].set_xticks(ticks, [f"{t:g}" for t in ticks])
    rows[1].minorticks_off()
    rows[1].set_xlabel("time of a hop over its duration (right of 1: longer than it lasts)")
    rows[0].legend(fontsize=8)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
