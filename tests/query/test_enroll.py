"""From recordings to queries: what is used, and what is refused with a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.errors import (
    AudioFileError,
    DeviceError,
    GraphError,
    MetadataError,
    ModelNotFoundError,
    QueryError,
    UsageError,
)
from rtsep.query.enroll import enroll, open_encoder, prepare, read_recording, record
from rtsep.query.graphs import query_model
from rtsep.query.queries import Query
from tests.query.conftest import Audio, tone
from tests.support.graphs import make_delay_model
from tests.support.query_graphs import RATE, SIZE, make_encoder, make_family, make_step


def test_the_encoder_hears_the_recording(family: Path, query: Query) -> None:
    mean = np.abs(tone(2.0)).mean()
    np.testing.assert_allclose(query.vector, np.tanh(mean * np.arange(1, SIZE + 1)), rtol=1e-5)
    np.testing.assert_allclose(query.timbre[0], [mean / np.arange(1, 9)], rtol=1e-5)
    assert query.timbre[1].shape == (2, 3)
    assert (query.model, query.samplerate, query.seconds) == ("msi", RATE, 2.0)
    assert query.created_by.startswith("rtsep ")
    assert query.encoder_sha256 == open_encoder(family).sha256


def test_silence_is_left_out_and_the_order_kept() -> None:
    first, second = tone(0.8, 440.0), tone(0.7, 880.0, level=0.1)
    quiet = tone(1.0, level=0.0028)  # 40.6 dB below the first tone
    audio = np.concatenate([np.zeros((1, RATE), np.float32), first, quiet, second, np.zeros((1, 500), np.float32)], 1)
    sound = prepare(audio, RATE, RATE, source="x")
    np.testing.assert_array_equal(sound.audio, np.concatenate([first, second], axis=1)[0])
    assert sound.recorded_s == audio.shape[1] / RATE
    assert sound.sounding_s == sound.used_s == pytest.approx(1.5)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_rate_and_channels_are_brought_to_the_encoders(rate: int) -> None:
    left = tone(1.5, rate=rate)
    sound = prepare(np.concatenate([left, np.zeros_like(left)]), rate, RATE, source="x")
    middle = slice(4000, 20000)
    np.testing.assert_allclose(sound.audio[middle], 0.5 * tone(1.5)[0, middle], atol=1e-3)
    assert sound.used_s == pytest.approx(1.5, abs=0.01)


def test_long_recordings_are_cut() -> None:
    sound = prepare(tone(40.0), RATE, RATE, source="x")
    assert (sound.sounding_s, sound.used_s, len(sound.audio)) == (40.0, 30.0, 30 * RATE)


def clipped(share: float) -> Audio:
    audio = tone(2.0)
    audio[0, : round(share * audio.size)] = 32767 / 32768
    return audio


@pytest.mark.parametrize(
    ("audio", "text"),
    [
        (np.zeros((2, RATE), np.float32), "is silent: its peak is digital silence, -60 dBFS is the least"),
        (tone(2.0, level=5e-4), "is silent: its peak is -66 dBFS"),
        (tone(0.5), "is too short: 0.50 s of its 0.50 s are sound, 1 s is the least"),
        (np.concatenate([tone(0.9), np.zeros((1, 9 * RATE), np.float32)], 1), "0.90 s of its 9.90 s are sound"),
        (np.zeros((1, 0), np.float32), "is silent"),
        (np.concatenate([tone(2.0), -tone(2.0)]), "its 2 channels cancel each other"),
        (clipped(0.005), "is clipped: 0.5 % of its samples are at full scale, 0.1 % is the most"),
        (np.concatenate([tone(2.0), clipped(0.01)]), "is clipped: 1 %"),
        (np.where(np.arange(2 * RATE) == 7, np.nan, tone(2.0)).astype(np.float32), "1 samples are NaN or infinite"),
    ],
)
def test_useless_recordings_are_refused_with_the_reason(audio: Audio, text: str) -> None:
    with pytest.raises(QueryError) as caught:
        prepare(audio, RATE, RATE, source="x.wav")
    assert text in str(caught.value)
    assert "x.wav" in str(caught.value)


def test_a_few_samples_at_full_scale_are_no_clipping_and_force_takes_the_rest(family: Path) -> None:
    prepare(clipped(0.0009), RATE, RATE, source="x")
    query, _ = enroll(clipped(0.1), RATE, open_encoder(family), name="a", source="x", force=True)
    assert np.isfinite(query.vector).all()


def test_files_are_read_whole_with_the_channels_chosen(tmp_path: Path) -> None:
    audio = np.concatenate([tone(1.2), tone(1.2, 880.0)])
    soundfile.write(tmp_path / "a.wav", audio.T, RATE, subtype="FLOAT")
    both, rate = read_recording(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_array_equal(both, audio)
    np.testing.assert_array_equal(read_recording(tmp_path / "a.wav", (2,))[0], audio[1:])
    with pytest.raises(UsageError, match="channels 1 to 2"):
        read_recording(tmp_path / "a.wav", (3,))
    audio[0, 5:8] = np.inf
    soundfile.write(tmp_path / "bad.wav", audio.T, RATE, subtype="FLOAT")
    with pytest.raises(QueryError, match=r"bad\.wav: 3 samples are NaN"):
        read_recording(tmp_path / "bad.wav")
    with pytest.raises(AudioFileError, match="no such file"):
        read_recording(tmp_path / "none.wav")


def test_recording_from_a_device_gives_what_it_hears(tmp_path: Path) -> None:
    audio, rate = record(DummyConfig(samplerate=RATE, source="sine"), 0.6)
    assert (rate, audio.shape) == (RATE, (2, 9600))
    np.testing.assert_allclose(audio[0], tone(0.6, 440.0, 0.25)[0], atol=1e-6)
    soundfile.write(tmp_path / "a.wav", tone(0.4).T, RATE, subtype="FLOAT")
    seen: list[tuple[int, int]] = []
    audio, rate = record(FileConfig(input=str(tmp_path / "a.wav")), 30.0, lambda *s: seen.append(s))
    np.testing.assert_array_equal(audio[:, :6400], tone(0.4))  # the file ends, and so does the recording
    assert audio.shape[1] < RATE
    assert seen[-1] == (audio.shape[1], 30 * RATE)


def test_a_device_that_delivers_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsep.query.enroll._DEVICE_TIMEOUT_S", 0.2)
    with pytest.raises(DeviceError, match="delivered nothing"):
        record(DummyConfig(samplerate=8000, blocksize=8000 * 60), 1.0)


def test_models_without_an_encoder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_delay_model(tmp_path / "plain.onnx")
    with pytest.raises(ModelNotFoundError, match=r"plain has no query encoder: .*plain\.query\.onnx is not there"):
        open_encoder(plain)
    monkeypatch.setattr("rtsep.zoo.registry._FOLDER", tmp_path)
    with pytest.raises(ModelNotFoundError, match="No model with a query encoder is shipped"):
        query_model(None)
    make_family(tmp_path, "examples")
    with pytest.raises(ModelNotFoundError, match="Models with a query encoder: examples"):
        open_encoder(plain)
    assert query_model(None) == tmp_path / "examples.onnx"
    make_family(tmp_path, "msi")
    assert query_model(None) == tmp_path / "msi.onnx"
    assert query_model("plain") == plain


def test_wrong_encoders_are_refused(tmp_path: Path) -> None:
    step, path = make_step(tmp_path / "msi.onnx"), tmp_path / "msi.query.onnx"
    make_encoder(path, name="other")
    with pytest.raises(MetadataError, match="is for the model 'other'"):
        open_encoder(step)
    make_encoder(path, format=2)
    with pytest.raises(MetadataError, match="format 2; this rtsep reads 1"):
        open_encoder(step)
    make_encoder(path, size=7)
    with pytest.raises(GraphError, match=r"'query' came out as \[1, 6\]"):
        open_encoder(step).encode(tone(1.0)[0])
    make_encoder(path, timbre=[[1, 8]])
    with pytest.raises(GraphError, match="has the outputs query, timbre/0, timbre/1; needed are query, timbre/0"):
        open_encoder(step)
    path.write_bytes(step.read_bytes())
    with pytest.raises(MetadataError, match="has no 'rtsep-query' metadata"):
        open_encoder(step)
