"""Takes that begin and end while an engine plays: everything in its place, whatever happens meanwhile."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.audio.song_config import SongConfig
from rtsep.control.record import ON, add_record, press
from rtsep.control.registry import engine_registry
from rtsep.engine import Engine
from rtsep.errors import UsageError
from rtsep.notes.live import LiveNotes
from rtsep.takes.live import LiveTakes
from tests.notes.conftest import MELODY, melody
from tests.support.graphs import make_delay_model

RATE = 48_000
STEMS = ("drums", "bass", "other", "vocals")
GAINS = (0.5, 0.25, 0.125, 0.125)
BEFORE_S = 5  # the notes process has begun to listen by then, on a busy machine too
PATIENCE_S = 20.0
Audio = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stems are parts of the input that add up to it, 700 samples late."""
    return make_delay_model(tmp_path_factory.mktemp("m") / "model.onnx", hop=512, latency=700, gains=GAINS)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / "noise.wav"
    audio = np.random.default_rng(5).uniform(-0.3, 0.3, (60 * RATE, 2)).astype(np.float32)
    soundfile.write(path, audio, RATE, subtype="FLOAT")
    return path


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def length(takes: LiveTakes, engine: Engine) -> float:
    """Seconds of the take that runs; 0 while none does."""
    since_s = takes.state.since_s
    return 0.0 if since_s is None else engine.position_samples / engine.samplerate - since_s


def record(takes: LiveTakes, engine: Engine, seconds: float) -> Path:
    """Record for some time, and return the take's folder when its files are closed."""
    count = len(takes.state.done)
    takes.start()
    until(lambda: length(takes, engine) > seconds, f"a take of {seconds} s")
    takes.stop()
    until(lambda: len(takes.state.done) > count, "the end of the take")
    folder, long_s = takes.state.done[-1]
    assert long_s > seconds - 0.1
    return folder


def read(folder: Path) -> tuple[Audio, Audio]:
    """Stems [S, T, C] and mix [T, C]."""
    stems = [soundfile.read(folder / f"{stem}.wav", dtype="float32", always_2d=True) for stem in STEMS]
    mix, rate = soundfile.read(folder / "mix.wav", dtype="float32", always_2d=True)
    assert {rate, *(found for _, found in stems)} == {RATE}
    return np.stack([audio for audio, _ in stems]), mix


def place(mix: Audio, song: Audio, at: int) -> int:
    """Where in a song the mix at frame `at` comes from."""
    part = mix[at : at + 64, 0]
    (found,) = [i for i in np.flatnonzero(song[:, 0] == part[0]) if np.array_equal(song[i : i + 64, 0], part)]
    return int(found) - at


