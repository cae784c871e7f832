"""Reading audio files: formats, rates, channels, and every way a file can be wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.files import AudioReader, NonFiniteWarning, map_channels, read_audio
from rtsep.errors import AudioFileError, UsageError


def noise(frames: int, channels: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((frames, channels))).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("samplerate", [8000, 44100, 96000, 192000])
def test_float_wav_comes_back_bit_for_bit(tmp_path: Path, channels: int, samplerate: int) -> None:
    frames = noise(1000, channels)
    soundfile.write(tmp_path / "a.wav", frames, samplerate, subtype="FLOAT")
    data = read_audio(tmp_path / "a.wav")
    assert data.samplerate == samplerate
    assert data.replaced == 0
    assert data.audio.flags.c_contiguous
    np.testing.assert_array_equal(data.audio, frames.T)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.aiff", "PCM_24")])
def test_other_formats_are_read(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, noise(5000, 2), 44100, subtype=subtype)
    data = read_audio(tmp_path / name)
    assert data.audio.shape == (2, 5000)
    assert 0.05 < float(data.audio.std()) < 0.15


def test_nan_and_infinity_become_zero_and_are_counted(tmp_path: Path) -> None:
    frames = noise(1000, 2)
    frames[10, 0], frames[11, 1], frames[999, 0] = np.nan, np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", frames, 48000, subtype="FLOAT")
    with pytest.warns(NonFiniteWarning, match="3 samples"):
        data = read_audio(tmp_path / "a.wav")
    assert data.replaced == 3
    assert np.isfinite(data.audio).all()
    assert data.audio[0, 10] == data.audio[1, 11] == data.audio[0, 999] == 0.0


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no sound\n" * 50)
    elif kind == "no-samples":
        soundfile.write(path, np.zeros((0, 2), np.float32), 48000)
    elif kind == "header-only":
        soundfile.write(path, noise(1000, 2), 48000)
        path.write_bytes(path.read_bytes()[:20])
    elif kind == "folder":
        path.mkdir()
    elif kind == "slow":
        soundfile.write(path, noise(1000, 1), 4000)
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "no such file"),
        ("empty", "empty"),
        ("text", "cannot be read as audio"),
        ("no-samples", "no samples"),
        ("header-only", "header-only.wav"),
        ("folder", "folder"),
        ("slow", "4000 Hz"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_named_error(tmp_path: Path, kind: str, text: str) -> None:
    with pytest.raises(AudioFileError, match=text):
        read_audio(broken(tmp_path, kind))


def test_a_truncated_file_gives_what_is_there_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(200_000, 2), 48000)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(AudioFileError, match="damaged"), AudioReader(path) as reader:
        for _ in reader.blocks(4096):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(10, 1), 48000)
    path.chmod(0)
    with pytest.raises(AudioFileError, match="Permission"):
        read_audio(path)


def test_blocks_are_the_file(tmp_path: Path) -> None:
    frames = noise(1000, 2)
    soundfile.write(tmp_path / "a.wav", frames, 48000, subtype="FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        blocks = list(reader.blocks(300))
        assert [len(block) for block in blocks] == [300, 300, 300, 100]
        np.testing.assert_array_equal(np.concatenate(blocks), frames)
        reader.rewind()
        np.testing.assert_array_equal(reader.read(5), frames[:5])


def test_mono_is_duplicated_and_stereo_averaged() -> None:
    mono, stereo = noise(10, 1).T, noise(10, 2).T
    np.testing.assert_array_equal(map_channels(mono, 2), np.stack([mono[0], mono[0]]))
    np.testing.assert_allclose(map_channels(stereo, 1)[0], stereo.mean(axis=0))
    np.testing.assert_array_equal(map_channels(stereo, 2), stereo)


def test_six_channels_are_mapped_from_one() -> None:
    six = noise(10, 6).T
    np.testing.assert_array_equal(map_channels(six, 2), six[:2])
    np.testing.assert_array_equal(map_channels(six, 2, (5, 3)), six[[4, 2]])
    np.testing.assert_array_equal(map_channels(six, 2, (6,)), six[[5, 5]])


@pytest.mark.parametrize("mapping", [(0, 1), (1, 7), (), (-1,)])
def test_channels_that_do_not_exist_are_named(mapping: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="channels 1 to 6"):
        map_channels(noise(10, 6).T, 2, mapping)


def test_three_channels_for_two_are_refused() -> None:
    with pytest.raises(UsageError, match="3 channels were chosen, 2 are needed"):
        map_channels(noise(10, 6).T, 2, (1, 2, 3))
