"""Ctrl+C and SIGTERM at any moment: every file is whole or absent, and the exit code says what happened."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Spawn

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# Before Python code runs, the operating system's own answer counts.
EARLY = {signal.SIGINT: {-2, 1, 130}, signal.SIGTERM: {-15, 143}}


def stop(process: subprocess.Popen[str], number: signal.Signals, after_s: float) -> str:
    """Let it run, send the signal, and return what it said; the process must end by itself."""
    time.sleep(after_s)
    process.send_signal(number)
    out, talk = process.communicate(timeout=30)
    return out + talk


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / "long.wav"
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, (44100 * 20, 2)).astype(np.float32)
    soundfile.write(path, audio, 44100, subtype="FLOAT")
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("trial", range(5))
def test_separate_is_whole_or_absent(
    spawn: Spawn, slow_model: Path, long_song: Path, tmp_path: Path, number: signal.Signals, trial: int
) -> None:
    delay = random.Random(f"{number}{trial}").uniform(0.02, 2.5)
    process = spawn("separate", long_song, "-o", "out", "--model", slow_model)
    talk = stop(process, number, delay)
    files = list(tmp_path.rglob("*.wav*"))
    if process.returncode == 0:
        assert len(files) == 4
    else:
        assert process.returncode in EARLY[number], talk
    for file in files:
        assert file.suffix == ".wav", f"{file} is a leftover"
        assert soundfile.info(file).frames == 44100 * 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_separate_in_full_swing_exits_130_or_143(
    spawn: Spawn, slow_model: Path, long_song: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = spawn("separate", long_song, "-o", "out", "--model", slow_model)
    until = time.monotonic() + 20
    while not list(tmp_path.rglob("*.part")) and time.monotonic() < until:
        time.sleep(0.005)
    talk = stop(process, number, 0.2)
    assert process.returncode == CODES[number], talk
    assert "Traceback" not in talk
    assert list(tmp_path.rglob("*.wav*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.9])
def test_run_closes_its_recordings(
    spawn: Spawn, model: Path, long_song: Path, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    process = spawn(
        "run", model, "--backend", "file", "-i", long_song, "-o", "out.wav", "--record", "take.wav", "--stats", "s.json"
    )
    until = time.monotonic() + 20
    while not (tmp_path / "take.wav").exists() and time.monotonic() < until:
        time.sleep(0.002)
    talk = stop(process, number, delay)
    assert process.returncode == CODES[number], talk
    assert "Traceback" not in talk
    for name in ("out.wav", "take.wav"):
        info = soundfile.info(tmp_path / name)
        assert info.channels == 2
        assert len(soundfile.read(tmp_path / name)[0]) == info.frames
    if delay > 0.5:
        assert soundfile.info(tmp_path / "take.wav").frames > 4410
        assert "Stopped after" in talk


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.6, 2.0])
def test_demo_leaves_valid_files(
    spawn: Spawn, model: Path, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    process = spawn("demo", "--seconds", "6", "-o", "d", "--model", model)
    talk = stop(process, number, delay)
    assert process.returncode in EARLY[number], talk
    for file in tmp_path.rglob("*.wav*"):
        assert file.suffix == ".wav"
        soundfile.info(file)
    assert not (tmp_path / "d" / "report.json").exists()
