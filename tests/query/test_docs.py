"""The commands and the code in ``docs/queries.md`` run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.query.notes import Note
from rtsep.query.smf import write_midi
from tests.cli.conftest import Run, run  # noqa: F401
from tests.support.query_graphs import RATE, make_family

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "queries.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_commands_run_in_order(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").mkdir()
    make_family(tmp_path / "zoo")
    monkeypatch.setattr("rtsep.zoo.registry._FOLDER", tmp_path / "zoo")
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    for name in ("oboe.wav", "duet.wav"):
        soundfile.write(name, tone, RATE, subtype="FLOAT")
    for name in ("oboe.mid", "duet.mid", "melody.mid"):
        write_midi(name, {"oboe": [Note(0.2, 0.8, 69, 90), Note(0.8, 1.5, 72, 90)]})
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "rtsep"
        result = run(*words[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        assert (tmp_path / words[words.index("-o") + 1]).exists()


def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "queries.md", "exec"), {})
    said = capsys.readouterr().out
    assert "pitch=69, velocity=114, frame=0" in said
    assert "kind='off', pitch=69, velocity=0, frame=10" in said


def test_commands_that_need_a_device_have_options_that_exist(run: Run) -> None:  # noqa: F811
    for block in blocks("console"):
        for command in block.splitlines():
            words = shlex.split(command)
            helped = run(words[1], "--help").stdout
            for word in words[2:]:
                if word.startswith("-"):
                    assert word in helped, command
