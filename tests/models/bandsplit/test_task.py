"""Training: the targets of every choice of stems, the losses, and a run that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from models.bandsplit.config import BandSplitConfig
from models.bandsplit.streaming import StreamingBandSplit
from models.bandsplit.task import BandSplitTask, chosen_stems
from models.bandsplit.transfer import weights_for, weights_for_stems
from models.data.readers import STEMS
from models.losses import windowed_snr_loss
from models.train import TrainConfig
from tests.models.bandsplit.small import OPTIONS, SMALL, noise, small

RATE = 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs whose stems live in frequencies of their own, with pauses, so that they can be told apart."""
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


LONG_HOPS = {"window": 256, "hop": 64, "groups": ((8, 4), (6, 16)), "layers": 1}


def task(
    folder: Path, loss: str = "", name: str = "plain", model: Any = None, more: Any = None, **train: Any
) -> BandSplitTask:
    torch.manual_seed(0)
    config = TrainConfig(run="run", steps=1, samplerate=RATE, cache=str(folder / "cache"), loss=loss, **train)
    document = {
        "model": {**SMALL, **OPTIONS[name], **(model or {})},
        "remix": {"seconds": 2.0},
        "source": [{"name": "songs", "path": str(folder / "songs"), "kind": "folders", "terms": "made here"}],
        "validation": {"songs": ["song1"]},
    }
    return BandSplitTask({**document, **(more or {})}, config)


@pytest.mark.parametrize(
    ("stems", "rest"),
    [
        (("drums", "bass", "other", "vocals"), "other"),
        (("vocals", "accompaniment"), "accompaniment"),
        (("vocals", "other"), "other"),
        (("bass", "vocals", "other", "drums"), "drums"),
    ],
)
def test_targets_add_up_to_the_mixture(stems: tuple[str, ...], rest: str) -> None:
    true = torch.randn(2, 4, 2, 50)
    targets = chosen_stems(true, stems, rest)
    assert targets.shape == (2, len(stems), 2, 50)
    torch.testing.assert_close(targets.sum(1), true.sum(1))
    for index, stem in enumerate(stems):
        if stem != rest:
            assert torch.equal(targets[:, index], true[:, STEMS.index(stem)])


@pytest.mark.parametrize("name", ["plain", "look-ahead"])
@torch.no_grad()
def test_the_loss_is_that_of_what_the_model_puts_out(folder: Path, name: str) -> None:
    made = task(folder, name=name)
    made.model.eval()
    stems = 0.1 * torch.randn(2, 4, 2, 400 * 32 + 5)
    loss = made.loss(made.model, stems)
    output, _ = made.model(stems[..., :-5].sum(1))
    skip = RATE // 2 // 32 * 32
    late = made.model.latency
    expected = windowed_snr_loss(output[..., skip + late :], stems[..., skip : 400 * 32 - late], RATE, -25.0)
    torch.testing.assert_close(loss, expected)


@torch.no_grad()
def test_karaoke_starts_from_the_vocals_of_four_stems() -> None:
    four, two = small(), small("plain", stems=("vocals", "accompaniment"), rest="accompaniment")
    two.load_state_dict(weights_for_stems(four.state_dict(), four.config, two.config))
    audio = noise(four, 20)
    torch.testing.assert_close(two(audio)[0][:, 0], four(audio)[0][:, STEMS.index("vocals")])
    swapped = small("plain", stems=("drums", "bass", "other", "vocals")[::-1])
    swapped.load_state_dict(weights_for_stems(four.state_dict(), four.config, swapped.config))
    torch.testing.assert_close(swapped(audio)[0].flip(1), four(audio)[0], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_more_layers_and_a_longer_window_start_as_nothing() -> None:
    trained = small()
    more = StreamingBandSplit(BandSplitConfig(**{**SMALL, **OPTIONS["bass"], "layers": 4})).eval()
    missing, unknown = more.load_state_dict(weights_for(trained.state_dict(), trained.config, more), strict=False)
    assert {name.split(".")[0] for name in missing} == {"bass"}
    assert not unknown
    audio = noise(trained, 20)
    torch.testing.assert_close(more(audio)[0], trained(audio)[0])
    with pytest.raises(ValueError, match="have 4 layers, the model only 2"):
        weights_for(more.state_dict(), more.config, trained)


def test_stems_that_were_not_learnt_are_named() -> None:
    four, two = small(), small("plain", stems=("vocals", "accompaniment"), rest="accompaniment")
    with pytest.raises(ValueError, match="no masks for drums, bass"):
        weights_for_stems(two.state_dict(), two.config, four.config)
    filtered = small("filter")
    with pytest.raises(ValueError, match="filter_taps"):
        weights_for_stems(filtered.state_dict(), filtered.config, two.config)


@pytest.mark.parametrize("name", ["log_l2_time", "log_l2_freq", "l1_mask"])
def test_a_loss_of_the_study_is_called_by_name(folder: Path, name: str) -> None:
    made = task(folder, name, "mono, two stems" if name == "l1_mask" else "plain")
    batch = next(iter(DataLoader(made.dataset(1), 2)))
    loss = made.loss(made.model.train(), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in made.model.parameters() if p.grad is not None)
    assert sum(float(p.grad.abs().sum()) for p in made.model.parameters() if p.grad is not None) > 0


def test_segments_without_a_whole_window_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="seconds must be at least"):
        task(folder, more={"remix": {"seconds": 1.5}})
    task(folder, "l2_time", more={"remix": {"seconds": 1.5}})


