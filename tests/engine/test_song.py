"""A file as live input: on the clock of a device, sought in and looped while it plays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.audio.backends import DummyConfig
from rtsep.audio.song_config import SongConfig
from rtsep.engine import Engine
from rtsep.errors import AudioFileError, UsageError
from tests.engine.conftest import Audio, read_frames

Noise = Callable[..., tuple[Path, Audio]]
RATE = 48_000
BEGUN = RATE // 10
"""The sine's own beginning, a corner, is heard before this."""


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sine_file(folder: Path, seconds: float, rate: int = RATE, channels: int = 2, hertz: float = 220.0) -> Path:
    """A sine at -12 dBFS."""
    times = np.arange(round(seconds * rate)) / rate
    path = folder / f"sine-{rate}-{channels}.wav"
    wave = (0.25 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
    soundfile.write(path, np.repeat(wave[:, None], channels, 1), rate, subtype="FLOAT")
    return path


def clicks(audio: Audio, amplitude: float = 0.25, hertz: float = 220.0) -> int:
    """Samples whose second difference no sine of this height has, not even under a fade of 5 ms."""
    omega = 2 * np.pi * hertz / RATE
    # Of a sine: a w^2; its fade over n samples adds 2 a w / n and a corner of a / n at either end.
    fade = 0.005 * RATE
    limit = 1.5 * amplitude * (omega**2 + 2 * omega / fade + 1 / fade)
    return int((np.abs(np.diff(audio, 2, axis=0)) > limit).any(axis=1).sum())


def test_the_click_detector_finds_a_jump() -> None:
    wave = (0.25 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)).astype(np.float32)[:, None]
    assert clicks(wave) == 0
    assert clicks(np.concatenate([wave[:10_030], wave[10_130:]])) > 0


def test_faders_at_zero_give_the_file_bit_for_bit_and_it_ends_with_it(
    model: Path, noise_file: Noise, tmp_path: Path
) -> None:
    path, audio = noise_file(60_000)
    record = tmp_path / "record.wav"
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(path)), record=record) as engine:
        assert engine.song_duration_s == pytest.approx(1.25)
        assert engine.wait(30.0)
        shift = engine.latency().total_samples
        stats = engine.stats()
    heard = read_frames(record)
    assert not heard[:shift].any()
    assert not stats.silent_samples
    np.testing.assert_array_equal(heard[shift : shift + len(audio)], audio)
    assert not heard[shift + len(audio) :].any()
    assert stats.song_late_samples == 0


def test_a_loop_keeps_its_length_and_fades_at_the_seam(model: Path, noise_file: Noise, tmp_path: Path) -> None:
    path, audio = noise_file(60_000)
    record = tmp_path / "record.wav"
    first, last, fade = 12_000, 36_000, 240
    config = SongConfig(str(path), loop=True, loop_from_s=first / RATE, loop_to_s=last / RATE)
    with Engine(model, backend=DummyConfig(), song=config, record=record) as engine:
        shift = engine.latency().total_samples
        until(lambda: engine.position_samples > shift + 3 * (last - first))
    heard = read_frames(record)[shift:]
    length = last - first
    for turn in range(2):
        part = heard[turn * length : (turn + 1) * length]
        np.testing.assert_array_equal(part[: length - fade], audio[first : last - fade])
        falling = (np.arange(fade, 0, -1, dtype=np.float32) / np.float32(fade + 1))[:, None]
        expected = audio[last - fade : last] * falling + audio[first - fade : first] * (1 - falling)
        np.testing.assert_allclose(part[length - fade :], expected, atol=1e-6)


