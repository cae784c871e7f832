"""The console's row for a file as input, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.console.live import Console
from rtsep.control.registry import engine_registry
from rtsep.control.song import add_song
from rtsep.engine import Engine
from tests.integration.browser import opened, until
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration


def test_the_page_pauses_seeks_and_loops(browser: Any, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700)
    soundfile.write(tmp_path / "song.flac", np.zeros((600 * 48_000, 2), np.float32), 48_000)
    song = SongConfig(str(tmp_path / "song.flac"))
    with Engine(model, backend=DummyConfig(), song=song) as engine:
        registry = engine_registry(engine)
        add_song(registry, engine)
        with Console(engine, registry) as console, opened(browser, console) as page:
            row = page.get_by_role("region", name="File as input")
            row.get_by_text("play", exact=True).click()
            until(lambda: not engine.song_playing, "the pause")
            row.get_by_role("slider", name="position").press("End")
            until(lambda: engine.song_position_s > 599.0, "the seek to the end")
            row.get_by_role("slider", name="position").press("Home")
            until(lambda: engine.song_position_s < 1.0, "the seek to the beginning")
            row.get_by_text("loop", exact=True).click()
            until(lambda: engine.song_loop[0], "the loop")
            engine.seek_song(83.0)
            until(lambda: row.get_by_text("1:23.0").count() == 1, "the position on the page")
