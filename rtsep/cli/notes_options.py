"""Options of ``run`` that turn what the stems play into MIDI, and what they start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.cli import common
from rtsep.errors import UsageError
from rtsep.notes.messages import CHANNELS, PERCUSSION_CHANNEL

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo
    from rtsep.engine.engine import Engine
    from rtsep.notes.live import LiveNotes
    from rtsep.notes.messages import StripMidi

F = TypeVar("F", bound=Callable[..., Any])
StemValues = tuple[tuple[str, float], ...]

_PER_STEM = {
    "midi_channel": ("channel", "1..16", "vocals=2", "MIDI channel of a stem; drums have 10."),
    "midi_program": ("program", "0..127", "bass=33", "General MIDI program of a stem."),
    "midi_transpose": ("transpose", "SEMITONES", "bass=12", "Moves a stem's notes."),
    "midi_curve": ("velocity_curve", "EXPONENT", "drums=0.7", "Velocities: below 1 louder, above 1 softer."),
    "midi_bend": (
        "bend_range",
        "SEMITONES",
        "vocals=2",
        "Pitch bend of a stem of one voice, by so much at most; 0: none.",
    ),
    "midi_mpe": (
        "mpe_channels",
        "CHANNELS",
        "vocals=4",
        "Each note of a stem on a channel of its own (MPE), of so many.",
    ),
}


@dataclass(frozen=True)
class NotesOptions:
    """What the options say.

    Parameters
    ----------
    port : str or None
        Where notes are played.
    latency : str
        Position of the dial.
    stems : tuple of str
        Which to write down; all when empty.
    muted_too : bool
        Also those that are not heard.
    values : mapping of str to pairs
        Of the options for single stems, by their name.
    record : Path or None
        A WAV file for what is heard, or the folder of a take.
    shown : bool
        Whether somebody looks at the notes, wherever else they go.
    """

    port: str | None
    latency: str
    stems: tuple[str, ...]
    muted_too: bool
    values: dict[str, StemValues]
    record: Path | None
    shown: bool = False

    @classmethod
    def take_from(cls, options: dict[str, Any], record: Path | None, shown: bool = False) -> NotesOptions:
        """Take the values that `notes_options` adds out of a command's."""
        values = {name: options.pop(name) for name in _PER_STEM}
        chosen = cls(
            port=options.pop("midi_out"),
            latency=options.pop("midi_latency"),
            stems=options.pop("midi_stems"),
            muted_too=options.pop("midi_muted"),
            values=values,
            record=record,
            shown=shown,
        )
        if not chosen.wanted:
            given = [name for name, value in values.items() if value] + (["midi_stems"] if chosen.stems else [])
            if given:
                name = given[0].replace("_", "-")
                raise UsageError(
                    f"--{name} is for notes: add --midi-out PORT, or --record FOLDER. See: rtsep midi list"
                )
        return chosen

    @property
    def take(self) -> Path | None:
        """Folder of the take, when what to record is no WAV file."""
        return self.record if self.record is not None and self.record.suffix.lower() != ".wav" else None

    @property
    def wanted(self) -> bool:
        """Whether notes are written down at all."""
        return self.shown or self.port is not None or self.take is not None

    @property
    def recording(self) -> Path | None:
        """The WAV file for what is heard."""
        return self.take / "mix.wav" if self.take is not None else self.record

    def make_folder(self) -> None:
        """Make the folder of the take. UsageError when something is in it already."""
        if self.take is None:
            return
        try:
            self.take.mkdir(parents=True, exist_ok=True)
            if any(self.take.iterdir()):
                raise UsageError(f"{self.take} is not empty; give --record a new folder for this take.")
        except OSError as error:
            raise UsageError(f"The folder {self.take} cannot be made: {error.strerror}.") from error

    def clear_folder(self) -> None:
        """Take back a take whose notes never began: its folder is as empty as `make_folder` left it."""
        if self.take is not None:
            (self.take / "mix.wav").unlink(missing_ok=True)

    def strips(self, info: ModelInfo) -> tuple[StripMidi, ...]:
        """Return the strips of a model's stems. StemNotFoundError, UsageError."""
        from rtsep.mixer.settings import MixerSettings
        from rtsep.notes.messages import default_strips

        index = MixerSettings(info.stems).index
        strips = list(default_strips(info.stems))
        self._make_room(strips, index)
        for option, (field, *_) in _PER_STEM.items():
            for stem, value in self.values[option]:
                whole = field != "velocity_curve"
                if whole and value != int(value):
                    raise UsageError(f"--{option.replace('_', '-')} {stem}={value}: a whole number is needed.")
                changed: dict[str, Any] = {field: int(value) if whole else value}
                at = index(stem)
                if option == "midi_bend":
                    check_bends(info, stem)
                    changed = {"bend_range": int(value), "mono": True} if value else {"mono": False}
                    if strips[at].mpe_channels:
                        raise UsageError(f"--midi-bend {stem}: notes of MPE bend by 48 semitones anyway; leave it out.")
                strips[at] = replace(strips[at], **changed)
        for stem in self.stems:
            index(stem)
        return tuple(strips)

    def _make_room(self, strips: list[StripMidi], index: Callable[[str], int]) -> None:
        """Move strips to channels beside the MPE zones; channels that were asked for are set afterwards.

        The first zone is the lower one, managed on channel 1; a second is managed on 16.
        """
        zones = [(index(stem), int(count)) for stem, count in self.values["midi_mpe"] if count >= 1]
        if len(zones) > 2:
            raise UsageError("--midi-mpe can be given for two stems: a MIDI port has room for two MPE zones.")
        taken = {PERCUSSION_CHANNEL}
        for manager, (at, count) in zip((1, CHANNELS), zones, strict=False):
            strips[at] = replace(strips[at], channel=manager, mpe_channels=min(count, CHANNELS - 1))
            taken.update(strips[at].channels)
        free = [channel for channel in range(1, CHANNELS + 1) if channel not in taken]
        others = [at for at, s in enumerate(strips) if not s.mpe_channels and s.channel != PERCUSSION_CHANNEL]
        if zones and len(others) <= len(free):  # else the output says which channels collide
            for at, channel in zip(others, free, strict=False):
                strips[at] = replace(strips[at], channel=channel)

    def start(self, engine: Engine) -> LiveNotes:
        """Start writing down what `engine` plays, and say how late the notes are. RtsepError."""
        from rtsep.notes.live import LiveNotes

        notes = LiveNotes(
            engine,
            self.port,
            latency=self.latency,
            stems=self.stems or None,
            strips=self.strips(engine.info),
            muted_too=self.muted_too,
            take=self.take,
        )
        notes.start()
        where = "on the console" if self.take is None else f"in {self.take}"
        if notes.midi is not None:
            where = f"to {notes.midi.port}"
        common.talk(f"Notes    {where}")
        for strip in _of_interest(notes.config.strips, self.stems):
            program = "" if strip.program is None else f"  program {strip.program}"
            common.talk(f"         {strip.name}: channel {strip.channel}{program}{_said_of_bends(strip)}")
            if strip.name in notes.delays_s:
                parts = " + ".join(f"{part} {1000 * s:.1f}" for part, s in notes.delay_parts_s[strip.name].items())
                common.talk(f"           {1000 * notes.delays_s[strip.name]:.1f} ms after the sound  = {parts}")
        return notes


