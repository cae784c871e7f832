"""A new instrument from a few recordings: only its embedding moves, and the loss falls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from models.checkpoint import load_checkpoint, save_checkpoint
from models.data.readers import DataError
from models.metatasnet.fit_embedding import fit, read_recordings, segment
from tests.models.metatasnet.small import small

RATE = 8000
ROOT = Path(__file__).parents[3]


def recordings() -> tuple[list[Tensor], list[Tensor]]:
    """A high, beating tone against low hum and noise."""
    rng = np.random.default_rng(0)
    time = np.arange(3 * RATE) / RATE
    high = [np.sin(2 * np.pi * f * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 5 * time)) for f in (2500.0, 2700.0)]
    low = [np.sin(2 * np.pi * 150.0 * time), 0.3 * np.cumsum(rng.standard_normal(len(time))) / 30]
    stereo = [[torch.from_numpy(np.stack([x, 0.8 * x])).float() * 0.3 for x in group] for group in (high, low)]
    return stereo[0], stereo[1]


def test_only_the_embedding_moves_and_the_loss_falls() -> None:
    model = small(samplerates=(RATE,))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    targets, others = recordings()
    fitted, report = fit(model, "whistle", targets, others, steps=25, batch=2, seconds=1.5)
    assert fitted.stems == ("whistle", "rest")
    assert report.loss_after < report.loss_before - 0.3
    assert report.sdr_after > report.sdr_before
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    after = fitted.state_dict()
    for key, value in before.items():
        got = after[key][:4] if key == "weights.embeddings.weight" else after[key]
        assert torch.equal(got, value), key
    assert after["weights.embeddings.weight"].shape[0] == 5


def test_mixtures_hold_the_instrument_and_others() -> None:
    targets, others = [torch.ones(2, 100)], [torch.full((2, 40), 10.0)]
    drawn = segment(np.random.default_rng(0), targets, others, 60)
    assert drawn.shape == (2, 2, 60)
    assert 0.5 <= float(drawn[0].max()) <= 1.2
    assert not drawn[1, :, 40:].any()  # shorter recordings are filled up with silence
    with pytest.raises(ValueError, match="seconds must be above"):
        fit(small(samplerates=(RATE,)), "x", targets, others, seconds=0.5)


def write(folder: Path) -> None:
    targets, others = recordings()
    for index, (target, other) in enumerate(zip(targets, others, strict=True)):
        (folder / f"song {index}").mkdir(parents=True)
        soundfile.write(folder / f"song {index}" / "whistle.wav", target.T.numpy(), RATE)
        soundfile.write(folder / f"song {index}" / "hum.flac", other.T.numpy(), RATE)
        soundfile.write(folder / f"song {index}" / "mixture.wav", (target + other).T.numpy(), RATE)


def test_recordings_are_read_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    write(tmp_path / "songs")
    targets, others = read_recordings(tmp_path / "songs", "whistle", RATE // 2, channels=1)
    assert [tuple(x.shape) for x in targets + others] == [(1, 3 * RATE // 2)] * 4
    with pytest.raises(DataError, match="no recording called 'flute' in its song folders; it has hum, whistle"):
        read_recordings(tmp_path / "songs", "flute", RATE, 2)
    for path in tmp_path.glob("songs/*/hum.flac"):
        path.unlink()
    with pytest.raises(DataError, match="no other stem to tell 'whistle' from"):
        read_recordings(tmp_path / "songs", "whistle", RATE, 2)
    soundfile.write(tmp_path / "songs" / "song 0" / "hum.wav", np.zeros((100, 2)), RATE)
    with pytest.raises(DataError, match=r"hum.wav is silent"):
        read_recordings(tmp_path / "songs", "whistle", RATE, 2)
    (tmp_path / "songs" / "song 0" / "hum.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"cannot decode .*hum.wav"):
        read_recordings(tmp_path / "songs", "whistle", RATE, 2)
    with pytest.raises(DataError, match="no folder at"):
        read_recordings(tmp_path / "nowhere", "whistle", RATE, 2)


def test_the_command_writes_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "songs")
    save_checkpoint(tmp_path / "base.pt", "metatasnet", small(samplerates=(RATE,)), {"training_data": ["a", "b"]})
    command = [sys.executable, "-m", "models.metatasnet.fit_embedding", "base.pt", "--stems", "songs"]
    command += ["--name", "whistle", "-o", "whistle.pt", "--steps", "2"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        return subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "SDR" in done.stdout
    model, extras = load_checkpoint(tmp_path / "whistle.pt", "metatasnet")
    assert model.stems == ("whistle", "rest")
    assert extras["training_data"] == ["a", "b", "whistle: 2 recordings, 0.1 min (fitted embedding)"]
    save_checkpoint(tmp_path / "base.pt", "metatasnet", model.materialise(), {})
    done = run(*command)
    assert done.returncode != 0
    assert done.stderr.strip() == (
        "error: a materialised model has no embeddings; use the checkpoint it was made from."
    )
