"""A running engine, its notes process and a port: what was played comes out, in time, and never hangs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.engine import Engine
from rtsep.errors import AudioFileError, DeviceError, EngineError, UsageError
from rtsep.notes.live import LiveNotes
from tests.notes.conftest import LENGTH_S, MELODY, melody
from tests.support.graphs import make_delay_model

RATE = 48000
BEFORE_S = 5  # the notes process has begun to listen by then, on a busy machine too
Files = dict[str, Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_delay_model(tmp_path_factory.mktemp("m") / "model.onnx", hop=512, latency=512)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Silence while everything starts, the melody, silence until all is said."""
    before, after = np.zeros((2, BEFORE_S * RATE), np.float32), np.zeros((2, RATE), np.float32)
    audio = np.concatenate([before, melody(RATE, 2), after], axis=1)
    soundfile.write(tmp_path / "song.wav", audio.T, RATE, subtype="FLOAT")
    return tmp_path / "song.wav"


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def played(log: Path) -> list[tuple[float, str, int, int]]:
    """What a ``log:`` port got: (seconds, on or off, channel, note)."""
    found = []
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        message = mido.Message.from_bytes(
            bytes.fromhex(entry["bytes"]) if isinstance(entry["bytes"], str) else entry["bytes"]
        )
        if message.type in ("note_on", "note_off"):
            time_s = next(value for key, value in entry.items() if key != "bytes" and isinstance(value, float))
            found.append((time_s, message.type.removeprefix("note_"), message.channel + 1, message.note))
    return found


def hanging(log: Path) -> set[tuple[int, int]]:
    sounding: set[tuple[int, int]] = set()
    for _, kind, channel, note in played(log):
        (sounding.add if kind == "on" else sounding.discard)((channel, note))
    return sounding


def test_notes_of_a_stem_come_out_at_a_constant_delay_and_are_recorded(
    model: Path, transcribers: Files, song: Path, tmp_path: Path
) -> None:
    with (
        Engine(model, backend=FileConfig(str(song)), tap=True) as engine,
        LiveNotes(
            engine, f"log:{tmp_path}/midi.log", transcribers=transcribers, stems=["other"], take=tmp_path / "take"
        ) as notes,
    ):
        assert 0.08 < notes.delays_s["other"] < 0.2
        engine.wait(20)
    came = [entry for entry in played(tmp_path / "midi.log") if entry[1] == "on"]
    assert [note for *_, note in came] == [pitch for _, _, pitch in MELODY]
    gaps = np.diff([time_s for time_s, *_ in came])
    assert gaps == pytest.approx(np.diff([start for start, _, _ in MELODY]), abs=0.03)
    assert not hanging(tmp_path / "midi.log")

    take = tmp_path / "take"
    recorded = [n for track in mido.MidiFile(take / "notes.mid").tracks for n in track if n.type == "note_on"]
    assert [n.note for n in recorded] == [pitch for _, _, pitch in MELODY]
    logged = [json.loads(line) for line in (take / "notes.jsonl").read_text().splitlines()[1:]]
    onsets = [entry["on"] for entry in logged if "on" in entry]
    assert onsets == pytest.approx([BEFORE_S + start for start, _, _ in MELODY], abs=0.03)
    # The stem is the song times its gain, in its place, to the sample.
    stem, rate = soundfile.read(take / "other.wav", dtype="float32")
    whole, _ = soundfile.read(song, dtype="float32")
    part = slice(BEFORE_S * RATE, round((BEFORE_S + LENGTH_S) * RATE))
    assert rate == RATE
    assert np.abs(whole[part]).max() > 0.3
    assert np.array_equal(stem[part], whole[part] * np.float32(0.25))


def test_muted_stem_is_released_and_the_switch_says_otherwise(
    model: Path, transcribers: Files, song: Path, tmp_path: Path
) -> None:
    for muted_too in (False, True):
        log = tmp_path / f"{muted_too}.log"
        with (
            Engine(model, backend=FileConfig(str(song)), tap=True, mute=["other"]) as engine,
            LiveNotes(engine, f"log:{log}", transcribers=transcribers, stems=["other"], muted_too=muted_too),
        ):
            engine.wait(20)
        assert bool(played(log)) is muted_too


@pytest.mark.parametrize("victim", ["engine", "notes"])
def test_no_note_hangs_when_a_process_is_killed(model: Path, transcribers: Files, tmp_path: Path, victim: str) -> None:
    log = tmp_path / "midi.log"
    engine = Engine(model, backend=DummyConfig(source="sine"), tap=True)
    engine.start()
    notes = LiveNotes(engine, f"log:{log}", transcribers=transcribers, stems=["other"])
    try:
        notes.start()
        until(lambda: log.exists() and bool(hanging(log)))
        os.kill(engine.pid if victim == "engine" else notes.pid, signal.SIGKILL)
        until(lambda: not hanging(log))
        if victim == "notes":
            until(lambda: not notes.running)
            assert isinstance(notes.exit_error, EngineError)
            before = engine.stats().hops
            until(lambda: engine.stats().hops > before + 20)  # the sound goes on
    finally:
        notes.stop()
        engine.stop()
    assert not hanging(log)


def test_dial_and_panic_while_it_plays(model: Path, transcribers: Files, tmp_path: Path) -> None:
    log = tmp_path / "midi.log"
    with (
        Engine(model, backend=DummyConfig(source="sine"), tap=True) as engine,
        LiveNotes(engine, f"log:{log}", transcribers=transcribers, stems=["other"]) as notes,
    ):
        until(lambda: log.exists() and bool(hanging(log)))
        normal = notes.delays_s["other"]
        notes.set_latency("quality")
        until(lambda: notes.delays_s["other"] > normal + 0.05)
        begun = notes.status["notes"]
        until(lambda: notes.status["notes"] > begun)
        notes.panic()
        with pytest.raises(UsageError, match="no latency"):
            notes.set_latency("slow")
    assert not hanging(log)


def test_what_cannot_be_is_said_before_anything_plays(
    model: Path, transcribers: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(model, backend=DummyConfig()) as engine, pytest.raises(UsageError, match="tap=True"):
        LiveNotes(engine)
    with Engine(model, backend=DummyConfig(), tap=True) as engine:
        with pytest.raises(DeviceError):
            LiveNotes(engine, "no such port anywhere", transcribers=transcribers).start()
        (tmp_path / "take").mkdir()
        (tmp_path / "take" / "drums.wav").write_bytes(b"precious")
        with pytest.raises(AudioFileError, match="is there already"):
            LiveNotes(engine, transcribers=transcribers, take=tmp_path / "take").start()
        assert (tmp_path / "take" / "drums.wav").read_bytes() == b"precious"
