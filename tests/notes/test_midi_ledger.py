"""The ledger: whatever is played, killed and switched, the receiver ends up silent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.errors import UsageError
from rtsep.notes.block import MidiBlock
from rtsep.notes.ledger import MARKS, Ledger, Marks, note_off
from rtsep.notes.messages import NoteMessage, StripMidi, check_strips, default_strips

STRIPS = (
    StripMidi("drums", 10),
    StripMidi("bass", 1, 33, transpose=-12, mono=True),
    StripMidi("keys", 2, 0, polyphony=3),
    StripMidi("pad", 2, 48),  # the same channel, on purpose
    StripMidi("lead", 16, 80, mpe_channels=4),
)


@dataclass
class Receiver:
    """A strict instrument: it hears note-offs only, and complains of what a real one would stumble over."""

    sounding: set[tuple[int, int]] = field(default_factory=set)
    heard: list[bytes] = field(default_factory=list)

    def hear(self, messages: list[bytes]) -> None:
        for data in messages:
            assert len(data) == (2 if data[0] & 0xF0 in (0xC0, 0xD0) else 3)
            assert data[0] >= 0x80
            assert all(value < 128 for value in data[1:])
            self.heard.append(data)
            kind, key = data[0] & 0xF0, (data[0] & 15, data[1])
            if kind == 0x90:
                assert data[2] > 0
                assert key not in self.sounding, "a note was begun twice"
                self.sounding.add(key)
            elif kind == 0x80:
                assert data[2] == 64
                self.sounding.discard(key)


def on(stem: int, pitch: int, velocity: int = 90, bend: float = 0.0) -> NoteMessage:
    return NoteMessage(0.0, stem, "on", pitch, velocity, bend)


def off(stem: int, pitch: int) -> NoteMessage:
    return NoteMessage(0.0, stem, "off", pitch)


PITCHES = st.integers(58, 63)
STEMS = st.integers(0, len(STRIPS) - 1)
NOTES = st.builds(
    lambda stem, kind, pitch, velocity, bend: NoteMessage(0.0, stem, kind, pitch, velocity, bend),
    STEMS,
    st.sampled_from(["on", "on", "off", "off", "bend", "pressure"]),
    PITCHES,
    st.integers(1, 127),
    st.floats(-3, 3),
)
ACTIONS = st.one_of(
    NOTES,
    NOTES,
    NOTES,
    st.tuples(st.just("release"), st.one_of(st.none(), STEMS)),
    st.tuples(st.just("panic"), st.booleans()),
    st.tuples(st.just("strip"), STEMS, st.integers(1, 6)),
)


def act(ledger: Ledger, action: object) -> list[bytes]:
    if isinstance(action, NoteMessage):
        return ledger.messages(action)
    assert isinstance(action, tuple)
    if action[0] == "release":
        return ledger.release(action[1])
    if action[0] == "panic":
        return ledger.panic(every_note=action[1])
    return ledger.set_strip(action[1], StripMidi("x", action[2], polyphony=2))


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_the_receiver_holds_what_the_ledger_says_and_falls_silent(actions: list[object]) -> None:
    ledger, receiver = Ledger(STRIPS), Receiver()
    for action in actions:
        receiver.hear(act(ledger, action))
        assert receiver.sounding == set(ledger.sounding())
        if isinstance(action, tuple) and (action[0] == "panic" or action == ("release", None)):
            assert receiver.sounding == set()
    receiver.hear(ledger.release())
    assert receiver.sounding == set()


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=60), st.data())
def test_after_a_kill_anywhere_the_marks_silence_the_receiver(actions: list[object], data: st.DataObject) -> None:
    """The process may die between any two steps, and the driver may lose what it took during the last second."""
    marks, clock = Marks(), 100.0
    ledger = Ledger(STRIPS, marks)
    delivered: list[tuple[float, bytes]] = []
    steps = data.draw(st.integers(0, 200))
    for action in actions:
        clock += data.draw(st.sampled_from([0.0, 0.01, 0.4]))
        for message in act(ledger, action):
            marks.sending(message)
            steps -= 1
            if steps == 0:
                break
            delivered.append((clock, message))
            marks.sent(message, clock)
        if steps <= 0:
            break
    lost_after = clock - data.draw(st.floats(0, 1))
    receiver = Receiver()
    for at, message in delivered:
        if at <= lost_after:
            # What a receiver hears of a torn stream may be odd; only silence at the end counts.
            kind, key = message[0] & 0xF0, (message[0] & 15, message[1])
            if kind == 0x90:
                receiver.sounding.add(key)
            elif kind == 0x80:
                receiver.sounding.discard(key)
    receiver.hear(Ledger(STRIPS, marks).panic(suspects=marks.suspects(clock - 2.0)))
    assert receiver.sounding == set()


def test_a_note_that_sounds_is_ended_before_it_begins_again() -> None:
    ledger = Ledger(STRIPS)
    assert ledger.messages(on(2, 60, 90)) == [b"\x91\x3c\x5a"]
    assert ledger.messages(on(2, 60, 80)) == [b"\x81\x3c\x40", b"\x91\x3c\x50"]
    assert ledger.messages(on(3, 60, 70)) == [b"\x81\x3c\x40", b"\x91\x3c\x46"]
    assert ledger.sounding() == {(1, 60): 2}
    assert ledger.messages(off(2, 60)) == []
    assert ledger.messages(off(2, 60)) == []
    assert ledger.messages(off(3, 60)) == [b"\x81\x3c\x40"]
    assert ledger.messages(off(3, 60)) == []


def test_one_note_too_many_ends_the_oldest() -> None:
    ledger = Ledger(STRIPS)
    for pitch in (60, 61, 62):
        ledger.messages(on(2, pitch))
    ledger.messages(on(2, 60))  # struck again: now the youngest
    assert ledger.messages(on(2, 63)) == [note_off(1, 61), b"\x91\x3f\x5a"]
    assert ledger.messages(on(1, 50)) == [b"\x90\x26\x5a"]
    assert ledger.messages(on(1, 52)) == [note_off(0, 38), b"\x90\x28\x5a"]


def test_release_ends_notes_before_controllers_and_leaves_other_strips_alone() -> None:
    ledger = Ledger(STRIPS)
    for message in (on(0, 36), on(2, 60), on(3, 64), on(1, 40, bend=1.0)):
        ledger.messages(message)
    # The pad still sounds on channel 2: no "all notes off" there.
    assert ledger.release(2) == [note_off(1, 60)]
    assert ledger.release(1) == [note_off(0, 28), b"\xb0\x40\x00", b"\xb0\x7b\x00", b"\xe0\x00\x40"]
    rest = ledger.release()
    assert rest[:2] == [note_off(9, 36), note_off(1, 64)]
    assert rest[2:] == [
        bytes((status | channel, *values))
        for channel in (0, 1, 9)
        for status, values in ((0xB0, (64, 0)), (0xB0, (123, 0)), (0xE0, (0, 64)))
    ]


def test_panic_sweeps_used_channels_before_any_controller() -> None:
    ledger = Ledger(STRIPS)
    ledger.messages(on(0, 36))
    out = ledger.panic(every_note=True)
    assert {data[:2] for data in out[:128]} == {bytes((0x89, note)) for note in range(128)}
    assert [data[0] & 0xF0 for data in out[128:]] == [0xB0, 0xB0, 0xB0, 0xB0, 0xE0] * 16
    assert [data[1] for data in out[128:133]] == [64, 123, 120, 121, 0]
    ledger.use_all_channels()
    assert len(ledger.panic(every_note=True)) == 16 * 128 + 80


def test_bends_belong_to_mono_strips_and_mpe() -> None:
    ledger = Ledger(STRIPS)
    assert ledger.messages(on(1, 60, bend=1.0)) == [b"\xe0\x00\x60", b"\x90\x30\x5a"]  # before the note
    assert ledger.messages(NoteMessage(0, 1, "bend", 60, bend=5.0)) == [b"\xe0\x7f\x7f"]
    assert ledger.messages(NoteMessage(0, 1, "bend", 60, bend=6.0)) == []  # nothing changes
    assert ledger.messages(NoteMessage(0, 1, "bend", 60, bend=-2.0)) == [b"\xe0\x00\x00"]
    ledger.messages(on(2, 60))
    assert ledger.messages(NoteMessage(0, 2, "bend", 60, bend=1.0)) == []
    assert ledger.messages(NoteMessage(0, 2, "pressure", 60, 33)) == [b"\xd1\x21"]


def test_mpe_takes_the_channel_that_is_free_for_longest() -> None:
    ledger = Ledger(STRIPS)

    def channel(messages: list[bytes]) -> int:
        return next(data[0] & 15 for data in messages if data[0] & 0xF0 == 0x90) + 1

    assert [channel(ledger.messages(on(4, pitch))) for pitch in (60, 61, 62, 63)] == [15, 14, 13, 12]
    assert [d[0] for d in ledger.messages(NoteMessage(0, 4, "bend", 61, bend=1.0))] == [0xED]
    ledger.messages(off(4, 62))
    ledger.messages(off(4, 60))
    assert channel(ledger.messages(on(4, 70))) == 13
    assert channel(ledger.messages(on(4, 71, bend=0.5))) == 15
    out = ledger.messages(on(4, 72))  # none is free: the oldest note, on 14, ends, and its bend with it
    assert [data[0] for data in out] == [0x8D, 0xED, 0x9D]
    assert out[1] == b"\xed\x00\x40"


def test_set_up_says_programs_ranges_and_zones() -> None:
    ledger = Ledger(STRIPS)
    assert ledger.setup(0) == []
    rpn = [b"\xb0\x65\x00", b"\xb0\x64\x00", b"\xb0\x06\x02", b"\xb0\x65\x7f", b"\xb0\x64\x7f"]
    assert ledger.setup(1) == [*rpn, b"\xc0\x21"]
    zone = ledger.setup(4)
    assert zone[:3] == [b"\xbf\x65\x00", b"\xbf\x64\x06", b"\xbf\x06\x04"]
    assert zone[5:8] == [b"\xbe\x65\x00", b"\xbe\x64\x00", b"\xbe\x06\x30"]
    ledger.messages(on(4, 60))
    moved = ledger.set_strip(4, StripMidi("lead", 5, 80))
    assert moved[0] == note_off(14, 60)
    assert b"\xbf\x06\x00" in moved  # the zone ends
    assert moved[-1] == b"\xc4\x50"
    assert ledger.messages(off(4, 60)) == []


def test_marks_live_in_the_shared_block(tmp_path: object) -> None:
    block = MidiBlock()
    try:
        block.marks.sending(b"\x91\x3c\x5a")
        block.marks.sending(b"\x92\x3d\x5a")
        block.marks.sent(b"\x82\x3d\x40", 12.5)
        block.marks.sent(b"\x82\x3e\x40", 12.5)  # of a sweep: it was never begun
        block.write_facts({"port": "a", "connections": ["ü"]})
        block.count("sent", 3)
        other = MidiBlock(block.path)
        assert other.marks.sounding() == [(1, 60)]
        assert other.marks.suspects(12.0) == [(1, 60), (2, 61)]
        assert other.marks.suspects(12.5) == [(1, 60)]
        assert other.marks.suspects(math.inf) == []
        assert other.marks.used() == [1, 2]
        assert other.facts() == {"port": "a", "connections": ["ü"]}
        assert other.counter("sent") == 3
        block.write_facts({"port": "x" * 10_000})  # too long: the old ones stay
        assert other.facts()["port"] == "a"
        other.marks.clear()
        assert block.marks.used() == block.marks.suspects(-math.inf) == []
    finally:
        block.unlink()
    assert not block.path.exists()
    with pytest.raises(ValueError, match=str(MARKS)):
        Marks(memoryview(bytearray(8)).cast("d"))


# --- what strips and messages allow -----------------------------------------------------------------------------------


def test_stems_get_channels_and_programs() -> None:
    strips = default_strips(["drums", "bass", "other", "vocals"])
    assert [(s.name, s.channel, s.program) for s in strips] == [
        ("drums", 10, None),
        ("bass", 1, 33),
        ("other", 2, 0),
        ("vocals", 3, 53),
    ]
    many = default_strips([f"s{i}" for i in range(15)])
    assert [s.channel for s in many] == [*range(1, 10), *range(11, 17)]
    with pytest.raises(UsageError, match="16 stems with pitch do not fit"):
        default_strips([f"s{i}" for i in range(16)])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"name": ""}, "empty"),
        ({"channel": 0}, "channel must be 1 to 16; got 0"),
        ({"channel": 17}, "got 17"),
        ({"channel": True}, "got True"),
        ({"program": 128}, "program must be 0 to 127; got 128"),
        ({"transpose": 128}, "transpose must be -127 to 127"),
        ({"velocity_curve": 0.0}, r"0\.1 to 10; got 0\.0"),
        ({"velocity_curve": math.nan}, "got nan"),
        ({"bend_range": 0}, "bend_range must be 1 to 96"),
        ({"polyphony": 0}, "polyphony must be 1 to 128"),
        ({"mpe_channels": 4}, "channel 1 or 16; got channel 2"),
        ({"channel": 1, "mpe_channels": 16}, "mpe_channels must be 0 to 15"),
        ({"channel": 1, "mpe_channels": 2, "mono": True}, "exclude each other"),
    ],
)
def test_wrong_strips_are_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        StripMidi(**{"name": "keys", "channel": 2, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"kind": "of"}, "one of on, off, bend, pressure; got 'of'"),
        ({"due_s": math.nan}, "got nan"),
        ({"stem": -1}, "got -1"),
        ({"pitch": 128}, "pitch must be 0 to 127; got 128"),
        ({"velocity": 0}, r"\(on\): velocity must be 1 to 127; got 0"),
        ({"bend": 100.0}, "-96 to 96"),
    ],
)
def test_wrong_messages_are_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        NoteMessage(**{"due_s": 0.0, "stem": 0, "kind": "on", **values})  # type: ignore[arg-type]


def test_mpe_zones_share_no_channel() -> None:
    zone = StripMidi("lead", 1, mpe_channels=3)
    check_strips([zone, StripMidi("bass", 5), StripMidi("keys", 5)])
    with pytest.raises(UsageError, match="Channel 4 belongs to the MPE zone of 'lead' and to 'bass'"):
        check_strips([StripMidi("bass", 4), zone])


def test_velocities_follow_the_curve() -> None:
    assert [StripMidi("a", 1).velocity(v) for v in (1, 64, 127)] == [1, 64, 127]
    assert [StripMidi("a", 1, velocity_curve=2.0).velocity(v) for v in (1, 64, 127)] == [1, 32, 127]
    assert StripMidi("a", 1, velocity_curve=0.5).velocity(32) == 64


def test_notes_transposed_beyond_midi_are_not_played() -> None:
    ledger = Ledger([StripMidi("a", 1, transpose=12)])
    assert ledger.messages(on(0, 116)) == []
    assert ledger.messages(off(0, 116)) == []
    assert ledger.sounding() == {}
