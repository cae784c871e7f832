"""Rendered clips: what is played is what is written down."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.data.clips import onset_lag
from tests.tools.test_render_multitracks import write_midi
from tools import render_notes
from tools.multitracks import synth
from tools.multitracks.score import Note
from tools.notes import compose
from tools.notes.play import Line, play_lines

try:
    FONTS = synth.check()
except synth.SynthError:
    FONTS = []

needs_sound = pytest.mark.skipif(not FONTS and not os.environ.get("CI"), reason="fluidsynth or soundfonts are missing")


def test_one_voice_never_overlaps() -> None:
    rng = np.random.default_rng(0)
    notes = [
        Note(float(s), 1.0, int(p), 80) for s, p in zip(rng.uniform(0, 10, 60), rng.integers(40, 80, 60), strict=True)
    ]
    line = compose.one_voice(notes, 12.0)
    assert len(line) > 20
    for before, after in itertools.pairwise(line):
        assert before.start + before.length <= after.start
        assert after.start - before.start >= 0.05


def test_a_line_strikes_no_pitch_that_is_held() -> None:
    notes = [Note(0.0, 2.0, 60, 80), Note(0.5, 1.0, 60, 80), Note(0.52, 1.0, 60, 80), Note(0.5, 9.0, 64, 80)]
    line = compose._line(notes, 12)
    assert [(n.start, n.pitch) for n in line.notes] == [(0.0, 60), (0.5, 60), (0.5, 64)]
    assert line.notes[0].start + line.notes[0].length <= 0.5
    assert line.notes[2].length == compose.LONGEST[12]  # a marimba does not sound for nine seconds


def test_bends_follow_the_pitch_of_what_is_struck() -> None:
    line = [Note(0.2, 0.5, 60, 80), Note(0.7, 0.5, 62, 80), Note(1.6, 0.3, 65, 80)]
    played, bends, pitch = compose.bent(line, 2.5, 1.0, np.random.default_rng(4))
    assert len(played) == 2  # the second note is reached by a glide
    assert played[0].length == pytest.approx(1.0)
    assert np.abs(pitch[80:118] - 62).max() <= 0.7
    assert (pitch[122:158] == 0).all()
    assert [value for time, value in bends if time < 1.5][-1] == pytest.approx(2.0, abs=0.7)
    assert max(abs(value) for _, value in bends) < 12


@needs_sound
def test_sound_begins_where_the_note_does_and_bends_are_heard() -> None:
    notes = [Note(0.5, 0.4, 69, 100), Note(1.5, 0.4, 69, 100)]
    straight, bent = play_lines([Line(notes, 0), Line(notes, 16, bends=((0.0, 3.0),))], FONTS[0], 2.5)
    mono = np.interp(np.arange(0, 2.5, 1 / 16000), np.arange(straight.shape[1]) / 44100, straight.mean(0))
    assert np.abs(onset_lag(mono.astype(np.float32), [0.5, 1.5])).max() < 0.012
    piece = bent.mean(0)[round(0.6 * 44100) : round(0.85 * 44100)]
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 16))
    hertz = np.fft.rfftfreq(1 << 16, 1 / 44100)
    near = (hertz > 480) & (hertz < 570)
    assert hertz[near][spectrum[near].argmax()] == pytest.approx(440 * 2 ** (3 / 12), rel=0.01)


def folders(tmp_path: Path) -> list[str]:
    pop, groove = tmp_path / "pop", tmp_path / "groove"
    pop.mkdir()
    groove.mkdir()
    piano = [(beat, 0.9, 48 + (beat * 5 + k * 4) % 24) for beat in range(80) for k in range(2)]
    melody = [(beat, 0.8, 60 + beat % 9) for beat in range(80)]
    write_midi(pop / "001.mid", {"MELODY": melody, "BRIDGE": [], "PIANO": piano})
    hits = [(beat / 2, 0.1, (36, 42, 38, 42)[beat % 4]) for beat in range(64)]
    write_midi(groove / "1_rock_100_beat_4-4.mid", {"drums": hits}, channel=9)
    orchestra = tmp_path / "orchestra"
    for name, low in (("flute", 60), ("cello", 40), ("horn", 50), ("oboe", 58)):
        (orchestra / name).mkdir(parents=True)
        for midi in range(low, low + 25, 2):
            time = np.arange(16000) / 16000
            tone = 0.5 * np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * time) * np.minimum(1, time * 50)
            soundfile.write(orchestra / name / f"{midi}_forte_normal.wav", tone, 16000)
    options = ["--pop909", str(pop), "--groove", str(groove), "--orchestra", str(orchestra)]
    return [*options, "--cache", str(tmp_path / "cache"), "--seconds", "6"]


@needs_sound
@pytest.mark.parametrize("kind", list(render_notes.COMPOSERS))
def test_clips_are_a_function_of_their_seed_and_made_once(tmp_path: Path, kind: str) -> None:
    options = [*folders(tmp_path), "--kind", kind]
    for out, first, count in (("a", 0, 4), ("b", 2, 2)):
        arguments = ["--out", str(tmp_path / out), *options, "--clips", str(count), "--first-seed", str(first)]
        assert render_notes.main(arguments) == 0
    for seed in (2, 3):
        a, b = (tmp_path / out / kind / f"{seed:06d}.flac" for out in ("a", "b"))
        assert json.loads(a.with_suffix(".json").read_text()) == json.loads(b.with_suffix(".json").read_text())
        x, rate = soundfile.read(a)
        y, _ = soundfile.read(b)
        assert rate == 16000
        # The notes are the same; how FluidSynth sounds them depends a little, with some soundfonts, on what the same
        # batch played before.
        difference_db = 10 * np.log10(np.sum((x - y) ** 2) / np.sum(x**2) + 1e-12)
        assert difference_db < -45
    document = json.loads((tmp_path / "a" / kind / "000002.json").read_text())
    assert document["notes"]
    assert ("pitch" in document) == (kind == "monophonic")
    when = (tmp_path / "a" / kind / "000000.flac").stat().st_mtime_ns
    assert render_notes.main(["--out", str(tmp_path / "a"), *options, "--clips", "4"]) == 0
    assert (tmp_path / "a" / kind / "000000.flac").stat().st_mtime_ns == when


def test_missing_material_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "o"), "--kind", "drums", "--pop909", str(tmp_path / "none")]
    with pytest.raises(SystemExit):
        render_notes.main(arguments)
    assert "no POP909 files" in capsys.readouterr().err
