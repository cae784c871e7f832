"""What the demonstration says of the result: recovered gains, SDR, and where things lie in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtsep.demo.measure import attenuation, sdr
from rtsep.demo.picture import HEIGHT, WIDTH, draw, spectrogram
from rtsep.demo.song import DEMO_SEED, render_song
from rtsep.errors import AudioFileError, UsageError

RATE = 44100


def test_attenuation_recovers_the_gain_of_every_stem() -> None:
    song = render_song(DEMO_SEED, seconds=9.0)
    gains = {"drums": 1.0, "bass": 0.9, "other": 0.5, "vocals": 0.1}
    output = sum(np.float32(gain) * song.stems[stem] for stem, gain in gains.items())
    after = slice(4 * RATE, 9 * RATE)
    stems = {stem: audio[:, after] for stem, audio in song.stems.items()}
    found = attenuation(output[:, after], stems)
    for stem, gain in gains.items():
        assert found.db[stem] == pytest.approx(-20 * np.log10(gain), abs=0.15), stem


def test_attenuation_sees_what_a_filter_takes_and_ignores_added_noise() -> None:
    rng = np.random.default_rng(0)
    stems = {name: rng.standard_normal((2, 5 * RATE)).astype(np.float32) for name in ("a", "b")}
    spectrum = np.fft.rfft(stems["a"])
    spectrum[:, spectrum.shape[1] // 4 :] = 0  # a quarter of white noise's energy is left
    filtered = np.fft.irfft(spectrum, 5 * RATE)
    output = (filtered + stems["b"] + 0.5 * rng.standard_normal((2, 5 * RATE))).astype(np.float32)
    found = attenuation(output, stems)
    assert found.db["a"] == pytest.approx(6.02, abs=0.2)
    assert found.db["b"] == pytest.approx(0.0, abs=0.1)


def test_a_silent_stem_counts_as_untouched_and_a_removed_one_as_gone() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 2 * RATE)).astype(np.float32)
    found = attenuation(np.zeros_like(noise), {"gone": noise, "silent": np.zeros_like(noise)})
    assert found.db == {"gone": 100.0, "silent": 0.0}


def test_attenuation_refuses_what_it_cannot_tell() -> None:
    short = np.zeros((2, 6000), np.float32)
    with pytest.raises(UsageError, match="too few"):
        attenuation(short, {"a": short, "b": short})
    with pytest.raises(UsageError, match="the output is"):
        attenuation(short, {"a": short[:, :10]})


def test_sdr_is_the_ratio_of_energies() -> None:
    truth = np.ones((2, 100), np.float32)
    assert sdr(truth * np.float32(0.9), truth) == pytest.approx(20, abs=1e-4)
    assert sdr(truth, truth) > 100


@pytest.mark.parametrize("hz", [100.0, 440.0, 1000.0, 5000.0, 10000.0])
def test_a_tone_lies_at_its_frequency(hz: float) -> None:
    t = np.arange(2 * RATE) / RATE
    tone = np.stack([np.sin(2 * np.pi * hz * t)] * 2).astype(np.float32)
    picture = spectrogram(tone, RATE, 200, 400)
    row = int(np.argmax(picture[:, 100]))
    found = 60 * (16000 / 60) ** (1 - (row + 0.5) / 400)
    assert found == pytest.approx(hz, rel=0.08 if hz < 200 else 0.03)  # bins are 10.8 Hz apart
    assert picture.max() == 0.0
    assert np.median(picture) < -60


def test_the_picture_has_both_panels_and_shows_the_change(tmp_path: Path) -> None:
    song = render_song(DEMO_SEED, seconds=6.0)
    after = song.mixture.copy()
    after[:, 3 * RATE :] = 0
    draw(tmp_path / "p.png", song.mixture, after, RATE, 3.0, ["one", "two"])
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("L"), float)
    assert picture.shape == (HEIGHT, WIDTH)
    right = slice(WIDTH // 2 + 60, WIDTH - 250)
    upper, lower = picture[150:400, right].mean(), picture[650:900, right].mean()
    assert upper > lower + 25, "the silent half is dark in the lower panel only"
    left = slice(150, WIDTH // 2 - 100)
    assert picture[150:400, left].mean() == pytest.approx(picture[639:889, left].mean(), abs=8)
    with pytest.raises(AudioFileError, match="cannot be written"):
        draw(tmp_path / "no" / "p.png", song.mixture, after, RATE, 3.0, [])
