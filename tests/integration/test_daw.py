"""A real DAW records what a running engine writes down: Ardour, without its windows, on a real JACK server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.engine import Engine
from rtsep.notes.live import LiveNotes
from tests.integration.jack import jack_server, need_tools
from tests.notes.midi_receiver import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("ardour_record.lua")
SECONDS = 12.0


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    need_tools("ardour7-lua", packages="ardour")


def plucked_notes(path: Path, pitches: list[int], samplerate: int) -> None:
    """Write decaying harmonic notes, two a second, after a second of silence."""
    time = np.arange(int(0.5 * samplerate)) / samplerate
    parts = [np.zeros(samplerate)]
    for pitch in pitches:
        first = 440.0 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.exp(-(4 + 2 * k) * time) * np.sin(2 * np.pi * k * first * time) / k for k in range(1, 9))
        parts.append(0.15 * np.minimum(time / 0.003, 1) * np.minimum((0.5 - time) / 0.01, 1) * tone)
    audio = np.concatenate([*parts, np.zeros(samplerate)]).astype(np.float32)
    soundfile.write(path, np.stack([audio, audio], axis=1), samplerate, subtype="FLOAT")


def test_ardour_records_the_notes_of_a_running_engine(tmp_path: Path) -> None:
    pitches = [60, 64, 67, 72, 71, 67, 62, 65, 69, 74, 72, 67]
    plucked_notes(tmp_path / "song.wav", pitches, 48_000)
    with jack_server(period=256) as server:
        environment = {**os.environ, "HOME": str(tmp_path), "SESSION": str(tmp_path / "s"), "SECONDS": str(SECONDS)}
        with (tmp_path / "ardour.txt").open("w") as said:
            ardour = subprocess.Popen(
                ["ardour7-lua", str(SCRIPT)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        server.clients.append(ardour)

        def lines(word: str) -> list[list[str]]:
            rows = [line.split(" ", 1) for line in (tmp_path / "ardour.txt").read_text().splitlines()]
            return [row for row in rows if row[0] == word]

        with Engine("low", tap=True) as engine, LiveNotes(engine, "virtual", take=tmp_path / "take") as notes:
            wait_for(lambda: lines("ready"), 40.0, "Ardour is ready")
            port = lines("ready")[0][1]
            midi = notes.status["midi"]
            assert midi is not None
            server.command("jack_connect", midi.port, port)
            wait_for(lambda: lines("rolling"), 10.0, "Ardour rolls")
            server.play(tmp_path / "song.wav")
            wait_for(lambda: lines("done"), SECONDS + 20.0, "Ardour has stopped")
            late = engine.stats().late_hops
        recorded = [[float(x) for x in row[1].split()] for row in lines("note")]
    log = [json.loads(line) for line in (tmp_path / "take/notes.jsonl").read_text().splitlines()[1:]]
    strips = json.loads((tmp_path / "take/notes.jsonl").read_text().splitlines()[0])["strips"]
    played = [(e["emit"], strips[e["stem"]]["channel"] - 1, e["pitch"], e["velocity"]) for e in log if "on" in e]
    print(f"{len(played)} notes played, {len(recorded)} recorded by Ardour, {late} late hops")
    # What was played is the tune, or most of it (how well it is heard is measured elsewhere); Ardour has every note.
    assert len(set(pitches) & {pitch for _, _, pitch, _ in played}) >= 0.7 * len(set(pitches))
    assert sorted(note[2:] for note in recorded) == sorted(list(note[1:]) for note in played)
    # At the distances at which they were given out.
    shifts = np.subtract(sorted(note[0] for note in recorded), sorted(note[0] for note in played))
    assert np.ptp(shifts) < 0.02
    assert all(length > 0 for _, length, *_ in recorded)
