"""One fader of the shipped Conditioned U-Net over its whole way, on a song whose stems are known."""

from __future__ import annotations

import numpy as np
import pytest

import rtsep
from rtsep.demo.measure import attenuation
from rtsep.demo.song import render_song

RATE = 44100
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def levels() -> list[dict[str, float]]:
    """Level in dB of each true stem in what is heard, by position of the vocals' fader."""
    song = render_song(15, RATE, 10.0)
    rows = []
    for position in POSITIONS:
        controls = {"condition": [1.0, 1.0, 1.0, position]}
        result = rtsep.separate(song.mixture, samplerate=RATE, model="cunet-low", stems=["selected"], controls=controls)
        left = attenuation(result.stems["selected"], song.stems).db
        rows.append({stem: -db for stem, db in left.items()})
    return rows


def test_the_level_follows_the_fader(levels: list[dict[str, float]]) -> None:
    vocals = [row["vocals"] for row in levels]
    assert np.all(np.diff(vocals) > 0.3), vocals
    assert vocals[-1] == pytest.approx(0.0, abs=0.05), "all faders up is the mixture"


def test_down_takes_more_of_the_vocals_than_of_the_others(levels: list[dict[str, float]]) -> None:
    down = levels[0]
    assert all(down["vocals"] < down[stem] - 3.0 for stem in ("drums", "bass"))
