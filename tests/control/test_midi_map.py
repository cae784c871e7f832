"""MIDI messages to parameters: texts, learning, soft take-over, buttons, pairs of 14 bits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rtsep.control.midi_map import MidiControl, MidiMap, MidiMapping
from rtsep.control.registry import Parameter, Registry
from rtsep.errors import UsageError

GAIN, PAN, MUTE, DIAL = "stem/vocals/gain_db", "stem/vocals/pan", "stem/vocals/mute", "notes/latency"


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(Parameter(GAIN, "float", -120.0, 24.0, 0.0, "dB", scale="fader"))
    registry.add(Parameter(PAN, "float", -1.0, 1.0, 0.0, scale="balance"))
    registry.add(Parameter(MUTE, "bool", default=False))
    registry.add(Parameter(DIAL, "choice", default="normal", choices=("tight", "normal", "quality")))
    return registry


def mapped(registry: Registry, control: str, path: str, mode: str | None = None) -> MidiMap:
    mapping = MidiMapping.make(MidiControl.parse(control), registry.parameter(path), mode)
    return MidiMap(registry, [mapping])


def cc(number: int, value: int, channel: int = 1) -> bytes:
    return bytes((0xB0 | (channel - 1), number, value))


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["ch1 cc7", "ch16 cc127", "ch1 cc0+32", "ch3 cc31+63", "ch10 note36", "ch1 bend", "ch2 pressure"]
)
def test_controls_have_texts(text: str) -> None:
    assert str(MidiControl.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "cc7", "ch0 cc7", "ch17 cc7", "ch1 cc128", "ch1 note128", "ch1 cc32+64", "ch1 cc7+40", "ch1 note7+39", "ch1"],
)
def test_texts_of_no_control(text: str) -> None:
    with pytest.raises(UsageError, match=r"MIDI control|of a pair"):
        MidiControl.parse(text)


def test_a_mode_has_to_fit(registry: Registry) -> None:
    with pytest.raises(UsageError, match="allowed is toggle, follow"):
        mapped(registry, "ch1 cc7", MUTE, "pickup")
    with pytest.raises(UsageError, match="Did you mean 'pickup'"):
        mapped(registry, "ch1 cc7", GAIN, "pickpu")


# --- take-over --------------------------------------------------------------------------------------------------------


def test_a_fader_moves_only_after_the_control_has_reached_it(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc7", GAIN)
    registry.set(GAIN, -10.0)  # half-way up
    for value in (0, 20, 40, 60):
        midi.take(cc(7, value))
        assert registry.get(GAIN) == -10.0
    midi.take(cc(7, 70))  # across it
    assert float(registry.get(GAIN)) == pytest.approx(-8.1, abs=0.1)
    midi.take(cc(7, 20))  # from here on it holds
    assert float(registry.get(GAIN)) == pytest.approx(-42.5, abs=0.1)
    registry.set(GAIN, 0.0, "web")  # somebody else took it away
    midi.take(cc(7, 21))
    assert registry.get(GAIN) == 0.0
    midi.take(cc(7, 127))
    assert registry.get(GAIN) == 24.0


def test_the_first_touch_may_be_near_enough(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc7", PAN)
    midi.take(cc(7, 90))
    assert registry.get(PAN) == 0.0
    midi = mapped(registry, "ch1 cc7", PAN)
    midi.take(cc(7, 65))
    assert registry.get(PAN) == pytest.approx(1 / 63)


def test_without_take_over_it_follows_at_once_and_meets_centre_ends_and_0_db(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc7", PAN, "jump")
    for value, pan in ((127, 1.0), (64, 0.0), (0, -1.0)):
        midi.take(cc(7, value))
        assert registry.get(PAN) == pan
    midi = mapped(registry, "ch1 cc7", GAIN, "jump")
    met = set()
    for value in range(128):
        midi.take(cc(7, value))
        met.add(registry.get(GAIN))
    assert {-120.0, 0.0, 24.0} <= met
    assert len(met) >= 126


def test_other_channels_and_numbers_move_nothing(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc7", GAIN, "jump")
    for message in (cc(7, 10, channel=2), cc(8, 10), bytes((0x90, 7, 100)), bytes((0xE0, 0, 0)), bytes((0xC0, 7))):
        midi.take(message)
    assert registry.get(GAIN) == 0.0


# --- buttons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "down", "up"),
    [
        ("ch10 note36", bytes((0x99, 36, 1)), bytes((0x89, 36, 64))),
        ("ch10 note36", bytes((0x99, 36, 127)), bytes((0x99, 36, 0))),
        ("ch1 cc20", cc(20, 127), cc(20, 0)),
    ],
)
def test_every_press_of_a_button_turns_a_switch_over(registry: Registry, control: str, down: bytes, up: bytes) -> None:
    midi = mapped(registry, control, MUTE)
    for on in (True, False, True):
        midi.take(down)
        assert registry.get(MUTE) is on
        midi.take(up)
        assert registry.get(MUTE) is on


def test_a_latching_button_is_followed(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc20", MUTE, "follow")
    for value, on in ((127, True), (127, True), (0, False), (64, True)):
        midi.take(cc(20, value))
        assert registry.get(MUTE) is on


def test_a_pad_turns_a_dial_and_its_velocity_is_a_position(registry: Registry) -> None:
    midi = mapped(registry, "ch1 note60", DIAL)
    for word in ("quality", "tight", "normal"):
        midi.take(bytes((0x90, 60, 100)))
        midi.take(bytes((0x80, 60, 0)))
        assert registry.get(DIAL) == word
    midi = mapped(registry, "ch1 note60", PAN)
    midi.take(bytes((0x90, 60, 127)))
    midi.take(bytes((0x80, 60, 0)))
    assert registry.get(PAN) == 1.0


# --- 14 bits ----------------------------------------------------------------------------------------------------------


def test_a_pair_of_controllers_has_14_bits(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc7+39", PAN, "jump")
    midi.take(cc(7, 100))
    assert registry.get(PAN) == 0.0, "the upper half waits for the lower"
    midi.take(cc(39, 1))
    assert registry.get(PAN) == pytest.approx(2 * (0.5 + (100 * 128 + 1 - 8192) / (2 * 8191)) - 1)
    midi.take(cc(39, 2))
    assert registry.get(PAN) == pytest.approx(2 * (0.5 + (100 * 128 + 2 - 8192) / (2 * 8191)) - 1)


def test_a_wheel_has_14_bits_and_a_centre(registry: Registry) -> None:
    midi = mapped(registry, "ch1 bend", PAN, "jump")
    for message, pan in (((0xE0, 127, 127), 1.0), ((0xE0, 0, 64), 0.0), ((0xE0, 0, 0), -1.0)):
        midi.take(bytes(message))
        assert registry.get(PAN) == pan


# --- learning ---------------------------------------------------------------------------------------------------------


def test_controls_are_learnt_by_touch_one_after_the_other(registry: Registry) -> None:
    said: list[str] = []
    midi = MidiMap(registry, report=said.append)
    midi.learn(GAIN, MUTE)
    assert midi.learning == GAIN
    midi.take(bytes((0x80, 36, 0)))  # a key that is let go is no touch
    for value in (50, 51, 52):
        midi.take(cc(7, value, channel=3))
    assert midi.learning == MUTE, "the rest of the movement is not the next touch"
    midi.take(bytes((0x99, 36, 100)))
    assert midi.learning is None
    assert said == [f"ch3 cc7 moves {GAIN}.", f"ch10 note36 moves {MUTE}."]
    assert [str(mapping.control) for mapping in midi.mappings] == ["ch3 cc7", "ch10 note36"]
    assert registry.get(MUTE) is True, "the touch itself counts"
    assert registry.get(GAIN) == 0.0, "but a fader is not torn away"


def test_a_pair_is_learnt_as_such(registry: Registry) -> None:
    midi = MidiMap(registry)
    midi.learn(PAN, GAIN)
    for message in (cc(7, 100), cc(39, 3), cc(7, 101), cc(39, 9)):
        midi.take(message)
    assert [str(mapping.control) for mapping in midi.mappings] == ["ch1 cc7+39"]
    assert midi.learning == GAIN
    midi.take(cc(8, 1))
    midi.take(cc(41, 1))  # not 8 + 32
    assert [str(mapping.control) for mapping in midi.mappings] == ["ch1 cc7+39", "ch1 cc8"]


def test_a_control_moves_one_thing_and_learning_again_takes_its_place(registry: Registry) -> None:
    midi = mapped(registry, "ch1 cc7", GAIN)
    midi.learn(PAN)
    midi.take(cc(7, 64))
    assert [mapping.path for mapping in midi.mappings] == [PAN]
    midi.remove(MidiControl.parse("ch1 cc7"))
    assert midi.mappings == []
    with pytest.raises(UsageError, match="Did you mean"):
        midi.learn("stem/vocals/gian_db")
    midi.learn(GAIN)
    midi.stop_learning()
    midi.take(cc(1, 1))
    assert midi.mappings == []


def test_a_mapping_waits_for_its_parameter(registry: Registry) -> None:
    cutoff = Parameter("plugin/1/cutoff_hz", "float", 20.0, 20_000.0, 200.0, "Hz", scale="log")
    midi = MidiMap(registry, [MidiMapping.make(MidiControl("cc", 1, 74), cutoff, "jump")])
    midi.take(cc(74, 127))
    registry.add(cutoff)
    midi.take(cc(74, 127))
    assert registry.get("plugin/1/cutoff_hz") == pytest.approx(20_000)


def test_noise_never_raises_and_leaves_all_values_in_range(registry: Registry) -> None:
    rng = random.Random(3)
    midi = MidiMap(registry)
    heard: list[Any] = []
    registry.subscribe(lambda *change: heard.append(change))
    for path, control in ((GAIN, "ch1 cc7"), (PAN, "ch1 bend"), (MUTE, "ch1 note1"), (DIAL, "ch1 cc1+33")):
        midi.add(MidiMapping.make(MidiControl.parse(control), registry.parameter(path)))
    for _ in range(20_000):
        first = rng.choice((0x80, 0x90, 0xB0, 0xE0, rng.randrange(256)))
        midi.take(bytes((first, *(rng.randrange(rng.choice((8, 128, 256))) for _ in range(rng.randrange(4))))))
    assert {path for path, _, _ in heard} == {GAIN, PAN, MUTE, DIAL}
    for path, value, source in heard:
        assert registry.parameter(path).check(value) == value
        assert source == "midi"
    midi.take(b"")
