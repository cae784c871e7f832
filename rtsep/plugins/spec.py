"""What a person wants in a chain: plain data that goes into files, over pipes and onto the command line."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtsep.errors import StemNotFoundError, UsageError, suggest

MASTER = "master"
"""Name of the chain that all of the mix goes through."""
SUFFIXES = (".vst3", ".component")
"""Of the files that plugins come in: VST3 everywhere, Audio Units on macOS."""
MAX_SLOTS = 16
"""Plugins in one chain, at most."""

Value = float | bool | str
_KEYS = ("plugin", "name", "parameters", "state", "bypass")


def is_file(plugin: str) -> bool:
    """Whether `plugin` is the path of a plugin file, and not the name of a built-in effect."""
    return plugin.lower().rstrip("/\\").endswith(SUFFIXES)


@dataclass(frozen=True)
class PluginSpec:
    """One plugin and how it is set.

    Parameters
    ----------
    plugin : str
        Name of a built-in effect, such as ``"Reverb"``, or the path of a VST3 or Audio Unit. See: rtsep plugins list
    parameters : mapping of str to float, bool or str
        Those left out keep the plugin's own defaults. Names and ranges: rtsep plugins info
    bypass : bool
        Start bypassed.
    name : str, optional
        Of the plugin inside the file, where there are several.
    raw_state : bytes, optional
        All of the plugin's own state, set before `parameters`; only for files.

    Raises
    ------
    UsageError
        A name, value or combination that no plugin can have.
    """

    plugin: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    bypass: bool = False
    name: str | None = None
    raw_state: bytes | None = None

    def __post_init__(self) -> None:
        if not self.plugin:
            raise UsageError("A plugin needs a name or a path. See: rtsep plugins list")
        for key, value in self.parameters.items():
            if not isinstance(key, str) or not isinstance(value, (int, float, str)):
                raise UsageError(
                    f"{self.plugin}: {key!r} is {value!r}; a parameter is a number, true, false or a word."
                )
        if not self.external and (self.name is not None or self.raw_state is not None):
            raise UsageError(f"{self.plugin} is a built-in effect: it has no name inside a file and no state.")

    @property
    def external(self) -> bool:
        """Whether it comes from a file (VST3, Audio Unit)."""
        return is_file(self.plugin)

    @property
    def label(self) -> str:
        """Short name for a person."""
        return self.name or (Path(self.plugin).stem if self.external else self.plugin)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for TOML or JSON; what is at its default is left out, the state is base64."""
        document: dict[str, Any] = {"plugin": self.plugin}
        if self.name is not None:
            document["name"] = self.name
        if self.parameters:
            document["parameters"] = dict(self.parameters)
        if self.raw_state is not None:
            document["state"] = base64.b64encode(self.raw_state).decode("ascii")
        if self.bypass:
            document["bypass"] = True
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PluginSpec:
        """Return the spec that `to_dict` wrote; UsageError for anything else."""
        if not isinstance(document, Mapping):
            raise UsageError(f"A plugin is a table with the key 'plugin', got {document!r}.")
        for key in document:
            if key not in _KEYS:
                raise UsageError(f"A plugin has no key {key!r}; there are {', '.join(_KEYS)}.{suggest(key, _KEYS)}")
        plugin, name = document.get("plugin"), document.get("name")
        parameters, bypass = document.get("parameters", {}), document.get("bypass", False)
        for key, value, kind in (
            ("plugin", plugin, str),
            ("name", name, (str, type(None))),
            ("parameters", parameters, Mapping),
            ("bypass", bypass, bool),
        ):
            if not isinstance(value, kind):
                raise UsageError(f"A plugin's {key} cannot be {value!r}.")
        state = None
        if "state" in document:
            try:
                state = base64.b64decode(document["state"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise UsageError(f"The state of {plugin} is not base64: {error}.") from error
        return cls(str(plugin), dict(parameters), bypass, name, state)


def parse_plugin(text: str) -> PluginSpec:
    """Return the spec of ``NAME[:PARAMETER=VALUE,...]`` or ``FILE.vst3[#NAME][:PARAMETER=VALUE,...]``.

    Raises
    ------
    UsageError
        Another form.
    """
    end = max((text.lower().rfind(suffix) + len(suffix) for suffix in SUFFIXES if suffix in text.lower()), default=0)
    head, rest = text[:end], text[end:].removeprefix("/")
    name = None
    if end:
        plugin, settings = head, rest
        if rest.startswith("#"):
            name, _, settings = rest[1:].partition(":")
        elif rest and not rest.startswith(":"):
            raise UsageError(f"{text!r}: after {head} comes nothing, #NAME or :PARAMETER=VALUE.")
        else:
            settings = rest[1:]
    else:
        plugin, _, settings = text.partition(":")
    parameters: dict[str, Value] = {}
    for part in settings.split(",") if settings else ():
        key, separator, value = (word.strip() for word in part.partition("="))
        if not key or not separator or not value:
            raise UsageError(
                f"{text!r}: {part!r} is not PARAMETER=VALUE; for example Reverb:room_size=0.4,wet_level=0.2"
            )
        parameters[key] = _value(value)
    return PluginSpec(plugin.strip(), parameters, name=name)


def _value(text: str) -> Value:
    if text.lower() in ("true", "on", "false", "off"):
        return text.lower() in ("true", "on")
    try:
        return float(text)
    except ValueError:
        return text


Chains = Mapping[str, Iterable[PluginSpec]]


def check_chains(chains: Chains, stems: Iterable[str]) -> dict[str, tuple[PluginSpec, ...]]:
    """Return `chains` with tuples, without empty ones.

    Raises
    ------
    StemNotFoundError
        A name that is neither a stem nor ``"master"``.
    UsageError
        A chain of more than 16 plugins, or of something else than `PluginSpec`.
    """
    names = [*stems, MASTER]
    checked: dict[str, tuple[PluginSpec, ...]] = {}
    for target, specs in chains.items():
        if target not in names:
            raise StemNotFoundError(
                f"No stem {target!r} for plugins; there are {', '.join(names)}.{suggest(target, names)}"
            )
        chain = tuple(specs)
        for spec in chain:
            if not isinstance(spec, PluginSpec):
                raise UsageError(f"The chain of {target} holds {spec!r}; it needs rtsep.plugins.PluginSpec.")
        if len(chain) > MAX_SLOTS:
            raise UsageError(f"The chain of {target} has {len(chain)} plugins; {MAX_SLOTS} are allowed.")
        if chain:
            checked[target] = chain
    return checked
