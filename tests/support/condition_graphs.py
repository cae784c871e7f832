"""A model whose instruments are elements of its control ``condition``, with answers that can be written down."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtsep.contract import METADATA_KEY

LABELS = ("drums", "bass", "other", "vocals")
GAINS = (0.125, 0.125, 0.25, 0.5)


def make_condition_model(
    path: str | os.PathLike[str],
    *,
    hop: int = 512,
    latency: int = 512,
    channels: int = 2,
    gains: Sequence[float] = GAINS,
    **metadata_overrides: Any,
) -> Path:
    """Write a model with ``selected = sum_i condition[i] * gains[i] * audio`` and ``rest``, `latency` samples late.

    Parameters
    ----------
    path : path
        File to write.
    hop, latency, channels : int
    gains : sequence of four floats
        Powers of two keep all sums exact.
    **metadata_overrides
        Replace keys of the metadata document.
    """
    path = Path(path)
    constants = {
        "gains": np.float32([gains]),
        "axes": np.int64([1, 2]),
        "stem_axis": np.int64([1]),
        "time": np.int64([2]),
        "start": np.int64([0]),
        "hop": np.int64([hop]),
        "end": np.int64([hop + latency]),
        "label_axis": np.int64([1]),
    }
    nodes = [
        helper.make_node("Concat", ["state_in/delay", "audio"], ["line"], axis=2),
        helper.make_node("Slice", ["line", "start", "hop", "time"], ["late"]),
        helper.make_node("Slice", ["line", "hop", "end", "time"], ["state_out/delay"]),
        helper.make_node("Mul", ["control/condition", "gains"], ["shares"]),
        helper.make_node("ReduceSum", ["shares", "label_axis"], ["share"], keepdims=1),
        helper.make_node("Unsqueeze", ["share", "axes"], ["factor"]),  # [B, 1, 1, 1]
        helper.make_node("Unsqueeze", ["late", "stem_axis"], ["stacked"]),  # [B, 1, C, hop]
        helper.make_node("Mul", ["stacked", "factor"], ["selected"]),
        helper.make_node("Sub", ["stacked", "selected"], ["rest"]),
        helper.make_node("Concat", ["selected", "rest"], ["stems"], axis=1),
    ]

    def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])

    graph = helper.make_graph(
        nodes,
        "condition",
        [tensor("audio", channels, hop), tensor("state_in/delay", channels, latency), tensor("control/condition", 4)],
        [tensor("stems", 2, channels, hop), tensor("state_out/delay", channels, latency)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    document = {
        "contract_version": 1,
        "name": "test-condition",
        "version": "1",
        "samplerates": [44100, 48000],
        "hop_samples": hop,
        "latency_samples": latency,
        "channels": channels,
        "stems": ["selected", "rest"],
        "residual_stem": "rest",
        "controls": [
            {
                "name": "condition",
                "shape": [4],
                "default": [1, 1, 1, 1],
                "minimum": 0,
                "maximum": 1,
                "meaning": "how much of each instrument",
                "labels": list(LABELS),
            }
        ],
        "notes": None,
        "parameters": 4,
        "macs_per_second": 1000,
        "licence": "MIT",
        "training_data": [],
        "git_commit": "0" * 40,
        "weights_sha256": "0" * 64,
        "evaluation": {},
        **metadata_overrides,
    }
    helper.set_model_props(model, {METADATA_KEY: json.dumps(document)})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path
