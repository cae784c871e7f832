"""Small real graphs of a model that separates by query: the streaming step, its query encoder, its synth step.

They compute something that can be written down. The step hears pitches with a bank of windowed sinusoids; the
encoder's numbers are levels of the recording; the synth shows harmonics as the analysis window shows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

RATE, HOP, WINDOW, BANK = 16_000, 160, 2048, 2048
LOWEST, PITCHES, SIZE, HARMONICS = 21, 88, 6, 8
THRESHOLD = 0.05
"""Amplitude from which the step hears a sine rather than silence."""


def hertz(pitch: int) -> float:
    return 440.0 * 2 ** ((pitch - 69) / 12)


class Graph:
    """Collects nodes, then becomes a file."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: dict[str, NDArray[Any]] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, takes: Sequence[str], gives: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(takes), [gives], **attributes))
        return gives

    def const(self, name: str, values: object, kind: Any = np.float32) -> str:
        self.values[name] = np.asarray(values, kind)
        return name

    def ints(self, name: str, *values: int) -> str:
        return self.const(name, values, np.int64)

    def takes(self, name: str, *shape: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def gives(self, name: str, *shape: int | str) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def write(self, path: Path, properties: Mapping[str, Any]) -> Path:
        values = [numpy_helper.from_array(array, name) for name, array in self.values.items()]
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, self.outputs, values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, {key: json.dumps(value) for key, value in properties.items()})
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())
        return path


