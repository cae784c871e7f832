"""Transcribers and sounds for the tests of notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.query_graphs import hertz
from tests.support.transcriber_graphs import make_transcriber

MELODY = [(0.3, 0.8, 60), (0.8, 1.2, 67), (1.5, 2.0, 64)]
LENGTH_S = 2.4


@pytest.fixture(scope="session")
def transcribers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file a kind; all of them hear pitches, drums two."""
    folder = tmp_path_factory.mktemp("transcribers")
    return {
        "polyphonic": make_transcriber(folder / "poly.onnx"),
        "monophonic": make_transcriber(folder / "mono.onnx", kind="monophonic"),
        "drums": make_transcriber(folder / "drums.onnx", kind="drums", midi_notes=(36, 60, 64, 67)),
    }


def melody(rate: int, channels: int = 1, level: float = 0.4) -> NDArray[np.float32]:
    """Sines [C, T]."""
    audio = np.zeros(round(LENGTH_S * rate))
    for start, end, pitch in MELODY:
        part = slice(round(start * rate), round(end * rate))
        audio[part] = level * np.sin(2 * np.pi * hertz(pitch) * np.arange(part.stop - part.start) / rate)
    return np.tile(audio.astype(np.float32), (channels, 1))
