"""The built-in effects and their parameters, as plain data: what pedalboard takes, with the ranges it does not tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rtsep.errors import PluginError, UsageError, suggest
from rtsep.plugins.spec import Value

_TRUE, _FALSE = ("true", "on", "yes"), ("false", "off", "no")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a plugin.

    Parameters
    ----------
    name : str
    kind : {"number", "switch", "choice", "file"}
    default : float, bool or str
        What a new plugin starts with.
    minimum, maximum : float
        Of a number, in `unit`.
    unit : str
    choices : tuple of str
        Of a choice.
    live : bool
        Can be set while it plays; otherwise the plugin is loaded anew, with a cross-fade.
    """

    name: str
    kind: Literal["number", "switch", "choice", "file"]
    default: Value
    minimum: float = -math.inf
    maximum: float = math.inf
    unit: str = ""
    choices: tuple[str, ...] = ()
    live: bool = True

    def check(self, value: Any, plugin: str) -> Value:
        """Return `value` as the plugin takes it; UsageError when it is none of what is allowed."""
        if self.kind == "number":
            if isinstance(value, (bool, str)) or not self.minimum <= value <= self.maximum:
                raise UsageError(f"{plugin}: {self.name} cannot be {value}; allowed is {self.allowed()}.")
            return float(value)
        if self.kind == "switch":
            word = str(value).lower()
            if isinstance(value, bool) or word in _TRUE + _FALSE:
                return value if isinstance(value, bool) else word in _TRUE
            if value in (0, 1):
                return bool(value)
            raise UsageError(f"{plugin}: {self.name} cannot be {value}; allowed is {self.allowed()}.")
        if self.kind == "file":
            return str(value)
        found = _choice(value, self.choices)
        if found is None:
            hint = suggest(str(value), self.choices)
            raise UsageError(f"{plugin}: {self.name} cannot be {value}; allowed is {self.allowed()}.{hint}")
        return found

    def allowed(self) -> str:
        """What may be set, for a person."""
        if self.kind == "number":
            return f"{self.minimum:g} to {self.maximum:g} {self.unit}".rstrip()
        if self.kind == "switch":
            return "true or false"
        if self.kind == "file":
            return "the path of a sound file"
        shown = self.choices if len(self.choices) <= 12 else (*self.choices[:12], f"... ({len(self.choices)} in all)")
        return ", ".join(shown)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        document: dict[str, Any] = {"name": self.name, "kind": self.kind, "default": self.default, "live": self.live}
        if self.kind == "number":
            document.update(minimum=self.minimum, maximum=self.maximum, unit=self.unit)
        if self.choices:
            document["choices"] = list(self.choices)
        return document


def _choice(value: Any, choices: tuple[str, ...]) -> str | None:
    for choice in choices:
        if choice.lower() == str(value).lower():
            return choice
        try:
            if float(choice) == float(value):  # the command line gives 2.0 where the plugin says "2"
                return choice
        except ValueError:
            pass
    return None


def _number(
    name: str, default: float, minimum: float, maximum: float, unit: str = "", *, live: bool = True
) -> Parameter:
    return Parameter(name, "number", default, minimum, maximum, unit, live=live)


_HZ = (10.0, 20_000.0, "Hz")
_MIX = _number("mix", 0.5, 0, 1)
_FILTER = (
    _number("cutoff_frequency_hz", 440, *_HZ),
    _number("gain_db", 0, -48, 48, "dB"),
    _number("q", math.sqrt(0.5), 0.05, 20),
)
_DYNAMICS = (_number("attack_ms", 1, 0, 1000, "ms"), _number("release_ms", 100, 1, 5000, "ms"))