def test_pairs_are_for_karaoke_alone(folder: Path) -> None:
    with pytest.raises(ValueError, match="vocals and accompaniment, not of drums"):
        task(folder, more={"remix": {"seconds": 2.0, "pairs": True}})
    (folder / "pairs").mkdir(exist_ok=True)
    for part in ("vocals", "accompaniment"):
        soundfile.write(folder / "pairs" / f"x.{part}.wav", np.full((4 * RATE, 2), 0.1), RATE)
    pairs = {"name": "pairs", "path": str(folder / "pairs"), "kind": "karaoke", "terms": "made here"}
    songs = {"name": "songs", "path": str(folder / "songs"), "kind": "folders", "terms": "made here"}
    with pytest.raises(ValueError, match="pairs = true"):
        task(folder, more={"source": [songs, pairs]})


@torch.no_grad()
def test_named_losses_see_the_waveforms(folder: Path) -> None:
    made = task(folder, "l2_time")
    made.model.eval()
    stems = 0.1 * torch.randn(1, 4, 2, 130 * 32)
    output, _ = made.model(stems.sum(1))
    skip = RATE // 2 // 32 * 32
    expected = (output[..., skip + 32 :] - stems[..., skip:-32]).square().mean((0, 2, 3)).sum()
    torch.testing.assert_close(made.loss(made.model, stems), expected)


@pytest.mark.parametrize("name", ["plain", "all"])
def test_every_parameter_has_a_gradient(folder: Path, name: str) -> None:
    made = task(folder, name=name)
    for _ in range(2):  # what starts as zero passes nothing on in the first step
        loss = made.loss(made.model.train(), next(iter(DataLoader(made.dataset(1), 2))))
        made.model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in made.model.parameters():
                parameter.sub_(1e-3 * torch.sign(parameter.grad))
    without = [key for key, p in made.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_mixed_precision_stays_near(folder: Path) -> None:
    exact, mixed = task(folder), task(folder, bfloat16=True)
    batch = next(iter(DataLoader(exact.dataset(1), 2)))
    with torch.no_grad():
        expected, got = exact.loss(exact.model, batch), mixed.loss(mixed.model, batch)
    assert float(got) == pytest.approx(float(expected), abs=0.1)
    assert float(got) != float(expected)


def test_it_learns_to_tell_bands_apart_and_validation_sees_it(folder: Path) -> None:
    made = task(folder, model=LONG_HOPS)
    made.prepare()
    before = validated(made)
    assert set(before) == {"score", *(f"{kind}/{stem}" for kind in ("sdr", "clip_sdr") for stem in STEMS)}
    optimizer = torch.optim.AdamW(made.model.parameters(), lr=2e-2)
    stream = iter(DataLoader(made.dataset(1), 3))
    for _ in range(24):
        loss = made.loss(made.model.train(), next(stream))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.model.parameters(), 5.0)
        optimizer.step()
    after = validated(made)
    assert after["score"] > before["score"] + 5.0
    assert all(after[f"sdr/{stem}"] > before[f"sdr/{stem}"] for stem in STEMS)


def test_validation_of_two_stems_in_mono(folder: Path) -> None:
    figures = validated(task(folder, name="mono, two stems"))
    assert set(figures) == {"score", *(f"{k}/{s}" for k in ("sdr", "clip_sdr") for s in ("vocals", "accompaniment"))}


def validated(made: BandSplitTask) -> dict[str, float]:
    made.model.eval()
    with torch.no_grad():
        return made.validate()
