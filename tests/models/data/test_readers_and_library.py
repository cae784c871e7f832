"""Songs are found, decoded and cached as they are on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data.library import TARGET_RMS, load_source, loud_rms
from models.data.readers import STEMS, DataError, Source, find_songs, read_song
from tests.models.data.conftest import RATE

MUSDB = Path(__file__).parents[4] / "shared" / "data" / "musdb18-7s" / "train"


def source(path: Path, kind: str = "folders", **options: object) -> Source:
    return Source(name="test", path=str(path), kind=kind, terms="none", **options)  # type: ignore[arg-type]


def test_folders_give_stems_of_one_length(songs: Path) -> None:
    found = find_songs(source(songs))
    assert [s.name for s in found] == ["song0", "song1", "song2", "song3"]
    stems = read_song(found[0], RATE)
    assert set(stems) == set(STEMS)
    assert {audio.shape for audio in stems.values()} == {(2, 4 * RATE)}
    assert not stems["vocals"][:, -100:].any()
    drums, _ = soundfile.read(songs / "song0" / "drums.wav", dtype="float32")
    np.testing.assert_array_equal(stems["drums"], drums.T)


def test_solo_recordings_become_stereo_and_are_resampled(songs: Path) -> None:
    found = find_songs(source(songs.parent / "solo", "solo", stem="vocals"))
    stems = read_song(found[0], 2 * RATE)
    assert stems["vocals"].shape == (2, 8 * RATE)
    np.testing.assert_array_equal(stems["vocals"][0], stems["vocals"][1])


def test_excluded_songs_are_left_out(songs: Path) -> None:
    assert len(find_songs(source(songs, exclude=("song1", "song3")))) == 2


@pytest.mark.parametrize(
    ("kind", "folder", "words"),
    [("folders", "missing", "no folder"), ("tapes", "", "must be one of"), ("musdb18", "", "nothing of kind")],
)
def test_what_cannot_be_read_is_named(songs: Path, kind: str, folder: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_songs(source(songs / folder, kind))


def test_a_broken_file_is_named(songs: Path) -> None:
    (songs / "song0" / "bass.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"bass\.wav"):
        read_song(find_songs(source(songs))[0], RATE)


@pytest.mark.skipif(not MUSDB.is_dir() and "CI" not in os.environ, reason="needs ../shared/data")
def test_musdb18_streams_add_up_to_their_mixture() -> None:
    song = find_songs(source(MUSDB, "musdb18", pattern="ANiMAL - Rockshow*"))[0]
    stems = read_song(song, 44100)
    assert set(stems) == set(STEMS)
    total = sum(stems.values())
    assert 6.5 < total.shape[1] / 44100 < 7.6
    # Four different instruments, none of them silent or the same stream twice.
    assert min(loud_rms(audio, 44100) for audio in stems.values()) > 1e-3
    assert abs(np.corrcoef(stems["drums"][0], stems["vocals"][0])[0, 1]) < 0.3


def test_cache_holds_the_song_and_knows_what_is_complete(songs: Path, tmp_path: Path) -> None:
    for _ in range(2):  # decoded, then from the cache
        loaded = load_source(source(songs), RATE, tmp_path / "cache")
        assert [song.complete for song in loaded] == [True, True, True, False]
        drums = loaded[0].read("drums", 100, 500)
        original, _ = soundfile.read(songs / "song0" / "drums.wav", start=100, frames=500, dtype="float32")
        scale = (drums * original.T).sum() / (original.T**2).sum()
        np.testing.assert_allclose(drums, scale * original.T, atol=2e-4)
        whole = sum(loaded[0].read(stem, 0, 4 * RATE) for stem in STEMS)
        assert loud_rms(whole, RATE) == pytest.approx(TARGET_RMS, rel=0.01)
    assert not loaded[0].read("drums", 4 * RATE - 10, 20)[:, 10:].any()


def test_a_changed_file_is_decoded_again(songs: Path, tmp_path: Path) -> None:
    before = load_source(source(songs), RATE, tmp_path / "cache")[0].read("bass", 0, 100)
    soundfile.write(songs / "song0" / "bass.wav", np.full((4 * RATE, 2), 0.25), RATE)
    after = load_source(source(songs), RATE, tmp_path / "cache")[0].read("bass", 0, 100)
    assert not np.array_equal(before, after)
