"""`rtsep.separate`: the same bits as the chain, in time with the input, and whole files or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rtsep
from rtsep.audio.files import NonFiniteWarning
from rtsep.chain import HopChain
from rtsep.delay import DryDelay
from rtsep.errors import AudioFileError, ModelNotFoundError, StemNotFoundError, UsageError
from rtsep.inference.session import StreamingSession
from rtsep.mixer.mixer import Mixer
from tests.support.condition_graphs import make_condition_model

Audio = NDArray[np.float32]
GAINS = {"drums": 0.5, "bass": 0.25, "other": 0.125, "vocals": 0.125}


def test_arrays_come_back_in_time_and_sum_to_the_input(model: Path, recording: Audio) -> None:
    result = rtsep.separate(recording, samplerate=44100, model=model)
    for stem, gain in GAINS.items():
        np.testing.assert_array_equal(result.stems[stem], np.float32(gain) * recording)
    np.testing.assert_allclose(sum(result.stems.values()), recording, atol=1e-7)
    assert result.mix is not None
    assert result.mix.tobytes() == recording.tobytes()
    assert (result.latency_samples, result.frames, result.channels, result.files) == (700, 20011, 2, {})


def test_it_is_the_chain_bit_for_bit(model: Path, recording: Audio) -> None:
    result = rtsep.separate(
        recording, samplerate=44100, model=model, mute=["bass"], gain={"vocals": 3.5}, pan={"drums": 0.4}
    )
    with StreamingSession(model) as session:
        mixer = Mixer(session.info.stems, 2, 44100)
        mixer.settings.apply(mute=["bass"], gain={"vocals": 3.5}, pan={"drums": 0.4})
        chain = HopChain(session, mixer)
        padded = np.pad(recording, ((0, 0), (0, 2048)))
        hops = range(0, padded.shape[1] // 512 * 512, 512)
        out = np.concatenate([chain.process_hop(padded[:, a : a + 512].copy()).copy() for a in hops], axis=1)
    assert result.mix is not None
    np.testing.assert_array_equal(result.mix, out[:, 700 : 700 + 20011])


def test_a_file_gives_stem_files_of_the_same_length(model: Path, song: Path, recording: Audio, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = rtsep.separate(song, model=model, output_dir=tmp_path / "out", progress=lambda a, b: seen.append((a, b)))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]
    for stem, gain in GAINS.items():
        audio, rate = soundfile.read(result.files[stem], dtype="float32")
        assert rate == 44100
        np.testing.assert_array_equal(audio.T, np.float32(gain) * recording)
    assert seen == sorted(seen)
    assert seen[-1] == (20011, 20011)
    assert result.stems == {}
    assert result.mix is None


def test_a_mix_file_holds_what_the_faders_say(model: Path, song: Path, recording: Audio, tmp_path: Path) -> None:
    out = tmp_path / "karaoke.wav"
    result = rtsep.separate(song, model=model, output=out, mute=["vocals"])
    np.testing.assert_allclose(soundfile.read(out)[0].T, 0.875 * recording, atol=1e-7)
    assert result.files == {"mix": out}
    both = rtsep.separate(song, model=model, output_dir=tmp_path / "d", stems=["bass"], solo=["bass"], master_db=-6)
    assert sorted(both.files) == ["bass", "mix"]
    mix = soundfile.read(both.files["mix"])[0].T
    np.testing.assert_allclose(mix, 10 ** (-6 / 20) * 0.25 * recording, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22050, 32000, 96000, 192000])
def test_other_rates_are_resampled_there_and_back_in_time(model: Path, recording: Audio, rate: int) -> None:
    result = rtsep.separate(recording, samplerate=rate, model=model, mute=["vocals"])
    assert result.model_samplerate in (44100, 48000)
    assert result.mix is not None
    assert result.mix.shape == recording.shape
    assert np.abs(result.mix - 0.875 * recording).max() < 2e-3  # of 0.3: below -43 dB, a sample off would be far above
    assert np.abs(result.stems["drums"] - 0.5 * recording).max() < 2e-3
    shifted = np.abs(result.mix[:, 1:] - 0.875 * recording[:, :-1]).max()
    assert shifted > 5 * np.abs(result.mix - 0.875 * recording).max(), "the test would see one sample of delay"


def test_mono_gives_mono(model: Path, recording: Audio, tmp_path: Path) -> None:
    result = rtsep.separate(recording[0], samplerate=48000, model=model)
    assert result.mix is not None
    np.testing.assert_array_equal(result.mix, recording[:1])
    assert result.stems["bass"].shape == (1, 20011)
    path = tmp_path / "mono.wav"
    soundfile.write(path, recording[0], 44100, subtype="FLOAT")
    files = rtsep.separate(path, model=model, output_dir=tmp_path).files
    assert soundfile.info(files["drums"]).channels == 1


def test_more_channels_give_the_first_ones_or_those_named(model: Path, recording: Audio) -> None:
    six = np.concatenate([recording, -recording, 2 * recording])
    for channels, expected in (
        (None, recording),
        ((5, 6), 2 * recording),
        ((4, 1), np.stack([-recording[1], recording[0]])),
    ):
        result = rtsep.separate(six, samplerate=44100, model=model, channels=channels)
        assert result.mix is not None
        np.testing.assert_array_equal(result.mix, expected)
    one = rtsep.separate(six, samplerate=44100, model=model, channels=[3])
    assert one.mix is not None
    np.testing.assert_array_equal(one.mix, -recording[:1])
    with pytest.raises(UsageError, match="channels 1 to 6"):
        rtsep.separate(six, samplerate=44100, model=model, channels=[7, 8])


@pytest.mark.parametrize("length", [1, 511, 512, 513, 700, 1212])
def test_any_length_comes_back_whole(model: Path, recording: Audio, length: int) -> None:
    result = rtsep.separate(recording[:, 5000 : 5000 + length], samplerate=44100, model=model)
    assert result.mix is not None
    np.testing.assert_array_equal(result.mix, recording[:, 5000 : 5000 + length])


def test_nan_and_infinity_become_zero_with_a_warning(model: Path, recording: Audio, tmp_path: Path) -> None:
    bad = recording.copy()
    bad[0, 100:103] = (np.nan, np.inf, -np.inf)
    good = bad.copy()
    good[0, 100:103] = 0
    with pytest.warns(NonFiniteWarning, match="3 samples"):
        result = rtsep.separate(bad, samplerate=44100, model=model)
    assert result.replaced == 3
    np.testing.assert_array_equal(result.mix, good)
    path = tmp_path / "nan.wav"
    soundfile.write(path, bad.T, 44100, subtype="FLOAT")
    with pytest.warns(NonFiniteWarning, match=r"nan\.wav: 3 samples"):
        rtsep.separate(path, model=model, output=tmp_path / "out.wav", mute=["bass"])


def test_bad_arguments_are_named(model: Path, song: Path, recording: Audio, tmp_path: Path) -> None:
    with pytest.raises(StemNotFoundError, match="Did you mean 'vocals'"):
        rtsep.separate(song, model=model, mute=["vocal"])
    with pytest.raises(StemNotFoundError, match="No stem 'guitar'"):
        rtsep.separate(song, model=model, stems=["guitar"])
    with pytest.raises(ModelNotFoundError, match="no-such"):
        rtsep.separate(song, model="no-such")
    with pytest.raises(UsageError, match="samplerate is needed"):
        rtsep.separate(recording, model=model)
    with pytest.raises(UsageError, match="has its own"):
        rtsep.separate(song, samplerate=44100, model=model)
    with pytest.raises(UsageError, match="int16"):
        rtsep.separate((recording * 32767).astype(np.int16), samplerate=44100, model=model)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="transpose"):
        rtsep.separate(recording.T, samplerate=44100, model=model)
    with pytest.raises(UsageError, match=r"\[2, 0\]"):
        rtsep.separate(recording[:, :0], samplerate=44100, model=model)
    with pytest.raises(UsageError, match="8000 to 192000"):
        rtsep.separate(recording, samplerate=4000, model=model)
    with pytest.raises(UsageError, match="the input itself"):
        rtsep.separate(song, model=model, output=song, mute=["bass"])
    with pytest.raises(UsageError, match=r"\.wav"):
        rtsep.separate(song, model=model, output=tmp_path / "out.mp3", mute=["bass"])
    (tmp_path / "file").touch()
    with pytest.raises(AudioFileError, match="cannot be made"):
        rtsep.separate(song, model=model, output_dir=tmp_path / "file" / "x")


def test_an_interrupted_run_leaves_no_file(model: Path, song: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rtsep.separate(song, model=model, output_dir=tmp_path / "out", progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


@given(st.integers(1, 3), st.integers(0, 50), st.integers(1, 20), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_dry_delay_is_a_shift(channels: int, delay: int, block: int, blocks: int) -> None:
    audio = np.random.default_rng(1).standard_normal((channels, block * blocks)).astype(np.float32)
    line, out = DryDelay(channels, delay, block), np.zeros_like(audio)
    for a in range(0, audio.shape[1], block):
        line.process(audio[:, a : a + block], out[:, a : a + block])
    expected = np.pad(audio, ((0, 0), (delay, 0)))[:, : audio.shape[1]]
    np.testing.assert_array_equal(out, expected)


def test_chain_keeps_nan_out_of_the_dry_signal_and_resets(model: Path) -> None:
    with StreamingSession(model) as session:
        chain = HopChain(session, Mixer(session.info.stems, 2, 44100))
        audio = np.random.default_rng(2).uniform(-1, 1, (2, 512)).astype(np.float32)
        first = chain.process_hop(audio).copy()
        second = chain.process_hop(audio).copy()
        bad = audio.copy()
        bad[1, 7] = np.nan
        third = chain.process_hop(bad).copy()
        fourth = chain.process_hop(audio).copy()
        assert np.isfinite(third).all()
        assert np.isfinite(fourth).all()
        stream = np.concatenate([first, second, third, fourth], axis=1)
        clean = np.nan_to_num(bad, nan=0.0)
        expected = np.concatenate([np.zeros((2, 700), np.float32), audio, audio, clean, audio], axis=1)[:, :2048]
        np.testing.assert_array_equal(stream, expected)
        chain.reset()
        np.testing.assert_array_equal(chain.process_hop(audio), first)
        with pytest.raises(ValueError, match="the model takes"):
            chain.process_hop(audio[:, :100])
        with pytest.raises(UsageError, match="1 channels"):
            HopChain(session, Mixer(session.info.stems, 1, 44100))


def test_controls_hold_for_the_whole_recording(recording: Audio, tmp_path: Path) -> None:
    model = make_condition_model(tmp_path / "condition.onnx", latency=700)
    result = rtsep.separate(recording, samplerate=44100, model=model, controls={"condition": [0, 1, 0.5, 0]})
    np.testing.assert_array_equal(result.stems["selected"], 0.25 * recording)
    np.testing.assert_array_equal(result.stems["rest"], 0.75 * recording)
    with pytest.raises(UsageError, match="has no control 'volume'"):
        rtsep.separate(recording, samplerate=44100, model=model, controls={"volume": 1.0}, output_dir=tmp_path / "out")
    with pytest.raises(UsageError, match=r"allowed is 0\.0 to 1\.0"):
        rtsep.separate(recording, samplerate=44100, model=model, controls={"condition": [2, 1, 1, 1]})