def make_step(path: Path, *, name: str = "msi", latency: int = HOP, samplerates: Sequence[int] = (RATE,)) -> Path:
    """Write a streaming step.

    Its query stem is the audio delayed by `latency` times ``(1 + query[0]) / 2``, or, as `score_weight` goes to 1,
    times the largest value of the score. ``notes/frame`` of a hop is a softmax over what a Hann window of the last
    2048 samples shows of each pitch, or the score; ``onset`` is its rise; ``velocity`` the largest amplitude.
    """
    g = Graph()
    g.takes("audio", 1, 1, HOP)
    g.takes("state_in/line", 1, 1, BANK)
    g.takes("state_in/frame", 1, 1, 1, PITCHES)
    g.takes("control/query", 1, SIZE)
    g.takes("control/score", 1, PITCHES)
    g.takes("control/score_weight", 1)
    line = g.node("Concat", ["state_in/line", "audio"], "line", axis=2)  # [1, 1, BANK + HOP]
    axis, total = g.ints("axis", 2), BANK + HOP
    g.node("Slice", [line, g.ints("hop", HOP), g.ints("end", total), axis], "state_out/line")
    begin, end = g.ints("begin", BANK - latency), g.ints("until", BANK - latency + HOP)
    delayed = g.node("Slice", [line, begin, end, axis], "delayed")  # [1, 1, HOP]
    one = g.const("one", [1.0])
    weight = g.node("Unsqueeze", ["control/score_weight", g.ints("axis_1", 1)], "weight")  # [1, 1]
    inverse = g.node("Sub", [one, weight], "inverse")

    time = np.arange(BANK)
    hann = np.hanning(BANK)
    angle = 2 * np.pi * np.array([hertz(LOWEST + p) for p in range(PITCHES)]) * time[:, None] / RATE
    bank = np.concatenate([np.cos(angle), np.sin(angle)], 1) * hann[:, None] * 2 / hann.sum()  # [BANK, 2 P]
    parts = g.node("MatMul", ["state_out/line", g.const("bank", bank)], "parts")  # [1, 1, 2 P]
    squares = g.node("Mul", [parts, parts], "squares")
    pairs = g.node("Reshape", [squares, g.ints("pairs_shape", 1, 2, PITCHES)], "pairs")
    power = g.node("ReduceSum", [pairs, g.ints("pair_axis", 1)], "power", keepdims=0)  # [1, P]
    level = g.node("Sqrt", [power], "level")
    silence = g.const("silence", [[THRESHOLD]])
    classes = g.node("Concat", [level, silence], "classes", axis=1)
    sharp = g.node("Mul", [classes, g.const("sharpness", [200.0])], "sharp")
    soft = g.node("Softmax", [sharp], "soft", axis=1)
    own = g.node("Slice", [soft, g.ints("zero", 0), g.ints("pitches", PITCHES), g.ints("class_axis", 1)], "own")
    heard = g.node("Mul", [own, inverse], "heard")
    read = g.node("Mul", ["control/score", weight], "read")
    both = g.node("Add", [heard, read], "both")
    shape = g.ints("notes_shape", 1, 1, 1, PITCHES)
    frame = g.node("Reshape", [both, shape], "notes/frame")
    g.node("Identity", [frame], "state_out/frame")
    g.node("Relu", [g.node("Sub", [frame, "state_in/frame"], "rise")], "notes/onset")
    loud = g.node("ReduceMax", [level, g.ints("level_axis", 1)], "loud", keepdims=1)  # [1, 1]
    capped = g.node("Min", [loud, one], "capped")
    flat = g.node("Expand", [capped, g.ints("flat", 1, PITCHES)], "flat_velocity")
    g.node("Reshape", [flat, shape], "notes/velocity")

    first = g.node("Slice", ["control/query", "zero", g.ints("first", 1), "class_axis"], "first_number")  # [1, 1]
    gain = g.node("Mul", [g.node("Add", [first, one], "plus_one"), g.const("half", [0.5])], "query_gain")
    score_gain = g.node("ReduceMax", ["control/score", "level_axis"], "score_gain", keepdims=1)
    gain = g.node(
        "Add", [g.node("Mul", [gain, inverse], "a"), g.node("Mul", [score_gain, weight], "b")], "gain"
    )  # [1, 1]
    gain = g.node("Unsqueeze", [gain, g.ints("gain_axis", 2)], "gain_3")
    chosen = g.node("Mul", [delayed, gain], "chosen")
    rest = g.node("Sub", [delayed, chosen], "rest")
    stem_axis = g.ints("stem_axis", 1)
    query = g.node("Unsqueeze", [chosen, stem_axis], "query_stem")
    g.node("Concat", [query, g.node("Unsqueeze", [rest, stem_axis], "rest_stem")], "stems", axis=1)
    g.gives("stems", 1, 2, 1, HOP)
    for kind in ("onset", "frame", "velocity"):
        g.gives(f"notes/{kind}", 1, 1, 1, PITCHES)
    g.gives("state_out/line", 1, 1, BANK)
    g.gives("state_out/frame", 1, 1, 1, PITCHES)
    control = {"minimum": 0, "maximum": 1, "meaning": "for tests", "labels": []}
    document = {
        "contract_version": 1,
        "name": name,
        "version": "1",
        "samplerates": list(samplerates),
        "hop_samples": HOP,
        "latency_samples": latency,
        "channels": 1,
        "stems": ["query", "rest"],
        "residual_stem": "rest",
        "controls": [
            {**control, "name": "query", "shape": [SIZE], "default": [0] * SIZE, "minimum": -1},
            {**control, "name": "score", "shape": [PITCHES], "default": [0] * PITCHES},
            {**control, "name": "score_weight", "shape": [], "default": [0]},
        ],
        "notes": {
            "stems": ["query"],
            "lowest_midi": LOWEST,
            "highest_midi": LOWEST + PITCHES - 1,
            "frames_per_hop": 1,
            "extra_latency_samples": BANK // 2 - HOP // 2 - latency,
        },
        "parameters": 0,
        "macs_per_second": 0,
        "licence": "MIT",
        "training_data": [],
        "git_commit": "0" * 40,
        "weights_sha256": hashlib.sha256(bank.tobytes()).hexdigest(),
        "evaluation": {},
    }
    return g.write(path, {"rtsep": document})


