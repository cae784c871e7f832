"""The ring between engine and notes process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import EngineError
from rtsep.notes.tap import Tap, TapLayout


def write(tap: Tap, number: int) -> None:
    layout = tap.layout
    stems = np.full((layout.stems, layout.channels, layout.hop), number, np.float32)
    notes = tap.put(1, number, 1000, 77 + number, 5, stems)
    notes[:] = number
    tap.publish()


@pytest.fixture
def tap() -> Tap:
    return Tap.create(TapLayout(2, 2, 16, 8, note_stems=1, frames=2, pitches=3))


def test_hops_arrive_whole_and_in_order_through_a_second_mapping(tap: Tap) -> None:
    reader = Tap(tap.path)
    tap.unlink()
    assert reader.layout == tap.layout
    assert reader.read() is None
    for number in range(5):
        write(tap, number)
    for number in range(5):
        hop = reader.read()
        assert hop is not None
        assert (hop.epoch, hop.hop, hop.base, hop.taken_ns, hop.audible) == (1, number, 1000, 77 + number, 5)
        assert hop.notes is not None
        assert (hop.stems == number).all()
        assert (hop.notes == number).all()
    assert reader.read() is None
    assert reader.missed == 0


def test_slow_reader_counts_what_it_missed_and_goes_on_with_the_oldest_there_is(tap: Tap) -> None:
    reader = Tap(tap.path)
    tap.unlink()
    for number in range(20):
        write(tap, number)
    hops = []
    while (hop := reader.read()) is not None:
        hops.append(hop.hop)
    assert hops == list(range(13, 20))
    assert reader.missed == 13


def test_what_was_read_stays_when_the_writer_goes_on(tap: Tap) -> None:
    reader = Tap(tap.path)
    tap.unlink()
    write(tap, 0)
    hop = reader.read()
    assert hop is not None
    for number in range(1, 30):
        write(tap, number)
    assert (hop.stems == 0).all()


def test_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(4096))
    with pytest.raises(EngineError, match="no tap"):
        Tap(tmp_path / "x")
