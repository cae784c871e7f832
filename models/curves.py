"""Draw a run's curves: ``python -m models.curves runs/NAME/log.jsonl -o docs/models/NAME-curves.png``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from models.data.readers import STEMS


def draw(log: Path, output: Path) -> None:
    """Plot the training loss and the validation SDR per stem over the steps of a run."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [(r["step"], r["loss_db"]) for r in rows if "loss_db" in r]
    scores = [r for r in rows if "sdr/mean" in r]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(*zip(*losses, strict=True), linewidth=1)
    left.set(title="Training loss", xlabel="step", ylabel="error against target, dB")
    for name in (*STEMS, "mean"):
        style = {"color": "black", "linewidth": 2} if name == "mean" else {"linewidth": 1.2}
        right.plot([r["step"] for r in scores], [r[f"sdr/{name}"] for r in scores], label=name, **style)
    right.set(title="Validation: median over songs of the median SDR", xlabel="step", ylabel="SDR, dB")
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
