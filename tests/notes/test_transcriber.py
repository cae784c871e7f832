"""Loading transcribers, and refusing what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import GraphError, MetadataError, ModelNotFoundError, UsageError
from rtsep.notes.transcriber import Transcriber
from rtsep.notes.transcriber_info import read_transcriber_info
from tests.notes.conftest import melody
from tests.support.graphs import make_delay_model
from tests.support.transcriber_graphs import HOP, PIANO, RATE, WAITS, make_transcriber


def test_hears_pitches_stem_by_stem(transcribers: dict[str, Path]) -> None:
    audio = np.stack([melody(RATE)[0], 0 * melody(RATE)[0]])
    transcriber = Transcriber(transcribers["polyphonic"], 2, "tight")
    found = [
        transcriber.push(audio[:, at : at + HOP])["frame"][:, 0].copy() for at in range(0, audio.shape[1] - HOP, HOP)
    ]
    frame = np.array(found)  # [N, B, P]
    middle = round(0.55 * RATE / HOP)
    assert PIANO[frame[middle, 0].argmax()] == 60
    assert not frame[:, 1].any()


def test_reset_forgets(transcribers: dict[str, Path]) -> None:
    transcriber = Transcriber(transcribers["monophonic"], 1)
    audio = melody(RATE)[:, 8000:]

    def run() -> list[np.ndarray]:
        return [transcriber.push(audio[:, at : at + HOP])["pitch"].copy() for at in range(0, 8000, HOP)]

    first = run()
    transcriber.reset()
    assert np.array_equal(first, run())
    assert max(float(x.max()) for x in first) == 67.0


def test_not_a_number_goes_in_as_silence(transcribers: dict[str, Path]) -> None:
    transcriber = Transcriber(transcribers["polyphonic"], 1)
    found = transcriber.push(np.full((1, HOP), np.nan, np.float32))
    assert all(np.isfinite(x).all() for x in found.values())


def test_refuses_what_is_no_transcriber(tmp_path: Path, transcribers: dict[str, Path]) -> None:
    with pytest.raises(ModelNotFoundError):
        Transcriber(tmp_path / "none.onnx", 1)
    with pytest.raises(MetadataError, match="is no transcriber"):
        Transcriber(make_delay_model(tmp_path / "model.onnx"), 1)
    with pytest.raises(UsageError, match="It has tight, normal, quality"):
        Transcriber(transcribers["drums"], 1, "fast")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "piano"}, "allowed are polyphonic, monophonic, drums"),
        ({"format": 2}, "format 2"),
        ({"midi_notes": [200]}, "outside 0 to 127"),
        ({"dial": []}, "empty"),
        ({"thresholds": {name: {"on": 0.2, "off": 0.3, "onset": 0.5} for name in WAITS}}, "out of range"),
        ({"thresholds": {"tight": {"on": 0.5, "off": 0.3, "onset": 0.5}}}, "no key"),
        ({"thresholds": []}, "an object is needed"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_refuses_wrong_metadata(tmp_path: Path, change: dict[str, object], text: str) -> None:
    path = make_transcriber(tmp_path / "t.onnx", document=change)
    with pytest.raises(MetadataError, match=text):
        read_transcriber_info(path)


def test_refuses_a_graph_that_is_not_what_its_metadata_say(tmp_path: Path) -> None:
    path = make_transcriber(tmp_path / "t.onnx", document={"midi_notes": [60, 61]})
    with pytest.raises(GraphError, match="notes/onset"):
        Transcriber(path, 1)
    with pytest.raises(GraphError, match="audio"):
        Transcriber(make_transcriber(tmp_path / "u.onnx", document={"hop_samples": 320}), 1)
