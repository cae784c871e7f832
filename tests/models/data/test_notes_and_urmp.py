"""Readers of stems with notes: folders with MIDI files, and URMP."""

from __future__ import annotations

from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from models.data.notes import Note, find_noted_stems, read_midi, roll_of
from models.data.readers import DataError
from models.data.urmp import find_urmp


def write_midi(path: Path, notes: list[tuple[float, float, int]], tempo: int = 500_000, end: bool = True) -> Path:
    """Notes as (onset s, duration s, MIDI number) at 480 ticks a quarter."""
    events = []
    for onset, duration, midi in notes:
        events += [(onset, 1, mido.Message("note_on", note=midi, velocity=90))]
        if end:
            events += [(onset + duration, 0, mido.Message("note_on", note=midi, velocity=0))]
    file = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo)])
    now = 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):
        tick = round(time * 480 * 1e6 / tempo)
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=480))
    file.tracks.append(track)
    file.save(path)
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    soundfile.write(path, np.zeros(int(seconds * 16000)), 16000)
    return path


def test_rolls_have_the_note_of_each_frame() -> None:
    roll = roll_of([Note(0.5, 0.75, 60), Note(0.10, 0.30, 62), Note(0.28, 0.34, 64), Note(-1.0, 0.02, 50)], 0.8)
    assert roll.shape == (80,)
    assert roll.dtype == np.int64
    expected = np.zeros(80, int)
    expected[:2], expected[10:28], expected[28:34], expected[50:75] = 50, 62, 64, 60
    assert roll.tolist() == expected.tolist()


def test_stems_beside_midi_files_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "duo"
    folder.mkdir()
    for name, suffix in (("violin_2", ".wav"), ("cello", ".flac")):
        write_audio(folder / f"{name}{suffix}")
        write_midi(folder / f"{name}.mid", [(0.25, 0.5, 60), (1.0, 0.25, 67)], tempo=400_000)
    cello, violin = find_noted_stems(tmp_path)
    assert (cello.piece, cello.instrument, cello.path.name) == ("duo", "cello", "cello.flac")
    assert violin.instrument == "violin"
    assert [n.midi for n in violin.notes] == [60, 67]
    np.testing.assert_allclose([(n.onset, n.offset) for n in violin.notes], [(0.25, 0.75), (1.0, 1.25)], atol=2e-3)


def test_notes_that_never_end_end_with_the_file_and_repeated_ones_with_the_next(tmp_path: Path) -> None:
    notes = read_midi(write_midi(tmp_path / "a.mid", [(0.0, 0.5, 60), (0.5, 0.5, 60)], end=False))
    assert [(round(n.onset, 2), round(n.offset, 2)) for n in notes] == [(0.0, 0.5), (0.5, 1.0)]


def test_midi_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empty\.mid has no notes"):
        read_midi(write_midi(tmp_path / "empty.mid", []))
    with pytest.raises(DataError, match=r"outside MIDI 21 to 108: \[12, 110\]; transpose"):
        read_midi(write_midi(tmp_path / "wide.mid", [(0, 1, 12), (1, 1, 110), (2, 1, 60)]))
    (tmp_path / "broken.mid").write_bytes(b"MThd and no more")
    with pytest.raises(DataError, match=r"broken\.mid is no readable MIDI file"):
        read_midi(tmp_path / "broken.mid")
    write_midi(tmp_path / "alone.mid", [(0, 1, 60)])
    (tmp_path / "broken.mid").unlink()
    with pytest.raises(DataError, match=r"alone\.mid has no audio beside it"):
        find_noted_stems(tmp_path)
    with pytest.raises(DataError, match="no stems with notes"):
        find_noted_stems(tmp_path / "nowhere")


def write_piece(root: Path, name: str, players: list[tuple[str, str]]) -> Path:
    """A URMP piece; each player has the instrument's code in the audio's and in the notes' file name."""
    folder = root / name
    folder.mkdir(parents=True)
    title = "_".join(name.split("_")[:2])
    write_audio(folder / f"AuMix_{name}.wav")
    for k, (audio, notes) in enumerate(players, start=1):
        write_audio(folder / f"AuSep_{k}_{audio}_{title}.wav")
        lines = f"0.100\t{440 * 2 ** (k / 12):.3f}\t0.500\n0.700\t261.6\t0.200\n"
        (folder / f"Notes_{k}_{notes}_{title}.txt").write_text(lines)
    return folder


def test_urmp_is_read_with_its_misspelt_trombone(tmp_path: Path) -> None:
    write_piece(tmp_path, "15_Surprise_tpt_tpt_tbn", [("tpt", "tpt"), ("tpt", "tpt"), ("tbt", "tbn")])
    write_piece(tmp_path, "01_Jupiter_vn_vc", [("vn", "vn"), ("vc", "vc")])
    (tmp_path / "Supplementary_Files").mkdir()
    stems = find_urmp(tmp_path)
    assert [(s.piece[:2], s.instrument) for s in stems] == [
        ("01", "violin"),
        ("01", "cello"),
        ("15", "trumpet"),
        ("15", "trumpet"),
        ("15", "trombone"),
    ]
    assert stems[1].notes == (Note(0.1, 0.6, 71), Note(0.7, pytest.approx(0.9), 60))
    assert stems[4].path.name == "AuSep_3_tbt_15_Surprise.wav"


def test_urmp_pieces_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no URMP pieces"):
        find_urmp(tmp_path)
    folder = write_piece(tmp_path, "02_Sonata_vn_vn", [("vn", "vn"), ("xx", "vn")])
    with pytest.raises(DataError, match=r"instrument 'xx' is none of vn, va"):
        find_urmp(tmp_path)
    (folder / "AuSep_2_xx_02_Sonata.wav").unlink()
    (folder / "Notes_1_vn_02_Sonata.txt").write_text("0.1 0.5\n")
    with pytest.raises(DataError, match=r"line 1: expected onset, pitch in Hz, duration; got '0\.1 0\.5'"):
        find_urmp(tmp_path)
    (folder / "Notes_1_vn_02_Sonata.txt").unlink()
    with pytest.raises(DataError, match=r"has 0 files Notes_1_\*\.txt; expected one"):
        find_urmp(tmp_path)
