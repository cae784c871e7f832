"""Recorded notes: where they begin, how long they last, and at which pitch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.instruments import Instrument, Recording, find_loop, load_instruments, looped, trimmed
from models.data.readers import DataError
from tests.models.data.recorded_notes import RATE, pitch_of, tone, write_notes


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Instrument]:
    folder = tmp_path_factory.mktemp("instruments")
    return load_instruments(write_notes(folder / "notes"), RATE, folder / "cache")


def test_instruments_have_their_notes(library: dict[str, Instrument]) -> None:
    assert sorted(library) == ["horn", "reed", "string"]
    assert (library["horn"].lowest, library["horn"].highest) == (50, 74)
    assert [r.midi for r in library["horn"].recordings] == list(range(50, 75, 2))
    assert {r.dynamic for r in library["horn"].recordings} == {"forte"}


def test_silence_before_and_after_is_cut_off(library: dict[str, Instrument]) -> None:
    for recording in library["reed"].recordings:
        assert len(recording.samples) / RATE == pytest.approx(0.8, abs=0.02)  # of 1.3 s in the file
        assert np.abs(recording.samples[:80]).max() > 0.02 * 32767


def test_the_cache_is_used_and_made_anew_for_other_files(tmp_path: Path) -> None:
    root, cache = write_notes(tmp_path / "notes", highest=54), tmp_path / "cache"
    first = load_instruments(root, RATE, cache)
    arrays = list(cache.rglob("*.npy"))
    assert len(arrays) == 1
    before = arrays[0].stat().st_mtime_ns
    again = load_instruments(root, RATE, cache, lambda name, midi: name == "horn" and midi > 50)
    assert list(again) == ["horn"]
    assert [r.midi for r in again["horn"].recordings] == [52, 54]
    assert np.array_equal(again["horn"].recordings[0].samples, first["horn"].recordings[1].samples)
    assert arrays[0].stat().st_mtime_ns == before
    (root / "horn" / "050_forte_1.flac").unlink()
    assert [r.midi for r in load_instruments(root, RATE, cache)["horn"].recordings] == [52, 54]


@pytest.mark.parametrize("midi", [58.0, 59.0, 60.3, 73.5])
def test_a_note_sounds_at_its_pitch(library: dict[str, Instrument], midi: float) -> None:
    rng = np.random.default_rng(0)
    for instrument in library.values():
        audio = instrument.play(instrument.pick(rng, midi), midi, 0.6)
        assert len(audio) / RATE == pytest.approx(0.65, abs=0.001)
        assert pitch_of(audio[1600:8000]) == pytest.approx(midi, abs=0.05)


def test_a_note_lasts_longer_than_its_recording_without_a_break(library: dict[str, Instrument]) -> None:
    instrument = library["string"]
    audio = instrument.play(instrument.recordings[4], 58, 3.0)
    assert len(audio) / RATE == pytest.approx(3.05, abs=0.001)
    steady = audio[3200 : int(2.9 * RATE)]
    level = np.sqrt(np.mean(steady[: len(steady) // 800 * 800].reshape(-1, 800) ** 2, axis=1))
    assert level.min() > 0.8 * level.max()
    # No jump from sample to sample beyond what the recording itself has.
    original = instrument.play(instrument.recordings[4], 58, 0.5)
    assert np.abs(np.diff(steady)).max() < 1.2 * np.abs(np.diff(original)).max()
    assert pitch_of(audio[20000:26400]) == pytest.approx(58, abs=0.05)


def test_a_looped_recording_is_its_samples_until_the_loop_ends(library: dict[str, Instrument]) -> None:
    recording = library["horn"].recordings[0]
    crossfade = 480
    start, stop = recording.loop
    for count in (1000, len(recording.samples), len(recording.samples) + 1, 60_000):
        line = looped(recording, count, crossfade)
        assert line.shape == (count,)
        kept = min(count, stop - crossfade)
        assert np.array_equal(line[:kept], recording.samples[:kept].astype(np.float32))
    assert start < stop


def test_a_recording_too_short_to_loop_just_ends() -> None:
    samples = np.ones(900, np.int16)
    assert len(looped(Recording(60, "forte", samples, 1.0, (300, 500)), 5000, 480)) == 900


def test_the_loops_ends_look_alike() -> None:
    note = tone("string", 57, 1.0).astype(np.float32)
    start, stop = find_loop(note, RATE)
    period = RATE / (440 * 2 ** ((57 - 69) / 12))
    assert ((stop - start) / period) == pytest.approx(round((stop - start) / period), abs=0.02)


def test_trimming_keeps_a_slow_attack() -> None:
    ramp = np.concatenate([np.zeros(4000), np.linspace(0, 1, 8000), np.ones(8000), np.zeros(4000)])
    note = trimmed((ramp * np.sin(np.arange(len(ramp)))).astype(np.float32), RATE)
    assert len(note) == pytest.approx(16000 - 0.05 * 8000, abs=200)  # begins at -26 dB: 0.05 of the ramp


def test_a_pitch_far_from_the_recording_is_refused(library: dict[str, Instrument]) -> None:
    horn = library["horn"]
    with pytest.raises(ValueError, match=r"horn: 60 is \+10\.0 semitones from the recording; at most 2\.5"):
        horn.play(horn.recordings[0], 60, 0.5)


def test_a_folder_without_notes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "horn").mkdir()
    (tmp_path / "horn" / "c4.wav").touch()
    with pytest.raises(DataError, match=r"expected <instrument>/<midi>_<dynamic>_<length>"):
        load_instruments(tmp_path, RATE, tmp_path / "cache")
