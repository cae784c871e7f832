"""The ``rtsep`` command. Importing this loads click and nothing heavier; each command loads its own file.

Exit codes: 0 ok, 1 failure, 2 usage, 3 device, 4 model, 5 deadline (``--strict``), 130 interrupted (Ctrl+C),
143 terminated (SIGTERM). stdout carries results, stderr everything said about them.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any

import click

from rtsep.errors import RtsepError, suggest

INTERRUPTED, TERMINATED = 130, 143

COMMANDS = {
    "run": ("Live", "Separate and mix live input while it plays."),
    "demo": ("Live", "Render a song, play it through the engine, mute the vocals, report."),
    "devices": ("Live", "List audio devices."),
    "latency": ("Live", "Show where the latency comes from; --measure to prove it."),
    "separate": ("Files", "Split or re-balance audio files."),
    "transcribe": ("Files", "Write down the notes of a recording as MIDI."),
    "enroll": ("By example", "Learn an instrument from a recording: a query to separate it by."),
    "synth": ("By example", "Play a MIDI file with the sound of a query."),
    "models": ("Models", "list | info | verify | path"),
    "plugins": ("Tools", "list | scan | info"),
    "midi": ("Tools", "list | monitor | panic | recover"),
    "bench": ("Tools", "Time a model at several block sizes."),
    "doctor": ("Tools", "Check this machine; paste the result into a bug report."),
}
"""Name to (section, one line); the module of a command is ``rtsep.cli.<name>``, its function ``command``."""


def _failure(error: RtsepError) -> click.ClickException:
    """An error of rtsep on its way out, with its own exit code."""
    failure = click.ClickException(str(error))
    failure.exit_code = error.exit_code  # type: ignore[misc]  # click reads it from the instance
    return failure


_asked_to_end: list[int] = []
"""Exit codes of the signals that came."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    # An exception, so that files are closed and the terminal is restored on the way out.
    _asked_to_end.append(TERMINATED)
    raise SystemExit(TERMINATED)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _asked_to_end.append(INTERRUPTED)
    raise KeyboardInterrupt


class LazyGroup(click.Group):
    """Lists commands without importing them; called as a function it is the ``rtsep`` process."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if hasattr(signal, "SIGTERM"):
            signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        try:
            return self.main(*args, **{"prog_name": "rtsep", **kwargs})
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"rtsep.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No command {args[0]!r}.{suggest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, (section, line) in COMMANDS.items():
            sections.setdefault(section, []).append((name, line))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RtsepError as error:
            raise _failure(error) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except Exception:
            # Native modules make an ImportError of their own of a signal that comes while they are loaded.
            if not _asked_to_end:
                raise
            if _asked_to_end[-1] == INTERRUPTED:
                click.echo("Interrupted.", err=True)
            ctx.exit(_asked_to_end[-1])


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from rtsep.cli.common import versions

    click.echo("  ".join(f"{name} {version}" for name, version in versions().items()))
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("-q", "--quiet", is_flag=True, help="Errors and results only.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of rtsep, ONNX Runtime and PortAudio.",
)
@click.pass_context
def main(ctx: click.Context, quiet: bool) -> None:
    """Mute, solo and re-balance instruments while they play."""
    ctx.obj = {"quiet": quiet}
