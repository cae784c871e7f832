"""Tune thresholds on more material: ``python -m models.transcriber.calibrate CONFIG CHECKPOINT``.

Training tunes them at each validation on a few clips; this does it once, on many, and writes them into the checkpoint.
Held-out recordings play no part.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from models.checkpoint import load_checkpoint, save_checkpoint
from models.train import read_config
from models.transcriber.task import TranscriberTask


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clips", type=int, default=60, help="stretches of 10 s")
    options = parser.parse_args(argv)
    config, document = read_config(options.config)
    document["validation"] = {**document.get("validation", {}), "tuning_clips": options.clips}
    document["held_out"] = []
    task = TranscriberTask(document, config)
    model, extras = load_checkpoint(options.checkpoint, "transcriber")
    task.model = model
    extras["thresholds"] = {name: dataclasses.asdict(value) for name, value in task.tune().items()}
    save_checkpoint(options.checkpoint, "transcriber", model, extras)
    for name, values in extras["thresholds"].items():
        print(name, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
