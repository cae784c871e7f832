"""Options of ``run`` for setups, OSC and MIDI controllers, and what they start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from rtsep.cli import common
from rtsep.errors import ControlError, RtsepError, UsageError, suggest

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo
    from rtsep.control.midi_in import MidiIn
    from rtsep.control.midi_map import MidiMap
    from rtsep.control.osc import OscServer
    from rtsep.control.registry import Registry
    from rtsep.control.setup import FirstMix, Setup
    from rtsep.engine.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])

_SETUP = "rtsep.setup"
_NOT_SAVED = (
    "setup", "save_setup", "sets", "midi_learn", "mute", "solo", "gain", "pan", "master_db", "limiter", "control",
    "plugins", "seconds", "record", "stats_file", "strict", "keys", "as_json", "model_option", "help",
)  # fmt: skip
"""What a setup does not keep: the mix has a section of its own, and the rest is of one evening."""


_SAME = (("master_db", "master/gain_db"), ("limiter", "master/limiter"), ("midi_latency", "notes/latency"))
"""Options that say what a parameter says, too."""


class PathValue(click.ParamType[tuple[str, str]]):
    """``PATH=VALUE`` as a pair of texts."""

    name = "PATH=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        path, separator, text = str(value).partition("=")
        if not separator or not path:
            self.fail(f"{value!r} is not PATH=VALUE; for example stem/vocals/gain_db=-6", param, ctx)
        return path.strip(), text


def _read_setup(ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Let the options that a setup names be the defaults; before all other options are read."""
    if path is None or ctx.resilient_parsing:
        return path
    from rtsep.control.setup import read_setup

    setup, remarks = read_setup(path)
    ctx.meta[_SETUP] = setup
    names = _names(ctx.command)
    defaults: dict[str, Any] = {}
    for name, value in setup.options.items():
        if name in names:
            defaults[names[name]] = value
        else:
            remarks.append(f"[run] has no option {name!r}.{suggest(name, names)}")
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    for remark in remarks:
        common.talk(f"Setup    {path}: {remark}")
    return path


def _names(command: click.Command) -> dict[str, str]:
    """Options a setup may hold: their names in a file, and in Python."""
    found = {}
    for parameter in command.params:
        if parameter.name is None or parameter.name in _NOT_SAVED:
            continue
        if isinstance(parameter, click.Argument):
            found[parameter.name] = parameter.name
        else:
            long = [option for option in parameter.opts if option.startswith("--")]
            found[long[0].removeprefix("--")] = parameter.name
    return found


def control_options(function: F) -> F:
    """Add the options whose values `ControlOptions.take_from` takes."""
    for option in (
        click.option(
            "--midi-learn",
            multiple=True,
            metavar="PATH",
            help="Give this parameter to the MIDI control that is touched next; may be repeated.",
        ),
        click.option(
            "--midi-in",
            metavar="PORT",
            help="Listen to a MIDI controller: virtual, or part of a port's name. See: rtsep midi list",
        ),
        click.option(
            "--osc-feedback",
            multiple=True,
            metavar="HOST:PORT",
            help="Tell this OSC receiver of every change; may be repeated.",
        ),
        click.option(
            "--osc", metavar="[HOST:]PORT", help="Listen to OSC there; without a host, on this machine alone."
        ),
        click.option(
            "--set",
            "sets",
            multiple=True,
            type=PathValue(),
            help="Set a parameter by its path: stem/vocals/gain_db=-6. May be repeated.",
        ),
        click.option(
            "--save-setup",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write options, parameters and MIDI map to this file at the end, and with the key w.",
        ),
        click.option(
            "--setup",
            type=click.Path(path_type=Path, dir_okay=False),
            is_eager=True,
            callback=_read_setup,
            help="Begin with what a setup file says; options of the command line go first.",
        ),
    ):
        function = option(function)
    return function


