"""Cards and golden pairs for models made by `tests.support.graphs`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from rtsep.inference import StreamingSession
from rtsep.inference.onnx_file import read_info
from rtsep.zoo import ModelCard


def write_beside(path: Path, *, hops: int = 8, golden: bool = True) -> None:
    """Write ``NAME.json`` and, by running the model, ``NAME.golden.npz`` beside ``NAME.onnx``."""
    data = path.read_bytes()
    card = ModelCard(
        name=read_info(path).name,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        summary="a delay line for tests",
        parity={},
        benchmark={},
        training={},
    )
    path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(card)))
    if golden:
        with StreamingSession(path, provider="cpu") as session:
            info = session.info
            audio = np.random.default_rng(0).standard_normal((hops, info.channels, info.hop_samples))
            audio = np.clip(0.25 * audio, -1, 1).astype(np.float32)
            stems = np.concatenate([session.step(hop).copy() for hop in audio], axis=-1)
        np.savez(path.with_suffix(".golden.npz"), audio=np.concatenate(audio, axis=-1), stems=stems)
