"""Training: what conditions select, the loss on it, and a run that learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader, default_collate

from models.cunet.streaming import LABELS, StreamingCUNet
from models.cunet.task import ConditionConfig, ConditionedSpectra, CUNetTask
from models.data.readers import STEMS
from models.train import TrainConfig

RATE = 8000


def document(folder: Path, **model: Any) -> dict[str, Any]:
    return {
        "train": {},
        "model": {
            "variant": "complex_dense", "window": 256, "hop": 64, "edges": [16, 32, 64, 128], "filters": [8, 12, 16],
            "control_widths": [8, 8, 16], "dilations": [1, 2, 4], "samplerates": [RATE], **model,
        },
        "conditions": {"per_segment": 2, "company": 4},
        "remix": {"seconds": 2.0},
        "source": [{"name": "songs", "path": str(folder / "songs"), "kind": "folders", "terms": "made here"}],
        "validation": {"songs": ["song1"]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs whose stems live in bands of their own, with pauses, so that they can be told apart."""
    root = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    edges = {"drums": (2500, 3900), "bass": (40, 200), "other": (300, 900), "vocals": (1100, 2000)}
    for name in ("song0", "song1"):
        (root / "songs" / name).mkdir(parents=True)
        for stem, (low, high) in edges.items():
            spectrum = np.fft.rfft(rng.standard_normal((2, 4 * RATE)))
            bins = np.fft.rfftfreq(4 * RATE, 1 / RATE)
            spectrum[:, (bins < low) | (bins > high)] = 0
            audio = np.fft.irfft(spectrum)
            audio *= 0.1 / audio.std() * (np.sin(np.arange(4 * RATE) / 3000 + low) > -0.5)
            soundfile.write(root / "songs" / name / f"{stem}.wav", audio.T, RATE, subtype="FLOAT")
    return root


def task(folder: Path, **model: Any) -> CUNetTask:
    torch.manual_seed(0)
    config = TrainConfig(run="run", steps=1, samplerate=RATE, cache=str(folder / "cache"))
    return CUNetTask(document(folder, **model), config)


def test_conditions_come_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    rows = ConditionConfig(one_hot=0.5, multi_hot=0.2, progressive=0.2, zero=0.1).draw(rng, 4000)
    assert rows.shape == (4000, 4)
    assert rows.dtype == np.float32
    on, whole = (rows > 0).sum(1), ((rows == 0) | (rows == 1)).all(1)
    assert np.mean(whole & (on == 1)) == pytest.approx(0.5, abs=0.03)
    assert np.mean(whole & (on >= 2)) == pytest.approx(0.2, abs=0.03)
    assert np.mean(on == 0) == pytest.approx(0.1, abs=0.02)
    assert np.mean(~whole) == pytest.approx(0.2, abs=0.03)
    np.testing.assert_allclose(rows[whole & (on == 1)].mean(0), 0.25, atol=0.05)
    assert rows.min() == 0.0
    assert rows.max() == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"one_hot": -1.0}, "shares must be 0 or more"),
        ({"one_hot": 0.0, "multi_hot": 0.0, "progressive": 0.0}, "not all 0"),
        ({"per_segment": 0}, "per_segment must be 1 or more"),
    ],
)
def test_conditions_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionConfig(**changes)


