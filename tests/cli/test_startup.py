"""``rtsep --help`` and ``import rtsep`` stay light; errors are sentences with exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import rtsep
from rtsep.cli import COMMANDS
from tests.cli.conftest import Run, environment

HEAVY = {"numpy", "onnxruntime", "sounddevice", "soundfile", "soxr", "rich", "PIL", "torch", "mido", "multiprocessing"}


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter after `code`."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import rtsep; rtsep.__version__; dir(rtsep)",
        "import rtsep.cli; sys.argv = ['rtsep', '--help']; rtsep.cli.main()",
        "import rtsep.cli; sys.argv = ['rtsep', 'models', 'list']; rtsep.cli.main()",
        "import rtsep; rtsep.list_models()",
        *(f"import rtsep.cli; sys.argv = ['rtsep', '{name}', '--help']; rtsep.cli.main()" for name in COMMANDS),
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    loaded = modules_after(code)
    assert "rtsep" in loaded
    assert loaded & HEAVY == set()


def test_help_loads_no_command() -> None:
    script = "import rtsep.cli, sys; sys.argv = ['rtsep', '--help']; rtsep.cli.main()"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    ours = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "import time:" in line}
    assert "rtsep.errors" in ours
    assert not {f"rtsep.cli.{name}" for name in (*COMMANDS, "common")} & ours
    for name, (_, line) in COMMANDS.items():
        assert name in result.stdout
        assert line in result.stdout


def test_the_public_names_exist() -> None:
    assert rtsep.__all__ == ["Engine", "StreamingSession", "__version__", "list_models", "separate"]
    for name in rtsep.__all__:
        assert getattr(rtsep, name)
        assert name in dir(rtsep)
    with pytest.raises(AttributeError, match="separat"):
        rtsep.separat  # noqa: B018


def test_version_agrees_with_the_package(run: Run) -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads(Path("pyproject.toml").read_text()) if Path("pyproject.toml").exists() else None
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"rtsep {rtsep.__version__}  python ")
    assert "onnxruntime" in result.stdout
    if project:
        assert project["project"]["version"] == rtsep.__version__


def test_unknown_commands_and_options_are_usage_errors(run: Run) -> None:
    result = run("seperate", "x.wav")
    assert result.exit_code == 2
    assert "Did you mean 'separate'?" in result.stderr
    result = run("separate", "x.wav", "--moot", "vocals", "-o", "y.wav")
    assert result.exit_code == 2
    assert "--mute" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["models", "info", "no-such-model"], 4, "No model is named 'no-such-model'"),
        (["models", "info", "openunmix-lo"], 4, "See: rtsep models list"),
        (["latency", "nowhere.onnx"], 4, "nowhere.onnx"),
        (["latency", "a.onnx", "--model", "b.onnx"], 2, "Two models"),
        (["run", "--backend", "jackk"], 2, "there are portaudio, file, dummy"),
        (["run", "--backend", "file"], 2, "-i song.wav"),
        (["run", "--backend", "dummy", "-i", "3"], 2, "no devices"),
        (["run", "--gain", "vocals"], 2, "vocals=-6"),
        (["run", "--gain", "vocals=loud"], 2, "vocals=-6"),
        (["run", "-c", "0,1"], 2, "1,2"),
        (["run", "--latency", "quick"], 2, "low, high"),
        (["bench", "--blocks", "64,x"], 2, "64,256,1024"),
        (["demo", "--seconds", "2"], 2, "6 or more"),
    ],
)
def test_wrong_values_say_what_is_allowed(run: Run, args: list[str], code: int, text: str) -> None:
    result = run(*args)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert result.stdout == ""


def test_quiet_leaves_results_only(run: Run, model: object) -> None:
    loud, quiet = run("latency", model), run("-q", "latency", model)
    assert loud.stdout == quiet.stdout != ""
    assert loud.stderr != ""
    assert quiet.stderr == ""


def test_json_is_json_and_nothing_else(run: Run, model: object) -> None:
    for args in (["models", "list"], ["models", "info", model], ["models", "verify", model], ["latency", model]):
        result = run(*args, "--json")
        assert result.exit_code == 0, result.output
        json.loads(result.stdout)