@dataclass
class ControlOptions:
    """What the options say.

    Parameters
    ----------
    setup : Setup
        The one that was read; an empty one without.
    save_to : Path or None
        Where the end, and the key, write one.
    save_at_end : bool
    sets : dict of str to str
        Parameters from the command line.
    osc : str or None
    feedback : tuple of str
    midi_in : str or None
    learn : tuple of str
    """

    setup: Setup
    save_to: Path | None
    save_at_end: bool
    sets: dict[str, str]
    osc: str | None
    feedback: tuple[str, ...]
    midi_in: str | None
    learn: tuple[str, ...]
    first: FirstMix = field(init=False)

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> ControlOptions:
        """Take the values that `control_options` adds out of a command's. UsageError, ControlError."""
        from rtsep.control.setup import Setup

        context = click.get_current_context()
        read: Path | None = options.pop("setup")
        save: Path | None = options.pop("save_setup")
        chosen = cls(
            setup=context.meta.get(_SETUP) or Setup(),
            save_to=save or read,
            save_at_end=save is not None,
            sets=dict(options.pop("sets")),
            osc=options.pop("osc"),
            feedback=options.pop("osc_feedback"),
            midi_in=options.pop("midi_in"),
            learn=options.pop("midi_learn"),
        )
        chosen._check()
        return chosen

    def _check(self) -> None:
        """Find now what would be found out too late."""
        if self.save_to is not None and not os.access(self.save_to.absolute().parent, os.W_OK):
            raise ControlError(
                f"The setup {self.save_to} cannot be written: its folder does not exist, or is not ours."
            )
        if self.feedback and self.osc is None:
            raise UsageError("--osc-feedback needs a port to send from: add --osc 9000")
        if self.learn and self.midi_in is None:
            raise UsageError("--midi-learn needs a controller: add --midi-in PORT. See: rtsep midi list")
        if self.osc is not None:
            from rtsep.control.osc import parse_endpoint

            for endpoint in (self.osc, *self.feedback):
                parse_endpoint(endpoint)

    def mix(
        self,
        info: ModelInfo,
        *,
        mute: tuple[str, ...],
        solo: tuple[str, ...],
        gain: Iterable[tuple[str, float]],
        pan: Iterable[tuple[str, float]],
        master_db: float,
        limiter: bool,
    ) -> FirstMix:
        """Return what the mixer starts with: the command line, and where that says nothing the setup."""
        from rtsep.control.registry import control_paths, part_of_path
        from rtsep.control.setup import FirstMix
        from rtsep.mixer.faders import CONDITION, ConditionFaders

        context = click.get_current_context()
        mix = FirstMix(mute, solo, dict(gain), dict(pan), master_db, limiter)
        for what, stems in (("mute", mute), ("solo", solo), ("gain_db", mix.gain), ("pan", mix.pan)):
            mix.given.update(f"stem/{part_of_path(stem)}/{what}" for stem in stems)
        for name, path in _SAME:
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                mix.given.add(path)
        for target, _ in context.params["control"]:
            for control in info.controls:
                if control.name == target:
                    mix.given.update(control_paths(control))
                elif control.name == target.rpartition(".")[0]:
                    mix.given.add(f"control/{part_of_path(control.name)}/{part_of_path(target.rpartition('.')[2])}")
        stems = info.stems
        if ConditionFaders.fits(info):
            stems += next(control.labels for control in info.controls if control.name == CONDITION)
        mix.add(self.setup.parameters, stems, info.stems)
        mix.add(self.sets, stems, info.stems)
        self.first = mix
        return mix

    def open(self, registry: Registry, engine: Engine) -> Surfaces:
        """Set what is to be set, and open the ports. RtsepError.

        Parameters that a setup names and the model has not are said, no more; those of the command line are errors.
        """
        from rtsep.control.midi_map import MidiMap
        from rtsep.control.setup import apply_parameters, mappings_of

        plugins_left_out = _load_plugins(self.setup.sections.get("plugins", {}), engine)
        without = (*self.first.given, *self.sets)
        mappings, remarks = mappings_of(self.setup, registry)
        for remark in apply_parameters(registry, self.setup.parameters, without) + remarks:
            common.talk(f"Setup    {remark}")
        for path, text in self.sets.items():
            registry.set_text(path, text)
        say = _talker()
        midi_map = MidiMap(registry, mappings, lambda text: say(f"MIDI in  {text}"))
        midi_map.learn(*self.learn)
        return Surfaces(self, registry, engine, midi_map, plugins_left_out)


