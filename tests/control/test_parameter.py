"""Ranges, positions on a fader, and text of parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.control.parameter import Parameter
from rtsep.errors import UsageError

GAIN = Parameter("stem/vocals/gain_db", "float", -120.0, 24.0, 0.0, "dB", scale="fader")
DOWN = Parameter("stem/bass/gain_db", "float", -120.0, 0.0, 0.0, "dB", scale="fader")
PAN = Parameter("stem/vocals/pan", "float", -1.0, 1.0, 0.0, scale="balance")
CUTOFF = Parameter("cutoff", "float", 20.0, 20_000.0, 1000.0, "Hz", scale="log")
MUTE = Parameter("stem/vocals/mute", "bool", default=False)
DIAL = Parameter("notes/latency", "choice", default="normal", choices=("tight", "normal", "quality"))
ALL = (GAIN, DOWN, PAN, CUTOFF, MUTE, DIAL)


@pytest.mark.parametrize("parameter", [GAIN, DOWN, PAN, CUTOFF], ids=lambda p: p.path)
@given(data=st.data())
def test_a_fader_gives_back_every_value(parameter: Parameter, data: st.DataObject) -> None:
    value = data.draw(st.floats(parameter.lowest, parameter.highest))
    x = parameter.to_unit(value)
    assert 0.0 <= x <= 1.0
    assert parameter.from_unit(x) == pytest.approx(value, abs=1e-9 * (parameter.highest - parameter.lowest))


@pytest.mark.parametrize("parameter", [GAIN, DOWN, PAN, CUTOFF], ids=lambda p: p.path)
def test_a_fader_rises_all_the_way_and_has_both_ends(parameter: Parameter) -> None:
    values = [float(parameter.from_unit(x)) for x in np.linspace(0, 1, 500)]
    assert (np.diff(values) > 0).all()
    assert values[0] == parameter.lowest
    assert values[-1] == pytest.approx(parameter.highest)
    assert max(values) <= parameter.highest


def test_a_gain_fader_is_fine_around_0_db_and_silent_at_the_bottom() -> None:
    assert GAIN.from_unit(0.75) == 0.0
    assert GAIN.to_unit(0.0) == 0.75
    assert abs(float(GAIN.from_unit(0.76)) - float(GAIN.from_unit(0.74))) < 1.2
    assert GAIN.from_unit(0.0) == -120.0
    assert GAIN.to_unit(-math.inf) == 0.0
    assert DOWN.to_unit(0.0) == 1.0


def test_switches_and_choices_lie_on_a_fader() -> None:
    assert [MUTE.from_unit(x) for x in (0, 0.49, 0.5, 1)] == [False, False, True, True]
    assert [MUTE.to_unit(on) for on in (False, True)] == [0.0, 1.0]
    assert [DIAL.from_unit(x) for x in (0, 0.2, 0.5, 0.8, 1.0)] == ["tight", "tight", "normal", "quality", "quality"]
    assert [DIAL.to_unit(word) for word in DIAL.choices] == [0.0, 0.5, 1.0]
    assert Parameter("one", "choice", default="only", choices=("only",)).to_unit("only") == 0.0


@pytest.mark.parametrize(
    ("parameter", "value", "text"),
    [
        (GAIN, -6.0, "-6.0 dB"),
        (GAIN, 3.25, "+3.2 dB"),
        (GAIN, 0.0, "+0.0 dB"),
        (GAIN, -math.inf, "-inf dB"),
        (PAN, -0.5, "L50"),
        (PAN, 0.0, "C"),
        (PAN, 1.0, "R100"),
        (CUTOFF, 1234.5, "1234 Hz"),
        (MUTE, True, "on"),
        (MUTE, False, "off"),
        (DIAL, "tight", "tight"),
    ],
)
def test_text_and_back(parameter: Parameter, value: Any, text: str) -> None:
    assert parameter.text(value) == text
    again = parameter.parse(text)
    assert again == pytest.approx(parameter.check(value), abs=0.6 if parameter is CUTOFF else 0.06)
    assert parameter.text(again) == text


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (GAIN, "-6", -6.0),
        (GAIN, " -6dB ", -6.0),
        (GAIN, "-inf", -120.0),
        (GAIN, "off", -120.0),
        (PAN, "-0.25", -0.25),
        (PAN, "centre", 0.0),
        (PAN, "r20", 0.2),
        (CUTOFF, "440 hz", 440.0),
        (MUTE, "Yes", True),
        (MUTE, "0", False),
    ],
)
def test_other_ways_to_write_it(parameter: Parameter, text: str, value: Any) -> None:
    assert parameter.parse(text) == value


@pytest.mark.parametrize(
    ("parameter", "text", "message"),
    [
        (GAIN, "loud", "'loud', which is no number; allowed is -120 to 24 dB"),
        (GAIN, "25", "got 25; allowed is -120 to 24 dB"),
        (GAIN, "nan", "got nan"),
        (GAIN, "", "no number"),
        (PAN, "L101", "got -1.01"),
        (PAN, "left", "allowed is L100 to R100"),
        (PAN, "-inf", "got -inf; allowed is -1 to 1"),
        (MUTE, "maybe", "allowed is on or off"),
        (DIAL, "tigt", "Did you mean 'tight'"),
    ],
)
def test_text_that_means_nothing_is_refused(parameter: Parameter, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parameter.parse(text)


@pytest.mark.parametrize("parameter", ALL, ids=lambda p: p.path)
@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), 1e300, 10**400, b"1", [1.0], "x" * 1000, {}, object(), 1 + 1j]
)
def test_values_of_a_wrong_kind_are_refused_in_few_words(parameter: Parameter, value: object) -> None:
    for take in (parameter.check, parameter.to_unit, parameter.text, parameter.from_unit):
        with pytest.raises(UsageError, match=parameter.path) as error:
            take(value)
        assert len(str(error.value)) < 250


def test_what_is_kept_are_plain_values() -> None:
    assert type(GAIN.check(np.float32(-6))) is float
    assert type(GAIN.check(3)) is float
    assert MUTE.check(1) is True
    assert MUTE.check(0.0) is False
    with pytest.raises(UsageError):
        GAIN.check(True)
    with pytest.raises(UsageError):
        MUTE.check(0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": ""}, "no path"),
        ({"path": "a//b"}, "no path"),
        ({"path": "a", "kind": "choice"}, "choice of nothing"),
        ({"path": "a", "lowest": 1.0}, "no range"),
        ({"path": "a", "scale": "log"}, "more than 0"),
        ({"path": "a", "default": 2.0}, "got 2"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Parameter(**given)
