"""Options of ``rtsep run`` for a file as live input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.cli import common
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.audio.song_config import SongConfig
    from rtsep.engine.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])


def seconds_of(text: str) -> float:
    """Return the seconds that ``83``, ``1:23`` or ``1:02:03.5`` mean; ValueError."""
    total = 0.0
    parts = text.strip().split(":")
    for part in parts:
        if not part.replace(".", "", 1).isdecimal() or not part.isascii():
            raise ValueError(text)
        total = 60.0 * total + float(part)
    if len(parts) > 3:
        raise ValueError(text)
    return total


class Loop(click.ParamType[Any]):
    """Nothing (the whole file) or ``0:30-0:45``."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        if value == "":
            return (None, None)
        begin, dash, end = str(value).partition("-")
        try:
            if not dash:
                raise ValueError(value)
            return (seconds_of(begin) if begin.strip() else None, seconds_of(end) if end.strip() else None)
        except ValueError:
            self.fail(f"{value!r} is no loop; it takes two times, such as 0:30-0:45, or 30-45.5", param, ctx)


def input_options(function: F) -> F:
    """Add ``--input-file --loop --varispeed``, whose values `take_song` takes."""
    for option in (
        click.option("--varispeed", type=float, metavar="X", help="Speed and pitch of the file, 0.5 to 1.5."),
        click.option(
            "--loop",
            type=Loop(),
            is_flag=False,
            flag_value="",
            help="Repeat the file, or a part of it: --loop 0:30-0:45.",
        ),
        click.option("--input-file", metavar="FILE", help="A file as input, in the place of what the device captures."),
    ):
        function = option(function)
    return function


def take_song(
    options: dict[str, Any],
    backend: str,
    input_device: str | None,
    output_device: str | None,
    channels: tuple[int, ...] | None,
) -> tuple[SongConfig | None, str | None, tuple[int, ...] | None]:
    """Take the values out of a command's options.

    Returns
    -------
    SongConfig or None
    str or None
        The input device: with a file the one that plays, so that one clock drives both.
    tuple of int or None
        The channels of the input device: with a file they are the file's.

    Raises
    ------
    UsageError
        They do not go together.
    """
    path, loop, speed = (options.pop(name) for name in ("input_file", "loop", "varispeed"))
    if path is None:
        for name, value in (("--loop", loop), ("--varispeed", speed)):
            if value is not None:
                raise UsageError(f"{name} is for a file as input; add --input-file FILE.")
        return None, input_device, channels
    if input_device is not None:
        raise UsageError(
            f"--input-file {path} and -i {input_device} are two inputs; give one. -o names the device that plays."
        )
    if backend == "file":
        raise UsageError(
            f"The file backend plays into a file: --backend file -i {path} -o out.wav, without --input-file."
        )
    from rtsep.audio.song_config import SongConfig

    from_s, to_s = loop if loop is not None else (None, None)
    song = SongConfig(path, loop is not None, from_s, to_s, 1.0 if speed is None else speed, channels)
    return song, output_device, None


def introduce(engine: Engine) -> None:
    """Say what plays."""
    song = engine.config.song
    if song is None:
        return
    from rtsep.cli.display import minutes

    on, from_s, to_s = engine.song_loop
    loop = f"  loop {minutes(from_s)}-{minutes(to_s)}" if on else ""
    speed = f"  speed {song.speed:g}" if song.speed != 1.0 else ""
    common.talk(f"Input    {song.path}  {minutes(engine.song_duration_s)}{loop}{speed}")
    if engine.song_channels > 2 and song.channels is None:
        common.talk(f"Note: the file has {engine.song_channels} channels; 1 and 2 are used. Choose others with -c.")
