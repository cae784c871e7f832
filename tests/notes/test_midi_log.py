"""The event log becomes the MIDI file it describes, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.errors import MidiFileError, UsageError
from rtsep.notes.log import EventLog, recover
from rtsep.notes.messages import StripMidi, default_strips

STRIPS = default_strips(["drums", "bass"])
TICK_S = 1 / 960


def notes_of(path: Path) -> dict[str, list[tuple[float, float, int, int]]]:
    """Start, end, pitch and velocity of each track, read by mido."""
    file = mido.MidiFile(path, charset="utf-8")
    tempo = next(m.tempo for m in file.tracks[0] if m.type == "set_tempo")
    found = {}
    for track in file.tracks[1:]:
        at, open_notes, notes = 0.0, {}, []
        for message in track:
            at += mido.tick2second(message.time, file.ticks_per_beat, tempo)
            if message.type == "note_on":
                assert message.note not in open_notes
                open_notes[message.note] = (at, message.velocity)
            elif message.type == "note_off":
                start, velocity = open_notes.pop(message.note)
                notes.append((start, at, message.note, velocity))
        assert open_notes == {}
        found[track.name] = sorted(notes)
    return found


def test_a_log_becomes_a_file_with_names_channels_and_programs(tmp_path: Path) -> None:
    with EventLog(tmp_path / "take.jsonl", STRIPS, 48_000, tempo=90.0) as log:
        log.on(1, 40, 90, 1.0, 1.07)
        log.on(0, 36, 100, 1.25, 1.32)
        log.off(0, 36, 1.3, 1.37)
        log.off(1, 40, 2.0, 2.07)
        log.on(1, 43, 80, 2.0, 2.07)
    made = recover(tmp_path / "take.jsonl")
    assert (made.path, made.notes, made.closed, made.remarks) == (
        tmp_path / "take.mid",
        {"drums": 1, "bass": 2},
        1,
        [],
    )
    file = mido.MidiFile(made.path)
    assert file.type == 1
    assert file.tracks[0][0].tempo == round(60e6 / 90)
    programs = [(m.channel, m.program) for track in file.tracks for m in track if m.type == "program_change"]
    assert programs == [(0, 33)]
    assert {m.channel for m in file.tracks[1] if m.type == "note_on"} == {9}
    found = notes_of(made.path)
    assert [note[2:] for note in found["bass"]] == [(40, 90), (43, 80)]
    assert found["bass"][0][:2] == pytest.approx((1.0, 2.0), abs=2 * TICK_S)
    assert found["drums"][0][:2] == pytest.approx((1.25, 1.3), abs=2 * TICK_S)


def test_bends_of_a_log_turn_the_wheel(tmp_path: Path) -> None:
    strips = [StripMidi("voice", 3, mono=True), StripMidi("lead", 1, mpe_channels=4), StripMidi("keys", 9)]
    with EventLog(tmp_path / "take.jsonl", strips, 48_000) as log:
        log.on(0, 60, 90, 1.0, 1.07, -0.5)
        log.bend(0, 60, 0.5, 1.5, 1.57)
        log.on(1, 60, 90, 1.0, 1.07, 24.0)
        log.on(2, 60, 90, 1.0, 1.07, 1.0)
        for stem in range(3):
            log.off(stem, 60, 2.0, 2.07)
    made = recover(tmp_path / "take.jsonl")
    assert made.notes == {"voice": 1, "lead": 1, "keys": 1}
    voice, lead, keys = mido.MidiFile(made.path).tracks[1:]
    assert [m.pitch for m in voice if m.type == "pitchwheel"] == [-2048, 2048]
    assert [m.value for m in voice if m.type == "control_change"][2] == 2
    assert [m.pitch for m in lead if m.type == "pitchwheel"] == [4096]  # of 48 semitones
    assert not [m for m in keys if m.type in ("pitchwheel", "control_change")]


@pytest.mark.parametrize(
    "line",
    [
        '{"bend": 1.0, "stem": 0, "pitch": 60}',
        '{"bend": 1.0, "stem": 0, "pitch": 60, "semitones": 200}',
        '{"bend": 1.0, "stem": 0, "pitch": 60, "semitones": NaN}',
    ],
)
def test_a_bend_that_says_nothing_is_named(tmp_path: Path, line: str) -> None:
    with EventLog(tmp_path / "take.jsonl", STRIPS, 48_000):
        pass
    with (tmp_path / "take.jsonl").open("a") as log:
        log.write(line + "\n")
    with pytest.raises(MidiFileError, match="line 2"):
        recover(tmp_path / "take.jsonl")


def test_a_killed_writer_leaves_every_note_behind(tmp_path: Path) -> None:
    script = f"""
