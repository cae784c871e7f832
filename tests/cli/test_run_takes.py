"""The record button of ``rtsep run``: takes begin and end while it plays, and outlive every end of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import termios
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Run, Spawn
from tests.cli.test_run import read_until, terminal

STEMS = ("drums", "bass", "other", "vocals")
PLAYS = ("--backend", "dummy", "--samplerate", 44100, "--input-file")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def is_whole(folder: Path) -> int:
    """Check that the stems of a take add up to its mix, and return how many frames it has."""
    stems = [soundfile.read(folder / f"{stem}.wav", dtype="float32")[0] for stem in STEMS]
    mix = soundfile.read(folder / "mix.wav", dtype="float32")[0]
    assert np.abs(np.sum(stems, axis=0) - mix).max() < 1e-6
    for file in folder.glob("*.wav"):
        assert file.stat().st_size == 94 + 8 * len(mix)
    return len(mix)


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / "long.wav"
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, (44100 * 60, 2)).astype(np.float32)
    soundfile.write(path, audio, 44100, subtype="FLOAT")
    return path


def test_a_take_of_a_whole_run_and_a_setup_that_does_not_keep_it(
    run: Run, model: Path, song: Path, tmp_path: Path
) -> None:
    takes, gig = tmp_path / "takes", tmp_path / "gig.toml"
    args = ("run", model, *PLAYS, song, "--takes", takes, "--set", "record/on=true", "--save-setup", gig, "--json")
    result = run(*args)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["takes"]
    assert [take["folder"] for take in found["done"]] == [str(takes / "take-001")]
    assert found["error"] is None
    assert f"Take     {takes / 'take-001'}" in result.stderr
    assert is_whole(takes / "take-001") > 44100
    assert "record/on" not in tomllib.loads(gig.read_text())["parameters"]
    result = run("run", "--setup", gig, "--json")
    assert result.exit_code == 0, result.output
    assert "takes" not in json.loads(result.stdout)
    assert len(list(takes.iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_take(
    spawn: Spawn, model: Path, long_song: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = spawn("run", model, *PLAYS, long_song, "--set", "record/on=true")
    take = tmp_path / "takes" / "take-001"
    deadline = time.monotonic() + 30
    while not (take / "mix.wav").exists() or (take / "mix.wav").stat().st_size < 200_000:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    out, talk = process.communicate(timeout=30)
    assert process.returncode == CODES[number], out + talk
    assert "Traceback" not in talk
    assert "Take     takes/take-001" in talk
    assert is_whole(take) > 20_000


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk_is_said_once_and_the_sound_goes_on(
    spawn: Spawn, model: Path, long_song: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        process = spawn(
            "run", model, *PLAYS, long_song, "--seconds", 6, "--takes", disk / "takes", "--set", "record/on=true",
            "--json",
        )  # fmt: skip
        out, talk = process.communicate(timeout=60)
        assert process.returncode == 0, talk
        assert talk.count("No space left on device") == 1, talk
        document = json.loads(out)
        assert "No space left on device" in document["takes"]["error"]
        assert document["stats"]["hops"] > 4.5 * 44100 / 512, "the sound went on"
        (take,) = (disk / "takes").iterdir()
        lengths = []
        for file in take.glob("*.wav"):
            frames = soundfile.info(file).frames
            assert file.stat().st_size == 94 + 8 * frames
            assert len(soundfile.read(file)[0]) == frames
            lengths.append(frames)
        assert len(lengths) == 5
        assert min(lengths) > 22_050
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_key_begins_and_ends_a_take(spawn: Spawn, model: Path, long_song: Path, tmp_path: Path) -> None:
    t = terminal(spawn, "run", model, *PLAYS, long_song)
    try:
        read_until(t.master, "? for keys")
        while termios.tcgetattr(t.slave)[3] & termios.ICANON:
            time.sleep(0.01)
        for number in (1, 2):
            os.write(t.master, b"R")
            read_until(t.master, f"RECORDING takes/take-00{number}   0:01.")
            os.write(t.master, b"R")
            read_until(t.master, f"Take     takes/take-00{number}  ")
        os.write(t.master, b"q")
        out, _ = t.process.communicate(timeout=20)
        assert t.process.returncode == 0, out
    finally:
        t.process.kill()
        t.process.wait()
        t.process.stdout.close()
        os.close(t.master)
        os.close(t.slave)
    for number in (1, 2):
        assert is_whole(tmp_path / "takes" / f"take-00{number}") > 44_100
