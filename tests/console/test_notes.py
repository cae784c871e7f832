"""Notes of a running engine on the page: what is played, when it is played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import FileConfig
from rtsep.console.live import Console
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from rtsep.notes.live import LiveNotes
from tests.console.conftest import Page, open_socket
from tests.notes.conftest import MELODY, melody, transcribers

__all__ = ["transcribers"]
RATE = 48_000
BEFORE_S = 3


def test_a_page_gets_the_notes_in_time_with_the_sound(
    model: Path, transcribers: dict[str, Path], tmp_path: Path
) -> None:
    audio = np.concatenate(
        [np.zeros((2, BEFORE_S * RATE), np.float32), melody(RATE, 2), np.zeros((2, 3 * RATE), np.float32)], 1
    )
    soundfile.write(tmp_path / "song.wav", audio.T, RATE, subtype="FLOAT")
    other = 2
    with (
        Engine(model, backend=FileConfig(str(tmp_path / "song.wav")), tap=True) as engine,
        LiveNotes(engine, transcribers=transcribers, stems=["other"]) as notes,
        Console(engine, engine_registry(engine, notes), notes) as console,
        open_socket(console) as socket,
    ):
        page = Page(socket)
        shown = page.hello["status"]["notes"]["delays_ms"]
        assert shown == {"other": pytest.approx(1000 * notes.delays_s["other"], abs=0.05)}
        seen: list[list[float]] = []

        def whole(events: list[list[float]]) -> bool:
            seen.extend(events)
            return [kind for kind, *_ in seen].count("off") >= len(MELODY)

        page.wait_for("notes", whole)
        # Who comes later gets what was played lately.
        with open_socket(console) as late:
            assert Page(late).hello["notes"][: len(seen)] == seen
    begins = [(stem, pitch) for kind, stem, pitch, *_ in seen if kind == "on"]
    assert begins == [(other, pitch) for _, _, pitch in MELODY]
    for kind, place in (("on", 0), ("off", 1)):
        times = [at for k, *_, at in seen if k == kind]
        assert times == pytest.approx([BEFORE_S + note[place] for note in MELODY], abs=0.06 if kind == "on" else 0.2)
