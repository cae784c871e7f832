"""Exported graphs: no generator in them, and what PyTorch computes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import pytest

from export.graph import count_macs
from export.parity import TOLERANCE
from export.pipeline import Facts, export_model
from export.wrap import to_onnx
from models.checkpoint import load_checkpoint, save_checkpoint
from tests.models.metatasnet.small import small, small_stages

FACTS = Facts("small", "1", "MIT", (), {}, "a small Meta-TasNet", {})


def export(model: Any, path: Path) -> Any:
    seconds = 40 * model.hop_samples / model.samplerates[-1]
    return export_model(model, path, FACTS, seconds=seconds, benchmark_hops=5)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("stereo", lambda: small().materialise()),
        ("held", lambda: small(hop=32, groups=2).materialise()),
        ("vocals", lambda: small().view(("vocals", "rest")).materialise()),
        ("stages", lambda: small_stages().materialise()),
    ],
)
def test_the_graph_computes_what_pytorch_computes(tmp_path: Path, name: str, build: Any) -> None:
    model = build()
    report = export(model, tmp_path / f"{name}.onnx")
    assert report.card.parity["max_abs_error"] < TOLERANCE
    assert report.card.parity["sum_error"] < TOLERANCE
    assert report.info.stems == model.stems
    assert report.info.residual_stem == model.residual_stem
    assert report.info.latency_samples == model.latency


def test_no_generator_is_in_the_graph(tmp_path: Path) -> None:
    model = small()
    fixed = model.materialise()
    generated = export(model, tmp_path / "generated.onnx")
    # Even without materialising, what depends on no input is folded into constants.
    values = sum(math.prod(i.dims) for i in onnx.load(generated.path).graph.initializer)
    assert values < sum(p.numel() for p in fixed.parameters()) + sum(b.numel() for b in fixed.buffers()) + 2000
    assert generated.macs_per_hop == count_macs(to_onnx(fixed))


def test_checkpoints_load_and_export_again(tmp_path: Path) -> None:
    model = small().interpolate("drums", "other", 0.3)
    save_checkpoint(tmp_path / "blend.pt", "metatasnet", model, {"licence": "MIT"})
    loaded, extras = load_checkpoint(tmp_path / "blend.pt", "metatasnet")
    assert extras == {"licence": "MIT"}
    assert loaded.config == model.config
    assert export(loaded, tmp_path / "blend.onnx").info.stems == ("drums-other", "rest")
