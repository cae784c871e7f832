"""Setup files: options, parameters and MIDI map of a run as TOML, read with patience and written whole.

What a file says and this program does not know is named, and the rest is used.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.errors import ControlError, UsageError, suggest

if TYPE_CHECKING:
    from rtsep.control.midi_map import MidiMapping
    from rtsep.control.parameter import Parameter
    from rtsep.control.registry import Registry

VERSION = 1
"""Of the format; stands in the file as ``setup``."""
OTHER_SECTIONS = ("plugins", "console")
"""Sections that other parts read and write; here they are only kept."""
SOURCE = "setup"
_LARGEST = 16 << 20
_LONGEST_REMARK = 300


@dataclass
class Setup:
    """What a setup file says.

    Parameters
    ----------
    options : dict
        Options of ``rtsep run`` by their long name without dashes, such as ``midi-out``; and ``model``.
    parameters : dict of str to float, bool or str
        Values by path; a text is read by the parameter.
    midi : list of dict
        ``control``, ``parameter`` and, if it is not the usual one, ``mode``: all text.
    sections : dict
        Everything else, as it was read.
    """

    options: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, float | bool | str] = field(default_factory=dict)
    midi: list[dict[str, str]] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)


def read_setup(path: str | Path) -> tuple[Setup, list[str]]:
    """Read a setup file.

    Returns
    -------
    Setup, list of str
        What could be used, and a remark on each thing that could not.

    Raises
    ------
    ControlError
        The file cannot be read, is no TOML, or of a later version of the format.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ControlError(f"{path} is larger than {_LARGEST >> 20} MiB; that is no setup file.")
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise ControlError(f"The setup {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(
            f"The setup {path} is no TOML: {error}. Write one with: rtsep run --save-setup FILE"
        ) from None
    version = document.pop("setup", VERSION)
    if type(version) is not int or version < 1:
        raise ControlError(f"The setup {path} says setup = {version!r}; it has to be {VERSION}.")
    if version > VERSION:
        raise ControlError(f"The setup {path} is of version {version}; this rtsep reads up to {VERSION}. Update rtsep.")
    remarks: list[str] = []
    setup = Setup(
        options=_table(document, "run", remarks),
        parameters=dict(_flat(_table(document, "parameters", remarks), "", remarks)),
        midi=list(_midi(document.pop("midi", []), remarks)),
        sections=document,
    )
    known = ("run", "parameters", "midi", *OTHER_SECTIONS)
    remarks += [f"Unknown section [{name}].{suggest(name, known)}" for name in document if name not in OTHER_SECTIONS]
    return setup, [remark[:_LONGEST_REMARK] for remark in remarks]


def write_setup(path: str | Path, setup: Setup) -> None:
    """Write a setup file: whole, or not at all.

    Raises
    ------
    ControlError
        It cannot be written; what was there before is still there.
    """
    import tomli_w

    document: dict[str, Any] = {"setup": VERSION, "run": setup.options, "parameters": setup.parameters}
    if setup.midi:
        document["midi"] = setup.midi
    text = tomli_w.dumps({**document, **setup.sections})
    path = Path(path)
    name = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False, newline="\n"
        ) as file:
            name = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _mode_of(path))
        os.replace(name, path)
    except OSError as error:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise ControlError(f"The setup {path} cannot be written: {error.strerror}.") from error


def apply_parameters(
    registry: Registry, values: Mapping[str, float | bool | str], without: Iterable[str] = ()
) -> list[str]:
    """Set parameters as a file says; return a remark on each that there is not, or that refuses its value.

    Parameters
    ----------
    registry : Registry
    values : mapping
        As `Setup.parameters`.
    without : iterable of str
        Paths that are left alone.
    """
    remarks, left_out = [], frozenset(without)
    for path, value in values.items():
        if path in left_out:
            continue
        try:
            if isinstance(value, str) and registry.parameter(path).kind != "choice":
                registry.set_text(path, value, SOURCE)
            else:
                registry.set(path, value, SOURCE)
        except UsageError as error:
            remarks.append(str(error)[:_LONGEST_REMARK])
    return remarks


