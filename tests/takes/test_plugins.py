"""A take while plugins come and go that make the mix later: it stays where its stems are, and does not click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.engine import Engine
from rtsep.plugins import MASTER, PluginSpec
from rtsep.takes.live import LiveTakes
from tests.plugins.conftest import worst_click, zam
from tests.takes.test_live import RATE, length, model, read, until

__all__ = ["model", "zam"]

LATE = 480
"""Samples that ZaMaximX2 is late at 48 kHz."""


def test_the_mix_follows_plugins_that_come_and_go(
    model: Path, zam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSEP_PLUGIN_CACHE", str(tmp_path / "plugins.json"))
    rng = np.random.default_rng(9)
    turns = np.cumsum(rng.uniform(100, 300, 600 * 10).repeat(RATE // 100)) / RATE  # a tone that no shift leaves alone
    tone = (0.1 * np.sin(2 * np.pi * turns)).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", np.stack([tone, tone], 1), RATE, subtype="FLOAT")
    maxim = [PluginSpec(str(zam / "ZaMaximX2.vst3"))]
    at: list[float] = []
    with (
        Engine(model, backend=DummyConfig(), song=SongConfig(str(tmp_path / "song.wav"))) as engine,
        LiveTakes(engine, tmp_path / "takes") as takes,
    ):
        # What a file is loaded for the first time needs is not part of the take.
        engine.set_chain(MASTER, maxim)
        engine.set_chain(MASTER, [])
        takes.start()
        until(lambda: length(takes, engine) > 1.0, "a take")
        for target, chain in ((MASTER, maxim), ("vocals", maxim), (MASTER, []), ("vocals", [])):
            engine.set_chain(target, chain)
            at.append(length(takes, engine))
            wanted = at[-1] + 1.0
            until(lambda wanted=wanted: length(takes, engine) > wanted, "another second")  # type: ignore[misc]
        stats = engine.stats()
        takes.stop()
        until(lambda: takes.state.done, "its end")
    assert stats.model_resets == 0
    assert stats.latency_changes >= 4
    stems, mix = read(takes.state.done[0][0])
    total = stems.sum(0)
    for moment in (*at, at[-1] + 1.0):  # the half second before the next change
        part = slice(round((moment - 0.7) * RATE), round((moment - 0.2) * RATE))
        assert np.abs(mix[part] - total[part]).max() < 1e-3
        wrong = slice(part.start - LATE, part.stop - LATE)
        assert np.abs(mix[part] - total[wrong]).max() > 0.05, "a place beside it would be seen"
    assert worst_click(mix.T) < 4 * worst_click(total.T)
