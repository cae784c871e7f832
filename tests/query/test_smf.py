"""MIDI files: notes come back in time, and files that are none are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.errors import MidiFileError
from rtsep.query.notes import Bend, Note
from rtsep.query.smf import MidiNotes, Part, pitch_name, program_for, read_midi, within, write_midi

TICK_S = 1 / 960


def write(path: Path, *tracks: list[Any], kind: int = 1, ticks: int = 480) -> Path:
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    file.save(path)
    return path


def on(pitch: int, time: int = 0, velocity: int = 64, channel: int = 0) -> mido.Message:
    return mido.Message("note_on", note=pitch, velocity=velocity, time=time, channel=channel)


def off(pitch: int, time: int = 0, channel: int = 0) -> mido.Message:
    return mido.Message("note_off", note=pitch, time=time, channel=channel)


NOTES = st.lists(
    st.builds(
        lambda start, length, pitch, velocity: Note(start, start + length, pitch, velocity),
        st.floats(0, 100),
        st.floats(0.01, 5),
        st.integers(0, 127),
        st.integers(1, 127),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda note: note.pitch,
)


@settings(max_examples=50)
@given(NOTES)
def test_what_is_written_comes_back_to_the_tick(tmp_path_factory: pytest.TempPathFactory, notes: list[Note]) -> None:
    path = tmp_path_factory.mktemp("m") / "a.mid"
    write_midi(path, {"oboe": notes})
    back = read_midi(path)
    assert back.remarks == []
    by_pitch = {note.pitch: note for note in back.notes}
    assert len(back.notes) == len(notes)
    for note in notes:
        found = by_pitch[note.pitch]
        assert found.velocity == note.velocity
        assert found.start_s == pytest.approx(note.start_s, abs=TICK_S)
        assert found.end_s == pytest.approx(note.end_s, abs=1.1 * TICK_S)


def test_written_files_name_tempo_tracks_and_programs(tmp_path: Path) -> None:
    repeated = [Note(0.5, 1.0, 60, 90), Note(1.0, 1.5, 60, 80)]
    write_midi(tmp_path / "a.mid", {"my Oboe": repeated, "bass clarinet": [Note(0, 1, 40, 7)], "Flöte": []})
    file = mido.MidiFile(tmp_path / "a.mid", charset="utf-8")
    assert (file.type, file.ticks_per_beat) == (1, 480)
    assert file.tracks[0][0].tempo == 500_000
    assert [track.name for track in file.tracks[1:]] == ["my Oboe", "bass clarinet", "Flöte"]
    programs = [message for track in file.tracks for message in track if message.type == "program_change"]
    assert [(m.channel, m.program) for m in programs] == [(0, 68), (1, 71), (2, 0)]
    played = [(m.type, m.time) for m in file.tracks[1] if m.type.startswith("note")]
    assert played == [("note_on", 480), ("note_off", 480), ("note_on", 0), ("note_off", 480)]
    assert [p.name for p in tmp_path.iterdir()] == ["a.mid"]


def test_bends_turn_the_wheel_before_the_note_they_belong_to(tmp_path: Path) -> None:
    bends = [Bend(0.5, -0.5), Bend(0.75, 0.1), Bend(0.7501, 0.25), Bend(0.9, 0.25), Bend(1.5, 9.0), Bend(1.7, 0.0)]
    parts = {"voice": Part(2, None, bend_range=2), "keys": Part(3)}
    notes = {"voice": [Note(0.5, 1.5, 60, 90), Note(1.5, 2.0, 62, 80)], "keys": [Note(0.5, 1.0, 60, 90)]}
    write_midi(tmp_path / "a.mid", notes, parts, bends={"voice": bends, "keys": bends})
    voice, keys = mido.MidiFile(tmp_path / "a.mid").tracks[1:]
    range_set = [(m.control, m.value) for m in voice if m.type == "control_change"]
    assert range_set == [(101, 0), (100, 0), (6, 2), (101, 127), (100, 127)]
    at, found = 0, []
    for message in voice:
        at += message.time
        if message.type in ("pitchwheel", "note_on", "note_off"):
            found.append((at, message.type, message.pitch if message.type == "pitchwheel" else message.note))
    assert found == [
        (480, "pitchwheel", -2048), (480, "note_on", 60), (720, "pitchwheel", 1024), (1440, "note_off", 60),
        (1440, "pitchwheel", 8191), (1440, "note_on", 62), (1632, "pitchwheel", 0), (1920, "note_off", 62),
    ]  # fmt: skip
    assert {m.type for m in keys if not m.is_meta} == {"note_on", "note_off"}


def test_sixteen_stems_leave_percussions_channel_free(tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid", {f"s{i}": [Note(i, i + 1, 60, 64)] for i in range(15)})
    channels = {m.channel for track in mido.MidiFile(tmp_path / "a.mid").tracks for m in track if m.type == "note_on"}
    assert channels == set(range(16)) - {9}
    assert len(read_midi(tmp_path / "a.mid").notes) == 15


def test_tempo_changes_count_from_where_they_stand(tmp_path: Path) -> None:
    tempos = [
        mido.MetaMessage("set_tempo", tempo=1_000_000),
        mido.MetaMessage("set_tempo", tempo=250_000, time=200),  # after 2 s
    ]
    notes = [on(60, 100), off(60, 200), on(62, 100, 0), on(62, 100), off(62, 100)]
    found = read_midi(write(tmp_path / "a.mid", tempos, notes, ticks=100)).notes
    assert found == [Note(1.0, 2.25, 60, 64), Note(2.75, 3.0, 62, 64)]


def test_one_track_is_chosen_by_its_number(tmp_path: Path) -> None:
    violin = [mido.MetaMessage("track_name", name="Violin"), on(70), off(70, 480)]
    path = write(tmp_path / "a.mid", [mido.MetaMessage("set_tempo", tempo=500_000)], violin, [on(50), off(50, 480)])
    assert [note.pitch for note in read_midi(path).notes] == [50, 70]
    assert [note.pitch for note in read_midi(path, 3).notes] == [50]
    with pytest.raises(MidiFileError, match=r"no notes in track 1; tracks with notes: 2 'Violin' \(1 notes\); 3 \(1"):
        read_midi(path, 1)


def test_loose_ends_are_tied_and_said(tmp_path: Path) -> None:
    track = [on(60), on(60, 480), off(60, 480), off(61), on(36, 0, channel=9), off(36, 480, channel=9)]
    found = read_midi(write(tmp_path / "a.mid", track, kind=0))
    # The first note ends first; the other one never does, and ends with the track.
    assert found.notes == [Note(0.0, 1.0, 60, 64), Note(0.5, 1.5, 60, 64)]
    assert found.remarks == [
        "1 notes of percussion (channel 10) were left out.",
        "1 notes never end in the file; they end with their track.",
    ]


def smf(data: bytes, kind: int = 0, ticks: int = 480) -> bytes:
    buffer = io.BytesIO()
    buffer.write(b"MThd" + (6).to_bytes(4, "big") + kind.to_bytes(2, "big") + (1).to_bytes(2, "big"))
    buffer.write(ticks.to_bytes(2, "big") + b"MTrk" + len(data).to_bytes(4, "big") + data)
    return buffer.getvalue()


GOOD = b"\x00\x90\x3c\x40\x60\x80\x3c\x00\x00\xff\x2f\x00"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"RIFF" + bytes(50), "is no MIDI file"),
        (smf(GOOD)[:-5], "is broken: it ends in the middle"),
        (smf(GOOD)[:10], "is broken"),
        (smf(b"\x00\x90\x3c\xc0" + GOOD), "is broken: data byte"),
        (smf(b"\x00\x3c\x40"), "is broken: running status"),
        (smf(b"\x00\xff\x59\x02\x50\x05" + GOOD), "is broken"),
        (smf(b"\x00\xff\x51\x00" + GOOD), "is broken"),
        (smf(GOOD, kind=2), "of type 2; types 0 and 1"),
        (smf(GOOD, ticks=0xE728), "SMPTE"),
        (smf(b"\x00\xff\x2f\x00"), "holds no notes."),
        (smf(b"\x00\x99\x24\x40\x60\x89\x24\x00\x00\xff\x2f\x00"), "It has 1 notes of percussion"),
        (smf(b"\xff\xff\xff\xff\x7f\x90\x3c\x40\x60\x80\x3c\x00\x00\xff\x2f\x00"), "a note begins after"),
    ],
)
def test_files_without_notes_are_named(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "bad.mid"
    path.write_bytes(data)
    with pytest.raises(MidiFileError) as caught:
        read_midi(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 2))
def test_any_bytes_are_notes_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.mid"
    path.write_bytes(smf(data)[: len(smf(data)) - cut])
    try:
        found = read_midi(path).notes
    except MidiFileError:
        return
    assert found
    assert all(note.end_s > note.start_s >= 0 for note in found)


def test_missing_files_and_places(tmp_path: Path) -> None:
    with pytest.raises(MidiFileError, match="No such file"):
        read_midi(tmp_path / "none.mid")
    with pytest.raises(MidiFileError, match="cannot be written"):
        write_midi(tmp_path / "none" / "a.mid", {})


def test_notes_outside_the_range_are_named_and_counted() -> None:
    notes = [Note(i, i + 1, pitch, 64) for i, pitch in enumerate([20, 60, 109, 109])]
    kept = within(MidiNotes(notes, ["before."]), 21, 108, "a.mid")
    assert [note.pitch for note in kept.notes] == [60]
    text = "3 notes outside A0 (21) to C8 (108) were left out: 1 x Ab0 (20), 2 x C#8 (109)."
    assert kept.remarks == ["before.", text]
    with pytest.raises(MidiFileError, match=r"a\.mid: no note is within C4 \(60\) to C4"):
        within(MidiNotes(notes[:1]), 60, 60, "a.mid")


def test_names() -> None:
    assert [pitch_name(pitch) for pitch in (21, 60, 70, 108)] == ["A0", "C4", "Bb4", "C8"]
    assert [program_for(n) for n in ("english-horn 2", "French Horn", "tenor_sax", "thing")] == [69, 60, 66, 0]
