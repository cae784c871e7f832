"""Small real ONNX graphs that follow the contract, or break it in one named way. No torch needed.

`make_delay_model` is what tests of the engine, the chain and the command line run: its stems are the delayed
audio times fixed gains, so every expected value can be written down.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rtsep.contract import CONTRACT_VERSION, METADATA_KEY

DEFAULT_STEMS = ("drums", "bass", "other", "vocals")

Broken = Literal[
    "not-onnx",
    "empty-file",
    "truncated",
    "no-metadata",
    "metadata-not-json",
    "other-version",
    "unknown-key",
    "missing-key",
    "no-audio",
    "no-stems",
    "wrong-hop",
    "unknown-input",
    "state-out-missing",
    "state-in-missing",
    "state-shape",
    "state-dtype",
    "state-shape-at-run",
    "stems-shape-at-run",
    "nan-from-silence",
]
BROKEN: tuple[Broken, ...] = get_args(Broken)
"""Every way `make_delay_model` can break a file."""


def default_gains(stems: int) -> tuple[float, ...]:
    """Powers of two that sum to 1, smallest first: .125, .125, .25, .5 for four stems.

    Added in this order every partial sum is a power of two times the audio, so that sums are exact for any
    audio. In the opposite order ``.5x + .25x`` needs one bit more than ``x`` has.
    """
    gains = [2.0 ** -(index + 1) for index in range(stems - 1)]
    return (gains[-1] if gains else 1.0, *reversed(gains))


def make_delay_model(
    path: str | os.PathLike[str],
    *,
    hop: int = 512,
    latency: int = 512,
    channels: int = 2,
    stems: Sequence[str] = DEFAULT_STEMS,
    samplerates: Sequence[int] = (44100, 48000),
    gains: Sequence[float] | None = None,
    batch: int | str = 1,
    control: bool = False,
    notes: bool = False,
    feedback: bool = False,
    ballast: int = 0,
    broken: Broken | None = None,
    **metadata_overrides: Any,
) -> Path:
    """Write a model whose stem ``s`` is ``gains[s] * audio`` delayed by `latency` samples.

    Parameters
    ----------
    path : path
        File to write.
    hop, latency : int
        In samples. `latency` may be 0 (no delay state), less or more than `hop`.
    gains : sequence of float, optional
        One per stem; `default_gains` when left out, whose stems, added in order, give the delayed
        audio exactly.
    batch : int or str
        First axis: 1, or a symbol such as ``"B"``.
    control : bool
        Adds ``control/level`` of shape [B] with range 0 to 2 and default 1, which multiplies all stems.
    notes : bool
        Adds the three note outputs for the last stem, 2 frames a hop, pitches 40 to 43: the mean absolute
        value of the hop in every cell.
    feedback : bool
        Adds the state ``leak/level``: a running sum of the audio's squares times .5, added to the stems
        times 0. It keeps NaN and infinity for ever, as a recurrent network does.
    ballast : int
        Multiplications of a 256 x 256 matrix with a 64-row state per hop (4.2 MMAC each): makes a hop slow
        without changing what it computes. About 0.1 ms each on one core.
    broken : str, optional
        One of `BROKEN`: the one way in which the file is wrong.
    **metadata_overrides
        Replace keys of the metadata document; not validated.

    Returns
    -------
    pathlib.Path
        `path`.
    """
    path = Path(path)
    count = len(stems)
    gain_values = np.asarray(default_gains(count) if gains is None else gains, np.float32)
    initialisers: dict[str, NDArray[Any]] = {"gains": gain_values.reshape(1, count, 1, 1)}
    nodes: list[onnx.NodeProto] = []
    inputs = [_tensor("audio", [batch, channels, hop])]
    outputs: list[onnx.ValueInfoProto] = []

    def node(op: str, takes: Sequence[str], gives: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(takes), [gives], **attributes))
        return gives

    def constant(name: str, values: Sequence[int]) -> str:
        initialisers[name] = np.asarray(values, np.int64)
        return name

    delayed = "audio"
    if latency:
        buffer, kept = "state_in/delay/buffer", "state_out/delay/buffer"
        inputs.append(_tensor(buffer, [batch, channels, latency]))
        joined = node("Concat", [buffer, "audio"], "joined", axis=2)
        axis = constant("time_axis", [2])
        delayed = node("Slice", [joined, constant("zero", [0]), constant("hop", [hop]), axis], "delayed")
        node("Slice", [joined, "hop", constant("end", [hop + latency]), axis], kept)
        outputs.append(_tensor(kept, [batch, channels, latency]))

    stacked = node("Unsqueeze", [delayed, constant("stem_axis", [1])], "stacked")
    mixed = node("Mul", [stacked, "gains"], "mixed")
    if feedback:
        inputs.append(_tensor("state_in/leak/level", [batch, 1, 1, 1]))
        square = node("Mul", [stacked, stacked], "square")
        energy = node("ReduceSum", [square, constant("all_but_batch", [1, 2, 3])], "energy", keepdims=1)
        both = node("Add", ["state_in/leak/level", energy], "both")
        initialisers["half"] = np.float32([0.5])
        initialisers["nothing"] = np.float32([0.0])
        node("Mul", [both, "half"], "state_out/leak/level")
        outputs.append(_tensor("state_out/leak/level", [batch, 1, 1, 1]))
        silent = node("Mul", ["state_out/leak/level", "nothing"], "silent")
        mixed = node("Add", [mixed, silent], "mixed_with_leak")
    if control:
        inputs.append(_tensor("control/level", [batch]))
        level = node("Unsqueeze", ["control/level", constant("level_axes", [1, 2, 3])], "level")
        mixed = node("Mul", [mixed, level], "levelled")
    if broken == "nan-from-silence":
        initialisers["nought"] = np.float32([0.0])
        mixed = node("Div", [mixed, node("Mul", [mixed, "nought"], "zeros")], "divided")
    if broken == "stems-shape-at-run":
        mixed = _shorter_in_secret(node, initialisers, mixed, "stems", axis=3, length=hop)
    node("Identity", [mixed], "stems")
    outputs.insert(0, _tensor("stems", [batch, count, channels, hop]))

    if notes:
        node("Abs", [delayed], "magnitude")
        node("ReduceMean", ["magnitude", constant("channel_and_time", [1, 2])], "mean", keepdims=1)
        node("Unsqueeze", ["mean", constant("pitch_axis", [3])], "mean_cell")
        initialisers["cells"] = np.ones((1, 1, 2, 4), np.float32)
        for name in ("notes/onset", "notes/frame", "notes/velocity"):
            outputs.append(_tensor(node("Mul", ["mean_cell", "cells"], name), [batch, 1, 2, 4]))
    if ballast:
        initialisers["ballast_weight"] = np.eye(256, dtype=np.float32)
        inputs.append(_tensor("state_in/ballast/x", [batch, 64, 256]))
        last = "state_in/ballast/x"
        for index in range(ballast):
            # The non-linearity keeps the optimiser from folding the products into one.
            product = node("MatMul", [last, "ballast_weight"], f"ballast_product_{index}")
            last = node("Tanh", [product], f"ballast_{index}")
        node("Identity", [last], "state_out/ballast/x")
        outputs.append(_tensor("state_out/ballast/x", [batch, 64, 256]))

    _break_graph(broken, nodes, inputs, outputs, initialisers, node, latency, channels)
    graph = helper.make_graph(
        nodes,
        "delay",
        inputs,
        outputs,
        [numpy_helper.from_array(values, name) for name, values in initialisers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    document: dict[str, Any] = {
        "contract_version": CONTRACT_VERSION,
        "name": "test-delay",
        "version": "1",
        "samplerates": list(samplerates),
        "hop_samples": hop,
        "latency_samples": latency,
        "channels": channels,
        "stems": list(stems),
        "residual_stem": None,
        "controls": [],
        "notes": None,
        "parameters": count,
        "macs_per_second": int((count * channels * hop + ballast * 64 * 256 * 256) * max(samplerates) / hop),
        "licence": "MIT",
        "training_data": [],
        "git_commit": "0" * 40,
        "weights_sha256": hashlib.sha256(gain_values.tobytes()).hexdigest(),
        "evaluation": {},
    }
    if control:
        document["controls"] = [
            {"name": "level", "shape": [], "default": [1], "minimum": 0, "maximum": 2, "meaning": "gain", "labels": []}
        ]
    if notes:
        document["notes"] = {
            "stems": [stems[-1]],
            "lowest_midi": 40,
            "highest_midi": 43,
            "frames_per_hop": 2,
            "extra_latency_samples": 0,
        }
    document.update(metadata_overrides)
    _break_document(broken, document)
    if broken != "no-metadata":
        text = "{not json" if broken == "metadata-not-json" else json.dumps(document)
        helper.set_model_props(model, {METADATA_KEY: text})

    if broken is None:
        onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    if broken == "truncated":
        data = data[: len(data) // 2]
    elif broken == "not-onnx":
        data = b"RIFF\x24\x00\x00\x00WAVEfmt this is a sound file and no graph\n" * 8
    elif broken == "empty-file":
        data = b""
    path.write_bytes(data)
    return path


def _tensor(name: str, shape: Sequence[int | str], element_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, list(shape))


def _shorter_in_secret(
    node: Any, initialisers: dict[str, NDArray[Any]], source: str, prefix: str, *, axis: int, length: int
) -> str:
    """Drop the last element of an axis in a way no shape inference can see."""
    initialisers[f"{prefix}_keep"] = np.arange(length) < length - 1
    return str(node("Compress", [source, f"{prefix}_keep"], f"{prefix}_short", axis=axis))


def _break_graph(
    broken: Broken | None,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initialisers: dict[str, NDArray[Any]],
    node: Any,
    latency: int,
    channels: int,
) -> None:
    kept = "state_out/delay/buffer"

    def rename_in_nodes(old: str, new: str) -> None:
        for item in nodes:
            for names in (item.input, item.output):
                names[:] = [new if name == old else name for name in names]

    def rename(old: str, new: str) -> None:
        rename_in_nodes(old, new)
        for value in (*inputs, *outputs):
            if value.name == old:
                value.name = new

    def replace_output(value: onnx.ValueInfoProto) -> None:
        outputs[[output.name for output in outputs].index(value.name)] = value

    if broken == "no-audio":
        rename("audio", "mixture")
    elif broken == "no-stems":
        rename("stems", "sources")
    elif broken == "unknown-input":
        inputs.append(_tensor("controls/level", [1]))
    elif broken == "state-out-missing":
        outputs[:] = [output for output in outputs if output.name != kept]
    elif broken == "state-in-missing":
        node("Identity", ["audio"], "state_out/extra")
        outputs.append(_tensor("state_out/extra", [1, channels, 1]))
        outputs[-1].type.tensor_type.shape.CopyFrom(inputs[0].type.tensor_type.shape)
    elif broken == "state-shape":
        rename_in_nodes(kept, "kept")
        node("Concat", ["kept", "kept"], kept, axis=2)
        replace_output(_tensor(kept, [1, channels, 2 * latency]))
    elif broken == "state-dtype":
        rename_in_nodes(kept, "kept")
        node("Cast", ["kept"], kept, to=TensorProto.DOUBLE)
        replace_output(_tensor(kept, [1, channels, latency], TensorProto.DOUBLE))
    elif broken == "state-shape-at-run":
        rename_in_nodes(kept, "kept")
        short = _shorter_in_secret(node, initialisers, "kept", "state", axis=2, length=latency)
        node("Identity", [short], kept)
        replace_output(_tensor(kept, [1, channels, "unknown"]))
    if broken == "stems-shape-at-run":
        outputs[0].type.tensor_type.shape.dim[3].dim_param = "unknown"


def _break_document(broken: Broken | None, document: dict[str, Any]) -> None:
    if broken == "other-version":
        document["contract_version"] = CONTRACT_VERSION + 1
    elif broken == "unknown-key":
        document["latency_sample"] = document["latency_samples"]
    elif broken == "missing-key":
        del document["latency_samples"]
    elif broken == "wrong-hop":
        document["hop_samples"] *= 2