def test_a_seek_has_no_click_resets_the_model_and_goes_where_it_should(model: Path, tmp_path: Path) -> None:
    path, record = sine_file(tmp_path, 30.0), tmp_path / "record.wav"
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(path)), record=record) as engine:
        until(lambda: engine.song_position_s > 0.5)
        resets = engine.stats().model_resets
        for place in (20.123, 3.0, 11.5):
            engine.seek_song(place)
            assert engine.song_position_s == place
            until(lambda place=place: place + 0.3 < engine.song_position_s < place + 3.0)  # type: ignore[misc]
        stats = engine.stats()
    assert stats.model_resets == resets + 3
    heard = read_frames(record)
    # Late hops are covered by the same sine here, so a busy machine makes no clicks of its own; lost blocks would.
    if not stats.xruns.total and not stats.silent_samples:
        assert clicks(heard[BEGUN:]) == 0
    quiet = np.abs(heard[:, 0]) < 1e-6
    assert quiet[RATE // 2 :].sum() > 3 * 700  # the silence of three seeks


def test_a_muted_stem_is_not_heard_over_a_seek(tmp_path: Path) -> None:
    from tests.support.graphs import make_delay_model

    alone = make_delay_model(tmp_path / "m.onnx", hop=512, latency=700, gains=(1.0, 0.0, 0.0, 0.0))
    path, record = sine_file(tmp_path, 30.0), tmp_path / "record.wav"
    with Engine(alone, backend=DummyConfig(), song=SongConfig(str(path)), mute=["drums"], record=record) as engine:
        until(lambda: engine.song_position_s > 1.0)
        engine.seek_song(20.0)
        until(lambda: engine.song_position_s > 20.5)
        stats = engine.stats()
    if not stats.late_hops and not stats.xruns.total:
        assert np.abs(read_frames(record)[RATE // 2 :]).max() < 1e-4


def test_pause_keeps_the_place_and_has_no_click(model: Path, tmp_path: Path) -> None:
    path, record = sine_file(tmp_path, 20.0), tmp_path / "record.wav"
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(path)), record=record) as engine:
        until(lambda: engine.song_position_s > 0.4)
        engine.play_song(False)
        assert not engine.song_playing
        frame = engine.position_samples
        until(lambda: engine.position_samples > frame + RATE // 5)
        place, frame = engine.song_position_s, engine.position_samples
        until(lambda: engine.position_samples > frame + RATE // 5)
        assert engine.song_position_s == place
        engine.play_song()
        until(lambda: engine.song_position_s > place + 0.2)
        stats = engine.stats()
    heard = read_frames(record)
    if not stats.xruns.total and not stats.silent_samples:
        assert clicks(heard[BEGUN:]) == 0
    assert (np.abs(heard[RATE // 2 :, 0]) < 1e-6).sum() > RATE // 5


def test_loop_points_and_speed_change_while_it_plays_without_a_click(model: Path, tmp_path: Path) -> None:
    path, record = sine_file(tmp_path, 30.0), tmp_path / "record.wav"
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(path)), record=record) as engine:
        until(lambda: engine.song_position_s > 0.3)
        engine.loop_song(True, 0.5, 1.0)
        turns = 0
        last = 0.0

        def gone_round() -> bool:
            nonlocal turns, last
            now = engine.song_position_s
            turns, last = turns + (now < last), now
            assert now < 1.01
            return turns >= 2

        until(gone_round)
        engine.loop_song(False)
        until(lambda: engine.song_position_s > 1.2)
        assert engine.stats().model_resets == 0
        engine.set_song_speed(0.5)
        frame, place = engine.position_samples, engine.song_position_s
        until(lambda: engine.position_samples > frame + RATE)
        moved = engine.song_position_s - place
        passed = (engine.position_samples - frame) / RATE
        assert moved == pytest.approx(passed / 2, abs=0.35)
        stats = engine.stats()
    if not stats.xruns.total and not stats.silent_samples:
        assert clicks(read_frames(record)[BEGUN:]) == 0
    assert stats.song_late_samples == 0


@pytest.mark.parametrize(("rate", "speed"), [(44_100, 1.0), (48_000, 0.8), (44_100, 1.5)])
def test_another_rate_or_speed_is_resampled_to_the_device(model: Path, tmp_path: Path, rate: int, speed: float) -> None:
    path, record = sine_file(tmp_path, 2.0, rate), tmp_path / "record.wav"
    song = SongConfig(str(path), speed=speed)
    with Engine(model, backend=DummyConfig(), song=song, record=record) as engine:
        assert engine.wait(30.0)
        shift = engine.latency().total_samples
    heard = read_frames(record)[shift:]
    frames = round(2.0 * RATE / speed)
    assert np.abs(heard[frames - 2000 : frames - 500]).max() > 0.2
    assert np.abs(heard[frames + 500 :]).max(initial=0.0) < 1e-3
    times = np.arange(2000, frames - 2000) / RATE
    expected = 0.25 * np.sin(2 * np.pi * 220 * speed * times)
    assert np.abs(heard[2000 : frames - 2000, 0] - expected).max() < 2e-4


def test_six_channels_and_one(model: Path, tmp_path: Path) -> None:
    path, record = sine_file(tmp_path, 0.5, channels=1), tmp_path / "one.wav"
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(path)), record=record) as engine:
        assert engine.wait(30.0)
    heard = read_frames(record)
    assert np.abs(heard).max() > 0.2
    np.testing.assert_array_equal(heard[:, 0], heard[:, 1])
    audio = (np.ones((24_000, 6)) * np.arange(1, 7) / 100).astype(np.float32)
    soundfile.write(tmp_path / "six.wav", audio, RATE, subtype="FLOAT")
    for channels, expected in ((None, (0.01, 0.02)), ((5, 6), (0.05, 0.06))):
        record = tmp_path / f"six-{channels}.wav"
        song = SongConfig(str(tmp_path / "six.wav"), channels=channels)
        with Engine(model, backend=DummyConfig(), song=song, record=record) as engine:
            assert engine.song_channels == 6
            assert engine.wait(30.0)
        np.testing.assert_allclose(read_frames(record).max(axis=0), expected, rtol=1e-5)


def test_bad_files_are_named(model: Path, tmp_path: Path) -> None:
    def fails(path: Path, match: str) -> None:
        with (
            pytest.raises(AudioFileError, match=match),
            Engine(model, song=SongConfig(str(path)), backend=DummyConfig()),
        ):
            pass

    fails(tmp_path / "none.wav", "no such file")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 2), np.float32), RATE)
    fails(tmp_path / "empty.wav", "no samples")
    (tmp_path / "text.wav").write_text("not audio")
    fails(tmp_path / "text.wav", "cannot be read as audio")


