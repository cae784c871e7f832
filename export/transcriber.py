"""Transcribers as ONNX graphs of one hop, for any number of stems at once.

Beside the separation models' contract (docs/contract.md) stands that of transcribers: input ``audio`` ``[B, 1, hop]``
at 16 kHz and ``state_in/*`` ``[B, ...]``; outputs ``notes/onset``, ``notes/frame``, ``notes/velocity``
``[B, D, 1, P]``, for the monophonic kind ``notes/pitch`` ``[B, D, 1]``, and ``state_out/*``. What the axes mean is in
the metadata, one JSON document under :data:`KEY`; docs/transcribers.md explains it.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from export.graph import count_macs, weights_sha256
from export.parity import TOLERANCE, music_like
from export.pipeline import Facts, ParityError, git_commit
from export.wrap import OPSET, _quiet, _reason, _simplify, _strip_provenance
from models.streaming.dft import RealDFT
from models.transcriber.model import DIAL, StreamingTranscriber
from rtsep.contract import AUDIO, STATE_IN, STATE_OUT
from rtsep.errors import GraphError, UsageError

KEY = "rtsep-transcriber"
MOST_STEMS = 64
NOTES = ("onset", "frame", "velocity")
PITCH_TIE = 1e-3
"""Where two pitches, or voiced and not, are as likely as this, rounding may choose either: not compared."""


@dataclass(frozen=True)
class TranscriberReport:
    """What an export made and measured; times in ms on one thread by number of stems."""

    path: Path
    document: Mapping[str, Any]
    max_abs_error: float
    seconds: float
    step_ms: Mapping[int, Mapping[str, float]]

    def lines(self) -> list[str]:
        """Return the report for a terminal."""
        d = self.document
        dial = ", ".join(f"{p['name']} {1000 * p['latency_samples'] / d['samplerate']:.0f} ms" for p in d["dial"])
        steps = "; ".join(f"B={b} p50 {t['p50']:.3f} p99 {t['p99']:.3f} ms" for b, t in self.step_ms.items())
        return [
            f"{self.path}  {self.path.stat().st_size / 1e6:.2f} MB",
            f"model       {d['name']} {d['version']}: {d['kind']}, {len(d['midi_notes'])} notes; dial {dial}",
            f"size        {d['parameters']:,} parameters, {d['macs_per_second'] / 1e6:.0f} MMAC/s for one stem",
            f"parity      {self.max_abs_error:.2e} against PyTorch over {self.seconds:.1f} s",
            f"step        {steps}",
        ]


class Step(nn.Module):
    """``(audio, *states) -> (*notes, *states)``."""

    def __init__(self, model: StreamingTranscriber) -> None:
        super().__init__()
        self.model, self.paths, self.names = model, tuple(model.state_shapes()), output_notes(model)

    def forward(self, audio: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one hop."""
        notes, after = self.model(audio, dict(zip(self.paths, states, strict=True)))
        return (*(notes[name] for name in self.names), *(after[path] for path in self.paths))


def output_notes(model: StreamingTranscriber) -> tuple[str, ...]:
    """Return the names of the outputs after ``notes/``."""
    return (*NOTES, "pitch") if model.pitched else NOTES


def to_onnx(model: StreamingTranscriber, batch: int | None = None) -> onnx.ModelProto:
    """Export one hop; ``batch`` fixes B, which is a symbol otherwise.

    Raises
    ------
    GraphError
        PyTorch cannot export it.
    """
    module = copy.deepcopy(model).eval()
    for child in module.modules():
        if isinstance(child, RealDFT):
            child.implementation = "factored"
    states = module.initial_state(batch or 2)
    arguments = (torch.zeros(batch or 2, 1, module.hop_samples), *states.values())
    stems = torch.export.Dim("B", min=1, max=MOST_STEMS)
    dynamic = None if batch else ({0: stems}, tuple({0: stems} for _ in states))
    outputs = [f"notes/{name}" for name in output_notes(module)]
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                Step(module).eval(),
                arguments,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                input_names=[AUDIO, *(STATE_IN + path for path in states)],
                output_names=[*outputs, *(STATE_OUT + path for path in states)],
                dynamic_shapes=dynamic,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise GraphError(f"The transcriber cannot be exported to ONNX: {_reason(error)}.") from error
    assert program is not None
    _simplify(program.model)
    proto = program.model_proto
    _strip_provenance(proto)
    return proto


def document_of(model: StreamingTranscriber, proto: onnx.ModelProto, facts: Facts) -> dict[str, Any]:
    """Return the metadata.

    Raises
    ------
    UsageError
        The checkpoint has no thresholds, or not those of every position of the dial.
    """
    thresholds = facts.training.get("thresholds")
    if not isinstance(thresholds, Mapping) or set(thresholds) != set(DIAL):
        raise UsageError(
            "The checkpoint holds no thresholds. Tune them with: "
            "python -m models.transcriber.calibrate CONFIG CHECKPOINT"
        )
    macs = count_macs(to_onnx(model, batch=1))
    return {
        "format": 1,
        "name": facts.name,
        "version": facts.version,
        "kind": model.config.kind,
        "samplerate": model.samplerate,
        "hop_samples": model.hop_samples,
        "frames_per_hop": 1,
        "midi_notes": list(model.midi_notes),
        "dial": [
            {"name": name, "latency_samples": latency} for name, latency in zip(DIAL, model.latencies, strict=True)
        ],
        "thresholds": {name: {k: float(thresholds[name][k]) for k in ("on", "off", "onset")} for name in DIAL},
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs_per_second": round(macs * model.samplerate / model.hop_samples),
        "licence": facts.licence,
        "training_data": list(facts.training_data),
        "git_commit": git_commit(),
        "weights_sha256": weights_sha256(proto),
        "evaluation": dict(facts.evaluation) or dict(facts.training.get("validation", {})),
    }


