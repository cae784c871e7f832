"""The three graphs of a model that separates by query, in ONNX Runtime against PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import queries
from export.parity import music_like
from export.pipeline import ParityError
from export.queries import export_query_encoder, export_synth
from export.wrap import control_specs, notes_spec, to_onnx
from models.msi.streaming import StreamingMSI, SynthStep
from rtsep.contract import CONTROL, NOTES, STATE_IN, STATE_OUT
from tests.models.msi.small import CONFIG, MASKING, small_model

RATE, HOP, BINS = 16000, CONFIG.hop, CONFIG.window // 2 + 1


@pytest.fixture(scope="module", params=[CONFIG, MASKING], ids=["magnitude", "mask"])
def model(request: pytest.FixtureRequest) -> StreamingMSI:
    return small_model(request.param)


@pytest.fixture(scope="module")
def folder(model: StreamingMSI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs")
    export_query_encoder(model, path / "m.query.onnx", "m")
    export_synth(model, path / "m.synth.onnx", "m")
    return path


def opened(path: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def metadata(path: Path) -> dict[str, str]:
    return {item.key: item.value for item in onnx.load(path).metadata_props}


def test_the_step_is_pytorchs_with_controls_that_move(model: StreamingMSI) -> None:
    session = opened(to_onnx(model).SerializeToString())
    hops = 100
    audio = music_like(hops * HOP, 1, RATE)
    rng = np.random.default_rng(0)
    query = rng.uniform(-1, 1, 6).astype(np.float32)
    states = {key: value.numpy() for key, value in model.initial_state(1).items()}
    outputs = ["stems", *NOTES, *(STATE_OUT + key for key in states)]
    torch_state, loudest = None, 0.0
    for n in range(hops):
        score = np.zeros(88, np.float32)
        score[40 + n // 10] = 1.0
        controls = {"query": query, "score": score, "score_weight": np.float32(n >= 50)}
        hop = audio[None, :, n * HOP : (n + 1) * HOP]
        feed = {CONTROL + name: np.asarray(value)[None] for name, value in controls.items()}
        got = session.run(outputs, {"audio": hop, **feed, **{STATE_IN + key: v for key, v in states.items()}})
        states = dict(zip(states, got[4:], strict=True))
        with torch.no_grad():
            tensors = {name: torch.from_numpy(np.asarray(value)[None]) for name, value in controls.items()}
            stems, notes, torch_state = model(torch.from_numpy(hop), torch_state, tensors)
        for name, ours, theirs in zip(
            ("stems", "onset", "frame", "velocity"),
            got[:4],
            (stems, notes["onset"], notes["frame"], notes["velocity"]),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4, rtol=0, err_msg=f"{name}, hop {n}")
        loudest = max(loudest, float(np.abs(got[0][0, 0]).max()))
        if n >= 50:
            assert got[2][0, 0, 0].argmax() == 40 + n // 10
    assert loudest > 0.05


def test_controls_and_notes_are_the_contracts(model: StreamingMSI) -> None:
    specs = {spec.name: spec for spec in control_specs(model)}
    assert {name: spec.shape for name, spec in specs.items()} == {"query": (6,), "score": (88,), "score_weight": ()}
    assert (specs["query"].minimum, specs["score"].minimum) == (-1, 0)
    notes = notes_spec(model)
    assert notes is not None
    assert (notes.stems, notes.lowest_midi, notes.highest_midi, notes.frames_per_hop) == (("query",), 21, 108, 1)


@pytest.mark.parametrize("samples", [RATE, RATE + 77, 5 * RATE])
def test_the_query_encoder_takes_recordings_of_any_length(folder: Path, model: StreamingMSI, samples: int) -> None:
    session = opened(folder / "m.query.onnx")
    assert [node.name for node in session.get_inputs()] == ["audio"]
    assert not isinstance(session.get_inputs()[0].shape[1], int)
    names = [node.name for node in session.get_outputs()]
    assert names == ["query", "timbre/0", "timbre/1", "timbre/2"]
    audio = music_like(samples, 1, RATE, seed=samples)
    query, *timbre = session.run(names, {"audio": audio})
    with torch.no_grad():
        features = model.recording_features(torch.from_numpy(audio))
        expected = model.embed(features)
        maps = model.timbre(features, expected)
    np.testing.assert_allclose(query, expected.numpy(), atol=1e-4)
    for got, want, shape in zip(timbre, maps, model.shapes, strict=True):
        assert got.shape == (1, *shape)
        np.testing.assert_allclose(got, want.numpy(), atol=1e-4, rtol=1e-4)


def test_a_query_is_the_same_at_every_level_and_finite_for_silence(folder: Path) -> None:
    session = opened(folder / "m.query.onnx")
    audio = music_like(2 * RATE, 1, RATE)
    loud, quiet = (session.run(["query"], {"audio": gain * audio})[0] for gain in (np.float32(1), np.float32(0.03)))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)
    assert all(np.isfinite(x).all() for x in session.run(None, {"audio": np.zeros((1, RATE), np.float32)}))


def test_the_synth_step_is_pytorchs(folder: Path, model: StreamingMSI) -> None:
    session = opened(folder / "m.synth.onnx")
    step = SynthStep(model).eval()
    states = {STATE_IN + key: value.numpy() for key, value in step.initial_state(1).items()}
    assert {node.name for node in session.get_inputs()} == {"notes", "timbre/0", "timbre/1", "timbre/2", *states}
    rng = np.random.default_rng(1)
    timbre = [rng.uniform(0, 1, (1, *shape)).astype(np.float32) for shape in model.shapes]
    notes = np.zeros((40, 88), np.float32)
    notes[5:20, 45], notes[20:35, 50] = 1.0, 0.5
    with torch.no_grad():
        expected, _ = step(torch.from_numpy(notes)[None], [torch.from_numpy(x) for x in timbre])
    outputs = ["magnitude", *(key.replace(STATE_IN, STATE_OUT) for key in states)]
    maps = {f"timbre/{level}": x for level, x in enumerate(timbre)}
    for n, row in enumerate(notes):
        magnitude, *after = session.run(outputs, {"notes": row[None], **maps, **states})
        states = dict(zip(states, after, strict=True))
        assert magnitude.shape == (1, 1, BINS)
        np.testing.assert_allclose(magnitude[0, 0], expected[0, n].numpy(), atol=1e-4)
    assert float(expected.max()) > 1e-3


def test_metadata_say_what_the_runtime_needs(folder: Path, model: StreamingMSI) -> None:
    query = json.loads(metadata(folder / "m.query.onnx")["rtsep-query"])
    assert query == {
        "format": 1,
        "model": "m",
        "samplerate": RATE,
        "size": 6,
        "timbre": [list(shape) for shape in model.shapes],
    }
    synth = json.loads(metadata(folder / "m.synth.onnx")["rtsep-synth"])
    assert synth == {"format": 1, "model": "m", "samplerate": RATE, "hop": HOP, "window": CONFIG.window}


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.query.onnx"
    path.write_bytes(b"from before")
    monkeypatch.setattr(queries, "_difference", lambda got, expected: 0.5)
    with pytest.raises(ParityError, match=r"m\.query\.onnx differs from PyTorch by 5\.00e-01"):
        export_query_encoder(small_model(), path, "m")
    assert path.read_bytes() == b"from before"
    assert [item.name for item in tmp_path.iterdir()] == ["m.query.onnx"]


def test_differences_are_relative_above_one_and_infinite_where_shapes_differ() -> None:
    a, b = np.array([0.5, 10.0]), np.array([0.5, 12.0])
    assert queries._difference([a], [b]) == pytest.approx(2 / 12)
    assert queries._difference([a / 20], [b / 20]) == pytest.approx(0.1)
    assert queries._difference([a[:1]], [b]) == float("inf")
    assert queries._difference([np.array([np.nan])], [np.array([1.0])]) == float("inf")
