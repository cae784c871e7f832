"""A metadata document with every part filled in, for tests to spoil one thing at a time."""

from __future__ import annotations

import json
from typing import Any

from rtsep.contract import ModelInfo, TensorSpec


def full_document(**changes: Any) -> dict[str, Any]:
    """Return a valid document, as JSON would give it, with top-level keys replaced."""
    document: dict[str, Any] = {
        "contract_version": 1,
        "name": "test-model",
        "version": "1.2",
        "samplerates": [44100, 48000],
        "hop_samples": 256,
        "latency_samples": 512,
        "channels": 2,
        "stems": ["drums", "bass", "vocals"],
        "residual_stem": "bass",
        "controls": [
            {
                "name": "query",
                "shape": [2, 3],
                "default": [0, 0.5, 0, 0, 0, -1],
                "minimum": -1,
                "maximum": 1.5,
                "meaning": "what to extract",
                "labels": [],
            }
        ],
        "notes": {
            "stems": ["vocals", "bass"],
            "lowest_midi": 21,
            "highest_midi": 108,
            "frames_per_hop": 2,
            "extra_latency_samples": 1024,
        },
        "parameters": 1000,
        "macs_per_second": 2000000,
        "licence": "MIT",
        "training_data": ["MUSDB18"],
        "git_commit": "0123abc",
        "weights_sha256": "ab" * 32,
        "evaluation": {"musdb18 SDR dB": {"vocals": 4.5}, "note": None},
    }
    return {**document, **changes}


def full_info(**changes: Any) -> ModelInfo:
    return ModelInfo.from_json(json.dumps(full_document(**changes)))


FLOAT = "tensor(float)"


def full_tensors(batch: int | str = 1) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return inputs and outputs of a graph that fits `full_document`."""
    inputs: dict[str, TensorSpec] = {
        "audio": ((batch, 2, 256), FLOAT),
        "state_in/stft.history": ((batch, 2, 768), FLOAT),
        "state_in/clock": ((batch,), "tensor(int64)"),
        "control/query": ((batch, 2, 3), FLOAT),
    }
    outputs: dict[str, TensorSpec] = {
        "stems": ((batch, 3, 2, 256), FLOAT),
        "state_out/stft.history": ((batch, 2, 768), FLOAT),
        "state_out/clock": ((batch,), "tensor(int64)"),
        "notes/onset": ((batch, 2, 2, 88), FLOAT),
        "notes/frame": ((batch, 2, 2, 88), FLOAT),
        "notes/velocity": ((batch, 2, 2, 88), FLOAT),
    }
    return inputs, outputs
