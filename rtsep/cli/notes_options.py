"""Options of ``run`` that turn what the stems play into MIDI, and what they start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.cli import common
from rtsep.errors import UsageError

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
    """

    port: str | None
    latency: str
    stems: tuple[str, ...]
    muted_too: bool
    values: dict[str, StemValues]
    record: Path | None

    @classmethod
    def take_from(cls, options: dict[str, Any], record: Path | None) -> NotesOptions:
        """Take the values that `notes_options` adds out of a command's."""
        values = {name: options.pop(name) for name in _PER_STEM}
        chosen = cls(
            port=options.pop("midi_out"),
            latency=options.pop("midi_latency"),
            stems=options.pop("midi_stems"),
            muted_too=options.pop("midi_muted"),
            values=values,
            record=record,
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
        return self.port is not None or self.take is not None

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

    def strips(self, info: ModelInfo) -> tuple[StripMidi, ...]:
        """Return the strips of a model's stems. StemNotFoundError, UsageError."""
        from rtsep.mixer.settings import MixerSettings
        from rtsep.notes.messages import default_strips

        index = MixerSettings(info.stems).index
        strips = list(default_strips(info.stems))
        for option, (field, *_) in _PER_STEM.items():
            for stem, value in self.values[option]:
                whole = field != "velocity_curve"
                if whole and value != int(value):
                    raise UsageError(f"--{option.replace('_', '-')} {stem}={value}: a whole number is needed.")
                changed: dict[str, Any] = {field: int(value) if whole else value}
                at = index(stem)
                strips[at] = replace(strips[at], **changed)
        for stem in self.stems:
            index(stem)
        return tuple(strips)

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
        parts = " + ".join(f"{name.removesuffix('_s')} {1000 * value:.1f}" for name, value in notes.delays.items())
        where = f"to {notes.midi.port}" if notes.midi is not None else f"in {self.take}"
        common.talk(f"Notes    {where}  {1000 * notes.delay_s:.1f} ms after the sound  = {parts}")
        for strip in _of_interest(notes.config.strips, self.stems):
            program = "" if strip.program is None else f"  program {strip.program}"
            common.talk(f"         {strip.name}: channel {strip.channel}{program}")
        return notes


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