@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_sums_of_bands_are_those_of_what_is_selected(folder: Path, channels: int) -> None:
    made = task(folder, channels=channels)
    model = made.model
    stems = 0.1 * np.random.default_rng(1).standard_normal((4, 2, 40 * 64)).astype(np.float32)
    conditions = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    data = made.dataset(seed=1)
    assert isinstance(data, ConditionedSpectra)
    features, a, c, d, given = data.select(stems, conditions)
    assert torch.equal(given, conditions)

    audio = torch.from_numpy(stems) if channels == 2 else torch.from_numpy(stems).mean(1, keepdim=True)
    re, im, _, _ = model.stft(audio.sum(0, keepdim=True))
    torch.testing.assert_close(features, model.features(re, im)[0], rtol=1e-4, atol=1e-4)
    mixture = torch.complex(re, im)[0]  # [C, N, F]
    torch.testing.assert_close(a, model.bands.total(mixture.abs().square()), rtol=1e-3, atol=1e-7)
    assert c.shape[0] == d.shape[0] == 2
    for row in range(2):
        re, im, _, _ = model.stft(torch.einsum("s,sct->ct", conditions[row], audio)[None])
        target = torch.complex(re, im)[0]
        expected = model.bands.total((mixture.conj() * target).real)
        torch.testing.assert_close(c[row], expected, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(d[row], target[..., :-1].abs().square().sum((0, 2)), rtol=1e-3, atol=1e-7)


def test_the_stream_is_a_function_of_the_seed(folder: Path) -> None:
    made = task(folder)

    def first(seed: int) -> Any:
        return next(iter(made.dataset(seed)))

    for a, b in zip(first(5), first(5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first(5)[4], first(6)[4])


@torch.no_grad()
def test_the_loss_is_that_of_the_masks_it_makes(folder: Path) -> None:
    """Per condition on its own, in evaluation mode, where no statistics join the items of a batch."""
    made = task(folder)
    made.model.eval()
    stream = iter(made.dataset(3))
    samples = [next(stream) for _ in range(3)]
    whole = made.loss(made.model, default_collate(samples))
    parts = []
    for features, a, c, d, conditions in samples:
        for row in range(2):
            picked = (features, a, c[row : row + 1], d[row : row + 1], conditions[row : row + 1])
            parts.append(made.loss(made.model, default_collate([picked])))
    torch.testing.assert_close(whole, torch.stack(parts).mean(), rtol=1e-4, atol=1e-4)


def test_it_learns_to_tell_bands_apart_and_validation_sees_it(folder: Path) -> None:
    made = task(folder)
    made.prepare()
    assert float(made.model.normalise.scale.std()) > 0
    before = validated(made)
    assert set(before) == {"score", *(f"{kind}/{stem}" for kind in ("sdr", "clip_sdr") for stem in STEMS)}
    optimizer = torch.optim.AdamW(made.model.parameters(), lr=4e-3)
    stream = iter(DataLoader(made.dataset(1), 4))
    kept = next(stream)
    with torch.no_grad():
        first = made.loss(made.model.eval(), kept)
    for _ in range(85):
        loss = made.loss(made.model.train(), next(stream))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = validated(made)
    with torch.no_grad():
        last = made.loss(made.model.eval(), kept)
    assert float(last) < float(first) - 3.0, "the loss of one batch must fall by more than 3 dB"
    assert after["score"] > before["score"] + 5.0
    assert all(after[f"sdr/{stem}"] > before[f"sdr/{stem}"] for stem in LABELS)


def validated(made: CUNetTask) -> dict[str, float]:
    made.model.eval()
    with torch.no_grad():
        return made.validate()


@torch.no_grad()
def test_validation_asks_for_one_instrument_after_another(folder: Path) -> None:
    """A model that does nothing but multiply by the fader's share: every stem comes out as a share of the mixture."""
    made = task(folder)
    seen = []

    def masks(features: torch.Tensor, condition: torch.Tensor, *_: Any) -> Any:
        seen.append(condition[:, -1])
        return torch.full((4, 2, features.shape[1], made.model.bands.bands), 0.5), {}

    made.model.band_masks = masks  # type: ignore[method-assign]
    made.validate()
    assert torch.equal(seen[0], torch.eye(4))


def test_the_company_of_a_batch_changes_statistics_and_not_the_result(folder: Path) -> None:
    model = StreamingCUNet(dataclasses.replace(task(folder).model.config, dropout=0.0)).eval()
    features, condition = torch.randn(2, 9, 4 * model.bands.bands), torch.eye(4)[:2, None]
    with torch.no_grad():
        alone, _ = model.band_masks(features, condition)
        joined, _ = model.band_masks(features, condition, None, torch.rand(5, 4))
        torch.testing.assert_close(joined, alone)
        model.control.train()
        model.band_masks(features, condition, None, torch.rand(5, 4))
    assert int(model.control.norms[0].num_batches_tracked) == 1
