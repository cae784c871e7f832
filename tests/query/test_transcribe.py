"""Audio to notes through the streaming step, in time with the audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.errors import AudioFileError, ModelNotFoundError, UsageError
from rtsep.query.notes import Note, TrackerSettings
from rtsep.query.transcribe import transcribe
from tests.query.conftest import Audio
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import hertz

MELODY = [(0.25, 0.75, 69), (0.75, 1.25, 76), (1.5, 2.0, 72), (2.25, 2.5, 81)]
LENGTH_S = 2.5


def play(rate: int, channels: int = 1) -> Audio:
    audio = np.zeros(round(LENGTH_S * rate))
    for start, end, pitch in MELODY:
        part = slice(round(start * rate), round(end * rate))
        audio[part] = 0.4 * np.sin(2 * np.pi * hertz(pitch) * np.arange(part.stop - part.start) / rate)
    return np.tile(audio.astype(np.float32), (channels, 1))


def check(notes: list[Note]) -> None:
    assert [note.pitch for note in notes] == [pitch for _, _, pitch in MELODY]
    for note, (start, end, _) in zip(notes, MELODY, strict=True):
        # A frame is 10 ms, and the bank's window is 128 ms long: where it sees half of a note is a little unsure.
        assert note.start_s == pytest.approx(start, abs=0.035)
        assert note.end_s == pytest.approx(end, abs=0.035)
        assert 0.2 * 127 < note.velocity < 0.42 * 127  # by what the first 40 ms showed


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (48000, 1)])
def test_notes_are_in_time_at_any_rate(family: Path, tmp_path: Path, rate: int, channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", play(rate, channels).T, rate, subtype="FLOAT")
    seen: list[tuple[int, int]] = []
    found = transcribe(tmp_path / "a.wav", family, progress=lambda *s: seen.append(s))
    check(found.notes["query"])
    assert found.seconds == pytest.approx(LENGTH_S)
    assert found.notes["query"][-1].end_s <= LENGTH_S
    assert seen[-1][0] == seen[-1][1] == round(LENGTH_S * rate)


def test_a_score_read_back_is_the_score(family: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", play(16000).T, 16000, subtype="FLOAT")
    roll = np.zeros(88, np.float32)
    roll[69 - 21] = 1.0
    found = transcribe(tmp_path / "a.wav", family, controls={"score": roll, "score_weight": 1.0})
    (note,) = found.notes["query"]
    assert (note.start_s, note.end_s, note.pitch) == (0.0, LENGTH_S, 69)


def test_thresholds_are_used(family: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", play(16000).T, 16000, subtype="FLOAT")
    found = transcribe(tmp_path / "a.wav", family, settings=TrackerSettings(minimum_frames=30))
    assert [note.pitch for note in found.notes["query"]] == [69, 76, 72]


def test_several_frames_a_hop_and_latency_beyond_the_hop(tmp_path: Path) -> None:
    """The other test model gives two frames a hop, equal to the mean level, 700 samples late."""
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=1024, notes=True)
    audio = np.zeros(44100, np.float32)
    audio[8192:16384] = 0.9
    soundfile.write(tmp_path / "a.wav", audio, 44100, subtype="FLOAT")
    found = transcribe(tmp_path / "a.wav", model)
    assert [(note.pitch, note.start_s, note.end_s) for note in found.notes["vocals"]] == [
        (pitch, 8192 / 44100, 16384 / 44100) for pitch in (40, 41, 42, 43)
    ]


def test_bad_input(family: Path, tmp_path: Path) -> None:
    plain = make_delay_model(tmp_path / "plain.onnx")
    soundfile.write(tmp_path / "a.wav", play(16000).T, 16000, subtype="FLOAT")
    with pytest.raises(ModelNotFoundError, match="There is no drums transcriber for drums"):
        transcribe(tmp_path / "a.wav", plain, transcribers={})
    with pytest.raises(AudioFileError, match="no such file"):
        transcribe(tmp_path / "none.wav", family)
    audio = play(16000)
    audio[0, 100:103] = np.nan
    soundfile.write(tmp_path / "a.wav", audio.T, 16000, subtype="FLOAT")
    assert transcribe(tmp_path / "a.wav", family).replaced == 3
    with pytest.raises(UsageError, match="no control 'qery'"):
        transcribe(tmp_path / "a.wav", family, controls={"qery": 1.0})
