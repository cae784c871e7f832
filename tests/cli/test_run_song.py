"""``rtsep run --input-file``: a file in the place of what a device captures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from rtsep.cli.input_options import seconds_of
from tests.cli.conftest import Run

Audio = NDArray[np.float32]


def test_it_is_heard_bit_for_bit_and_ends_by_itself(
    run: Run, model: Path, song: Path, recording: Audio, tmp_path: Path
) -> None:
    out, stats = tmp_path / "out.wav", tmp_path / "stats.json"
    rate = soundfile.info(song).samplerate
    result = run(
        "run",
        model,
        "--backend",
        "dummy",
        "--samplerate",
        rate,
        "--input-file",
        song,
        "--record",
        out,
        "--stats",
        stats,
    )
    assert result.exit_code == 0, result.output
    assert f"Input    {song}  0:02.0" in result.stderr
    shift = json.loads(stats.read_text())["latency"]["total_samples"]
    audio = soundfile.read(out, dtype="float32")[0].T
    np.testing.assert_array_equal(audio[:, shift : shift + recording.shape[1]], recording)


def test_a_loop_goes_on_until_it_is_stopped(run: Run, model: Path, song: Path) -> None:
    result = run(
        "run", model, "--backend", "dummy", "--input-file", song, "--loop", "0:00.5-1", "--varispeed", "0.8",
        "--seconds", "1.5", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["seconds"] >= 1.5
    assert "loop 0:00.5-0:01.0  speed 0.8" in result.stderr
    result = run("run", model, "--backend", "dummy", "--seconds", "3", "--loop", "--input-file", song, "--json")
    assert json.loads(result.stdout)["seconds"] >= 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--input-file", "SONG", "-i", "scarlett"), 2, "two inputs"),
        (("--input-file", "none.wav"), 1, "no such file"),
        (("--loop", "1-2"), 2, "--input-file FILE"),
        (("--varispeed", "0.8"), 2, "--input-file FILE"),
        (("--input-file", "SONG", "--varispeed", "3"), 2, "0.5 to 1.5"),
        (("--input-file", "SONG", "--loop", "0:45-0:30"), 2, "A has to come before B"),
        (("--input-file", "SONG", "--loop", "1-1.01"), 2, "too short"),
        (("--input-file", "SONG", "--loop", "1:00-2:00"), 2, "not in the file"),
        (("--input-file", "SONG", "--loop", "abc"), 2, "0:30-0:45"),
        (("--input-file", "SONG", "-c", "3,4"), 2, "channels 1 to 2"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, model: Path, song: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    result = run(
        "run", model, "--backend", "dummy", "--seconds", "1", *(song if word == "SONG" else word for word in words)
    )
    assert result.exit_code == code, result.output
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_the_file_backend_has_its_own_input(run: Run, model: Path, song: Path) -> None:
    result = run("run", model, "--backend", "file", "--input-file", song)
    assert result.exit_code == 2
    assert "--backend file -i" in result.stderr


def test_times() -> None:
    assert [seconds_of(text) for text in ("83", "1:23", "1:02:03.5", "0:00.25")] == [83, 83, 3723.5, 0.25]
    for text in ("1:", "a", "-1", "1:2:3:4", "1e3"):
        with pytest.raises(ValueError, match=text):
            seconds_of(text)