def test_stems_and_mix_are_what_was_captured_to_the_sample(model: Path, noise: Path, tmp_path: Path) -> None:
    """A file plays on its own clock, so that what was captured at which frame is known; the run gives out no stems."""
    song = soundfile.read(noise, dtype="float32")[0]
    said: list[str] = []
    with (
        Engine(model, backend=FileConfig(str(noise)), mute=["vocals"]) as engine,
        LiveTakes(engine, tmp_path / "takes", tell=said.append) as takes,
    ):
        until(lambda: engine.position_samples > RATE, "a second")
        takes.start()
        until(lambda: takes.state.since_s is not None, "the take")
        start = round(takes.state.since_s * RATE)  # type: ignore[operator]
        assert engine.tapped
        with pytest.raises(UsageError, match="while notes or a take are written"):
            engine.change_model(model)
        until(lambda: length(takes, engine) > 1.0, "a second of it")
        engine.set_mute("vocals", False)
        until(lambda: length(takes, engine) > 2.0, "two seconds of it")
        takes.stop()
        until(lambda: takes.state.done, "its end")
        until(lambda: not engine.tapped, "the end of giving out stems")
        assert engine.stats().late_hops == engine.stats().model_resets == 0
        engine.change_model(model)
    folder, seconds = takes.state.done[0]
    assert folder == tmp_path / "takes" / "take-001"
    assert {path.name for path in folder.iterdir()} == {*(f"{stem}.wav" for stem in STEMS), "mix.wav"}
    stems, mix = read(folder)
    assert stems.shape[1] == len(mix) == round(seconds * RATE) > 2 * RATE
    whole = song[start : start + len(mix)]
    assert np.abs(stems.sum(0) - whole).max() < 1e-6
    # Muted first, then not: the mix is the sum of what is heard, in the same place.
    begun = RATE // 2
    assert np.abs(mix[:begun] - stems[:3, :begun].sum(0)).max() < 1e-6
    assert np.abs(mix[-RATE // 2 :] - stems[:, -RATE // 2 :].sum(0)).max() < 1e-6
    assert said == [f"Take     {folder}  {seconds:.1f} s"]


def test_takes_follow_each_other_and_a_seek_moves_nothing(model: Path, noise: Path, tmp_path: Path) -> None:
    song = soundfile.read(noise, dtype="float32")[0]
    (tmp_path / "take-007").mkdir()
    (tmp_path / "take-x").mkdir()
    with (
        Engine(model, backend=DummyConfig(), song=SongConfig(str(noise)), tap=True) as engine,
        LiveTakes(engine, tmp_path) as takes,
    ):
        until(lambda: engine.song_position_s > 0.5, "the song")
        takes.start()
        until(lambda: length(takes, engine) > 1.0, "a second of it")
        engine.seek_song(30.0)
        until(lambda: length(takes, engine) > 3.0, "three seconds of it")
        takes.stop()
        takes.start()  # at once: it waits for the other, and begins where it was asked for
        until(lambda: len(takes.state.done) == 1 and length(takes, engine) > 1.0, "the next one")
        takes.stop()
        until(lambda: len(takes.state.done) == 2, "its end")
        lost = engine.stats()
    (first, _), (second, _) = takes.state.done
    assert (first.name, second.name) == ("take-008", "take-009")
    stems, mix = read(first)
    assert np.abs(stems.sum(0) - mix).max() < 1e-6
    begin, end = place(mix, song, 0), place(mix, song, len(mix) - RATE)
    assert begin < 2 * RATE
    assert end + len(mix) - RATE > 30 * RATE
    # What was captured is in its place before and after: between them lies the fade, and silence while the model began.
    assert np.array_equal(mix[: RATE // 2], song[begin : begin + RATE // 2])
    assert np.array_equal(mix[-RATE:], song[end + len(mix) - RATE : end + len(mix)])
    stems, mix = read(second)
    assert np.abs(stems.sum(0) - mix).max() < 1e-6
    if lost.model_resets == 1:  # the seek's: nothing lies between the two takes
        assert place(mix, song, 0) == end + len(read(first)[1])


def test_a_take_that_begins_while_the_model_changes_is_the_new_ones(noise: Path, tmp_path: Path) -> None:
    song = soundfile.read(noise, dtype="float32")[0]
    quick = make_delay_model(tmp_path / "quick.onnx", hop=128, latency=160, gains=GAINS)
    slow = make_delay_model(tmp_path / "slow.onnx", hop=1024, latency=3000, gains=GAINS)
    with (
        Engine(quick, backend=FileConfig(str(noise), blocksize=128)) as engine,
        LiveTakes(engine, tmp_path / "takes") as takes,
    ):
        record(takes, engine, 0.3)
        changing = threading.Thread(target=engine.change_model, args=(slow,))
        changing.start()
        until(engine._changing.locked, "the change of the model")
        record(takes, engine, 0.5)
        changing.join(PATIENCE_S)
        assert engine.info.hop_samples == 1024
        record(takes, engine, 0.5)
    for folder, _ in takes.state.done:
        stems, mix = read(folder)
        assert np.abs(stems.sum(0) - mix).max() < 1e-6
        assert place(mix, song, len(mix) // 2) > 0


def test_a_take_at_another_rate_of_the_device_is_aligned(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700, gains=GAINS, samplerates=(44_100,))
    audio = 0.3 * np.sin(2 * np.pi * 440 * np.arange(30 * RATE) / RATE).astype(np.float32)
    audio[: 2 * RATE] = 0.0
    audio[3 * RATE :] = 0.0
    soundfile.write(tmp_path / "tone.wav", np.stack([audio, audio], 1), RATE, subtype="FLOAT")
    with (
        Engine(model, backend=FileConfig(str(tmp_path / "tone.wav"))) as engine,
        LiveTakes(engine, tmp_path / "takes") as takes,
    ):
        folder = record(takes, engine, 3.5)
    stem, stem_rate = soundfile.read(folder / "drums.wav", dtype="float32")
    mix, mix_rate = soundfile.read(folder / "mix.wav", dtype="float32")
    assert (stem_rate, mix_rate) == (44_100, RATE)
    assert len(stem) / stem_rate == pytest.approx(len(mix) / mix_rate, abs=1e-4)

    def middle_s(sound: Audio, rate: int) -> float:
        there = np.flatnonzero(np.abs(sound[:, 0]) > 0.02 * np.abs(sound).max())
        return float(there[0] + there[-1]) / 2 / rate

    assert middle_s(stem, stem_rate) == pytest.approx(middle_s(mix, mix_rate), abs=0.001)


def test_notes_are_in_their_place_and_end_with_the_take(
    model: Path, transcribers: dict[str, Path], tmp_path: Path
) -> None:
    """The last note sounds on when the take ends, and one sounds when it begins."""
    before = np.zeros((2, BEFORE_S * RATE), np.float32)
    rest = np.zeros((2, 20 * RATE), np.float32)
    rest[:] = 0.4 * np.sin(2 * np.pi * 440 * np.arange(20 * RATE) / RATE)
    audio = np.concatenate([before, melody(RATE, 2), rest], axis=1)
    soundfile.write(tmp_path / "song.wav", audio.T, RATE, subtype="FLOAT")
    with (
        Engine(model, backend=FileConfig(str(tmp_path / "song.wav")), tap=True) as engine,
        LiveNotes(engine, transcribers=transcribers, stems=["other"]) as notes,
        LiveTakes(engine, tmp_path / "takes", notes) as takes,
    ):
        registry = engine_registry(engine)
        add_record(registry, takes)
        until(lambda: engine.position_samples > 3 * RATE, "three seconds")
        assert press(registry, "keys") == "Recording."
        until(lambda: engine.position_samples > (BEFORE_S + 3.5) * RATE, "the melody")
        start_s = takes.state.since_s
        assert start_s is not None
        assert press(registry, "keys") == "The take ends."
        until(lambda: takes.state.done, "the end of the take")
        second = record(takes, engine, 0.5)
    folder, seconds = takes.state.done[0]
    found = {
        message.note: at
        for track in mido.MidiFile(folder / "notes.mid").tracks
        for message, at in absolute(track)
        if message.type == "note_on"
    }
    wanted = {pitch: BEFORE_S + at - start_s for at, _, pitch in MELODY}
    assert {pitch: found[pitch] for pitch in wanted} == pytest.approx(wanted, abs=0.03)
    ends = [
        at for track in mido.MidiFile(folder / "notes.mid").tracks for m, at in absolute(track) if m.type == "note_off"
    ]
    assert max(ends) == pytest.approx(seconds, abs=0.01)
    assert mido.MidiFile(second / "notes.mid").length == 0.0  # its only note began before it


def absolute(track: mido.MidiTrack) -> Iterator[tuple[mido.Message, float]]:
    """Messages with their seconds; the files play at 120 beats a minute."""
    at = 0
    for message in track:
        at += message.time
        yield message, at * 0.5 / 480


def test_a_folder_that_cannot_be_is_said_once_and_the_button_goes_back(
    model: Path, noise: Path, tmp_path: Path
) -> None:
    (tmp_path / "takes").write_text("not a folder")
    said: list[str] = []
    with (
        Engine(model, backend=FileConfig(str(noise))) as engine,
        LiveTakes(engine, tmp_path / "takes", tell=said.append) as takes,
    ):
        registry = engine_registry(engine)
        add_record(registry, takes)
        heard: list[tuple[str, object]] = []
        registry.subscribe(lambda path, value, source: heard.append((path, value)))
        registry.set(ON, True)
        until(lambda: not takes.on, "the end of it")
        registry.poll()
        assert heard == [(ON, True), (ON, False)]
        assert takes.state.error is not None
        assert "--takes FOLDER" in takes.state.error
        (tmp_path / "takes").unlink()
        record(takes, engine, 0.2)
        assert takes.state.error is None
    assert len([text for text in said if "no folder" in text.casefold()]) == 1


def test_notes_that_have_ended_leave_a_take_without_them(
    model: Path, noise: Path, transcribers: dict[str, Path], tmp_path: Path
) -> None:
    with Engine(model, backend=FileConfig(str(noise)), tap=True) as engine:
        notes = LiveNotes(engine, transcribers=transcribers, stems=["other"])
        notes.start()
        with LiveTakes(engine, tmp_path / "takes", notes) as takes:
            takes.start()
            until(lambda: length(takes, engine) > 0.5, "a take")
            notes.stop()
            takes.stop()
            until(lambda: takes.state.done, "its end")
            assert "Notes are missing" in str(takes.state.error)
            second = record(takes, engine, 0.3)
            assert takes.state.error is None
    first = takes.state.done[0][0]
    assert (first / "notes.mid").exists()
    assert not list(second.glob("notes*"))
    stems, mix = read(second)
    assert np.abs(stems.sum(0) - mix).max() < 1e-6


def test_an_engine_that_ends_closes_the_take(model: Path, tmp_path: Path) -> None:
    audio = np.random.default_rng(2).uniform(-0.3, 0.3, (2 * RATE, 2)).astype(np.float32)
    soundfile.write(tmp_path / "short.wav", audio, RATE, subtype="FLOAT")
    with Engine(model, backend=FileConfig(str(tmp_path / "short.wav"))) as engine:
        takes = LiveTakes(engine, tmp_path / "takes")
        takes.start()
        assert engine.wait(PATIENCE_S)
        until(lambda: takes.state.done, "the end of the take")
        assert not takes.on
        takes.close()
    stems, mix = read(takes.state.done[0][0])
    assert stems.shape[1] == len(mix) > RATE
    assert np.abs(stems.sum(0) - mix).max() < 1e-6


def test_a_full_disk_ends_the_take_once_and_the_sound_goes_on(model: Path, noise: Path, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import resource, signal, sys, time
        from rtsep.audio.backends import FileConfig
        from rtsep.engine import Engine
        from rtsep.takes.live import LiveTakes
        said = []
        with Engine(sys.argv[1], backend=FileConfig(sys.argv[2])) as engine:
            takes = LiveTakes(engine, sys.argv[3], tell=said.append)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
            takes.start()
            deadline = time.monotonic() + 20
            while takes.on and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not takes.on
            while not takes.state.done and time.monotonic() < deadline:
                time.sleep(0.02)
            hops = engine.stats().hops
            while engine.stats().hops < hops + 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert engine.stats().hops >= hops + 20
            takes.close()
        print(said)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, model, noise, tmp_path / "takes"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("cannot be written any further") == 1
    (folder,) = (tmp_path / "takes").iterdir()
    stems, mix = read(folder)  # every header is right
    for file in folder.iterdir():
        assert file.stat().st_size == 94 + 8 * soundfile.info(file).frames
    assert len(mix) <= (400_000 - 94) // 8
    both = min(stems.shape[1], len(mix))
    assert both > RATE // 2
    assert np.abs(stems[:, :both].sum(0) - mix[:both]).max() < 1e-6
