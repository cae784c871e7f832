"""Rolls, readers and their offsets, examples as a function of the seed, degradation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data import clips, degrade
from models.data.clips import DRUM_NOTES, ONSET_SHIFT, onset_lag, open_bank, read_rendered
from models.data.readers import DataError
from models.data.transcription import ExampleConfig, TranscriptionDataset, rolls_of
from tests.models.transcriber.small import RATE, write_clips

PITCHES = tuple(range(21, 109))


def test_rolls_say_where_in_a_frame_an_onset_is() -> None:
    notes = np.array([[0.105, 0.5, 60, 64], [0.2, 0.3, 64, 127]])
    rolls = rolls_of(notes, 100, PITCHES)
    column = rolls["onset"][:, 60 - 21]
    assert column[10] == 1.0  # 0.105 s is the middle of frame 10
    assert column[9] == column[11] == pytest.approx(0.5)
    assert column[:9].max() == column[12:].max() == 0
    between = rolls["onset"][:, 64 - 21]
    assert between[19] == between[20] == pytest.approx(0.75)  # 0.2 s is the edge of both
    assert rolls["frame"][10:50, 60 - 21].min() == 1
    assert rolls["frame"][:10, 60 - 21].max() == rolls["frame"][50:, 60 - 21].max() == 0
    assert rolls["velocity"][10, 60 - 21] == pytest.approx(64 / 127)
    assert rolls["onset"][:, [0, 1, 87]].max() == 0


def test_notes_from_before_the_stretch_sound_but_do_not_begin() -> None:
    rolls = rolls_of(np.array([[-0.5, 0.2, 60, 90]]), 50, PITCHES)
    assert rolls["onset"].max() == 0
    assert rolls["frame"][:20, 60 - 21].min() == 1
    assert rolls["frame"][20:].max() == 0


def test_strokes_of_no_class_are_not_counted_against_anyone() -> None:
    rolls = rolls_of(np.zeros((0, 4)), 50, DRUM_NOTES, np.array([0.25]))
    assert rolls["weight"][22:29].max() == 0
    assert rolls["weight"][:22].min() == rolls["weight"][29:].min() == 1


def test_the_momentary_pitch_is_the_tracks_or_a_sung_notes_middle() -> None:
    track = np.full(50, 60.3, np.float32)
    assert np.allclose(rolls_of(np.array([[0.1, 0.4, 60, 0]]), 50, PITCHES, pitch=track)["pitch"], 60.3)
    sung = rolls_of(np.array([[0.1, 0.4, 59.8, 0]]), 50, PITCHES)["pitch"]
    assert np.allclose(sung[15:37], 59.8)
    assert sung[:15].max() == sung[37:].max() == 0


def test_the_lag_of_annotations_is_found() -> None:
    rng = np.random.default_rng(0)
    audio = 1e-4 * rng.standard_normal(4 * RATE).astype(np.float32)
    onsets = np.array([0.5, 1.1, 1.9, 2.6, 3.3])
    for onset in onsets:
        first = round(onset * RATE)
        audio[first : first + 1600] += rng.standard_normal(1600).astype(np.float32) * np.exp(-np.arange(1600) / 400)
    for shift in (0.0, -0.012, 0.02):
        assert np.nanmedian(onset_lag(audio, onsets - shift)) == pytest.approx(shift, abs=0.003)
    assert np.isnan(onset_lag(np.zeros(RATE, np.float32), [0.5])).all()


def write_drums(folder: Path) -> None:
    folder.mkdir()
    for name in ("MusicDelta_A", "MusicDelta_B", "MusicDelta_Rock"):
        soundfile.write(folder / f"{name}.ogg", np.zeros(RATE, np.float32), RATE)
        (folder / f"{name}.txt").write_text("0.100000 \t KD \n0.200000 \t HH \n0.300000 \t OT \n0.400000 \t CY \n")


def test_drum_annotations_are_moved_by_their_measured_offset(tmp_path: Path) -> None:
    write_drums(tmp_path / "drums")
    found = clips.read_mdb_drums(tmp_path / "drums")
    assert [clip.name for _, clip in found] == ["MusicDelta_A", "MusicDelta_B"]
    assert [clip.name for _, clip in clips.read_mdb_drums_held_out(tmp_path / "drums")] == ["MusicDelta_Rock"]
    shift = ONSET_SHIFT["mdb-drums"]
    assert np.allclose(found[0][1].notes[:, 0], np.array([0.1, 0.2, 0.4]) + shift)
    assert found[0][1].notes[:, 2].tolist() == [36, 42, 49]
    assert np.allclose(found[0][1].unsure, [0.3 + shift])


def test_every_third_voice_is_held_out(tmp_path: Path) -> None:
    for index in range(7):
        soundfile.write(tmp_path / f"{index}.ogg", np.zeros(RATE, np.float32), RATE)
        (tmp_path / f"{index}.txt").write_text("0.1 0.4 60.2\n0.5 0.5 61.0\n")
    trained, held = clips.read_ssvd(tmp_path), clips.read_ssvd_held_out(tmp_path)
    assert [clip.name for _, clip in held] == ["2", "5"]
    assert {clip.name for _, clip in trained}.isdisjoint(clip.name for _, clip in held)
    assert len(trained[0][1].notes) == 1  # a note without length is none


def test_a_bank_is_what_was_recorded_and_comes_from_the_cache(tmp_path: Path) -> None:
    write_clips(tmp_path / "polyphonic")
    bank = open_bank("r", tmp_path / "polyphonic", read_rendered, tmp_path / "cache")
    original, _ = soundfile.read(tmp_path / "polyphonic/000001.flac", dtype="float32")
    assert np.abs(bank.read(bank.clips[1]) - original).max() < 1e-4
    assert np.array_equal(bank.read(bank.clips[1], 7000, 100), bank.read(bank.clips[1])[7000:7100])
    assert bank.read(bank.clips[2], len(original) - 10, 50)[10:].max() == 0
    tables = list((tmp_path / "cache").rglob("*.json"))
    changed = tables[0].stat().st_mtime_ns
    open_bank("r", tmp_path / "polyphonic", read_rendered, tmp_path / "cache")
    assert tables[0].stat().st_mtime_ns == changed
    with pytest.raises(DataError, match="nothing to read"):
        open_bank("r", tmp_path / "cache", read_rendered, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["polyphonic", "monophonic"])
def test_examples_are_a_function_of_the_seed(tmp_path: Path, kind: str) -> None:
    write_clips(tmp_path / kind)
    bank = open_bank("r", tmp_path / kind, read_rendered, tmp_path / "cache")
    config = ExampleConfig(seconds=2.0)

    def first(seed: int) -> list[dict[str, np.ndarray]]:
        data = iter(TranscriptionDataset(kind, [(bank, 1.0)], [bank], PITCHES, config, seed))
        return [{key: value.numpy() for key, value in next(data).items()} for _ in range(6)]

    once, again, other = first(1), first(1), first(2)
    for a, b in zip(once, again, strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert any(not np.array_equal(a["audio"], b["audio"]) for a, b in zip(once, other, strict=True))
    for example in once:
        assert example["audio"].shape == (1, 2 * RATE)
        assert example["onset"].shape == (200, 88)
        assert np.isfinite(example["audio"]).all()
        assert np.abs(example["audio"]).max() < 1.2
        if example["onset"].max():
            assert example["weight"][:25].max() == 0


def test_targets_of_an_example_are_where_its_sound_begins(tmp_path: Path) -> None:
    """Transposed by resampling, rolls move with the audio."""
    write_clips(tmp_path / "polyphonic")
    bank = open_bank("r", tmp_path / "polyphonic", read_rendered, tmp_path / "cache")
    clean = degrade.Degradation(bleed=0, mask=0, equaliser=0, room=0, noise=0, clipping=0, lowpass=0)
    config = ExampleConfig(seconds=4.0, negative=0.0, degradation=clean)
    data = TranscriptionDataset("polyphonic", [(bank, 1.0)], [], PITCHES, config, 5)
    lags = []
    for _ in range(8):
        example = data.example(np.random.default_rng(len(lags)))
        frames = np.flatnonzero(example["onset"].max(1) >= 0.75)
        lags += list(onset_lag(example["audio"][0], (frames + 0.5) * 0.01))
    assert abs(np.nanmedian(lags)) < 0.006


def test_degradation_keeps_onsets_and_lengths() -> None:
    rng = np.random.default_rng(3)
    audio = np.zeros(3 * RATE, np.float32)
    onsets = [0.5, 1.2, 2.1]
    for onset in onsets:
        first = round(onset * RATE)
        tone = np.sin(2 * np.pi * 440 * np.arange(4000) / RATE) * np.exp(-np.arange(4000) / 1500)
        audio[first : first + 4000] += 0.3 * tone.astype(np.float32)
    other = 0.1 * rng.standard_normal(len(audio)).astype(np.float32)
    every = degrade.Degradation(bleed=1, mask=1, equaliser=1, room=1, noise=1, clipping=1, lowpass=1)
    out = degrade.degrade(audio, other, every, rng)
    assert out.shape == audio.shape
    assert out.dtype == np.float32
    assert np.abs(out).max() < 1.05
    assert np.nanmax(np.abs(onset_lag(out, onsets))) < 0.02


def test_a_mask_passes_the_target_and_cuts_the_others_down() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) * 0.3 for f in (300, 3000))
    out = degrade.separate(low, high, rng)
    spectrum = np.abs(np.fft.rfft(out))
    assert spectrum[600] > 10 * spectrum[6000]  # 0.5 Hz a bin
    alone = degrade._istft(degrade._stft(low), len(low))
    assert np.abs(alone - low).max() < 1e-4