def export_transcriber(
    model: StreamingTranscriber, output: Path, facts: Facts, *, seconds: float = 10.0, benchmark_hops: int = 400
) -> TranscriberReport:
    """Write ``NAME.onnx``, compared with PyTorch and timed before it takes its place.

    Parameters
    ----------
    model : StreamingTranscriber
        On the CPU, in evaluation mode.
    output : pathlib.Path
        Ends in ``.onnx``; its folder exists.
    facts : Facts
        Its ``training`` holds ``thresholds`` by position of the dial: ``on``, ``off``, ``onset``.
    seconds : float
        Audio to compare.
    benchmark_hops : int
        Steps to time, for one and for four stems.

    Raises
    ------
    UsageError
        `output` cannot be written, or the thresholds are missing.
    GraphError
        PyTorch cannot export it.
    ParityError
        The graph differs from PyTorch by more than 1e-4; nothing is written.
    """
    if output.suffix != ".onnx" or not output.parent.is_dir():
        raise UsageError(f"The output is {output}; a name that ends in .onnx in a folder that exists is needed.")
    proto = to_onnx(model)
    document = document_of(model, proto, facts)
    helper.set_model_props(proto, {KEY: json.dumps(document, ensure_ascii=False, allow_nan=False)})
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-", suffix=".part") as folder:
        partial = Path(folder) / output.name
        partial.write_bytes(proto.SerializeToString(deterministic=True))
        session = open_session(partial)
        error = compare(model, session, seconds)
        if not error <= TOLERANCE:
            raise ParityError(
                f"The graph for {output.name} differs from PyTorch by {error:.2e}; {TOLERANCE:.0e} is allowed. "
                "No file was written. Run: pytest tests/export/test_transcriber.py"
            )
        steps = {batch: benchmark(model, session, batch, benchmark_hops) for batch in (1, 4)}
        partial.replace(output)
    return TranscriberReport(output, document, error, seconds, steps)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(model: StreamingTranscriber, session: onnxruntime.InferenceSession, seconds: float) -> float:
    """Largest difference of graph, hop by hop and two stems at once, and PyTorch, each stem alone and at once.

    Momentary pitches are compared where one pitch is clearly the likeliest and clearly voiced or not.
    """
    hop, names = model.hop_samples, output_notes(model)
    hops = -(-int(seconds * model.samplerate) // hop)
    audio = np.stack([music_like(hops * hop, 1, model.samplerate, seed) for seed in (0, 1)])  # [2, 1, T]
    with torch.no_grad():
        alone = [model(torch.from_numpy(stem[None]))[0] for stem in audio]
        expected = {name: torch.cat([notes[name] for notes in alone]).numpy() for name in names}
    feed = {STATE_IN + path: value.numpy() for path, value in model.initial_state(2).items()}
    got: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for index in range(hops):
        outputs = session.run(None, {AUDIO: audio[..., index * hop : (index + 1) * hop], **feed})
        for name, value in zip(names, outputs, strict=False):
            got[name].append(value)
        feed = dict(zip(feed, outputs[len(names) :], strict=True))
    joined = {name: np.concatenate(values, axis=2) for name, values in got.items()}
    worst = max(_largest(joined[name] - expected[name]) for name in NOTES)
    if "pitch" in joined:
        two = np.sort(expected["frame"], axis=-1)[..., -2:]  # [2, D, N, 2]
        clear = (two[..., 1] - two[..., 0] > PITCH_TIE) & (np.abs(two[..., 1] - 0.5) > PITCH_TIE)
        # Pitches go up to 127, posteriors to 1.
        worst = max(worst, _largest((joined["pitch"] - expected["pitch"])[clear] / 127))
    return worst


def _largest(difference: NDArray[Any]) -> float:
    largest = float(np.abs(difference).max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")


def benchmark(
    model: StreamingTranscriber, session: onnxruntime.InferenceSession, batch: int, hops: int
) -> dict[str, float]:
    """Time single steps with ``batch`` stems: ``p50``, ``p95``, ``p99`` in ms."""
    hop = model.hop_samples
    audio = np.stack([music_like(200 * hop, 1, model.samplerate, seed) for seed in range(batch)])
    feed = {STATE_IN + path: value.numpy() for path, value in model.initial_state(batch).items()}
    count, times = len(output_notes(model)), np.empty(hops)
    for index in range(-20, hops):
        block = np.ascontiguousarray(audio[..., index % 200 * hop : (index % 200 + 1) * hop])
        before = time.perf_counter()
        outputs = session.run(None, {AUDIO: block, **feed})
        if index >= 0:
            times[index] = 1000 * (time.perf_counter() - before)
        feed = dict(zip(feed, outputs[count:], strict=True))
    return {f"p{q}": round(float(np.percentile(times, q)), 4) for q in (50, 95, 99)}
