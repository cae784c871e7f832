"""Every shipped system, played live in random block sizes, is the trained model run over the whole clip in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

import rtsep
from export.wrap import call, control_specs
from models.checkpoint import load_checkpoint
from rtsep.audio.backends import FileConfig
from rtsep.demo.song import render_song
from rtsep.zoo import list_models, resolve

SECONDS = 30.0
SECONDS_OF_SINGLE_SAMPLES = 6.0  # blocks of one sample take long, and play the same as others
CHECKPOINTS = Path(__file__).parents[2] / "models" / "checkpoints"
NAMES = [entry.name for entry in list_models() if entry.path != resolve("default")]
CUTS = ["1", "random", "another"]


@pytest.fixture(scope="module", params=NAMES)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A song at the model's rate, random controls, and what PyTorch makes of both in one pass."""
    model, _ = load_checkpoint(CHECKPOINTS / f"{request.param}.pt")
    rate, hop = model.samplerates[0], model.hop_samples
    mixture = soxr.resample(render_song(31, 44100, SECONDS).mixture.T, 44100, rate).T.astype(np.float32)  # [C, T]
    mixture = np.ascontiguousarray(mixture if model.channels == 2 else mixture.mean(0, keepdims=True))
    path = tmp_path_factory.mktemp("parity") / "song.wav"
    soundfile.write(path, mixture.T, rate, subtype="FLOAT")
    random = np.random.default_rng(1)
    controls = {s.name: random.uniform(s.minimum, s.maximum, s.shape).astype(np.float32) for s in control_specs(model)}
    padding = -mixture.shape[1] % hop + -(-model.latency // hop) * hop
    audio = torch.from_numpy(np.pad(mixture, ((0, 0), (0, padding))))
    with torch.no_grad():
        given = {name: torch.from_numpy(np.asarray(value))[None] for name, value in controls.items()}
        stems, _, _ = call(model, audio[None], None, given)  # [1, S, C, T]
    aligned: NDArray[np.float32] = stems[0, ..., model.latency :][..., : mixture.shape[1]].numpy()
    return {"name": request.param, "path": path, "controls": controls, "stems": aligned, "model": model}


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_live_in_random_block_sizes(cut: str, played: dict[str, Any], tmp_path: Path) -> None:
    block = 1 if cut == "1" else int(np.random.default_rng().integers(2, 3000))
    model, path = played["model"], played["path"]
    stem, expected = model.stems[0], played["stems"][0]
    if block == 1:
        audio, rate = soundfile.read(path, dtype="float32")
        count = round(SECONDS_OF_SINGLE_SAMPLES * rate)
        path = tmp_path / "beginning.wav"
        soundfile.write(path, audio[:count], rate, subtype="FLOAT")
        expected = expected[:, : count - model.latency - model.hop_samples]  # what knows nothing of the rest
    device = FileConfig(input=str(path), output=str(tmp_path / "out.wav"), blocksize=block, realtime=False)
    with rtsep.Engine(played["name"], backend=device, controls=played["controls"], solo=[stem]) as engine:
        assert engine.wait(300.0)
        latency = engine.latency().total_samples
    heard = soundfile.read(tmp_path / "out.wav", dtype="float32", always_2d=True)[0].T[:, latency:]
    heard = heard[: expected.shape[0], : expected.shape[1]]
    assert heard.shape == expected.shape, block
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(heard, expected, rtol=0, atol=1e-4, err_msg=f"blocks of {block}")
