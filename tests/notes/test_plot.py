"""The piano roll."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtsep.errors import AudioFileError
from rtsep.notes.plot import piano_roll
from rtsep.query.notes import Note


def test_notes_are_where_and_when_they_are(tmp_path: Path) -> None:
    tracks = {
        "bass": [Note(1.0, 2.0, 40, 127)],
        "drums": [Note(0.0, 0.1, 36, 100), Note(3.0, 3.1, 38, 100)],
        "keys": [],
    }
    piano_roll(tmp_path / "a.png", tracks, 4.0, drums=["drums"], width=1130)
    with Image.open(tmp_path / "a.png") as image:
        picture = np.asarray(image)
    assert picture.shape[1] == 1130
    loud = (255, 138, 101)  # the first lane's colour at velocity 127
    rows, columns = np.nonzero((picture == loud).all(axis=2))
    in_lane = columns >= 110  # the lane's name has the colour, too
    left, right = columns[in_lane].min(), columns[in_lane].max()
    # 1000 pixels from 110 on are 4 seconds.
    assert left == pytest.approx(110 + 250, abs=2)
    assert right == pytest.approx(110 + 500, abs=3)
    assert np.ptp(rows[in_lane]) < 8


def test_nothing_to_show_is_a_picture_too(tmp_path: Path) -> None:
    piano_roll(tmp_path / "a.png", {"vocals": []}, 0.5)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1400


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="cannot be written"):
        piano_roll(tmp_path / "none" / "a.png", {"bass": []}, 1.0)
