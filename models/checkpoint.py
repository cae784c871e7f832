"""Checkpoints of streaming models: system, sizes, weights and training facts; no pickled classes.

    python -m models.checkpoint runs/bandsplit-low/best.pt models/checkpoints/bandsplit-low.pt

copies one with its weights rounded to float16: half the size, and what is exported from it packs to half, too.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import registry


def save_checkpoint(path: Path, system: str, model: nn.Module, extras: dict[str, Any]) -> None:
    """Write ``{system, config, state_dict, extras}`` atomically.

    Parameters
    ----------
    system : str
        A name of :data:`models.registry.SYSTEMS`.
    model : nn.Module
        Its streaming form.
    extras : dict
        Plain values only.
    """
    document = {
        "system": system,
        "config": model.config.to_dict(),  # type: ignore[union-attr, operator]
        "state_dict": model.state_dict(),
        "extras": extras,
    }
    partial = path.with_suffix(path.suffix + ".part")
    torch.save(document, partial)
    partial.replace(path)


def load_checkpoint(path: str | Path, system: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Return the model in evaluation mode and the extras of a checkpoint.

    Parameters
    ----------
    path : path
    system : str, optional
        What it must be; anything the registry knows when left out.

    Raises
    ------
    ValueError
        The file is no checkpoint, or one of another system, or its weights do not fit its sizes.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is no checkpoint that can be read safely: {str(error).splitlines()[0]}") from error
    expected = system or "streaming"
    if not isinstance(document, dict) or not {"system", "config", "state_dict", "extras"} <= document.keys():
        looks = looks_like(document)
        what = f"; it looks like {looks}" if looks else ""
        raise ValueError(
            f"{path} is no {expected} checkpoint of this project{what}. Train one with: "
            "python -m models.train CONFIG.toml"
        )
    if system is not None and document["system"] != system:
        raise ValueError(f"{path} is a checkpoint of the system {document['system']!r}, not of {system!r}.")
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in document["config"].items()}
    model = registry.find(document["system"]).build(values)
    try:
        model.load_state_dict(document["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit its sizes: {error}") from error
    return model.eval(), dict(document["extras"])


def save_rounded(source: Path, target: Path) -> None:
    """Copy a checkpoint with its weights as float16; loading makes float32 of them again.

    Raises
    ------
    ValueError
        The file is no checkpoint, or a weight is too large for float16.
    """
    model, extras = load_checkpoint(source)
    system = torch.load(source, map_location="cpu", weights_only=True)["system"]
    for name, weights in model.state_dict().items():
        if weights.is_floating_point() and not torch.isfinite(weights.half()).all():
            raise ValueError(f"{source}: {name} has values beyond float16, up to {float(weights.abs().max()):g}.")
    save_checkpoint(target, system, model.half(), extras)


# What only one upstream system's keys contain, and how it is called.
_UPSTREAM = {
    "fc3_1.weight": "upstream's Open-Unmix with one body and four heads",
    "fc3.weight": "an upstream Open-Unmix target",
    "stages.0.instrument_embedding.weight": "an upstream Meta-TasNet",
    "network.queryNet.bottom.conv.weight": "an upstream MSI",
    "network.unet.encoder.bn0.bn.weight": "an upstream MSI baseline",
}


def looks_like(document: object) -> str | None:
    """Say which upstream checkpoint a loaded document looks like; None when it looks like none we know."""
    if not isinstance(document, dict):
        return None
    weights = document.get("state_dict", document)
    if not isinstance(weights, dict):
        return None
    return next((name for key, name in _UPSTREAM.items() if key in weights), None)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.checkpoint", description="Round a checkpoint to float16.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        save_rounded(arguments.source, arguments.target)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
