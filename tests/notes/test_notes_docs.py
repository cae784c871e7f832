"""The code in ``docs/notes.md`` runs as it stands there, and the options it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import Run, run  # noqa: F401

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "notes.md").read_text()


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/notes.md", "exec"), {"__name__": "example"})
    *_, delay, count = capsys.readouterr().out.split()
    assert soundfile.info(tmp_path / "takes" / "take-001" / "mix.wav").duration > 1.5
    assert 0.05 < float(delay) < 0.3
    assert count == "0"
    assert (tmp_path / "take" / "notes.mid").exists()


def test_options(run: Run) -> None:  # noqa: F811
    told = run("run", "--help").output + run("transcribe", "--help").output
    for option in set(re.findall(r"(?<=[ `])--[a-z]+(?:-[a-z]+)*(?=[ `])", TEXT)):
        assert option in told, option
