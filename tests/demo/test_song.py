"""The rendered song: exact sums, record-like levels, a voice that sings the notes and vowels it was given."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from rtsep.demo import song as song_module
from rtsep.demo.song import DEMO_SEED, STEMS, TRAINING_SEEDS, Song, render_song
from rtsep.demo.synth import Instrument, Kit, midi_hz
from rtsep.demo.voice import CONSONANTS, VOWELS, Singer, Syllable

RATE = 44100
ROOT = Path(__file__).resolve().parents[2]
Audio = NDArray[np.float32]


@pytest.fixture(scope="module")
def demo() -> Song:
    return render_song(DEMO_SEED, seconds=20.0)


def level_db(audio: Audio, where: Audio | None = None) -> float:
    return float(20 * np.log10(song_module._loudness(audio, where) + 1e-9))


def sounding(audio: Audio) -> NDArray[np.bool_]:
    """For every tenth of a second whether there is sound."""
    power = (audio[:, : audio.shape[1] // 4410 * 4410].reshape(2, -1, 4410) ** 2).mean(axis=(0, 2))
    return np.asarray(power > 0.01 * power.max())


def test_stems_sum_to_the_mixture_bit_for_bit(demo: Song) -> None:
    s = demo.stems
    assert tuple(s) == STEMS
    total = ((s["drums"] + s["bass"]) + s["other"]) + s["vocals"]
    assert total.tobytes() == demo.mixture.tobytes()
    for audio in (*s.values(), demo.mixture):
        assert audio.shape == (2, 20 * RATE)
        assert audio.dtype == np.float32
        assert audio.flags.c_contiguous
        assert np.isfinite(audio).all()
    assert 0.3 < np.abs(demo.mixture).max() <= 0.9


def test_a_seed_is_a_song() -> None:
    a, b, c = (render_song(seed, seconds=4.0) for seed in (3, 3, 4))
    assert a.mixture.tobytes() == b.mixture.tobytes()
    assert a.notes == b.notes
    assert a.mixture.tobytes() != c.mixture.tobytes()
    assert (a.tempo, a.key, a.style) != (c.tempo, c.key, c.style)


def test_the_demonstration_is_no_training_material(demo: Song) -> None:
    assert DEMO_SEED not in TRAINING_SEEDS
    assert range(1000, 2000) == TRAINING_SEEDS
    voice = sounding(demo.stems["vocals"])
    half = len(voice) // 2
    assert voice[:half].mean() > 0.6
    assert voice[half:].mean() > 0.7
    assert all(np.abs(audio[:, RATE * 10 :]).max() > 0.02 for audio in demo.stems.values())


@pytest.mark.parametrize("seed", [1003, 1011, 1042, DEMO_SEED])
def test_levels_are_those_of_a_record(seed: int) -> None:
    s = render_song(seed, seconds=16.0)
    voice = s.stems["vocals"]
    band = s.mixture - voice
    assert -6.5 < level_db(voice) - level_db(band, voice) < 2.0
    assert -19 < level_db(s.mixture) < -12
    assert 70 <= s.tempo <= 150
    assert s.sections[0][1] == 0.0
    assert s.sections[-1][2] == 16.0
    if s.sections[0][0] == "intro":
        first = min(note.onset_s for note in s.notes if note.stem == "vocals")
        assert first > s.sections[0][2] - 0.1, "nobody sings in the intro"


def test_songs_differ_in_everything_that_is_drawn() -> None:
    songs = [render_song(seed, seconds=3.0) for seed in range(1100, 1124)]
    assert len({s.style for s in songs}) >= 5
    assert len({s.key for s in songs}) >= 10
    assert len({s.tempo for s in songs}) >= 12


def test_rendering_is_ten_times_faster_than_real_time() -> None:
    def cost() -> float:
        before = time.process_time()
        render_song(1001, seconds=20.0)
        return time.process_time() - before

    assert min(cost() for _ in range(3)) < 2.0


@pytest.mark.parametrize("rate", [22050, 48000])
def test_other_samplerates(rate: int) -> None:
    s = render_song(5, samplerate=rate, seconds=3.0)
    assert s.mixture.shape == (2, 3 * rate)
    assert np.isfinite(s.mixture).all()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        render_song(-1)
    with pytest.raises(ValueError, match="8000 Hz"):
        render_song(1, samplerate=8000)
    with pytest.raises(ValueError, match="seconds is nan"):
        render_song(1, seconds=float("nan"))


def fundamental(audio: Audio, low: float, high: float) -> float:
    """Fundamental in Hz by autocorrelation."""
    x = audio - audio.mean()
    n = 1 << (2 * len(x)).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(x, n)) ** 2)[: len(x)]
    lags = np.arange(int(RATE / high), int(RATE / low))
    return RATE / float(lags[np.argmax(correlation[lags])])


@pytest.mark.parametrize(("high", "midi"), [(False, 45), (False, 52), (False, 59), (True, 57), (True, 64), (True, 72)])
@pytest.mark.parametrize("vowel", ["a", "i", "o"])
def test_the_voice_sings_the_note(high: bool, midi: int, vowel: str) -> None:
    singer = Singer(np.random.default_rng(midi), RATE, high)
    audio = singer.sing([Syllable(0.1, 1.4, midi, 0.8, "m", vowel, "")], int(1.6 * RATE))
    hz = midi_hz(midi)
    heard = [fundamental(audio[a : a + 4096], hz / 1.6, hz * 1.6) for a in range(RATE // 2, int(1.3 * RATE), 2048)]
    cents = 1200 * np.log2(np.median(heard) / hz)
    assert abs(cents) < 40


def test_vowels_have_their_formants() -> None:
    for vowel, (f1, f2, _) in VOWELS.items():
        singer = Singer(np.random.default_rng(8), RATE, False)
        singer.vibrato_cents = 60.0  # sweeps the harmonics over the resonances
        audio = singer.sing([Syllable(0.0, 3.0, 40, 0.8, "", vowel, "")], 3 * RATE)[RATE // 2 : RATE * 5 // 2]
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
        hz = np.fft.rfftfreq(len(audio), 1 / RATE)

        def power(centre: float, spectrum: NDArray[np.float64] = spectrum, hz: NDArray[np.float64] = hz) -> float:
            near = np.abs(hz - centre) < 110
            return float(10 * np.log10(spectrum[near].mean()))

        f1, f2 = f1 * singer.tract, f2 * singer.tract
        if f2 - f1 > 800:
            assert power(f1) > power((f1 + f2) / 2) + 6, vowel
            assert power(f2) > power((f1 + f2) / 2) + 3, vowel


def test_sibilants_are_noise_above_five_kilohertz() -> None:
    singer = Singer(np.random.default_rng(1), RATE, True)
    note = Syllable(0.5, 1.0, 65, 0.8, "s", "a", "")
    audio = singer.sing([note], 2 * RATE)
    start, seconds = int(0.5 * RATE), CONSONANTS["s"][0]
    hiss = audio[start - int(0.8 * seconds * RATE) : start - int(0.2 * seconds * RATE)]
    vowel = audio[RATE : RATE + len(hiss)]

    def bright(x: Audio) -> float:
        spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
        hz = np.fft.rfftfreq(len(x), 1 / RATE)
        return float(spectrum[hz > 4500].sum() / spectrum.sum())

    assert bright(hiss) > 0.6
    assert bright(vowel) < 0.1
    assert np.abs(audio[: int(0.08 * RATE)]).max() < 1e-6, "silence before the first breath"


@pytest.mark.parametrize("kind", [*Instrument.BASSES, *Instrument.CHORDAL, *Instrument.LEADS])
def test_instruments_play_in_tune_and_end(kind: str) -> None:
    instrument = Instrument(kind, np.random.default_rng(4), RATE, 1.0)
    midi = 33 if kind in Instrument.BASSES else 57
    sound = instrument.note(midi, 0.8, 0.9)
    assert len(sound) == int((0.8 + instrument.release_s) * RATE)
    assert 0.3 < np.abs(sound).max() <= 0.95
    assert abs(sound[-1]) < 1e-3
    if kind in ("distorted", "bell"):
        return  # a power chord, and partials that are no harmonics: the common period is not the note
    hz = fundamental(sound[4000:20000], midi_hz(midi) / 1.5, midi_hz(midi) * 1.5)
    assert abs(1200 * np.log2(hz / midi_hz(midi))) < 30


def test_drums_are_different_each_time_and_short() -> None:
    kit = Kit(np.random.default_rng(2), RATE, electronic=False)
    for name in Kit.GM:
        takes = [kit.take(name, i) for i in range(4)]
        assert np.abs(takes[0]).max() == pytest.approx(1.0, abs=1e-5)
        assert abs(takes[0][-1]) < 0.01
        assert takes[0].tobytes() != takes[1].tobytes()


def test_supplement_tool_resumes_and_may_run_twice_at_once(tmp_path: Path) -> None:
    def start(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "tools/render_supplement.py"), "--out", str(tmp_path), "--seconds", "3"]
        return subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True, cwd=tmp_path)

    both = [start("--songs", "3", "--first-seed", "1200") for _ in range(2)]
    assert [p.communicate()[0] or p.returncode for p in both] == [0, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rendered-1200", "rendered-1201", "rendered-1202"]
    for folder in tmp_path.iterdir():
        assert sorted(p.name for p in folder.iterdir()) == ["bass.flac", "drums.flac", "other.flac", "vocals.flac"]
        info = soundfile.info(folder / "vocals.flac")
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (44100, 2, "PCM_16", 3 * 44100)
    expected = render_song(1201, seconds=3.0).stems["bass"]
    np.testing.assert_allclose(soundfile.read(tmp_path / "rendered-1201/bass.flac")[0].T, expected, atol=2 / 32768)
    (tmp_path / "rendered-1201" / "bass.flac").unlink()
    again = start("--songs", "3", "--first-seed", "1200")
    talk = again.communicate()[1]
    assert again.returncode == 0
    assert [line.split()[3] for line in talk.splitlines()] == ["skipped", "rendered", "skipped"]
    refused = start("--first-seed", str(DEMO_SEED))
    assert "training seeds are 1000..1999" in refused.communicate()[1]
    assert refused.returncode == 2
