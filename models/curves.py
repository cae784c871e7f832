"""Draw a run's curves: ``python -m models.curves runs/NAME/log.jsonl -o docs/models/NAME-curves.png``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw(log: Path, output: Path) -> None:
    """Plot the training loss and all validation SDRs over the steps of a run."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [(r["step"], r["loss"]) for r in rows if "loss" in r]
    scores = [r for r in rows if "score" in r]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(*zip(*losses, strict=True), linewidth=1)
    left.set(title="Training loss", xlabel="step", ylabel="loss")
    for name in dict.fromkeys(key for row in scores for key in row if key == "score" or key.startswith("sdr")):
        style = {"color": "black", "linewidth": 2} if name == "score" else {"linewidth": 1.2}
        points = [(r["step"], r[name]) for r in scores if name in r]
        right.plot(*zip(*points, strict=True), label=name.removeprefix("sdr/"), **style)
    right.set(title="Validation", xlabel="step", ylabel="SDR, dB")
    right.legend(loc="lower right")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(output, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.curves", description="Draw a run's curves as a PNG.")
    parser.add_argument("log", type=Path, help="log.jsonl of a run")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    draw(arguments.log, arguments.output)


if __name__ == "__main__":
    main()
