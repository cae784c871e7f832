"""The graphs beside a model that separates by query: its query encoder and its synth step (docs/contract.md).

``NAME.query.onnx`` turns a recording of any length into a query and its timbre; ``NAME.synth.onnx`` turns the notes of
a hop and a timbre into the magnitudes of a frame. Both are compared with PyTorch before they take their places.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from export.parity import TOLERANCE, music_like
from export.pipeline import ParityError
from export.wrap import OPSET, _quiet, _reason, _simplify, _strip_provenance
from models.msi.reference import PITCHES, QUERY_SIZE, SAMPLERATE
from models.msi.streaming import StreamingMSI, SynthStep
from models.streaming.dft import RealDFT
from rtsep.contract import STATE_IN, STATE_OUT
from rtsep.errors import GraphError

QUERY_KEY, SYNTH_KEY = "rtsep-query", "rtsep-synth"
SHORTEST_SAMPLES = SAMPLERATE  # of a recording
_CHECKED_SAMPLES = (SHORTEST_SAMPLES, 31_234, 80_000)
_CHECKED_FRAMES = 200


class QueryEncoder(nn.Module):
    """``audio [1, T] -> (query [1, 6], timbre/0 [1, C, F], ...)``."""

    def __init__(self, model: StreamingMSI) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor) -> tuple[Tensor, ...]:
        """Enroll a recording; T is floored to whole hops."""
        features = self.model.recording_features(audio)
        query = self.model.embed(features)
        return (query, *self.model.timbre(features, query))


class FlatSynth(nn.Module):
    """``(notes [1, 88], *timbre, *states) -> (magnitude [1, 1, F], *states)``."""

    def __init__(self, step: SynthStep, levels: int) -> None:
        super().__init__()
        self.step, self.levels, self.paths = step, levels, tuple(step.state_shapes())

    def forward(self, notes: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Render one frame."""
        timbre, states = list(rest[: self.levels]), rest[self.levels :]
        magnitude, after = self.step(notes.unsqueeze(1), timbre, dict(zip(self.paths, states, strict=True)))
        return (magnitude, *(after[path] for path in self.paths))


def export_query_encoder(model: StreamingMSI, path: Path, name: str) -> None:
    """Write the query encoder of a model.

    Parameters
    ----------
    model : StreamingMSI
        On the CPU, in evaluation mode.
    path : pathlib.Path
        ``NAME.query.onnx``.
    name : str
        Of the model.

    Raises
    ------
    GraphError
        PyTorch cannot export it.
    ParityError
        The graph differs from PyTorch; nothing is written.
    """
    module = QueryEncoder(_exportable(model))
    outputs = ["query", *_timbre_names(model)]
    audio = torch.zeros(1, 3 * SAMPLERATE)
    samples = torch.export.Dim("T", min=SHORTEST_SAMPLES, max=2**30)
    proto = _to_onnx(module, (audio,), ["audio"], outputs, ({1: samples},))
    document = {"format": 1, "model": name, "samplerate": SAMPLERATE, "size": QUERY_SIZE}
    helper.set_model_props(proto, {QUERY_KEY: json.dumps({**document, "timbre": [list(s) for s in model.shapes]})})

    def difference(session: onnxruntime.InferenceSession) -> float:
        reference, largest = QueryEncoder(model), 0.0
        for samples in _CHECKED_SAMPLES:
            recording = music_like(samples, 1, SAMPLERATE)
            with torch.no_grad():
                expected = [tensor.numpy() for tensor in reference(torch.from_numpy(recording))]
            largest = max(largest, _difference(session.run(outputs, {"audio": recording}), expected))
        return largest

    _write(proto, path, difference)


def export_synth(model: StreamingMSI, path: Path, name: str) -> None:
    """Write the synth step of a model; parameters and errors as for :func:`export_query_encoder`."""
    step = SynthStep(model).eval()
    states, levels = step.initial_state(1), _timbre_names(model)
    notes = torch.zeros(1, PITCHES)
    timbre = [torch.zeros(1, *shape) for shape in model.shapes]
    inputs = ["notes", *levels, *(STATE_IN + key for key in states)]
    outputs = ["magnitude", *(STATE_OUT + key for key in states)]
    module = FlatSynth(SynthStep(_exportable(model)).eval(), len(levels))
    proto = _to_onnx(module, (notes, *timbre, *states.values()), inputs, outputs, None)
    document = {"format": 1, "model": name, "samplerate": SAMPLERATE, "hop": model.hop_samples}
    helper.set_model_props(proto, {SYNTH_KEY: json.dumps({**document, "window": model.config.window})})

    def difference(session: onnxruntime.InferenceSession) -> float:
        rng = np.random.default_rng(0)
        roll = np.zeros((_CHECKED_FRAMES, PITCHES), np.float32)
        for start in range(0, _CHECKED_FRAMES, 20):
            roll[start : start + 15, rng.integers(PITCHES)] = rng.uniform(0.3, 1.0)
        maps = {
            level: rng.uniform(0, 1, (1, *s)).astype(np.float32) for level, s in zip(levels, model.shapes, strict=True)
        }
        with torch.no_grad():
            expected, _ = step(torch.from_numpy(roll)[None], [torch.from_numpy(x) for x in maps.values()])
        feed = {STATE_IN + key: value.numpy() for key, value in states.items()}
        frames = []
        for row in roll:
            frame, *after = session.run(outputs, {"notes": row[None], **maps, **feed})
            frames.append(frame[0])
            feed = dict(zip(feed, after, strict=True))
        return _difference([np.concatenate(frames)], [expected[0].numpy()])

    _write(proto, path, difference)


def _timbre_names(model: StreamingMSI) -> list[str]:
    return [f"timbre/{level}" for level in range(len(model.shapes))]


def _exportable(model: StreamingMSI) -> StreamingMSI:
    module = copy.deepcopy(model).eval()
    for child in module.modules():
        if isinstance(child, RealDFT):
            child.implementation = "factored"
    return module


def _to_onnx(
    module: nn.Module, arguments: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], dynamic: Any
) -> onnx.ModelProto:
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module.eval(),
                arguments,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=dynamic,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise GraphError(f"{type(module).__name__} cannot be exported to ONNX: {_reason(error)}.") from error
    assert program is not None
    _simplify(program.model)
    proto = program.model_proto
    _strip_provenance(proto)
    return proto


def _difference(got: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    """Largest difference, relative to the largest expected value where that is above 1."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape or not np.isfinite(a).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max())))
    return worst


def _write(proto: onnx.ModelProto, path: Path, difference: Any) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-", suffix=".part") as folder:
        partial = Path(folder) / path.name
        partial.write_bytes(proto.SerializeToString(deterministic=True))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(partial, options, providers=["CPUExecutionProvider"])
        error = difference(session)
        if not error <= TOLERANCE:
            raise ParityError(
                f"The graph for {path.name} differs from PyTorch by {error:.2e}; {TOLERANCE:.0e} is allowed. "
                "No file was written. Run: pytest tests/export/test_queries.py"
            )
        partial.replace(path)