def test_a_file_damaged_half_way_plays_to_there_and_then_says_so(
    model: Path, noise_file: Noise, tmp_path: Path
) -> None:
    _, audio = noise_file(96_000)
    path, record = tmp_path / "song.flac", tmp_path / "record.wav"
    soundfile.write(path, audio, RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    engine = Engine(model, backend=DummyConfig(), song=SongConfig(str(path)), record=record)
    engine.start()
    with pytest.raises(AudioFileError, match="damaged"):
        engine.wait(30.0)
    engine.stop()
    assert (np.abs(read_frames(record)) > 0).any(axis=1).sum() > 20_000


def test_bad_loops_places_and_speeds_are_refused(model: Path, noise_file: Noise) -> None:
    path, _ = noise_file(96_000)
    for values, match in (
        ((3.0, 1.0), "A has to come before B"),
        ((1.0, 1.02), "too short"),
        ((-1.0, 1.0), "0 or later"),
        ((5.0, None), "not in the file"),
        ((0.5, 7.0), "not in the file"),
    ):
        with (
            pytest.raises(UsageError, match=match),
            Engine(model, backend=DummyConfig(), song=SongConfig(str(path), True, *values)),
        ):
            pass
    with pytest.raises(UsageError, match=r"0.5 to 1.5"):
        SongConfig(str(path), speed=2.0)
    with (
        pytest.raises(UsageError, match="channels"),
        Engine(model, backend=DummyConfig(), song=SongConfig(str(path), channels=(3, 4))),
    ):
        pass
    with Engine(model, backend=DummyConfig(), song=SongConfig(str(path), loop=True)) as engine:
        for action, match in (
            (lambda: engine.seek_song(9.0), r"0 to 2.00 s"),
            (lambda: engine.loop_song(from_s=1.99), "too short"),
            (lambda: engine.set_song_speed(float("nan")), r"0.5 to 1.5"),
        ):
            with pytest.raises(UsageError, match=match):
                action()
        assert engine.song_loop == (True, 0.0, 2.0)
    with Engine(model, backend=DummyConfig()) as engine, pytest.raises(UsageError, match="--input-file"):
        engine.seek_song(1.0)
