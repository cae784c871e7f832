"""``rtsep separate``: results, bad input, full disks."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.cli.conftest import GAINS, Run, Spawn

Audio = NDArray[np.float32]


def test_a_muted_stem_is_missing_from_the_mix(
    run: Run, model: Path, song: Path, recording: Audio, tmp_path: Path
) -> None:
    out = tmp_path / "karaoke.wav"
    result = run("separate", song, "--mute", "vocals", "-o", out, "--model", model)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    assert "700 samples removed" in result.stderr
    np.testing.assert_allclose(soundfile.read(out)[0].T, 0.875 * recording, atol=1e-7)


def test_a_folder_gets_the_stems(run: Run, model: Path, song: Path, recording: Audio, tmp_path: Path) -> None:
    result = run("separate", song, "-o", f"{tmp_path}/out/", "--model", model, "--stems", "drums,bass", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)[0]
    folder = tmp_path / "out" / "song"
    assert document["files"] == {"drums": str(folder / "drums.wav"), "bass": str(folder / "bass.wav")}
    assert document["latency_samples_removed"] == 700
    assert document["frames"] == 88200
    assert sorted(p.name for p in folder.iterdir()) == ["bass.wav", "drums.wav"]
    np.testing.assert_array_equal(
        soundfile.read(folder / "drums.wav", dtype="float32")[0].T, np.float32(GAINS[0]) * recording
    )


def test_several_songs_with_the_mixer_and_another_format(run: Run, model: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "song.wav"
    other.write_bytes(song.read_bytes())
    result = run(
        "separate", song, other, "-o", tmp_path / "out", "--model", model, "--solo", "bass", "--format", "pcm16"
    )
    assert result.exit_code == 0, result.output
    for folder in ("song", "song-2"):
        names = sorted(p.name for p in (tmp_path / "out" / folder).iterdir())
        assert names == ["bass.wav", "drums.wav", "mix.wav", "other.wav", "vocals.wav"]
        assert soundfile.info(tmp_path / "out" / folder / "mix.wav").subtype == "PCM_16"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--mute", "vocal", "-o", "x.wav"], 2, "Did you mean 'vocals'?"),
        (["--stems", "guitar", "-o", "out/"], 2, "this model has drums, bass, other, vocals"),
        (["--gain", "drums=40", "-o", "x.wav"], 2, "-120 to 24 dB"),
        (["--pan", "drums=2", "-o", "x.wav"], 2, "-1 (left) to 1 (right)"),
        (["-o", "x.wav"], 2, "--mute vocals"),
        (["--stems", "bass", "-o", "x.wav"], 2, "--solo"),
        (["--mute", "bass", "-o", "x.mp3"], 2, ".wav"),
        (["--mute", "bass", "-c", "3,4", "-o", "x.wav"], 2, "channels 1 to 2"),
        (["--mute", "bass", "-o", "song.wav"], 2, "the input itself"),
    ],
)
def test_wrong_options(
    run: Run, model: Path, song: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, text: str
) -> None:
    monkeypatch.chdir(song.parent)
    before = song.read_bytes()
    result = run("separate", song, "--model", model, *args)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert song.read_bytes() == before
    assert sorted(p.name for p in song.parent.iterdir()) == ["song.wav"]


def corrupt(path: Path, recording: Audio) -> None:
    path.write_bytes(b"RIFF\x24\x00\x00\x00WAVEjunk" + os.urandom(4000))


def empty(path: Path, recording: Audio) -> None:
    path.touch()


def header_only(path: Path, recording: Audio) -> None:
    soundfile.write(path, np.zeros((0, 2), np.float32), 44100)


def text(path: Path, recording: Audio) -> None:
    path.write_text("not music at all\n" * 50)


def folder(path: Path, recording: Audio) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [corrupt, empty, header_only, text, folder])
def test_files_that_are_no_audio_fail_with_their_name(
    run: Run, model: Path, tmp_path: Path, recording: Audio, make: Callable[[Path, Audio], None]
) -> None:
    path = tmp_path / "bad.wav"
    make(path, recording)
    result = run("separate", path, "--mute", "bass", "-o", tmp_path / "out.wav", "--model", model)
    assert result.exit_code == 1, result.output
    assert str(path) in result.stderr
    assert result.stderr.count("Error:") == 1
    assert not list(tmp_path.glob("out.wav*"))


def test_one_bad_file_does_not_stop_the_others(run: Run, model: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").touch()
    result = run("separate", tmp_path / "bad.wav", song, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1
    assert "1 of 2 songs failed" in result.stderr
    assert (tmp_path / "out" / "song" / "drums.wav").exists()


@pytest.mark.parametrize(
    ("rate", "channels", "out_channels"), [(44100, 1, 1), (44100, 6, 2), (8000, 2, 2), (192000, 1, 1), (48000, 2, 2)]
)
def test_unusual_files_work(run: Run, model: Path, tmp_path: Path, rate: int, channels: int, out_channels: int) -> None:
    path = tmp_path / "odd.wav"
    t = np.arange(rate) / rate
    tones = np.stack([0.2 * np.sin(2 * np.pi * 100 * (c + 1) * t) for c in range(channels)], axis=1)
    soundfile.write(path, tones, rate, subtype="FLOAT")
    result = run("separate", path, "--mute", "drums", "-o", tmp_path / "out.wav", "--model", model)
    assert result.exit_code == 0, result.output
    audio, out_rate = soundfile.read(tmp_path / "out.wav", always_2d=True)
    assert (out_rate, audio.shape) == (rate, (rate, out_channels))
    middle = slice(rate // 4, rate * 3 // 4)
    np.testing.assert_allclose(audio[middle], 0.5 * tones[middle, :out_channels], atol=2e-4)


def test_nan_is_replaced_and_said(run: Run, model: Path, tmp_path: Path, recording: Audio) -> None:
    bad = recording.copy()
    bad[:, 500:503] = np.nan
    path = tmp_path / "nan.wav"
    soundfile.write(path, bad.T, 44100, subtype="FLOAT")
    result = run("separate", path, "--mute", "bass", "-o", tmp_path / "out.wav", "--model", model)
    assert result.exit_code == 0, result.output
    assert "6 samples were NaN" in result.stderr
    audio = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    np.testing.assert_array_equal(audio, 0.75 * np.nan_to_num(bad, nan=0.0))


def test_a_full_disk_leaves_no_half_file(spawn: Spawn, model: Path, song: Path, tmp_path: Path) -> None:
    def little_room() -> None:  # the kernel refuses to let files grow beyond this, as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    args = ("separate", song, "-o", tmp_path / "out", "--model", model)
    process = spawn(*args, preexec_fn=little_room)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot be written" in talk
    assert "Traceback" not in talk
    assert list((tmp_path / "out" / "song").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(spawn: Spawn, model: Path, song: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        for args in (("separate", song, "-o", disk / "out"), ("demo", "--fast", "--seconds", "6", "-o", disk / "demo")):
            process = spawn(*args, "--model", model)
            _, talk = process.communicate(timeout=60)
            assert process.returncode == 1
            assert "No space left on device" in talk
            assert "Traceback" not in talk
            assert not [p for p in disk.rglob("*") if p.suffix == ".part"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_progress_is_a_line_with_the_time_left_where_there_is_no_terminal(
    run: Run, model: Path, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtsep.cli.common.PROGRESS_EVERY_S", 0.0)
    args = ("separate", song, "--mute", "bass", "-o", tmp_path / "out.wav", "--model", model)
    lines = [line for line in run(*args).stderr.splitlines() if line.startswith("song.wav: ")]
    percents = [int(line.split()[1]) for line in lines]
    assert len(percents) >= 5
    assert percents == sorted(percents)
    assert all(line.endswith(" left") for line in lines)
    assert "left" not in run("-q", *args).stderr
