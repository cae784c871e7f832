"""What several commands share: options, talk, progress, tables. Loads nothing heavy by itself."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.errors import AudioFileError, UsageError

if TYPE_CHECKING:
    from rtsep.zoo.choice import Choice

F = TypeVar("F", bound=Callable[..., Any])

PROGRESS_EVERY_S = 10.0
"""Seconds between progress lines where there is no terminal to draw a bar on."""


class StemValue(click.ParamType[tuple[str, float]]):
    """``STEM=NUMBER`` as a pair."""

    name = "STEM=NUMBER"

    def __init__(self, unit: str, example: str) -> None:
        self.name = f"STEM={unit}"
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        stem, separator, number = str(value).partition("=")
        try:
            parsed = float(number)
        except ValueError:
            parsed = math.nan
        if not separator or not stem or math.isnan(parsed):
            self.fail(f"{value!r} is not {self.name}; for example {self._example}", param, ctx)
        return stem, parsed


class ControlValue(click.ParamType[tuple[str, tuple[float, ...]]]):
    """``NAME=VALUE[,VALUE...]`` or ``NAME.LABEL=VALUE`` as a name and its values."""

    name = "NAME=VALUE,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, ...]]:
        if isinstance(value, tuple):
            return value
        name, separator, numbers = str(value).partition("=")
        try:
            parsed = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            parsed = ()
        if not separator or not name or not parsed:
            self.fail(
                f"{value!r} is not NAME=VALUE[,VALUE...] or NAME.LABEL=VALUE; for example condition=1,1,1,0 or "
                "condition.vocals=0",
                param,
                ctx,
            )
        return name, parsed


class NameList(click.ParamType[tuple[str, ...]]):
    """``a,b`` as a tuple of names."""

    name = "NAME,NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


class Numbers(click.ParamType[tuple[int, ...]]):
    """``1,2`` as a tuple of whole numbers from 1.

    Parameters
    ----------
    example : str
        For the error of a value that is no such list.
    """

    name = "N,N"

    def __init__(self, example: str) -> None:
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
            self.fail(f"{value!r} is no list of whole numbers from 1; for example {self._example}", param, ctx)
        return tuple(int(part) for part in parts)


def mixer_options(function: F) -> F:
    """Add ``--mute --solo --gain --pan --master --limiter``."""
    for option in (
        click.option("--limiter/--no-limiter", default=False, help="Keep the output below full scale."),
        click.option("--master", "master_db", type=float, default=0.0, metavar="DB", help="Gain of the output."),
        click.option(
            "--pan",
            multiple=True,
            type=StemValue("X", "drums=-0.3"),
            help="Balance of a stem, -1 left to 1 right.",
        ),
        click.option(
            "--gain",
            multiple=True,
            type=StemValue("DB", "vocals=-6"),
            help="Gain of a stem in dB, -120 to 24.",
        ),
        click.option("--solo", multiple=True, metavar="STEM", help="Hear only this stem; may be repeated."),
        click.option("--mute", multiple=True, metavar="STEM", help="Silence a stem; may be repeated."),
    ):
        function = option(function)
    return function


def control_option(function: F) -> F:
    """Add ``--control``; its values go to `rtsep.mixer.faders.plan_mix`."""
    return click.option(
        "--control",
        multiple=True,
        type=ControlValue(),
        help="A control of the model, whole or by label: condition.vocals=0. See: rtsep models info",
    )(function)


def session_options(function: F) -> F:
    """Add ``--provider --threads``."""
    for option in (
        click.option("--threads", type=click.IntRange(1), default=1, help="Threads of ONNX Runtime."),
        click.option(
            "--provider",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            help="Where the model runs; auto takes CUDA where it works.",
        ),
    ):
        function = option(function)
    return function


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def model_argument(function: F) -> F:
    """Add ``[MODEL]`` and ``--model``, two ways to say the same."""
    function = click.option("--model", "model_option", metavar="MODEL", help="Same as the argument.")(function)
    return click.argument("model", required=False)(function)


def one_model(argument: str | None, option: str | None) -> str:
    """Return the model named by argument or option, ``"default"`` without either; UsageError when they differ."""
    if argument and option and argument != option:
        raise UsageError(f"Two models were given: {argument} and {option}. Give one.")
    return argument or option or "default"


def chosen_model(argument: str | None, option: str | None) -> tuple[str, Choice | None]:
    """As `one_model`, but without either the model that ``rtsep bench --choose`` found, and that choice."""
    from rtsep.zoo.choice import load

    name = one_model(argument, option)
    if argument or option:
        return name, None
    choice = load(_cpu_name())
    return (choice.model if choice is not None else name), choice


def talk(text: str = "") -> None:
    """Say something on stderr, unless ``--quiet``."""
    context = click.get_current_context(silent=True)
    root = context.find_root().obj if context else None
    if not (root or {}).get("quiet"):
        click.echo(text, err=True)


def is_quiet() -> bool:
    """Whether ``--quiet`` was given."""
    context = click.get_current_context(silent=True)
    return bool(((context.find_root().obj if context else None) or {}).get("quiet"))


def put_json(document: Any) -> None:
    """Print a document as JSON on stdout; infinities and NaN become null."""
    click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False))


def write_json(path: str | Path, document: Any) -> None:
    """Write a document as JSON; AudioFileError when the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(_plain(document), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AudioFileError(f"{path} cannot be written: {error.strerror}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lay out rows in columns two spaces apart; `right` names the columns that align to the right."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if c in right else cell.ljust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def clock(seconds: float) -> str:
    """Format as ``3:41`` or ``1:02:03``."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function ``(done, total)`` that shows progress with a remaining time.

    A bar on a terminal, a line every ten seconds elsewhere, nothing when quiet.
    """
    if is_quiet():
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        yield _progress_lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _progress_lines(label: str) -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PROGRESS_EVERY_S or not 0 < done < total:
            return
        last = now
        left = (now - began) * (total - done) / done
        click.echo(f"{label}: {100 * done / total:.0f} %, {clock(left)} left", err=True)

    return show


def versions() -> dict[str, str]:
    """Versions of what matters, without loading ONNX Runtime; PortAudio is loaded to be asked."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import rtsep

    found = {"rtsep": rtsep.__version__, "python": platform.python_version()}
    for package in ("numpy", "onnxruntime", "onnxruntime-gpu", "sounddevice", "rtmixer", "soundfile", "soxr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            if package != "onnxruntime-gpu":
                found[package] = "missing"
    if "onnxruntime-gpu" in found and found["onnxruntime"] == "missing":
        del found["onnxruntime"]
    try:
        from rtsep.audio.devices import load_sounddevice

        found["PortAudio"] = str(load_sounddevice().get_portaudio_version()[1]).split(",")[0].removeprefix("PortAudio ")
    except Exception as error:  # whatever is wrong with it, a version line must not fail
        found["PortAudio"] = f"missing ({type(error).__name__})"
    return found


def machine() -> dict[str, Any]:
    """Facts of this machine that a measurement or a bug report needs."""
    import os
    import platform

    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return ""
