"""Plugins as plain data: files, pipes, the command line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from rtsep.errors import StemNotFoundError, UsageError
from rtsep.plugins import PluginSpec
from rtsep.plugins.spec import check_chains, parse_plugin

SPECS = [
    PluginSpec("Reverb"),
    PluginSpec("Reverb", {"room_size": 0.4, "wet_level": 0.25}, bypass=True),
    PluginSpec("LadderFilter", {"mode": "HPF24"}),
    PluginSpec("BrickwallLimiter", {"true_peak": True}),
    PluginSpec("/a b/X.vst3", {"gain_db": -3.0}, name="Inside", raw_state=bytes(range(256))),
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_comes_back_from_plain_data(spec: PluginSpec) -> None:
    document = spec.to_dict()
    assert PluginSpec.from_dict(document) == spec
    # What a setup file in TOML can hold: no None, no bytes.
    lines = []
    for key, value in document.items():
        table = isinstance(value, dict)
        inner = (
            ", ".join(f"{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for k, v in value.items())
            if table
            else ""
        )
        lines.append(
            f"{key} = {{ {inner} }}" if table else f"{key} = {str(value).lower() if value is True else repr(value)}"
        )
    assert PluginSpec.from_dict(tomllib.loads("\n".join(lines))) == spec


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"plugin": "Reverb", "parameter": {}}, "Did you mean 'parameters'"),
        ({}, "plugin cannot be None"),
        ({"plugin": "Reverb", "bypass": 1}, "bypass cannot be 1"),
        ({"plugin": "Reverb", "parameters": [1]}, "parameters cannot be"),
        ({"plugin": "x.vst3", "state": "no base64!"}, "not base64"),
        ({"plugin": "Reverb", "state": "AAAA"}, "built-in effect"),
        ({"plugin": "Reverb", "parameters": {"a": None}}, "a parameter is a number"),
        ("Reverb", "a table with the key"),
        ({"plugin": ""}, "needs a name"),
    ],
)
def test_wrong_data_is_named(document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PluginSpec.from_dict(document)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Reverb", PluginSpec("Reverb")),
        ("Reverb:room_size=0.4,wet_level=0.2", PluginSpec("Reverb", {"room_size": 0.4, "wet_level": 0.2})),
        ("LadderFilter:mode=HPF12", PluginSpec("LadderFilter", {"mode": "HPF12"})),
        ("BrickwallLimiter:true_peak=on", PluginSpec("BrickwallLimiter", {"true_peak": True})),
        ("/path/x.vst3", PluginSpec("/path/x.vst3")),
        ("/path/x.vst3/", PluginSpec("/path/x.vst3")),
        ("C:\\VST3\\My Plug.VST3#Two Words:a=1", PluginSpec("C:\\VST3\\My Plug.VST3", {"a": 1.0}, name="Two Words")),
        ("x.vst3:gain_db=-3", PluginSpec("x.vst3", {"gain_db": -3.0})),
    ],
)
def test_the_command_line_form(text: str, spec: PluginSpec) -> None:
    assert parse_plugin(text) == spec


@pytest.mark.parametrize("text", ["Reverb:room_size", "Reverb:=1", "Reverb:a=", "x.vst3more", ":a=1", ""])
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_plugin(text)


def test_chains_are_checked_as_a_whole() -> None:
    stems = ("drums", "vocals")
    one = PluginSpec("Gain")
    assert check_chains({"vocals": [one], "drums": [], "master": (one, one)}, stems) == {
        "vocals": (one,),
        "master": (one, one),
    }
    with pytest.raises(StemNotFoundError, match="Did you mean 'vocals'"):
        check_chains({"vocal": [one]}, stems)
    with pytest.raises(UsageError, match="17 plugins; 16"):
        check_chains({"master": [one] * 17}, stems)
    with pytest.raises(UsageError, match=r"needs rtsep\.plugins\.PluginSpec"):
        check_chains({"master": ["Reverb"]}, stems)  # type: ignore[list-item]
