"""``rtsep enroll --live`` through PortAudio on a real JACK server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.query.queries import Query
from tests.cli.conftest import Spawn, spawn  # noqa: F401
from tests.integration.jack import jack_server, need_tools
from tests.support.query_graphs import SIZE

pytestmark = pytest.mark.integration


def test_an_instrument_is_learnt_from_a_device(spawn: Spawn, family: Path, tmp_path: Path) -> None:  # noqa: F811
    need_tools()
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(30 * 48000) / 48000)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], 1), 48000, subtype="FLOAT")
    with jack_server() as server:
        process = spawn("enroll", "--live", "6", "-i", "system", "-o", "oboe.query", "--model", family)
        server.wait_for_port("rtsep:in_0")
        server.play(tmp_path / "tone.wav")
        out, talk = process.communicate(timeout=60)
    assert process.returncode == 0, talk
    assert out == "oboe.query\n"
    query = Query.load(tmp_path / "oboe.query")
    assert query.source == "live from system"
    assert 1.0 <= query.seconds <= 6.01
    # The encoder of the test model gives tanh of the mean absolute value, times 1 to 6; the mean of a sine's is known.
    np.testing.assert_allclose(query.vector, np.tanh(0.4 * 2 / np.pi * np.arange(1, SIZE + 1)), rtol=0.05)
