"""Export as one transaction: either all files are there and were checked, or none is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from torch import nn

from export.graph import count_macs, weights_sha256
from export.parity import TOLERANCE, Parity, benchmark, compare
from export.wrap import StreamingModel, control_specs, notes_spec, to_onnx
from rtsep.contract import CONTRACT_VERSION, METADATA_KEY, ModelInfo
from rtsep.errors import ModelError, UsageError
from rtsep.inference import StreamingSession
from rtsep.zoo import ModelCard, ZooEntry, verify

GOLDEN_HOPS = 16


class ParityError(ModelError):
    """The exported graph does not compute what PyTorch computes, or its stems do not add up to the audio."""


@dataclass(frozen=True)
class Facts:
    """What of a model's metadata and card is in no graph.

    Parameters
    ----------
    name, version, licence : str
        As in `ModelInfo`.
    training_data : tuple of str
        As in `ModelInfo`.
    evaluation : mapping
        As in `ModelInfo`.
    summary : str
        One line for the card.
    training : mapping
        Goes into the card as it is; JSON values only.
    """

    name: str
    version: str
    licence: str
    training_data: tuple[str, ...]
    evaluation: Mapping[str, Any]
    summary: str
    training: Mapping[str, Any]


@dataclass(frozen=True)
class ExportReport:
    """What an export made and measured.

    Attributes
    ----------
    path, card_path, golden_path : pathlib.Path
        The three files.
    info : ModelInfo
    card : ModelCard
    macs_per_hop : int
    nodes : int
        Nodes of the graph before ONNX Runtime fuses them.
    """

    path: Path
    card_path: Path
    golden_path: Path
    info: ModelInfo
    card: ModelCard
    macs_per_hop: int
    nodes: int

    def lines(self) -> list[str]:
        """Return the report for a terminal."""
        info, timing = self.info, self.card.benchmark
        rates = ", ".join(f"{rtf:.3f} at {rate} Hz" for rate, rtf in timing["rtf"].items())
        latency = ", ".join(f"{1000 * info.latency_samples / rate:.1f} ms at {rate} Hz" for rate in info.samplerates)
        return [
            f"{self.path}  {self.card.size_bytes / 1e6:.2f} MB, {self.nodes} nodes",
            f"model       {info.name} {info.version}: {', '.join(info.stems)}; {info.channels} channels",
            f"hop         {info.hop_samples} samples; latency {info.latency_samples} samples ({latency})",
            f"size        {info.parameters:,} parameters, {self.macs_per_hop / 1e6:.2f} MMAC per hop, "
            f"{info.macs_per_second / 1e6:.0f} MMAC/s",
            f"parity      {self.card.parity['max_abs_error']:.2e} against PyTorch over "
            f"{self.card.parity['seconds']:.1f} s; stems add up within {self.card.parity['sum_error']:.2e}",
            f"step        p50 {timing['p50_ms']:.3f} ms, p95 {timing['p95_ms']:.3f} ms, p99 {timing['p99_ms']:.3f} ms "
            f"on one thread; RTF {rates}",
            f"card        {self.card_path}",
            f"golden      {self.golden_path}",
        ]


def export_model(
    model: StreamingModel, output: Path, facts: Facts, *, seconds: float = 10.0, benchmark_hops: int = 400
) -> ExportReport:
    """Write ``NAME.onnx``, ``NAME.json`` and ``NAME.golden.npz``, or nothing.

    The files are made in a folder beside `output` and move to their places only after the graph was reloaded,
    compared with PyTorch, timed, and replayed from its golden pair. Files that were there before stay untouched
    when anything fails.

    Parameters
    ----------
    model : StreamingModel
        An `nn.Module` in evaluation mode, on the CPU.
    output : pathlib.Path
        Ends in ``.onnx``; its folder exists.
    facts : Facts
    seconds : float
        Audio to compare, at the highest native rate.
    benchmark_hops : int
        Steps to time.

    Raises
    ------
    UsageError
        `output` cannot be written.
    ParityError
        The difference is above `export.parity.TOLERANCE`.
    ModelError
        The graph does not follow the contract.
    """
    assert isinstance(model, nn.Module)
    if output.suffix != ".onnx":
        raise UsageError(f"The output is {output}; its name must end in .onnx")
    if not output.parent.is_dir():
        raise UsageError(f"The folder {output.parent} does not exist. Make it with: mkdir -p {output.parent}")

    proto = to_onnx(model)
    macs_per_hop = count_macs(proto)
    info = ModelInfo(
        contract_version=CONTRACT_VERSION,
        name=facts.name,
        version=facts.version,
        samplerates=tuple(model.samplerates),
        hop_samples=model.hop_samples,
        latency_samples=model.latency,
        channels=model.channels,
        stems=tuple(model.stems),
        residual_stem=model.residual_stem,
        controls=control_specs(model),
        notes=notes_spec(model),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs_per_second=round(macs_per_hop * max(model.samplerates) / model.hop_samples),
        licence=facts.licence,
        training_data=facts.training_data,
        git_commit=git_commit(),
        weights_sha256=weights_sha256(proto),
        evaluation=dict(facts.evaluation),
    )
    helper.set_model_props(proto, {METADATA_KEY: info.to_json()})
    data = proto.SerializeToString(deterministic=True)

    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-", suffix=".part") as folder:
        entry = ZooEntry(output.stem, Path(folder) / output.name, ())
        entry.path.write_bytes(data)
        with StreamingSession(entry.path, provider="cpu") as session:
            parity = compare(model, session, seconds)
            _require_parity(parity)
            timing = benchmark(session, parity.audio, benchmark_hops)
            audio = parity.audio[:, : GOLDEN_HOPS * model.hop_samples]
            hops = np.split(audio, GOLDEN_HOPS, axis=1)
            stems = np.concatenate([session.step(np.ascontiguousarray(hop)).copy() for hop in hops], axis=2)
        np.savez_compressed(entry.golden_path, audio=audio, stems=stems)
        card = ModelCard(
            name=info.name,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            summary=facts.summary,
            parity={
                "max_abs_error": parity.max_abs_error,
                "sum_error": parity.sum_error,
                "seconds": round(parity.seconds, 3),
                "samplerate": parity.samplerate,
            },
            benchmark=timing,
            training=dict(facts.training),
        )
        entry.card_path.write_text(_json(asdict(card)), encoding="utf-8")
        verify(entry)
        done = ZooEntry(output.stem, output, ())
        # The graph last: a card without its graph is harmless, a graph with another's card is not.
        os.replace(entry.golden_path, done.golden_path)
        os.replace(entry.card_path, done.card_path)
        os.replace(entry.path, done.path)
    return ExportReport(done.path, done.card_path, done.golden_path, info, card, macs_per_hop, len(proto.graph.node))


def git_commit() -> str:
    """Return the commit of this checkout, with ``-dirty`` when tracked files differ, or ``unknown``."""
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "--verify", "HEAD")
        if head.returncode:
            return "unknown"
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", "models", "export", "rtsep")
    except OSError:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")


def _require_parity(parity: Parity) -> None:
    if not parity.max_abs_error <= TOLERANCE:
        raise ParityError(
            f"The exported graph differs from PyTorch by {parity.max_abs_error:.2e} (full scale 1.0) over "
            f"{parity.seconds:.1f} s; {TOLERANCE:.0e} is allowed. No file was written. Does the model carry all its "
            "state, and is it chunk-invariant? Run: pytest tests/models. See docs/writing-a-model.md."
        )
    if not parity.sum_error <= TOLERANCE:
        raise ParityError(
            f"The stems differ from the audio {parity.sum_error:.2e} (full scale 1.0) when added up; {TOLERANCE:.0e} "
            "is allowed. No file was written. Is `latency` right, and are the stems mixture-consistent? "
            "See docs/writing-a-model.md."
        )


def _json(document: Mapping[str, Any]) -> str:
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UsageError(f"The training facts cannot be written as JSON: {error}.") from error
