"""Models, recordings and ways to run the command, in this process and as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from rtsep.cli import main
from tests.support.graphs import make_delay_model

ROOT = Path(__file__).resolve().parents[2]
GAINS = (0.5, 0.25, 0.125, 0.125)
Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drums .5, bass .25, other .125, vocals .125 of the input, 700 samples late."""
    return make_delay_model(tmp_path_factory.mktemp("model") / "delay.onnx", hop=512, latency=700, gains=GAINS)


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `model`, with work for some milliseconds a hop, so that there is time to interrupt it."""
    path = tmp_path_factory.mktemp("model") / "slow.onnx"
    return make_delay_model(path, hop=512, latency=700, gains=GAINS, ballast=30)


@pytest.fixture(scope="session")
def recording() -> NDArray[np.float32]:
    """Two seconds of stereo noise [2, T] at 44.1 kHz."""
    return np.random.default_rng(3).uniform(-0.3, 0.3, (2, 88200)).astype(np.float32)


@pytest.fixture
def song(tmp_path: Path, recording: NDArray[np.float32]) -> Path:
    """The recording as a float WAV."""
    path = tmp_path / "song.wav"
    soundfile.write(path, recording.T, 44100, subtype="FLOAT")
    return path


@pytest.fixture
def run() -> Run:
    """Run ``rtsep ARGS...`` in this process; stdout and stderr are kept apart."""

    def call(*args: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in args], prog_name="rtsep")

    return call


def environment() -> dict[str, str]:
    """The environment in which a process finds this checkout."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def spawn(tmp_path: Path) -> Spawn:
    """Start ``rtsep ARGS...`` as a process in `tmp_path`."""

    def start(*args: object, **more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "rtsep", *(str(a) for a in args)],
            **{  # type: ignore[call-overload]
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "cwd": tmp_path,
                "env": environment(),
                **more,
            },
        )

    return start