@dataclass(frozen=True)
class Effect:
    """A built-in effect.

    Parameters
    ----------
    name : str
        pedalboard's own.
    summary : str
    parameters : tuple of Parameter
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]


EFFECTS: Mapping[str, Effect] = {
    effect.name: effect
    for effect in (
        Effect("Bitcrush", "fewer bits a sample", (_number("bit_depth", 8, 0, 32, "bit"),)),
        Effect(
            "BrickwallLimiter",
            "limiter that looks ahead",
            (
                _number("ceiling_db", -1, -60, 0, "dB"),
                _number("release_ms", 100, 1, 5000, "ms"),
                _number("lookahead_ms", 5, 0.1, 50, "ms", live=False),
                Parameter("true_peak", "switch", False, live=False),
            ),
        ),
        Effect(
            "Chorus",
            "detuned copies",
            (
                _number("rate_hz", 1, 0.01, 100, "Hz"),
                _number("depth", 0.25, 0, 1),
                _number("centre_delay_ms", 7, 1, 100, "ms"),
                _number("feedback", 0, -1, 1),
                _MIX,
            ),
        ),
        Effect("Clipping", "hard clipping", (_number("threshold_db", -6, -100, 0, "dB"),)),
        Effect(
            "Compressor",
            "turns down what is loud",
            (_number("threshold_db", 0, -100, 24, "dB"), _number("ratio", 1, 1, 100), *_DYNAMICS),
        ),
        Effect(
            "Convolution",
            "reverb of a recorded room",
            (
                Parameter("impulse_response_filename", "file", "", live=False),
                _number("mix", 1, 0, 1),
            ),
        ),
        Effect(
            "Delay",
            "echo",
            (_number("delay_seconds", 0.5, 0, 30, "s"), _number("feedback", 0, 0, 1), _MIX),
        ),
        Effect("Distortion", "soft clipping", (_number("drive_db", 25, -60, 60, "dB"),)),
        Effect("GSMFullRateCompressor", "sound of a mobile phone", ()),
        Effect("Gain", "louder or quieter", (_number("gain_db", 1, -120, 48, "dB"),)),
        Effect("HighShelfFilter", "raises or lowers the treble", _FILTER),
        Effect("HighpassFilter", "takes the bass away", (_number("cutoff_frequency_hz", 50, *_HZ),)),
        Effect("Invert", "turns the sign", ()),
        Effect(
            "LadderFilter",
            "synthesiser's filter",
            (
                Parameter("mode", "choice", "LPF12", choices=("LPF12", "HPF12", "BPF12", "LPF24", "HPF24", "BPF24")),
                _number("cutoff_hz", 200, *_HZ),
                _number("resonance", 0, 0, 1),
                _number("drive", 1, 1, 100),
            ),
        ),
        Effect(
            "Limiter",
            "keeps peaks down",
            (_number("threshold_db", -10, -100, 0, "dB"), _number("release_ms", 100, 1, 5000, "ms")),
        ),
        Effect("LowShelfFilter", "raises or lowers the bass", _FILTER),
        Effect("LowpassFilter", "takes the treble away", (_number("cutoff_frequency_hz", 50, *_HZ),)),
        Effect("MP3Compressor", "sound of a small MP3", (_number("vbr_quality", 2, 0, 9.9, live=False),)),
        Effect(
            "NoiseGate",
            "silences what is quiet",
            (_number("threshold_db", -100, -120, 0, "dB"), _number("ratio", 10, 1, 100), *_DYNAMICS),
        ),
        Effect("PeakFilter", "raises or lowers a band", _FILTER),
        Effect(
            "Phaser",
            "moving notches",
            (
                _number("rate_hz", 1, 0.01, 100, "Hz"),
                _number("depth", 0.5, 0, 1),
                _number("centre_frequency_hz", 1300, *_HZ),
                _number("feedback", 0, -1, 1),
                _MIX,
            ),
        ),
        Effect(
            "PitchShift",
            "other pitch, same speed; about 1 s late, and not usable in a chain yet",
            (_number("semitones", 0, -72, 72),),
        ),
        Effect(
            "Resample",
            "sound of a lower rate",
            (_number("target_sample_rate", 8000, 100, 192_000, "Hz", live=False),),
        ),
        Effect(
            "Reverb",
            "a room",
            (
                _number("room_size", 0.5, 0, 1),
                _number("damping", 0.5, 0, 1),
                _number("wet_level", 0.33, 0, 1),
                _number("dry_level", 0.4, 0, 1),
                _number("width", 1, 0, 1),
                _number("freeze_mode", 0, 0, 1),
            ),
        ),
    )
}


def find_effect(name: str) -> Effect:
    """Return a built-in effect, whatever the case of its letters; PluginError when there is none."""
    for effect in EFFECTS.values():
        if effect.name.lower() == name.lower():
            return effect
    raise PluginError(f"No plugin {name!r}.{suggest(name, EFFECTS)} See: rtsep plugins list")


def check_values(
    parameters: Mapping[str, Parameter], values: Mapping[str, Value], plugin: str, *, given: str = ""
) -> dict[str, Value]:
    """Return `values` checked against `parameters`.

    Raises
    ------
    UsageError
        No such parameter, or a value out of range.
    """
    return {key: find_parameter(parameters, key, given or plugin).check(value, plugin) for key, value in values.items()}


def find_parameter(parameters: Mapping[str, Parameter], name: str, plugin: str) -> Parameter:
    """Return one parameter; UsageError when there is none of that name."""
    if name in parameters:
        return parameters[name]
    some = ", ".join(list(parameters)[:12]) or "none"
    raise UsageError(
        f"{plugin} has no parameter {name!r}; it has {some}.{suggest(name, parameters)} "
        f"See: rtsep plugins info {plugin}"
    )
