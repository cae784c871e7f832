"""The README's Python examples run as they are printed, and its commands exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile

from rtsep.cli import main

README = Path(__file__).parents[2] / "README.md"
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
COMMANDS = sorted(set(re.findall(r"^rtsep ([a-z]+)", README.read_text(), flags=re.MULTILINE)))


def test_there_are_examples() -> None:
    assert len(PYTHON_BLOCKS) >= 3
    assert {"run", "separate", "latency"} <= set(COMMANDS)


@pytest.mark.parametrize(
    "block", PYTHON_BLOCKS, ids=lambda b: next(line for line in b.splitlines() if "rtsep." in line)
)
def test_python_example_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "song.wav", rng.normal(0, 0.1, (44100, 2)), 44100)
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "example.py"
    # The engine starts a process, which must be able to import the script without running it again.
    body = "".join(f"    {line}\n" if line else "\n" for line in block.splitlines())
    script.write_text(f"if __name__ == '__main__':\n{body}")
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_of_the_readme_exists(name: str) -> None:
    assert isinstance(main, click.Group)
    assert main.get_command(click.Context(main), name) is not None
