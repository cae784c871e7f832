"""Exporting real modules: everything is there and right, or nothing is there."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.parity import TOLERANCE, compare, music_like
from export.pipeline import Facts, ParityError, export_model, git_commit
from export.wrap import to_onnx
from rtsep.contract import METADATA_KEY
from rtsep.errors import GraphError, MetadataError, RtsepError, UsageError
from rtsep.inference import StreamingSession
from rtsep.zoo import ModelCard, ZooEntry, read_info, verify
from tests.export.tiny import (
    ChunkLevel,
    ForgetsState,
    NaNFromSilence,
    NotExportable,
    TinyMasks,
    WithControl,
    WrongLatency,
    tiny,
)

FACTS = Facts(
    name="tiny",
    version="3",
    licence="MIT",
    training_data=("nothing",),
    evaluation={"SDR dB": 1.5},
    summary="a tiny model",
    training={"steps": 0},
)


def export(model: Any, path: Path, facts: Facts = FACTS, **options: Any) -> Any:
    return export_model(model, path, facts, **{"seconds": 1.0, "benchmark_hops": 20, **options})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export(tiny(), tmp_path_factory.mktemp("export") / "tiny.onnx", seconds=10.0)


def test_three_files_and_nothing_else(exported: Any) -> None:
    assert sorted(file.name for file in exported.path.parent.iterdir()) == ["tiny.golden.npz", "tiny.json", "tiny.onnx"]
    assert [exported.path.name, exported.card_path.name, exported.golden_path.name] == [
        "tiny.onnx",
        "tiny.json",
        "tiny.golden.npz",
    ]


def test_the_metadata_is_that_of_the_module(exported: Any) -> None:
    info = read_info(exported.path)
    assert info == exported.info
    model = tiny()
    assert (info.name, info.version, info.licence, info.training_data) == ("tiny", "3", "MIT", ("nothing",))
    assert (info.hop_samples, info.latency_samples, info.channels) == (64, 48, 2)
    assert (info.stems, info.samplerates, info.residual_stem) == (("low", "mid", "high"), (44100, 48000), None)
    assert (info.controls, info.notes) == ((), None)
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert info.evaluation == {"SDR dB": 1.5}
    # Two GRU layers (3 gates, hidden 8, inputs 2 and 8) and the head, once per hop.
    macs = 3 * 8 * (2 + 8) + 3 * 8 * (8 + 8) + 8 * 3
    assert exported.macs_per_hop == macs
    assert info.macs_per_second == round(macs * 48000 / 64)


def test_states_are_named_by_module_path(exported: Any) -> None:
    graph = onnx.load(exported.path).graph
    assert [value.name for value in graph.input] == ["audio", "state_in/line", "state_in/gru.hidden"]
    assert [value.name for value in graph.output] == ["stems", "state_out/line", "state_out/gru.hidden"]


def test_the_card(exported: Any) -> None:
    card = ModelCard.read(exported.card_path)
    assert card == exported.card
    assert card.sha256 == hashlib.sha256(exported.path.read_bytes()).hexdigest()
    assert card.size_bytes == exported.path.stat().st_size
    assert (card.name, card.summary, card.training) == ("tiny", "a tiny model", {"steps": 0})
    assert card.parity["seconds"] >= 10.0
    assert 0 <= card.parity["max_abs_error"] <= TOLERANCE
    assert 0 <= card.parity["sum_error"] <= TOLERANCE
    timing = card.benchmark
    assert 0 < timing["p50_ms"] <= timing["p95_ms"] <= timing["p99_ms"] <= timing["max_ms"]
    assert timing["rtf"]["48000"] == pytest.approx(timing["rtf"]["44100"] * 48000 / 44100, abs=1e-3)
    assert timing["machine"]["cores"] > 0


def test_the_golden_pair_is_replayed(exported: Any) -> None:
    assert verify(ZooEntry("tiny", exported.path, ())).hops == 16


def test_the_session_gives_what_pytorch_gives_hop_by_hop(exported: Any) -> None:
    model = tiny()
    audio = music_like(40 * 64, 2, 44100, seed=5)
    state = None
    with StreamingSession(exported.path) as session, torch.no_grad():
        for start in range(0, audio.shape[1], 64):
            hop = np.ascontiguousarray(audio[:, start : start + 64])
            expected, state = model(torch.from_numpy(hop).unsqueeze(0), state)
            np.testing.assert_allclose(session.step(hop), expected[0].numpy(), atol=1e-6, rtol=0)


def test_the_report(exported: Any) -> None:
    text = "\n".join(exported.lines())
    for part in ("tiny 3: low, mid, high", "latency 48 samples", "against PyTorch over 10.0 s", "p99", "RTF", "MMAC/s"):
        assert part in text


def test_no_trace_of_this_machine(exported: Any) -> None:
    data = exported.path.read_bytes()
    for trace in (str(Path(__file__).parents[2]).encode(), b"stack_trace", b".py"):
        assert trace not in data
    assert [prop.key for prop in onnx.load(exported.path).metadata_props] == [METADATA_KEY]


def test_exporting_again_gives_the_same_bytes(exported: Any, tmp_path: Path) -> None:
    again = export(tiny(), tmp_path / "tiny.onnx")
    assert again.path.read_bytes() == exported.path.read_bytes()
    assert again.golden_path.name == exported.golden_path.name


def test_the_module_is_left_as_it_was() -> None:
    model = tiny().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    to_onnx(model)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_small_constant_is_no_zero(tmp_path: Path) -> None:
    # With onnxscript's rewrite rules the floor of the logarithm is lost, and silence becomes NaN.
    report = export(tiny(), tmp_path / "tiny.onnx")
    with StreamingSession(report.path) as session:
        for _ in range(5):
            stems = session.step(np.zeros((2, 64), np.float32))
        assert not stems.any()
        assert session.recovered_hops == 0


def test_controls_are_exported(tmp_path: Path) -> None:
    report = export(tiny(WithControl), tmp_path / "control.onnx")
    assert [control.name for control in report.info.controls] == ["favour"]
    hop = music_like(64, 2, 44100)
    with StreamingSession(report.path) as session:
        session.step(hop)
        session.reset()
        default = session.step(hop).copy()
        assert default[1].std() > default[0].std()
        session.set_control("favour", [4.0, -4.0, -4.0])
        session.reset()
        favoured = session.step(hop)
        assert favoured[0].std() > 100 * favoured[1].std()
        np.testing.assert_allclose(favoured.sum(axis=0), default.sum(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (ChunkLevel, ParityError, r"differs from PyTorch by \d\.\d\de-0\d .*1e-04 is allowed\. No file was written"),
        (WrongLatency, ParityError, r"when added up; 1e-04 is allowed\. No file was written\. Is `latency` right"),
        (ForgetsState, GraphError, "takes the state .* and returns .* they must be the same"),
        (NaNFromSilence, GraphError, "'stems' is not finite after one hop of silence"),
        (NotExportable, GraphError, r"^NotExportable cannot be exported to ONNX opset 20: .{20,400}\. See docs"),
    ],
)
def test_a_failure_leaves_no_file(tmp_path: Path, kind: type[TinyMasks], error: type[RtsepError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        export(tiny(kind), tmp_path / "bad.onnx")
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    report = export(tiny(), tmp_path / "tiny.onnx")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ParityError):
        export(tiny(ChunkLevel), report.path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_success_replaces_what_was_there(tmp_path: Path) -> None:
    export(tiny(), tmp_path / "tiny.onnx")
    report = export(tiny(seed=1), tmp_path / "tiny.onnx", dataclasses.replace(FACTS, version="4"))
    assert read_info(report.path).version == "4"
    assert len(list(tmp_path.iterdir())) == 3
    assert verify(ZooEntry("tiny", report.path, ())).max_abs_error == 0.0


def test_corrupted_weights_are_found(exported: Any, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    weight = next(item for item in model.graph.initializer if list(item.dims) == [1, 24, 8])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 3, 2] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    path = tmp_path / "corrupted.onnx"
    onnx.save(model, path)
    with StreamingSession(path) as session:
        corrupted = compare(tiny(), session, 1.0)  # type: ignore[arg-type]
    with StreamingSession(exported.path) as session:
        whole = compare(tiny(), session, 1.0)  # type: ignore[arg-type]
    assert corrupted.max_abs_error > TOLERANCE > 10 * whole.max_abs_error


def test_the_output_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        export(tiny(), tmp_path / "tiny.pt")
    with pytest.raises(UsageError, match=r"does not exist\. Make it with: mkdir -p"):
        export(tiny(), tmp_path / "none" / "tiny.onnx")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "a/b"}, MetadataError, "name is 'a/b'"),
        ({"licence": ""}, MetadataError, "licence is empty"),
        ({"training": {"path": Path("x")}}, UsageError, "cannot be written as JSON"),
        ({"evaluation": {"SDR": float("nan")}}, MetadataError, "evaluation cannot be written"),
    ],
)
def test_facts_are_checked(tmp_path: Path, changes: dict[str, Any], error: type[RtsepError], message: str) -> None:
    with pytest.raises(error, match=message):
        export(tiny(), tmp_path / "tiny.onnx", dataclasses.replace(FACTS, **changes))
    assert list(tmp_path.iterdir()) == []


def test_the_commit_is_that_of_the_checkout() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", git_commit())


def test_the_test_signal() -> None:
    audio = music_like(44100, 2, 44100)
    np.testing.assert_array_equal(audio, music_like(44100, 2, 44100))
    assert (audio.shape, audio.dtype) == ((2, 44100), np.float32)
    assert np.abs(audio).max() == pytest.approx(0.9)
    assert not audio[:, int(0.46 * 44100) : int(0.51 * 44100)].any()
    assert not np.array_equal(audio[0], audio[1])
    assert not np.array_equal(audio, music_like(44100, 2, 44100, seed=1))
