"""A model with its query encoder and synth step, and a query for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtsep.query.enroll import enroll, open_encoder
from rtsep.query.queries import Query
from tests.support.query_graphs import RATE, make_family

Audio = NDArray[np.float32]


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3, rate: int = RATE) -> Audio:
    """A sine ``[1, T]``."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[None]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The step's file; the two other graphs stand beside it."""
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def query(family: Path) -> Query:
    return enroll(tone(2.0), RATE, open_encoder(family), name="oboe", source="oboe.wav")[0]
