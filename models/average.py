"""Average the weights of checkpoints of one run: ``python -m models.average A.pt B.pt -o C.pt``.

Weights that were trained on from common ones lie close enough together for their mean to be a model, often one that
holds up better on unseen songs (Wortsman et al., "Model soups", ICML 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from models.checkpoint import load_checkpoint, save_checkpoint


def average(paths: list[Path]) -> tuple[str, Any, dict[str, Any]]:
    """Return the system, the mean model and the facts of the checkpoint that was trained longest.

    Raises
    ------
    ValueError
        The checkpoints are of models of different sizes.
    """
    system = torch.load(paths[0], weights_only=True)["system"]
    loaded = [load_checkpoint(path, system) for path in paths]
    model, _ = loaded[0]
    if any(other.config != model.config for other, _ in loaded):
        raise ValueError(f"the checkpoints {[str(p) for p in paths]} are of different configurations.")
    states = [other.state_dict() for other, _ in loaded]
    mean = {
        name: torch.stack([s[name] for s in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    model.load_state_dict(mean)
    facts = max((extras for _, extras in loaded), key=lambda extras: extras["steps"])
    return system, model, {**facts, "averaged_steps": sorted(extras["steps"] for _, extras in loaded)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.average", description="Average checkpoints of one run.")
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    system, model, facts = average(arguments.checkpoints)
    facts.pop("validation", None)  # it was measured on one of them, not on their mean
    save_checkpoint(arguments.output, system, model, facts)


if __name__ == "__main__":
    main()
