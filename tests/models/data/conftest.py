from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

STEMS = ("drums", "bass", "other", "vocals")
RATE = 8000


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three whole songs, one without a bass of its own, and two solo recordings."""
    rng = np.random.default_rng(0)
    root = tmp_path / "songs"
    for number, stems in enumerate([STEMS, STEMS, STEMS, ("drums", "other", "vocals")]):
        folder = root / f"song{number}"
        folder.mkdir(parents=True)
        for stem in stems:
            length = 4 * RATE - (100 if stem == "vocals" else 0)
            soundfile.write(folder / f"{stem}.wav", 0.1 * rng.standard_normal((length, 2)), RATE)
        soundfile.write(folder / "mixture.wav", np.zeros((10, 2)), RATE)
    (tmp_path / "solo").mkdir()
    for number in range(2):
        soundfile.write(tmp_path / "solo" / f"{number}.flac", 0.1 * rng.standard_normal(4 * RATE), RATE)
    return root
