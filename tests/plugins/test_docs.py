"""docs/plugins.md: its commands exist, its plugins can be had, its Python works on a running engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rtsep.audio.backends import DummyConfig
from rtsep.cli import main
from rtsep.engine import Engine
from rtsep.plugins.catalog import check_values, find_effect
from rtsep.plugins.spec import parse_plugin

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
VALUES = re.findall(r"--plugin (\w+=\S+)", PAGE)
COMMANDS = re.findall(r"^rtsep (plugins (?:list|info)[^#\n]*)", PAGE, flags=re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(VALUES) >= 4
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("value", VALUES)
def test_plugins_of_the_page(value: str) -> None:
    spec = parse_plugin(value.partition("=")[2])
    if spec.parameters:
        effect = find_effect(spec.plugin)
        check_values({parameter.name: parameter for parameter in effect.parameters}, spec.parameters, effect.name)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page(command: str) -> None:
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output


def test_the_python_of_the_page_runs(model: Path, zam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import soundfile

    import rtsep

    (block,) = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)
    live, _, offline = block.partition("\nrtsep.separate(")
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.flac", 0.1 * np.random.default_rng(0).standard_normal((9600, 2)), 48_000)
    with Engine(model, backend=DummyConfig()) as engine:
        names = {"engine": engine}
        exec(live, names)
        assert engine.chains["vocals"][0].spec.parameters["room_size"] == 0.7
        assert engine.chains["vocals"][1].spec.bypass
        exec(
            f"rtsep.separate({offline}".replace("output_dir", f"model={str(model)!r}, output_dir"),
            {**names, "rtsep": rtsep},
        )
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"drums", "bass", "other", "vocals", "mix"}