def check_bends(info: ModelInfo, stem: str) -> None:
    """UsageError where no transcriber follows the pitch of a stem's one voice."""
    from rtsep.notes.stream import kind_of_stem

    own = info.notes.stems if info.notes else ()
    if kind_of_stem(stem) != "monophonic" or stem in own:
        voices = [name for name in info.stems if kind_of_stem(name) == "monophonic" and name not in own]
        there = ", ".join(voices) or "no such stem"
        raise UsageError(f"--midi-bend {stem}: only stems of one voice have a pitch to bend; the model has {there}.")


def _said_of_bends(strip: StripMidi) -> str:
    if strip.mpe_channels:
        return f"  MPE on {min(strip.members)} to {max(strip.members)}"
    return f"  bends by {strip.bend_range} semitones" if strip.mono else ""


def _of_interest(strips: Iterable[StripMidi], stems: tuple[str, ...]) -> list[StripMidi]:
    return [strip for strip in strips if not stems or strip.name in stems]


def notes_options(function: F) -> F:
    """Add the options whose values `NotesOptions.take_from` takes."""
    for name, (_, unit, example, text) in _PER_STEM.items():
        function = click.option(
            f"--{name.replace('_', '-')}", name, type=common.StemValue(unit, example), multiple=True, help=text
        )(function)
    for option in (
        click.option("--midi-muted", is_flag=True, help="Stems that are not heard give notes too."),
        click.option(
            "--midi-stems", type=common.NameList(), default=(), help="Stems to write down; all when left out."
        ),
        click.option(
            "--midi-latency",
            type=click.Choice(["tight", "normal", "quality"]),
            default="normal",
            show_default=True,
            help="How long to listen before a note is believed.",
        ),
        click.option(
            "--midi-out",
            metavar="PORT",
            help="Play the notes of each stem: virtual, part of a port's name, or log:FILE. See: rtsep midi list",
        ),
    ):
        function = option(function)
    return function
