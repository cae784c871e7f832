"""Packed pieces hold the same songs, and a training file that finds them."""

from __future__ import annotations

import shutil
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data.pack import pack
from models.data.readers import DataError, Source, find_songs, read_song
from models.training.mixtures import MixtureData

CONFIG = """
[train]
run = "runs/x"
steps = 1
[[source]]
name = "records"
path = "{songs}"
kind = "folders"
terms = "none"
exclude = ["song1"]
[[source]]
name = "singers"
path = "{solo}"
kind = "solo"
stem = "vocals"
terms = "none"
[validation]
songs = ["song0"]
"""


@pytest.fixture
def config(songs: Path) -> Path:
    path = songs.parent / "small.toml"
    path.write_text(CONFIG.format(songs=songs, solo=songs.parent / "solo"))
    return path


def test_unpacked_pieces_train_like_the_songs(
    config: Path, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = pack(config, tmp_path / "pieces", 700_000)
    assert len(pieces) > 1
    assert all(piece.stat().st_size <= 700_000 for piece in pieces)
    there = tmp_path / "there"
    there.mkdir()
    for piece in reversed(pieces):
        with tarfile.open(piece) as tar:
            tar.extractall(there, filter="data")
    monkeypatch.chdir(there)
    data = MixtureData(tomllib.loads(Path("packed/small.toml").read_text()), 8000, "cache")
    assert sorted(song.name for song in data.train_songs) == ["0", "1", "song2", "song3"]
    assert [song.name for song in data.validation_songs] == ["song0"]
    before = read_song(find_songs(Source("a", str(songs), "folders", ""))[0], 8000)
    after = read_song(find_songs(Source("a", "packed/records", "folders", ""))[0], 8000)
    for stem, audio in before.items():
        noise = after[stem] - audio
        # White noise is what Opus keeps worst; one sample out of time would leave nothing in common.
        assert np.mean(noise**2) < 0.1 * np.mean(audio**2)


def test_compressed_files_are_taken_as_they_are(config: Path, songs: Path, tmp_path: Path) -> None:
    for path in (songs / "song2").iterdir():
        audio, _ = soundfile.read(path)
        soundfile.write(path.with_suffix(".ogg"), audio, 8000, format="OGG", subtype="VORBIS")
        path.unlink()
    content = (songs / "song2" / "bass.ogg").read_bytes()
    (piece,) = pack(config, tmp_path / "pieces", 10_000_000)
    with tarfile.open(piece) as tar:
        member = tar.extractfile("packed/records/song2/bass.ogg")
        assert member is not None
        assert member.read() == content


def test_stems_beyond_full_scale_keep_their_balance(config: Path, songs: Path, tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 200 / 8000 * np.arange(4 * 8000))
    for stem, level in (("drums", 4.0), ("bass", 2.0), ("other", 1.0), ("vocals", 0.5)):
        soundfile.write(songs / "song2" / f"{stem}.wav", level * tone, 8000, subtype="FLOAT")
    (piece,) = pack(config, tmp_path / "pieces", 10_000_000)
    with tarfile.open(piece) as tar:
        tar.extractall(tmp_path, filter="data")
    levels = []
    for stem in ("drums", "bass", "other", "vocals"):
        audio, _ = soundfile.read(tmp_path / "packed" / "records" / "song2" / f"{stem}.ogg")
        levels.append(float(np.sqrt(np.mean(audio**2))))
    np.testing.assert_allclose(np.array(levels) / levels[0], [1, 0.5, 0.25, 0.125], rtol=0.03)


def test_what_cannot_be_packed_is_named(config: Path, songs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"song0.*--piece-mb"):
        pack(config, tmp_path / "pieces", 50_000)
    (songs / "song3" / "drums.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"drums\.wav"):
        pack(config, tmp_path / "pieces", 700_000)
    assert not list((tmp_path / "pieces").iterdir())
    shutil.copy(songs / "song2" / "drums.wav", songs / "song3" / "drums.wav")
    pack(config, tmp_path / "more", 10_000_000)
    with pytest.raises(DataError, match="new folder"):
        pack(config, tmp_path / "more", 10_000_000)
    config.write_text('[train]\nrun = "x"\nsteps = 1\n')
    with pytest.raises(DataError, match=r"no \[\[source\]\]"):
        pack(config, tmp_path / "other", 10_000_000)