def mappings_of(setup: Setup, registry: Registry) -> tuple[list[MidiMapping], list[str]]:
    """Return the MIDI mappings of a setup, and a remark on each that cannot be used."""
    from rtsep.control.midi_map import MidiControl, MidiMapping

    found, remarks = [], []
    for entry in setup.midi:
        try:
            control = MidiControl.parse(entry["control"])
            found.append(MidiMapping.make(control, registry.parameter(entry["parameter"]), entry.get("mode")))
        except UsageError as error:
            remarks.append(f"[[midi]] {entry['control']}: {error}"[:_LONGEST_REMARK])
    return found, remarks


def midi_entries(mappings: Iterable[MidiMapping]) -> list[dict[str, str]]:
    """Return mappings as a setup holds them."""
    return [{"control": str(mapping.control), "parameter": mapping.path, "mode": mapping.mode} for mapping in mappings]


@dataclass
class FirstMix:
    """What the mixer starts with, so that nothing is heard before its fader stands: as `plan_mix` and `Engine` take it.

    Parameters
    ----------
    mute, solo : tuple of str
    gain, pan : dict of str to float
    master_db : float
    limiter, bypass : bool
    given : set of str
        Paths that the command line names, which a setup leaves alone.
    """

    mute: tuple[str, ...] = ()
    solo: tuple[str, ...] = ()
    gain: dict[str, float] = field(default_factory=dict)
    pan: dict[str, float] = field(default_factory=dict)
    master_db: float = 0.0
    limiter: bool = False
    bypass: bool = False
    given: set[str] = field(default_factory=set)

    def add(self, values: Mapping[str, float | bool | str], stems: Iterable[str], pannable: Iterable[str]) -> None:
        """Add what a setup says of `stems`, unless it was given; `apply_parameters` names what is wrong."""
        from rtsep.control.registry import gain_parameter, pan_parameter, part_of_path, switch_parameter

        def wanted(path: str, parameter: Parameter) -> Any:
            value = None if path in self.given else values.get(path)
            with contextlib.suppress(UsageError):
                if value is not None:
                    return parameter.parse(value) if isinstance(value, str) else parameter.check(value)
            return None

        for stem in stems:
            path = f"stem/{part_of_path(stem)}"
            for switch in ("mute", "solo"):
                on = wanted(f"{path}/{switch}", switch_parameter(path))
                if on is not None:
                    self._switch(switch, stem, on)
            if (db := wanted(f"{path}/gain_db", gain_parameter(path))) is not None:
                self.gain[stem] = db
            if stem in pannable and (pan := wanted(f"{path}/pan", pan_parameter(path))) is not None:
                self.pan[stem] = pan
        if (db := wanted("master/gain_db", gain_parameter("master"))) is not None:
            self.master_db = db
        for name in ("limiter", "bypass"):
            if (on := wanted(f"master/{name}", switch_parameter("master"))) is not None:
                setattr(self, name, on)

    def _switch(self, name: str, stem: str, on: bool) -> None:
        others = tuple(other for other in getattr(self, name) if other != stem)
        setattr(self, name, (*others, stem) if on else others)


# --- inside -----------------------------------------------------------------------------------------------------------


def _mode_of(path: Path) -> int:
    """Permissions of the file that is replaced, or those of a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _table(document: dict[str, Any], name: str, remarks: list[str]) -> dict[str, Any]:
    found = document.pop(name, {})
    if isinstance(found, dict):
        return found
    remarks.append(f"{name} = {found!r}: a table is needed, [{name}].")
    return {}


def _flat(table: dict[str, Any], above: str, remarks: list[str]) -> Iterator[tuple[str, float | bool | str]]:
    """Values by path, whether they are written as ``"stem/vocals/mute"`` or in ``[parameters.stem.vocals]``."""
    for name, value in table.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            yield from _flat(value, f"{path}/", remarks)
        elif isinstance(value, float | int | str):
            yield path, value
        else:
            remarks.append(f"The parameter {path} has a value of no use: a number, true, false or a text is needed.")


def _midi(entries: Any, remarks: list[str]) -> Iterator[dict[str, str]]:
    if not isinstance(entries, list):
        remarks.append("midi: tables are needed, [[midi]].")
        return
    for entry in entries:
        words = {"control", "parameter", "mode"}
        if not isinstance(entry, dict) or not {"control", "parameter"} <= set(entry) <= words:
            remarks.append(f"[[midi]] {entry!r}: control and parameter are needed, and perhaps mode.")
        elif not all(isinstance(value, str) for value in entry.values()):
            remarks.append(f"[[midi]] {entry!r}: control, parameter and mode are text.")
        else:
            yield entry
