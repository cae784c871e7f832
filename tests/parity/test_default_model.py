"""The shipped model, played in any block size, is the trained model run over the whole clip in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import rtsep
from models.checkpoint import load_checkpoint
from rtsep.audio.backends import FileConfig
from rtsep.demo.song import render_song
from rtsep.zoo import resolve

SECONDS, RATE = 30.0, 44100
CHECKPOINT = Path(__file__).parents[2] / "models" / "checkpoints" / f"{resolve('default').stem}.pt"


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float32]]:
    mixture = render_song(31, RATE, SECONDS).mixture  # [C, T]
    path = tmp_path_factory.mktemp("parity") / "song.wav"
    soundfile.write(path, mixture.T, RATE, subtype="FLOAT")
    return path, mixture


@pytest.fixture(scope="module")
def stems(song: tuple[Path, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """PyTorch's stems of the whole clip in one pass, in time with the song."""
    model, _ = load_checkpoint(CHECKPOINT)
    hop, mixture = model.hop_samples, song[1]
    padding = -mixture.shape[1] % hop + hop
    audio = torch.from_numpy(np.pad(mixture, ((0, 0), (0, padding))))
    with torch.no_grad():
        separated, _ = model(audio[None])  # [1, S, C, T]
    aligned = separated[0, ..., model.latency :][..., : mixture.shape[1]].numpy()
    return dict(zip(model.stems, aligned, strict=True))


def test_stems_of_a_file(song: tuple[Path, NDArray[np.float32]], stems: dict[str, NDArray[np.float32]]) -> None:
    result = rtsep.separate(song[0])
    assert set(result.stems) == set(stems)
    for name, expected in stems.items():
        np.testing.assert_allclose(result.stems[name], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(sum(result.stems.values()), song[1], rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 64, 100, 128, 441, 480, 512, 1000, 1024, "random", "another"])
def test_live_in_any_block_size(
    cut: int | str, song: tuple[Path, NDArray[np.float32]], stems: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    block = cut if isinstance(cut, int) else int(np.random.default_rng().integers(2, 3000))
    device = FileConfig(input=str(song[0]), output=str(tmp_path / "out.wav"), blocksize=block, realtime=False)
    with rtsep.Engine(backend=device, solo=["vocals"]) as engine:
        assert engine.wait(300.0)
        latency = engine.latency().total_samples
    heard = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T[:, latency:][:, : song[1].shape[1]]
    assert heard.shape == song[1].shape, block
    np.testing.assert_allclose(heard, stems["vocals"], rtol=0, atol=1e-4, err_msg=f"blocks of {block}")
