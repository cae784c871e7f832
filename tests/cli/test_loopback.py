"""``rtsep latency --measure`` through a real JACK server with a cable from output to input."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from rtsep.cli.loopback import _BURST_SAMPLES, _BURSTS, _find
from rtsep.errors import DeviceError
from tests.cli.conftest import Run, Spawn


def keep_wired(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """Connect out to in of every client that shows up until the process ends; return what it said."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        for client in ("rtsep", "PortAudio"):
            for channel in (0, 1):
                with contextlib.suppress(subprocess.SubprocessError):
                    ports = f"{client}:out_{channel}", f"{client}:in_{channel}"
                    subprocess.run(["jack_connect", *ports], capture_output=True, timeout=5, check=False)
        time.sleep(0.02)
    return process.communicate(timeout=5)


@pytest.mark.integration
@pytest.mark.parametrize("block", [0, 256])
def test_the_cable_agrees_with_the_sum(spawn: Spawn, model: Path, block: int) -> None:
    from tests.integration.jack import jack_server

    period = 256
    where = ("--backend", "portaudio", "-i", "system", "-o", "system", "-b", block)
    with jack_server(48000, period):
        process = spawn("latency", model, "--measure", *where, "--json")
        out, talk = keep_wired(process, 30)
    assert process.returncode == 0, talk
    document = json.loads(out)
    # JACK feeds a client's output back to its own input one period later; nothing else lies in this loop but the block
    # that PortAudio adds when it is given a size of its own.
    # A busy machine may lose a period under one burst; the median of the four is what is reported.
    assert document["round_trip_samples"].count(period + block) >= 3
    assert document["measured_samples"] == period + block + document["stream_samples"]
    if block == 0:
        assert document["measured_samples"] == document["total_samples"], "what was claimed is what the cable says"


@pytest.mark.integration
def test_without_a_cable_it_says_so(spawn: Spawn, model: Path) -> None:
    from tests.integration.jack import jack_server

    with jack_server(48000, 128):
        process = spawn("latency", model, "--measure", "--backend", "portaudio", "-b", "128")
        _, talk = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "0 of 4 test sounds came back" in talk
    assert "cable" in talk


def test_bursts_are_found_where_they_are_and_nowhere_in_noise() -> None:
    rng = np.random.default_rng(2)
    burst = rng.uniform(-1, 1, _BURST_SAMPLES).astype(np.float32)
    recording = (0.05 * rng.standard_normal(100_000)).astype(np.float32)
    spacing = 15_000
    expected = [300, 301, 4000, 12]
    for k, lag in enumerate(expected):
        at = spacing // 2 + k * spacing + lag
        recording[at : at + _BURST_SAMPLES] -= 0.3 * burst  # a card may turn the sign round
    assert len(expected) == _BURSTS
    assert _find(recording, burst, spacing) == expected
    lost = spacing // 2 + spacing + expected[1]
    recording[lost : lost + _BURST_SAMPLES] = 0.0
    assert _find(recording, burst, spacing) == [expected[0], *expected[2:]]
    lost = spacing // 2 + expected[0]
    recording[lost : lost + _BURST_SAMPLES] = 0.0
    with pytest.raises(DeviceError, match="2 of 4"):
        _find(recording, burst, spacing)
    with pytest.raises(DeviceError, match="0 of 4"):
        _find(rng.standard_normal(100_000).astype(np.float32), burst, spacing)


def test_devices_belong_to_measuring(run: Run, model: Path) -> None:
    result = run("latency", model, "-i", "0")
    assert result.exit_code == 2
    assert "--measure --backend portaudio" in result.stderr
