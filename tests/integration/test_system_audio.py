"""What the system plays as input: a PulseAudio daemon whose sink is a JACK client, as docs/input.md describes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.engine import Engine
from tests.integration.jack import JackServer, jack_server, need_tools
from tests.support.graphs import make_delay_model

pytestmark = pytest.mark.integration

PACKAGES = "pulseaudio pulseaudio-utils pulseaudio-module-jack"
RATE, HERTZ = 48_000, 440.0


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def server() -> Iterator[JackServer]:
    need_tools("pulseaudio", "pactl", "paplay", packages=PACKAGES)
    with jack_server(period=256) as running:
        yield running


@pytest.fixture
def system(server: JackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon of our own; programs find it and play into its sink."""
    socket, script = tmp_path / "native", tmp_path / "daemon.pa"
    script.write_text(
        f"load-module module-native-protocol-unix socket={socket} auth-anonymous=1\n"
        "load-module module-jack-sink sink_name=system client_name=programs channels=2 connect=no\n"
    )
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PULSE_SERVER", f"unix:{socket}")
    server.client("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-F", str(script))
    server.wait_for_port("programs:front-right")


def test_what_a_program_plays_is_found_in_the_input(system: None, server: JackServer, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700)
    tone = (0.25 * np.sin(2 * np.pi * HERTZ * np.arange(120 * RATE) / RATE)).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], 1), RATE)
    record = tmp_path / "record.wav"
    with Engine(model, input_device="programs", output_device="system", record=record) as engine:
        until(lambda: engine.stats().hops > 20)
        assert engine.meters().master_rms < 1e-3  # nothing plays, and what rtsep plays does not come back
        server.client("paplay", "--device=system", str(tmp_path / "tone.wav"))
        until(lambda: engine.meters().master_rms > 0.15)
        frame = engine.position_samples
        until(lambda: engine.position_samples > frame + 2 * RATE)
    heard = soundfile.read(record, dtype="float32", always_2d=True)[0][frame : frame + RATE, 0]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) == pytest.approx(HERTZ, abs=2)
    assert spectrum[435:446].sum() > 0.9 * spectrum.sum()