import time
from rtsep.notes.log import EventLog
from rtsep.notes.messages import default_strips
log = EventLog({str(tmp_path / "take.jsonl")!r}, default_strips(["keys"]), 48000)
for k in range(50):
    log.on(0, 40 + k, 64, k / 10, k / 10 + 0.07)
    if k < 49:
        log.off(0, 40 + k, k / 10 + 0.05, k / 10 + 0.12)
print("written", flush=True)
time.sleep(60)
"""
    root = Path(__file__).resolve().parents[2]
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root)
    assert writer.stdout is not None
    assert writer.stdout.readline().strip() == b"written"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    made = recover(tmp_path / "take.jsonl")
    assert made.notes == {"keys": 50}
    assert made.closed == 1
    assert [note[2] for note in notes_of(made.path)["keys"]] == list(range(40, 90))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 1), st.integers(60, 63), st.floats(0.002, 0.5), st.integers(1, 127)),
        max_size=30,
    ),
    st.integers(0, 60),
)
def test_any_take_cut_anywhere_is_a_whole_file(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[bool, int, int, float, int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    at = 0.0
    with EventLog(folder / "a.jsonl", STRIPS, 44_100) as log:
        for begins, stem, pitch, gap, velocity in events:
            at += gap
            if begins:
                log.on(stem, pitch, velocity, at, at + 0.07)
            else:
                log.off(stem, pitch, at, at + 0.07)
    data = (folder / "a.jsonl").read_bytes()
    header = data.index(b"\n") + 1
    (folder / "a.jsonl").write_bytes(data[: max(header, len(data) - cut)])
    whole = (folder / "a.jsonl").read_bytes().rpartition(b"\n")[0].splitlines()[1:]
    begun = sum("on" in json.loads(line) for line in whole)
    made = recover(folder / "a.jsonl", folder / "b.mid")
    assert sum(made.notes.values()) == begun
    assert sum(map(len, notes_of(folder / "b.mid").values())) == begun


GOOD = '{"rtsep": "notes", "version": 1, "samplerate": 1, "tempo": 120, "strips": [{"name": "a", "channel": 1, "program": null}]}'  # noqa: E501


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{", "has not one whole line"),
        ("\xff\n", "not text"),
        ("RIFF\n", "is no log of notes: its first line"),
        ("[]\n", "first line"),
        (GOOD.replace('"notes"', '"audio"') + "\n", "first line"),
        (GOOD.replace('"channel": 1', '"channel": 17') + "\n", "first line"),
        (GOOD.replace("120", "1e999") + "\n", "first line"),
        (GOOD.replace('"version": 1', '"version": 2') + "\n", "of version 2; this rtsep reads version 1"),
        (GOOD + '\n{"on": 1}\n', "broken in line 2"),
        (GOOD + '\n{"off": 1, "stem": 0, "pitch": 1}\nx\n{}\n', "broken in line 3: 'x' is no event"),
        (GOOD + '\n{"on": 1, "stem": 1, "pitch": 1, "velocity": 1}\n', "broken in line 2"),
        (GOOD + '\n{"on": 1, "stem": 0, "pitch": 128, "velocity": 1}\n', "broken in line 2"),
        (GOOD + '\n{"on": NaN, "stem": 0, "pitch": 12, "velocity": 1}\n', "broken in line 2"),
        (GOOD + '\n{"on": 1e300, "stem": 0, "pitch": 12, "velocity": 1}\n', "broken in line 2"),
        (GOOD + "\n" + "[" * 100_000 + "\n", "broken in line 2"),
    ],
)
def test_what_is_no_log_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(MidiFileError, match=said) as caught:
        recover(tmp_path / "a.jsonl")
    assert str(tmp_path / "a.jsonl") in str(caught.value)
    assert not (tmp_path / "a.mid").exists()


def test_missing_places_and_names(tmp_path: Path) -> None:
    with pytest.raises(MidiFileError, match="No such file"):
        recover(tmp_path / "none.jsonl")
    with pytest.raises(MidiFileError, match="the log itself"):
        recover(tmp_path / "a.mid", tmp_path / "a.mid")
    with pytest.raises(MidiFileError, match="cannot be written"):
        EventLog(tmp_path / "none" / "a.jsonl", STRIPS, 48_000)
    with pytest.raises(UsageError, match="4 to 1000"):
        EventLog(tmp_path / "a.jsonl", STRIPS, 48_000, tempo=0)
    with pytest.raises(UsageError, match="same name"):
        EventLog(tmp_path / "a.jsonl", [StripMidi("a", 1), StripMidi("a", 2)], 48_000)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_log_not_the_music() -> None:
    with pytest.raises(MidiFileError, match="No space left"):
        EventLog("/dev/full", STRIPS, 48_000)
