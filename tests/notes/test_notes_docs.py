"""The code in ``docs/notes.md`` runs as it stands there, and the options it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run, run  # noqa: F401

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "notes.md").read_text()


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(block, "docs/notes.md", "exec"), {"__name__": "example"})
    delay, count = capsys.readouterr().out.split()
    assert 0.05 < float(delay) < 0.3
    assert count == "0"
    assert (tmp_path / "take" / "notes.mid").exists()


def test_options(run: Run) -> None:  # noqa: F811
    told = run("run", "--help").output + run("transcribe", "--help").output
    for option in set(re.findall(r"(?<=[ `])--[a-z]+(?:-[a-z]+)*(?=[ `])", TEXT)):
        assert option in told, option