class Surfaces:
    """The open ports of a run; context manager.

    Attributes
    ----------
    registry : Registry
    midi_map : MidiMap
    osc : OscServer or None
    midi : MidiIn or None
    """

    def __init__(
        self,
        options: ControlOptions,
        registry: Registry,
        engine: Engine,
        midi_map: MidiMap,
        plugins_left_out: dict[str, list[Any]],
    ) -> None:
        self._options, self.registry, self.midi_map = options, registry, midi_map
        self._engine, self._plugins_left_out = engine, plugins_left_out
        self._run = _options_to_save(click.get_current_context())
        self.osc: OscServer | None = None
        self.midi: MidiIn | None = None
        try:
            self._open(engine)
        except BaseException:
            self.close()
            raise

    def _open(self, engine: Engine) -> None:
        options = self._options
        if options.osc is not None:
            from rtsep.control.osc import OscServer, parse_endpoint

            host, port = parse_endpoint(options.osc)
            feedback = [parse_endpoint(text) for text in options.feedback]
            self.osc = OscServer(self.registry, host, port, meters=engine.meters, feedback=feedback)
            common.talk(f"OSC      {self.osc.address[0]}:{self.osc.address[1]}  addresses: /rtsep/stem/.../gain_db ...")
            if not self.osc.is_local:
                common.talk("Note: OSC has no passwords; everybody who reaches that port can move the faders.")
        if options.midi_in is not None:
            from rtsep.control.midi_in import MidiIn

            say = _talker()
            self.midi = MidiIn(options.midi_in, self.midi_map.take, lambda text: say(f"Note: {text}"))
            known = len(self.midi_map.mappings)
            common.talk(f"MIDI in  {self.midi.name}  {known} controls known")
            if self.midi_map.learning is not None:
                common.talk(f"MIDI in  touch the control for {', '.join(options.learn)}")

    @property
    def can_learn(self) -> bool:
        """Whether there is a controller to learn from."""
        return self.midi is not None

    def save(self) -> str:
        """Write the setup, and return what to say about it. ControlError when it cannot be written."""
        from rtsep.control import model_switch, record, song
        from rtsep.control.setup import Setup, midi_entries, write_setup

        path = self._options.save_to
        if path is None:
            return "There is no file to save to; start with --save-setup FILE."
        known = self._options.setup
        parameters: dict[str, float | bool | str] = {**known.parameters, **self.registry.values()}
        parameters.pop(model_switch.PATH, None)  # the model is an option of its own
        passing = (song.GROUP, record.GROUP)
        parameters = {path: value for path, value in parameters.items() if not path.startswith(passing)}
        midi = midi_entries(self.midi_map.mappings)
        kept = [entry for entry in known.midi if entry["parameter"] not in self.registry]
        sections = {name: value for name, value in known.sections.items() if name != "plugins"}
        if plugins := self._plugins():
            sections["plugins"] = plugins
        write_setup(path, Setup(self._run, parameters, midi + kept, sections))
        return f"Setup saved in {path}."

    def _plugins(self) -> dict[str, list[Any]]:
        """The chains as they are, and what of the setup could not be loaded."""
        try:
            chains = self._engine.chain_specs()
        except RtsepError:  # it has ended: without the states that only it knew
            chains = self._engine.chain_specs(states=False)
        found: dict[str, list[Any]] = {target: [spec.to_dict() for spec in specs] for target, specs in chains.items()}
        for target, entries in self._plugins_left_out.items():
            found[target] = found.get(target, []) + entries
        return found

    def summary(self) -> dict[str, Any]:
        """What ``--json`` and ``--stats`` say of the ports."""
        found: dict[str, Any] = {}
        if self.osc is not None:
            found["osc"] = self.osc.to_dict()
        if self.midi is not None:
            midi = self.midi
            found["midi_in"] = {"port": midi.name, "messages": self.midi_map.messages,
                                "dropped": midi.dropped, "respawns": midi.respawns}  # fmt: skip
        return found

    def close(self) -> None:
        """Close the ports; more than once is fine."""
        for port in (self.osc, self.midi):
            if port is not None:
                port.close()

    def __enter__(self) -> Surfaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._options.save_at_end:
            try:
                common.talk(self.save())
            except RtsepError as failure:
                if kind is None:
                    raise
                common.talk(f"Note: {failure}")


def _load_plugins(section: Any, engine: Engine) -> dict[str, list[Any]]:
    """Load the chains of a setup, but for targets the command line names; return what could not be, and say why."""
    from rtsep.plugins.spec import PluginSpec

    given = {target for target, _ in click.get_current_context().params["plugins"]}
    left_out: dict[str, list[Any]] = {}
    for target, entries in section.items() if isinstance(section, dict) else ():
        for entry in entries if isinstance(entries, list) and target not in given else ():
            try:
                engine.add_plugin(target, PluginSpec.from_dict(entry))
            except RtsepError as error:
                common.talk(f"Setup    [plugins] {target}: {error}")
                left_out.setdefault(target, []).append(entry)
    return left_out


def _talker() -> Callable[[str], None]:
    """`common.talk` for other threads, which know nothing of this command and its ``--quiet``."""
    if common.is_quiet():
        return lambda text: None
    return lambda text: click.echo(text, err=True)


def argument(name: str, value: Any, instead: Any) -> Any:
    """An argument's value, unless it comes from a setup and the command line says the same thing another way."""
    source = click.get_current_context().get_parameter_source(name)
    return None if instead is not None and source is ParameterSource.DEFAULT_MAP else value


def _options_to_save(context: click.Context) -> dict[str, Any]:
    """The options that were given, on the command line or by the setup that was read, as a file holds them."""
    found = {}
    for long, name in _names(context.command).items():
        source = context.get_parameter_source(name)
        if source in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT):
            found[long] = _plain(context.params.get(name))
    given = context.params.get("model_option")
    if given is not None:
        found["model"] = given
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    """A value as it would be typed."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], float):
            return f"{value[0]}={value[1]:g}"
        if value and all(isinstance(part, int) for part in value):
            return ",".join(map(str, value))
        return [_plain(part) for part in value]
    return value
