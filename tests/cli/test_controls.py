"""``--control``, and mixing options of a model whose instruments are elements of its condition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.cli.conftest import Run
from tests.support.condition_graphs import make_condition_model
from tests.support.graphs import make_delay_model

Audio = NDArray[np.float32]


@pytest.fixture(scope="module")
def fader_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drums .125, bass .125, other .25, vocals .5 of the input."""
    return make_condition_model(tmp_path_factory.mktemp("model") / "condition.onnx", latency=700)


def read(path: Path) -> Audio:
    audio: Audio = soundfile.read(path, dtype="float32")[0].T
    return audio


@pytest.mark.parametrize(
    ("options", "share"),
    [
        (["--mute", "vocals"], 0.5),
        (["--solo", "other"], 0.25),
        (["--gain", "vocals=-120", "--mute", "drums"], 0.375),
        (["--control", "condition.vocals=0.5"], 0.75),
        (["--control", "condition=0,0,1,1", "--mute", "other"], 0.5),
        (["--solo", "rest", "--control", "condition.vocals=0"], 0.5),
    ],
)
def test_a_mix_of_instruments(
    run: Run, fader_model: Path, song: Path, recording: Audio, tmp_path: Path, options: list[str], share: float
) -> None:
    out = tmp_path / "mix.wav"
    result = run("separate", song, "--model", fader_model, "-o", out, *options)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read(out), np.float32(share) * recording)


def test_a_folder_gets_what_is_selected_and_the_rest(
    run: Run, fader_model: Path, song: Path, recording: Audio, tmp_path: Path
) -> None:
    args = ("separate", song, "--model", fader_model, "--control", "condition.vocals=0", "-o", f"{tmp_path}/out/")
    result = run(*args)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "song"
    assert sorted(path.name for path in folder.iterdir()) == ["rest.wav", "selected.wav"]
    np.testing.assert_array_equal(read(folder / "selected.wav"), np.float32(0.5) * recording)
    np.testing.assert_array_equal(read(folder / "rest.wav"), np.float32(0.5) * recording)


def test_a_live_run(run: Run, fader_model: Path, song: Path, recording: Audio, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    result = run("run", fader_model, "--backend", "file", "-i", song, "-o", out, "--mute", "other", "--slack", 8)
    assert result.exit_code == 0, result.output
    assert "drums, bass, other, vocals" in result.stderr
    heard = read(out)
    length = recording.shape[1]
    # In time with the clock; where the file starts in it is what `rtsep latency` is for.
    shift = int(np.flatnonzero(np.abs(heard[0]) > 1e-4)[0]) - int(np.flatnonzero(np.abs(recording[0]) > 1e-4)[0])
    np.testing.assert_array_equal(heard[:, shift : shift + length], np.float32(0.75) * recording)


def test_a_control_of_any_model(run: Run, song: Path, recording: Audio, tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "level.onnx", control=True, latency=700)
    args = ("separate", song, "--model", model, "-o", tmp_path / "mix.wav")
    result = run(*args, "--control", "level=0.5", "--solo", "vocals")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read(tmp_path / "mix.wav"), np.float32(0.25) * recording)
    assert "would be a copy of the song" in run(*args, "--control", "level=0.5").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--control", "condition"], "'condition' is not NAME=VALUE"),
        (["--control", "condition.vocals=loud"], "is not NAME=VALUE"),
        (["--control", "conditon.vocals=1"], "Did you mean 'condition'?"),
        (["--control", "condition.vocal=1"], "Did you mean 'vocals'?"),
        (["--control", "condition.vocals=2"], "allowed is 0.0 to 1.0"),
        (["--mute", "vocal"], "Did you mean 'vocals'?"),
        (["--pan", "vocals=0.5"], "'vocals' cannot be panned"),
    ],
)
@pytest.mark.parametrize("command", ["run", "separate"])
def test_wrong_options_are_exit_code_2(
    run: Run, fader_model: Path, song: Path, tmp_path: Path, command: str, options: list[str], message: str
) -> None:
    where = ["--backend", "dummy", "--seconds", "1"] if command == "run" else [song, "-o", f"{tmp_path}/out/"]
    result = run(command, "--model", fader_model, *where, *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_info_shows_labels_and_ranges(run: Run, fader_model: Path, model: Path, tmp_path: Path) -> None:
    assert "condition (0 to 1: drums, bass, other, vocals)" in run("models", "info", fader_model).stdout
    assert "controls    none" in run("models", "info", model).stdout
    level = make_delay_model(tmp_path / "level.onnx", control=True)
    assert "level (0 to 2)\n" in run("models", "info", level).stdout
