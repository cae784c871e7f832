"""The WAV writer: readable at any moment, on a full disk, and beyond 4 GiB."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.wav import FORMATS, WavWriter
from rtsep.errors import AudioFileError, UsageError


def noise(frames: int, channels: int = 2) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((frames, channels))).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("sample_format", FORMATS)
def test_libsndfile_reads_what_was_written(tmp_path: Path, channels: int, sample_format: str) -> None:
    frames = noise(1001, channels)
    with WavWriter(tmp_path / "a.wav", 44100, channels, sample_format=sample_format) as writer:
        for start in range(0, 1001, 100):
            writer.write(frames[start : start + 100])
    back, rate = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
    assert rate == 44100
    assert back.shape == frames.shape
    step = {"float": 0.0, "pcm16": 2.0**-15, "pcm24": 2.0**-23}[sample_format]
    assert np.abs(back - frames).max() <= step


def test_integer_formats_clip_instead_of_wrapping(tmp_path: Path) -> None:
    with WavWriter(tmp_path / "a.wav", 48000, 1, sample_format="pcm16") as writer:
        writer.write(np.float32([[1.5], [-1.5], [1.0], [0.0]]))
    back, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_allclose(back, [1.0, -1.0, 1.0, 0.0], atol=2.0**-14)


@pytest.mark.skipif(not shutil.which("soxi") and not os.environ.get("CI"), reason="sox is not installed")
def test_sox_reads_it_without_complaint(tmp_path: Path) -> None:
    with WavWriter(tmp_path / "a.wav", 48000, 2) as writer:
        writer.write(noise(4800))
    result = subprocess.run(["soxi", "-s", tmp_path / "a.wav"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "4800"
    assert result.stderr == ""


def test_the_file_is_readable_while_it_grows(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "a.wav", 48000, 2, header_every_s=0.1)
    seen = []
    for _ in range(20):
        writer.write(noise(2400))
        seen.append(soundfile.info(tmp_path / "a.wav").frames)
    writer.close()
    written = np.arange(1, 21) * 2400
    assert all(after - 4800 < count <= after for count, after in zip(seen, written, strict=True))
    assert soundfile.info(tmp_path / "a.wav").frames == 48000


def test_a_killed_process_leaves_a_valid_file(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, numpy as np
        from rtsep.audio.wav import WavWriter
        writer = WavWriter(sys.argv[1], 48000, 2)
        for _ in range(100):
            writer.write(np.full((960, 2), 0.25, np.float32))
        print("written", flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "a.wav"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    back, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert len(back) == 96000
    assert (back == 0.25).all()


def test_a_full_disk_is_an_error_and_keeps_what_was_written(tmp_path: Path) -> None:
    # The limit on file size stands for the end of the disk: the same short writes, the same kind of error.
    program = textwrap.dedent(
        """
        import resource, signal, sys, numpy as np
        from rtsep.audio.wav import WavWriter
        from rtsep.errors import AudioFileError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_003, resource.RLIM_INFINITY))
        writer = WavWriter(sys.argv[1], 48000, 2)
        try:
            for _ in range(100):
                writer.write(np.full((960, 2), 0.25, np.float32))
        except AudioFileError as error:
            print(error)
            sys.exit(7)
        """
    )
    assert hasattr(resource, "RLIMIT_FSIZE")
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.wav"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 7, result.stderr
    assert "cannot be written any further" in result.stdout
    back, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert len(back) == (100_003 - 94) // 8
    assert (back == 0.25).all()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_really_full_device_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to("/dev/full")
    with pytest.raises(AudioFileError, match="No space left"):
        WavWriter(tmp_path / "a.wav", 48000, 2)


def test_beyond_the_riff_limit_the_header_is_rf64(tmp_path: Path) -> None:
    # A low limit instead of 4 GiB of data: the header written is the same.
    with WavWriter(tmp_path / "a.wav", 48000, 2, riff_limit=10_000) as writer:
        writer.write(noise(1000))
        writer.write(noise(1000))
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    info = soundfile.info(tmp_path / "a.wav")
    assert info.format == "RF64"
    assert info.frames == 2000
    back, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_array_equal(back[1000:], noise(1000))


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with WavWriter(tmp_path / "a.wav", 48000, 2, atomic=True) as writer:
        writer.write(noise(10))
        assert not (tmp_path / "a.wav").exists()
    assert soundfile.info(tmp_path / "a.wav").frames == 10
    with pytest.raises(RuntimeError), WavWriter(tmp_path / "b.wav", 48000, 2, atomic=True) as writer:  # noqa: PT012
        writer.write(noise(10))
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]


@pytest.mark.parametrize("name", ["a.flac", "a", "a.mp3"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.wav"):
        WavWriter(tmp_path / name, 48000, 2)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="No such file"):
        WavWriter(tmp_path / "nowhere" / "a.wav", 48000, 2)


def test_wrong_shapes_and_closed_files_are_refused(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "a.wav", 48000, 2)
    with pytest.raises(UsageError, match=r"\[T, 2\]"):
        writer.write(noise(10, 1))
    writer.close()
    writer.close()
    with pytest.raises(AudioFileError, match="closed"):
        writer.write(noise(10))
