"""Songs rendered from MIDI: the notes are made here, the sound comes from FluidSynth and a soundfont."""

import json
import os
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from models.data.readers import STEMS, Source, find_songs
from tools import render_multitracks
from tools.multitracks import effects, mix, score, synth

SECONDS = 6.0
TEMPO = 100
TICKS = 480
CHORDS = ((0, 4, 7), (9, 0, 4), (5, 9, 0), (7, 11, 2))  # C, A minor, F, G
SHIFT = 40 + 3 * 480  # POP909 files: a shifted grid, and bars that begin anywhere

try:
    FONTS = synth.check()
except synth.SynthError as error:
    FONTS = []
    MISSING = str(error)

needs_sound = pytest.mark.skipif(not FONTS and not os.environ.get("CI"), reason="fluidsynth or soundfonts are missing")


def write_midi(path: Path, tracks: dict[str, list[tuple[float, float, int]]], shift: int = 0, channel: int = 0) -> None:
    """Write (start, length in beats, pitch) notes."""
    head = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(TEMPO))])
    written = [head]
    for name, notes in tracks.items():
        events = []
        for start, length, pitch in notes:
            events.append((shift + round(start * TICKS), pitch, 90))
            events.append((shift + round((start + length) * TICKS) - 1, pitch, 0))
        track, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
        for tick, pitch, velocity in sorted(events):
            message = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=tick - now)
            track.append(message)
            now = tick
        written.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    mido.MidiFile(ticks_per_beat=TICKS, tracks=written).save(path)


@pytest.fixture
def folders(tmp_path):
    piano, melody, hits = [], [], []
    for bar in range(24):
        root, *rest = CHORDS[bar % 4]
        piano += [(4.0 * bar, 2.0, 36 + root)]
        piano += [(4.0 * bar + beat, 0.9, 60 + tone) for beat in range(4) for tone in (root, *rest)]
        melody += [(4.0 * bar + beat, 0.9, 72 + CHORDS[bar % 4][beat % 3]) for beat in range(4)]
        hits += [(4.0 * bar + beat, 0.1, 36 if beat % 2 == 0 else 38) for beat in range(4)]
        hits += [(4.0 * bar + 0.5 * k, 0.1, 42) for k in range(8)]
    write_midi(tmp_path / "pop909/001.mid", {"MELODY": melody, "BRIDGE": [], "PIANO": piano}, SHIFT)
    write_midi(tmp_path / f"groove/drummer1/1_rock_{TEMPO}_beat_4-4.mid", {"": hits}, 0, 9)
    return tmp_path


def share_below(audio: np.ndarray, frequency: float) -> float:
    power = np.abs(np.fft.rfft(audio.sum(0))) ** 2
    return float(power[: round(frequency * audio.shape[1] / effects.SAMPLERATE)].sum() / power.sum())


def run(folders: Path, out: Path, *more: str) -> int:
    paths = ["--pop909", str(folders / "pop909"), "--groove", str(folders / "groove"), "--out", str(out)]
    return render_multitracks.main([*paths, "--seconds", str(SECONDS), *more])


def test_bars_and_harmony_of_a_song_are_found(folders):
    song = score.read_pop_song(folders / "pop909/001.mid")
    assert song.tempo == pytest.approx(TEMPO, rel=1e-4)
    assert song.tracks["PIANO"][0].start % 4 == pytest.approx(0, abs=0.01)
    harmony = score.chords(score.cut(song.tracks["PIANO"], 0, 32), 16)
    roots = [CHORDS[bar % 4][0] for bar in range(8)]
    first = roots.index(harmony[0].root)  # the excerpt begins with whichever bar the first note opened
    assert [chord.root for chord in harmony[::2]] == [CHORDS[(first + bar) % 4][0] for bar in range(8)]
    assert set(harmony[0].tones) == set(CHORDS[first])


def test_a_groove_is_read_in_whole_bars(folders):
    (groove,) = score.list_grooves(folders / "groove")
    hits, bars = score.read_groove(groove)
    assert (groove.style, groove.tempo, bars) == ("rock", TEMPO, 24)
    assert {hit.pitch for hit in hits} == {36, 38, 42}


@needs_sound
def test_a_song_has_four_stems_that_sound_like_what_they_are(folders, tmp_path):
    assert FONTS, MISSING
    out = tmp_path / "out"
    assert run(folders, out, "--songs", "2", "--first-seed", "7", "--no-voices") == 0
    songs = find_songs(Source("rendered", str(out), "folders", ""))
    assert [song.name for song in songs] == ["midi-00007", "midi-00008"]
    for song in songs:
        assert set(song.stems) == set(STEMS)
        stems = {}
        for stem, path in song.stems.items():
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
            assert (rate, audio.shape) == (44100, (round(SECONDS * 44100), 2))
            stems[stem] = audio.T
        assert np.abs(sum(stems.values())).max() < 1
        assert not stems["vocals"].any()
        for stem in ("drums", "other"):
            assert np.sqrt(np.square(stems[stem]).mean()) > 0.01
        assert share_below(stems["bass"], 400) > 0.7
        assert share_below(stems["other"], 400) < share_below(stems["bass"], 400)
        facts = json.loads((out / song.name / "song.json").read_text())
        assert facts["pop909"] == "001"


