"""``python -m export`` as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from export.cli import main
from models.checkpoint import save_checkpoint
from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig
from rtsep.zoo import ModelCard, ZooEntry, read_info, verify
from tests.models.metatasnet.small import small

EXTRAS = {"licence": "CC0-1.0", "training_data": ["MUSDB18-7s", "own"], "evaluation": {"SDR dB": 0.0}, "steps": 12}


def checkpoint(path: Path, extras: dict[str, Any], *, spoil: bool = False) -> Path:
    torch.manual_seed(0)
    config = StreamingOpenUnmixConfig(window=512, hop=128, edges=(32, 64, 128, 256), hidden=24)
    model = StreamingOpenUnmix(config)
    if spoil:
        with torch.no_grad():
            model.fc3.bias[3] = float("nan")
    save_checkpoint(path, "openunmix", model.eval(), extras)
    return path


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["openunmix", *map(str, arguments), "--seconds", "1", "--benchmark-hops", "20"])


def test_a_checkpoint_becomes_a_model(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "best.pt", EXTRAS)
    output = tmp_path / "openunmix-low.onnx"
    # In a process of its own, as it is run: nothing may come out but the report.
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::UserWarning",
            "-m",
            "export",
            "openunmix",
            source,
            "-o",
            output,
            "--seconds",
            "2",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(str(output))
    assert "parity" in run.stdout
    info = read_info(output)
    assert (info.name, info.version, info.licence) == ("openunmix-low", "1", "CC0-1.0")
    assert info.training_data == ("MUSDB18-7s", "own")
    assert info.evaluation == {"SDR dB": 0.0}
    assert (info.hop_samples, info.latency_samples) == (128, 128)
    card = ModelCard.read(output.with_suffix(".json"))
    assert card.training == {"steps": 12}
    assert card.summary == "4 stems: drums, bass, other, vocals"
    verify(ZooEntry("openunmix-low", output, ()))


def test_options_go_before_the_checkpoint(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "best.pt", {"licence": "MIT", "training_data": ["a"], "summary": "old"})
    output = tmp_path / "m.onnx"
    options = ["--name", "other", "--model-version", "2", "--licence", "CC-BY-4.0"]
    options += ["--training-data", "x", "--training-data", "y", "--summary", "new"]
    result = invoke(source, "-o", output, *options)
    assert result.exit_code == 0, result.output
    info = read_info(output)
    assert (info.name, info.version, info.licence, info.training_data) == ("other", "2", "CC-BY-4.0", ("x", "y"))
    assert ModelCard.read(output.with_suffix(".json")).summary == "new"


@pytest.mark.parametrize("key", ["licence", "training_data"])
def test_facts_the_checkpoint_does_not_say_are_asked_for(tmp_path: Path, key: str) -> None:
    extras = {name: value for name, value in EXTRAS.items() if name != key}
    result = invoke(checkpoint(tmp_path / "best.pt", extras), "-o", tmp_path / "m.onnx")
    assert result.exit_code == 2
    assert f"does not say its {key}. Say it with: --{key.replace('_', '-')}" in result.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_evaluation_file_replaces_the_checkpoints_figures(tmp_path: Path) -> None:
    source, figures = checkpoint(tmp_path / "best.pt", EXTRAS), tmp_path / "figures.json"
    figures.write_text('{"SDR": {"vocals": 4.5}, "per_song_sdr": {"A song": {"vocals": 4.5}}}')
    done = invoke(source, "-o", tmp_path / "x.onnx", "--evaluation", figures)
    assert done.exit_code == 0, done.output
    assert read_info(tmp_path / "x.onnx").evaluation == {"SDR": {"vocals": 4.5}}
    figures.write_text("[1")
    done = invoke(source, "-o", tmp_path / "y.onnx", "--evaluation", figures)
    assert done.exit_code == 2
    assert "models.evaluate" in done.output
    assert not (tmp_path / "y.onnx").exists()


def test_weights_that_are_no_numbers_leave_no_file(tmp_path: Path) -> None:
    result = invoke(checkpoint(tmp_path / "best.pt", EXTRAS, spoil=True), "-o", tmp_path / "m.onnx")
    assert result.exit_code == 4
    assert "not finite" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("spoil", ["text", "cut", "other"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, spoil: str) -> None:
    source = checkpoint(tmp_path / "best.pt", EXTRAS)
    if spoil == "text":
        source.write_text("not a checkpoint")
    elif spoil == "cut":
        source.write_bytes(source.read_bytes()[:1000])
    else:
        torch.save({"weights": torch.zeros(2)}, source)
    result = invoke(source, "-o", tmp_path / "m.onnx")
    assert result.exit_code == 4
    assert f"Error: {source} is no checkpoint that can be exported" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


def test_a_system_that_can_choose_puts_out_two_stems(tmp_path: Path) -> None:
    model = small()
    save_checkpoint(tmp_path / "best.pt", "metatasnet", model.eval(), EXTRAS)
    output = tmp_path / "karaoke.onnx"
    arguments = ["metatasnet", str(tmp_path / "best.pt"), "-o", str(output), "--seconds", "1", "--benchmark-hops", "20"]
    done = CliRunner().invoke(main, [*arguments, "--stems", "vocals,accompaniment"])
    assert done.exit_code == 0, done.output
    info = read_info(output)
    assert info.stems == ("vocals", "accompaniment")
    assert info.parameters < sum(p.numel() for p in model.parameters()), "weights, not what generates them"
    done = CliRunner().invoke(main, [*arguments, "--stems", "oboe,kazoo"])
    assert done.exit_code == 2
    assert "kazoo" in done.output


def test_stems_cannot_be_chosen_everywhere(tmp_path: Path) -> None:
    done = invoke(checkpoint(tmp_path / "best.pt", EXTRAS), "-o", tmp_path / "x.onnx", "--stems", "vocals")
    assert done.exit_code == 2
    assert "leave --stems out" in done.output


def test_usage(tmp_path: Path) -> None:
    assert invoke(tmp_path / "none.pt", "-o", tmp_path / "m.onnx").exit_code == 2
    source = checkpoint(tmp_path / "best.pt", EXTRAS)
    assert invoke(source).exit_code == 2
    result = invoke(source, "-o", tmp_path / "m.pt")
    assert result.exit_code == 2
    assert "must end in .onnx" in result.stderr
    help_text = CliRunner().invoke(main, ["openunmix", "--help"]).output
    assert "exit code 4" in " ".join(help_text.split())
