"""A file as live input on a real JACK server: what its clients hear is the file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.song_config import SongConfig
from rtsep.engine import Engine
from tests.integration.jack import JackServer, need_tools
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration

RATE, FRAMES, SEGMENT = 48_000, 4 * 48_000, 4096


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    need_tools()


def test_a_client_hears_the_whole_file_bit_for_bit(server: JackServer, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700)
    audio = (0.1 * np.random.default_rng(3).standard_normal((FRAMES, 2))).astype(np.float32)
    audio[0] = 0.5  # the very first frame is to be heard, too
    soundfile.write(tmp_path / "song.wav", audio, RATE, subtype="FLOAT")
    song = SongConfig(str(tmp_path / "song.wav"))
    with Engine(model, song=song) as engine:
        engine.play_song(False)
        capture = server.capture(tmp_path / "capture.wav", 7.0, "rtsep:out_0", "rtsep:out_1")
        engine.seek_song(0.0)
        engine.play_song()
        heard = server.captured(capture, tmp_path / "capture.wav", 7.0)
    # The file began while nobody listened; after the seek it comes whole, with a fade of 5 ms at its beginning.
    anchor = audio[RATE : RATE + 64, 0]
    places = [i for i in np.flatnonzero(heard[:, 0] == anchor[0]) if np.array_equal(heard[i : i + 64, 0], anchor)]
    assert len(places) == 1, places
    same = [
        np.array_equal(heard[places[0] - RATE + at : places[0] - RATE + at + SEGMENT], audio[at : at + SEGMENT])
        for at in range(SEGMENT, FRAMES - SEGMENT, SEGMENT)
    ]
    # On a crowded machine JACK itself may lose a cycle in a few of the segments.
    assert np.mean(same) >= 0.7, same


def test_the_first_frame_is_heard_and_the_engine_ends_with_the_file(server: JackServer, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700)
    audio = (0.1 * np.random.default_rng(4).standard_normal((RATE, 2))).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", audio, RATE, subtype="FLOAT")
    record = tmp_path / "record.wav"
    with Engine(model, song=SongConfig(str(tmp_path / "song.wav")), record=record) as engine:
        began = time.monotonic()
        assert engine.wait(20.0)
        assert time.monotonic() - began < 10.0
        stats = engine.stats()
    heard = soundfile.read(record, dtype="float32", always_2d=True)[0]
    first = int(np.flatnonzero(heard[:, 0])[0])
    if not stats.silent_samples:
        np.testing.assert_array_equal(heard[first : first + RATE], audio)
