"""Checkpoints of the streaming form: weights, config and training facts, no pickled classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig

SYSTEM = "openunmix"


def save_checkpoint(path: Path, model: StreamingOpenUnmix, extras: dict[str, Any]) -> None:
    """Write ``{system, config, state_dict, extras}`` atomically; ``extras`` holds plain values only."""
    document = {
        "system": SYSTEM,
        "config": model.config.to_dict(),
        "state_dict": model.state_dict(),
        "extras": extras,
    }
    partial = path.with_suffix(path.suffix + ".part")
    torch.save(document, partial)
    partial.replace(path)


def load_checkpoint(path: str | Path) -> tuple[StreamingOpenUnmix, dict[str, Any]]:
    """Return the model in evaluation mode and the extras of a checkpoint.

    Raises
    ------
    ValueError
        The file is not a checkpoint of this system.
    """
    document = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(document, dict) or document.get("system") != SYSTEM:
        raise ValueError(
            f"{path} is no streaming {SYSTEM} checkpoint (system={_system_of(document)!r}). Train one with: "
            "python -m models.train CONFIG.toml"
        )
    config = {key: list(v) if isinstance(v, tuple) else v for key, v in document["config"].items()}
    model = StreamingOpenUnmix(StreamingOpenUnmixConfig.from_dict(config))
    model.load_state_dict(document["state_dict"])
    return model.eval(), dict(document["extras"])


def _system_of(document: object) -> object:
    return document.get("system") if isinstance(document, dict) else type(document).__name__