def make_encoder(path: Path, *, name: str = "msi", salt: float = 0.0, **overrides: Any) -> Path:
    """Write a query encoder: ``query[i] = tanh((i + 1) m + salt)`` with `m` the mean of the absolute samples.

    ``timbre/0`` [1, 1, 8] is ``m`` over the number of the harmonic, ``timbre/1`` [1, 2, 3] is `m` throughout.
    `overrides` replace keys of the metadata.
    """
    g = Graph()
    g.takes("audio", 1, "T")
    mean = g.node("ReduceMean", [g.node("Abs", ["audio"], "absolute"), g.ints("axis", 1)], "mean", keepdims=1)
    scaled = g.node("Mul", [mean, g.const("steps", [np.arange(1, SIZE + 1)])], "scaled")
    g.node("Tanh", [g.node("Add", [scaled, g.const("salt", [salt])], "salted")], "query")
    cell = g.node("Unsqueeze", [mean, g.ints("cell_axis", 2)], "cell")
    g.node("Mul", [cell, g.const("harmonics", [[1 / np.arange(1, HARMONICS + 1)]])], "timbre/0")
    g.node("Mul", [cell, g.const("ones", np.ones((1, 2, 3)))], "timbre/1")
    g.gives("query", 1, SIZE)
    g.gives("timbre/0", 1, 1, HARMONICS)
    g.gives("timbre/1", 1, 2, 3)
    document = {
        "format": 1,
        "model": name,
        "samplerate": RATE,
        "size": SIZE,
        "timbre": [[1, HARMONICS], [2, 3]],
        **overrides,
    }
    return g.write(path, {"rtsep-query": document})


def make_synth(path: Path, *, name: str = "msi", **overrides: Any) -> Path:
    """Write a synth step: harmonics with the amplitudes of ``timbre/0``, as the model's analysis window shows them,
    reaching half their level in the first frame of a note (a state)."""
    bins = WINDOW // 2 + 1
    rise = np.sin(np.pi / 2 * (np.arange(WINDOW - HOP) + 0.5) / (WINDOW - HOP))
    fall = np.cos(np.pi / 2 * (np.arange(HOP) + 0.5) / HOP)
    window = np.concatenate([rise, fall])
    window *= 2 / window.sum()
    # The transform of the window on a grid fine enough that the nearest point will do.
    fine = 64
    spectrum = np.abs(np.fft.fft(window, fine * WINDOW)) / 2
    table = np.zeros((PITCHES, HARMONICS, bins), np.float32)
    for pitch in range(PITCHES):
        for harmonic in range(1, HARMONICS + 1):
            tone = harmonic * hertz(LOWEST + pitch)
            if tone < RATE / 2:
                distance = np.arange(bins) - tone * WINDOW / RATE
                table[pitch, harmonic - 1] = spectrum[np.rint(distance * fine).astype(int)]
    g = Graph()
    g.takes("notes", 1, PITCHES)
    g.takes("timbre/0", 1, 1, HARMONICS)
    g.takes("timbre/1", 1, 2, 3)
    g.takes("state_in/last", 1, 1, bins)
    rows = g.node("MatMul", ["notes", g.const("table", table.reshape(PITCHES, -1))], "rows")
    shaped = g.node("Reshape", [rows, g.ints("shape", 1, HARMONICS, bins)], "shaped")
    now = g.node("MatMul", ["timbre/0", shaped], "now")  # [1, 1, F]
    nought = g.node("Mul", ["timbre/1", g.const("nought", [0.0])], "noughts")
    nothing = g.node("ReduceSum", [nought, g.ints("all", 1, 2)], "nothing", keepdims=1)
    g.node("Add", [now, nothing], "state_out/last")
    g.node("Mul", [g.node("Add", [now, "state_in/last"], "sum"), g.const("half", [0.5])], "magnitude")
    g.gives("magnitude", 1, 1, bins)
    g.gives("state_out/last", 1, 1, bins)
    document = {"format": 1, "model": name, "samplerate": RATE, "hop": HOP, "window": WINDOW, **overrides}
    return g.write(path, {"rtsep-synth": document})


def make_family(folder: Path, name: str = "msi") -> Path:
    """Write the three graphs of a model into a folder; returns the step's file."""
    make_encoder(folder / f"{name}.query.onnx", name=name)
    make_synth(folder / f"{name}.synth.onnx", name=name)
    return make_step(folder / f"{name}.onnx", name=name)
