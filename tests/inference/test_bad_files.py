"""Files a session must refuse, each with its own error that names the file."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rtsep.errors import (
    ContractVersionError,
    GraphError,
    MetadataError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    StateMismatchError,
)
from rtsep.inference import StreamingSession
from rtsep.inference.onnx_file import read_info, read_properties
from tests.support.graphs import BROKEN, Broken, make_delay_model

EXPECTED: dict[Broken, tuple[type[ModelError], str]] = {
    "not-onnx": (ModelFileError, "truncated or not an ONNX file"),
    "empty-file": (ModelFileError, "it holds no graph"),
    "truncated": (ModelFileError, "bytes are missing at its end"),
    "no-metadata": (MetadataError, "without the 'rtsep' metadata"),
    "metadata-not-json": (MetadataError, "is not JSON"),
    "other-version": (ContractVersionError, "follows contract version 2; this rtsep reads version 1"),
    "unknown-key": (MetadataError, "unknown key 'latency_sample'"),
    "missing-key": (MetadataError, "no key 'latency_samples'"),
    "no-audio": (GraphError, "no input 'audio'"),
    "no-stems": (GraphError, "no output 'stems'"),
    "wrong-hop": (GraphError, r"'audio' has the shape \[1, 2, 512\]; the metadata asks for \[1, 2, 1024\]"),
    "unknown-input": (GraphError, "an input 'controls/level'"),
    "state-out-missing": (StateMismatchError, "'state_in/delay/buffer' has no 'state_out/delay/buffer'"),
    "state-in-missing": (StateMismatchError, "'state_out/extra' has no 'state_in/extra'"),
    "state-shape": (StateMismatchError, r"is tensor\(float\) \[1, 2, 1024\] and 'state_in/delay/buffer' is"),
    "state-dtype": (StateMismatchError, r"is tensor\(double\) \[1, 2, 512\] and"),
    "state-shape-at-run": (StateMismatchError, r"When run, .* came out as float32 \[1, 2, 511\]"),
    "stems-shape-at-run": (GraphError, r"When run, 'stems' came out as \[1, 4, 2, 511\]"),
    "nan-from-silence": (GraphError, "'stems' is not finite after one hop of silence"),
}


def test_every_way_to_break_a_file_is_covered() -> None:
    assert set(EXPECTED) == set(BROKEN)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, broken: Broken, capfd: pytest.CaptureFixture[str]) -> None:
    path = make_delay_model(tmp_path / "broken.onnx", broken=broken)
    error, message = EXPECTED[broken]
    with pytest.raises(error, match=message) as caught:
        StreamingSession(path)
    assert type(caught.value) is error
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_whole_file_is_accepted(tmp_path: Path) -> None:
    with StreamingSession(make_delay_model(tmp_path / "whole.onnx")) as session:
        assert session.info.latency_samples == 512


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kept: float) -> None:
    whole = make_delay_model(tmp_path / "whole.onnx", ballast=1).read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelFileError, match="truncated or not an ONNX file"):
        StreamingSession(cut)


def test_a_damaged_graph_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = make_delay_model(tmp_path / "damaged.onnx")
    data = path.read_bytes()
    # Lengths stay right, so that only ONNX Runtime can notice.
    path.write_bytes(data.replace(b"Concat", b"Cancat"))
    with pytest.raises(ModelFileError, match=r"damaged\.onnx cannot be loaded: .*Cancat"):
        StreamingSession(path)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_fails_when_run_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = make_delay_model(tmp_path / "fails.onnx")
    model = onnx.load(path)
    graph = model.graph
    # An index out of range is only found when the Gather runs.
    index = next(item for item in graph.initializer if item.name == "zero")
    graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(index) + 10_000, "far"))
    graph.node.insert(0, helper.make_node("Gather", ["audio", "far"], ["gathered"], axis=2))
    graph.node.insert(1, helper.make_node("Add", ["audio", "gathered"], ["audio_plus"]))
    for node in graph.node[2:]:
        node.input[:] = ["audio_plus" if name == "audio" else name for name in node.input]
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r"fails\.onnx: One hop of silence cannot be run"):
        StreamingSession(path)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file(tmp_path: Path) -> None:
    make_delay_model(tmp_path / "openunmix-low.onnx")
    with pytest.raises(ModelNotFoundError, match=r"Did you mean '.*openunmix-low\.onnx'\? See: rtsep models list"):
        StreamingSession(tmp_path / "openunmix-lo.onnx")
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        StreamingSession(tmp_path)


def test_an_unknown_name() -> None:
    with pytest.raises(ModelNotFoundError, match="No model is named 'no such model'"):
        StreamingSession("no such model")


def test_metadata_is_read_as_onnx_reads_it(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "m.onnx", licence="© someone")
    model = onnx.load(path)
    helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, "other": "", "é": "ü" * 300})
    onnx.save(model, path)
    assert read_properties(path) == {p.key: p.value for p in onnx.load(path).metadata_props}
    assert read_info(path).licence == "© someone"


def test_reading_metadata_leaves_the_weights_unread(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2_000_000, np.float32), "unused"))
    onnx.save(model, path)
    tracemalloc.start()
    try:
        read_info(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 8_000_000
    assert peak < 20 * io.DEFAULT_BUFFER_SIZE
