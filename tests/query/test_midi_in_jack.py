"""``rtsep synth --live`` and ``rtsep run --score-in`` with a player on a real JACK server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Run, Spawn, run, spawn  # noqa: F401
from tests.integration.jack import JackServer, jack_server, need_tools
from tests.support.pitch import cents, pitch_of
from tests.support.query_graphs import RATE, hertz, make_family

pytestmark = pytest.mark.integration

# A player of its own: rtmidi must not be in the process of the tests when their server ends.
PLAYER = """
import sys, time, rtmidi
out = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, name="player")
out.open_virtual_port("keys")
print("ready", flush=True)
for line in sys.stdin:
    out.send_message([int(word) for word in line.split()])
"""


@pytest.fixture
def server() -> Iterator[JackServer]:
    need_tools()
    with jack_server() as running:
        yield running


@pytest.fixture
def here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    make_family(tmp_path)
    soundfile.write("oboe.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE), RATE, subtype="FLOAT")
    assert run("enroll", "oboe.wav", "-o", "oboe.query", "--model", "msi.onnx").exit_code == 0
    return tmp_path


@pytest.fixture
def player(server: JackServer) -> Iterator[Callable[..., None]]:
    environment = {**os.environ, "JACK_DEFAULT_SERVER": server.name, "JACK_NO_START_SERVER": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PLAYER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    def play(*message: int) -> None:
        assert process.stdin is not None
        process.stdin.write(" ".join(map(str, message)) + "\n")
        process.stdin.flush()

    try:
        yield play
    finally:
        process.kill()
        process.communicate()


def test_keys_play_the_enrolled_sound(
    server: JackServer,
    here: Path,
    player: Callable[..., None],
    spawn: Spawn,  # noqa: F811
) -> None:
    synth = spawn(
        "synth", "--live", "--query", "oboe.query", "--model", "msi.onnx", "-o", "system", "--seconds", "6", "--json"
    )
    server.wait_for_port("rtsep:out_0")
    server.wait_for_port("rtsep-midi:notes")
    server.command("jack_connect", "player:keys", "rtsep-midi:notes")
    recording = server.capture(here / "heard.wav", 2.5, "rtsep:out_0", "rtsep:out_1")
    time.sleep(0.8)
    player(0x90, 72, 100)
    time.sleep(0.8)
    player(0x80, 72, 0)
    audio = server.captured(recording, here / "heard.wav", 2.5)
    out, talk = synth.communicate(timeout=30)
    assert synth.returncode == 0, talk
    assert '"notes": 1' in out
    channel = audio[0] if len(audio) == 2 else audio[:, 0]
    loud = np.flatnonzero(np.abs(channel) > 0.01)
    assert 0.7 < (loud[-1] - loud[0]) / 48000 < 1.1
    piece = channel[loud[0] + 4800 : loud[0] + 24000]
    assert abs(cents(pitch_of(piece, 48000), hertz(72))) < 10


def test_keys_are_the_score_of_the_model(
    server: JackServer,
    here: Path,
    player: Callable[..., None],
    spawn: Spawn,  # noqa: F811
) -> None:
    """With the score leading, the test model's query stem is the input while a key is down, and silence otherwise."""
    tone = 0.4 * np.sin(2 * np.pi * 300 * np.arange(20 * 48000) / 48000)
    soundfile.write("tone.wav", np.stack([tone, tone], 1), 48000, subtype="FLOAT")
    live = spawn(
        "run", "msi.onnx", "--query", "oboe.query", "--solo", "query", "--score-in", "virtual",
        "-i", "system", "-o", "system", "--seconds", "8",
    )  # fmt: skip
    server.wait_for_port("rtsep:out_0")
    server.wait_for_port("rtsep-midi:notes")
    server.command("jack_connect", "player:keys", "rtsep-midi:notes")
    server.play(here / "tone.wav")
    time.sleep(0.5)
    recording = server.capture(here / "heard.wav", 3.0, "rtsep:out_0", "rtsep:out_1")
    time.sleep(1.0)
    player(0x90, 60, 100)
    time.sleep(1.0)
    player(0x80, 60, 0)
    audio = server.captured(recording, here / "heard.wav", 3.0)
    _, talk = live.communicate(timeout=30)
    assert live.returncode == 0, talk
    channel = audio[0] if len(audio) == 2 else audio[:, 0]
    level = np.sqrt(np.mean(np.square(channel[: len(channel) // 4800 * 4800].reshape(-1, 4800)), axis=1))
    assert 8 <= np.count_nonzero(level > 0.2) <= 12
    assert level[:5].max() < 0.01
    assert level[-5:].max() < 0.01
