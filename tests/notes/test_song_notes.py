"""Notes of a file as input: what sounds at a seek ends there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.engine import Engine
from rtsep.notes.live import LiveNotes
from tests.notes.test_live import RATE, Files, hanging, model, played, until

__all__ = ["model"]


def test_no_note_hangs_after_a_seek_or_a_pause(model: Path, transcribers: Files, tmp_path: Path) -> None:
    log, song = tmp_path / "midi.log", tmp_path / "song.wav"
    tone = 0.25 * np.sin(2 * np.pi * 440 * np.arange(60 * RATE) / RATE)
    silence = np.zeros(60 * RATE)
    soundfile.write(song, np.tile(np.concatenate([tone, silence])[:, None], (1, 2)).astype(np.float32), RATE)
    with (
        Engine(model, backend=DummyConfig(), song=SongConfig(str(song)), tap=True) as engine,
        LiveNotes(engine, f"log:{log}", transcribers=transcribers, stems=["other"]),
    ):
        until(lambda: log.exists() and bool(hanging(log)))
        engine.seek_song(90.0)  # into the silence
        until(lambda: engine.song_position_s > 90.0 and not hanging(log))
        engine.seek_song(20.0)
        until(lambda: bool(hanging(log)))
        engine.play_song(False)
        until(lambda: not hanging(log))
        assert len([entry for entry in played(log) if entry[1] == "on"]) >= 2