@needs_sound
def test_a_seed_is_a_song_and_a_finished_song_is_left_alone(folders, tmp_path, capsys):
    assert FONTS, MISSING
    material = render_multitracks.find_material(folders / "pop909", folders / "groove", None)
    once, _ = render_multitracks.compose(material, 11, SECONDS)
    again, _ = render_multitracks.compose(material, 11, SECONDS)
    other, _ = render_multitracks.compose(material, 12, SECONDS)
    for stem in STEMS:
        np.testing.assert_array_equal(once[stem], again[stem])
    assert not np.array_equal(once["drums"], other["drums"])
    (tmp_path / "out/midi-00011").mkdir(parents=True)
    assert run(folders, tmp_path / "out", "--songs", "1", "--first-seed", "11", "--no-voices") == 0
    assert "skipped" in capsys.readouterr().err
    assert not list((tmp_path / "out/midi-00011").iterdir())


@needs_sound
def test_each_line_of_a_run_is_played_at_its_own_place():
    assert FONTS, MISSING
    low = synth.Line([score.Note(0.5, 1.0, 33, 100)], 33)
    high = synth.Line([score.Note(1.0, 0.5, 81, 100), score.Note(1.9, 5.0, 81, 100)], 73)
    both = synth.play([low, synth.Line([], 0), high], FONTS[0], 2.0)
    assert [audio.shape for audio in both] == [(2, 88200)] * 3
    for audio, at in zip(both, (0.5, 2.0, 1.0), strict=True):
        assert np.abs(audio[:, : round(at * 44100)]).max() < 1e-4
    assert share_below(both[0], 300) > 0.5 > share_below(both[2], 300)


def test_a_voice_is_brought_into_tune_and_enters_on_a_bar(tmp_path):
    time = np.arange(3 * 44100) / 44100
    wave = 0.3 * np.sin(2 * np.pi * 440 * 2 ** (0.3 / 12) * time) * (time > 1)  # A4, 30 cents sharp
    soundfile.write(tmp_path / "a.flac", wave, 44100)
    (tmp_path / "a.txt").write_text("1.0\t3.0\t69.3\n")
    audio, notes, first = mix.read_voice(tmp_path / "a.flac")
    assert notes[0].pitch == 69
    middle = audio[0, 66150:110250]  # one second, so that a bin is one hertz
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    laid = mix.lay_voice(audio, first, 2.0, 12.0, np.random.default_rng(0))
    onset = np.flatnonzero(np.abs(laid[0]) > 0.05)[0] / 44100
    assert onset % 2.0 == pytest.approx(0, abs=0.02)


@needs_sound
def test_voices_that_validate_models_are_left_out(folders, tmp_path):
    assert FONTS, MISSING
    (tmp_path / "voices").mkdir()
    for name in ("1011", "1072", "335"):  # the first and the last are held out by the config of openunmix-low
        soundfile.write(tmp_path / f"voices/{name}.flac", np.zeros(100), 44100)
        (tmp_path / f"voices/{name}.txt").write_text("0.0\t0.001\t60\n")
    material = render_multitracks.find_material(folders / "pop909", folders / "groove", tmp_path / "voices")
    assert [path.stem for path in material.voices] == ["1072"]


@pytest.mark.parametrize("width", [0.0, 1.0])
def test_placing_keeps_the_middle(width):
    audio = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    placed = effects.place(audio, 0.0, width)
    np.testing.assert_allclose(placed.sum(0), audio.sum(0), rtol=1e-6)
    assert (placed[0] == placed[1]).all() == (width == 0.0)


def test_compression_makes_loud_and_soft_parts_more_alike():
    rng = np.random.default_rng(0)
    audio = 0.1 * rng.standard_normal((2, 44100)).astype(np.float32)
    audio[:, 22050:] *= 5
    squeezed = effects.compress(audio, -12.0, 4.0)
    ratio = [np.std(x[:, 33075:]) / np.std(x[:, 11025:22050]) for x in (audio, squeezed)]
    assert ratio[0] == pytest.approx(5, rel=0.05)
    assert ratio[1] < 3


def test_what_is_missing_is_named(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as left:
        run(folders, tmp_path / "out", "--no-voices")
    assert left.value.code == 1
    assert "apt install fluidsynth" in capsys.readouterr().err


def test_a_missing_soundfont_is_named(tmp_path, monkeypatch):
    program = tmp_path / "fluidsynth"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(synth, "SOUNDS", tmp_path)
    with pytest.raises(synth.SynthError, match="apt install fluid-soundfont-gm timgm6mb-soundfont"):
        synth.check()


def test_folders_without_midi_are_named(tmp_path):
    with pytest.raises(score.ScoreError, match="--pop909"):
        score.list_pop_songs(tmp_path)
    with pytest.raises(score.ScoreError, match="--groove"):
        score.list_grooves(tmp_path)
