"""Transcribers as ONNX graphs: parity over ten seconds, a symbolic batch, metadata, the evaluation command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from click.testing import CliRunner

from export import transcriber
from export.cli import main
from export.parity import TOLERANCE, music_like
from export.pipeline import Facts, ParityError
from export.transcriber import KEY, compare, export_transcriber, open_session
from models.checkpoint import save_checkpoint
from models.transcriber import evaluate
from models.transcriber.model import DIAL, KINDS, StreamingTranscriber
from rtsep.errors import UsageError
from rtsep.notes.transcriber import Transcriber
from tests.models.transcriber.small import HOP, RATE, small_model

THRESHOLDS = {name: {"on": 0.4, "off": 0.2, "onset": 0.5} for name in DIAL}


def facts(**training: object) -> Facts:
    return Facts("t", "1", "CC0", ("sines: made here",), {}, "", training)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> StreamingTranscriber:
    return small_model(request.param)


@pytest.fixture(scope="module")
def path(model: StreamingTranscriber, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("graphs") / "t.onnx"
    report = export_transcriber(model, output, facts(thresholds=THRESHOLDS), seconds=1.0, benchmark_hops=20)
    assert any("parity" in line for line in report.lines())
    return output


def test_the_graph_is_pytorch_over_ten_seconds(model: StreamingTranscriber, path: Path) -> None:
    assert compare(model, open_session(path), 10.0) <= TOLERANCE


def test_inputs_and_outputs_follow_the_contract(model: StreamingTranscriber, path: Path) -> None:
    session = open_session(path)
    inputs = {i.name: i.shape for i in session.get_inputs()}
    outputs = {o.name: o.shape for o in session.get_outputs()}
    batch = inputs.pop("audio")[0]
    assert isinstance(batch, str)
    pitches = len(model.midi_notes)
    for name in ("onset", "frame", "velocity"):
        assert outputs.pop(f"notes/{name}") == [batch, len(DIAL), 1, pitches]
    if model.config.kind == "monophonic":
        assert outputs.pop("notes/pitch") == [batch, len(DIAL), 1]
    assert {f"state_out/{name.removeprefix('state_in/')}" for name in inputs} == set(outputs)
    for name, shape in inputs.items():
        assert shape == outputs[name.replace("state_in/", "state_out/")]
        assert shape[0] == batch


@pytest.mark.parametrize("stems", [1, 4, 7])
def test_stems_of_one_call_are_those_of_single_calls(model: StreamingTranscriber, path: Path, stems: int) -> None:
    session = open_session(path)
    names = [o.name for o in session.get_outputs()]
    states = [i.name for i in session.get_inputs() if i.name != "audio"]
    audio = np.stack([music_like(20 * HOP, 1, RATE, seed) for seed in range(stems)])

    def run(signals: np.ndarray) -> np.ndarray:
        feed = {name: value.numpy() for name, value in model.initial_state(len(signals)).items()}
        feed = {f"state_in/{name}": value for name, value in feed.items()}
        for index in range(20):
            hop = signals[..., index * HOP : (index + 1) * HOP]
            values = dict(zip(names, session.run(None, {"audio": hop, **feed}), strict=True))
            feed = {name: values[name.replace("state_in/", "state_out/")] for name in states}
        return values["notes/onset"]

    together = run(audio)
    assert together.shape[0] == stems
    assert np.abs(together[-1:] - run(audio[-1:])).max() < 1e-5


def test_metadata_says_what_the_host_needs(model: StreamingTranscriber, path: Path) -> None:
    document = json.loads({item.key: item.value for item in onnx.load(path).metadata_props}[KEY])
    assert document["format"] == 1
    assert document["kind"] == model.config.kind
    assert (document["samplerate"], document["hop_samples"], document["frames_per_hop"]) == (RATE, HOP, 1)
    assert document["midi_notes"] == list(model.midi_notes)
    assert [p["name"] for p in document["dial"]] == list(DIAL)
    assert [p["latency_samples"] for p in document["dial"]] == [480, 960, 2240]
    assert document["thresholds"] == THRESHOLDS
    assert document["parameters"] == sum(p.numel() for p in model.parameters())
    assert document["macs_per_second"] > 1e6
    assert {"name", "version", "licence", "training_data", "git_commit", "weights_sha256", "evaluation"} <= set(
        document
    )


def test_the_host_can_open_and_play_it(model: StreamingTranscriber, path: Path) -> None:
    audio = music_like(30 * HOP, 1, RATE)
    for d, name in enumerate(DIAL):
        host = Transcriber(path, 3, name)
        assert host.position.latency_samples == model.latencies[d]
        for index in range(30):
            played = host.push(np.repeat(audio[:, index * HOP : (index + 1) * HOP], 3, axis=0))
        with torch.no_grad():
            expected, _ = model(torch.from_numpy(audio)[None])
        assert np.abs(played["onset"][1, 0] - expected["onset"][0, d, -1].numpy()).max() < 1e-5


def test_a_checkpoint_without_thresholds_is_refused(model: StreamingTranscriber, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        export_transcriber(model, tmp_path / "t.onnx", facts())
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_when_graph_and_pytorch_differ(
    model: StreamingTranscriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcriber, "compare", lambda *args: 1e-3)
    with pytest.raises(ParityError, match=r"differs from PyTorch by 1\.00e-03"):
        export_transcriber(model, tmp_path / "t.onnx", facts(thresholds=THRESHOLDS))
    assert not list(tmp_path.iterdir())


def test_the_command_exports_a_checkpoint_and_the_other_measures_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extras = {"licence": "CC0", "training_data": ["made here"], "thresholds": THRESHOLDS}
    save_checkpoint(tmp_path / "best.pt", "transcriber", small_model("drums"), extras)
    arguments = ["transcriber", str(tmp_path / "best.pt"), "-o", str(tmp_path / "d.onnx"), "--benchmark-hops", "20"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    drums = tmp_path / "data/notes/drums"
    drums.mkdir(parents=True)
    hits = np.zeros(RATE, np.float32)
    hits[4000:4400] = np.random.default_rng(0).standard_normal(400) * 0.3
    soundfile.write(drums / "MusicDelta_Rock.ogg", hits, RATE)
    (drums / "MusicDelta_Rock.txt").write_text("0.25 \t SD \n")
    voice = tmp_path / "data/notes/voice"
    voice.mkdir()
    soundfile.write(voice / "v.flac", hits, RATE)
    (voice / "v.notes").write_text("0.25 0.5 60.1 80\n")
    options = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--json"]
    assert evaluate.main([str(tmp_path / "d.onnx"), *options]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["kind"] == "drums"
    assert figures["clips"][0]["notes"] == 1
    assert {"silence", "white noise", "pink noise", "v"} == set(figures["false_notes_per_minute"])
    assert set(figures["overall"]["tight"]) >= {"f1_20ms", "f1_30ms", "f1_50ms"}


def test_another_kind_of_graph_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main([str(Path(__file__).parents[2] / "rtsep/zoo/openunmix-low.onnx")])
    assert "no transcriber" in capsys.readouterr().err
