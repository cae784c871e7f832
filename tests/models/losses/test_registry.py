"""Names, and errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models.losses import Estimates, apply_head, get_loss, list_losses
from models.losses.estimates import HEADS
from models.losses.registry import DOMAINS
from models.streaming.stft import StreamingISTFT, StreamingSTFT

from .conftest import HOP, WINDOW

STUDY = {
    *("l2_freq", "l1_freq", "l2_mask", "l1_mask", "l2_time", "l1_time"),
    *("si_sdr_time", "si_sdr_freq", "min_snr_sd_sdr"),
    *("log_l2_time", "log_l1_time", "log_l2_freq", "log_l1_freq"),
    *("cross_entropy", "binary_cross_entropy", "psa", "snr_psa", "dissimilarity"),
    *("adversarial", "deep_feature"),
}


def test_all_losses_of_the_study_are_there() -> None:
    assert len(STUDY) == 20
    assert set(list_losses()) >= STUDY
    assert {n.removesuffix("_upstream") for n in list_losses()} == STUDY


@pytest.mark.parametrize("name", list_losses())
def test_facts_of_a_loss(name: str) -> None:
    loss = get_loss(name)
    assert loss.name == name
    assert loss.domain in DOMAINS
    assert loss.head in HEADS


@pytest.mark.parametrize("stems", [2, 4])
@pytest.mark.parametrize("name", list_losses())
def test_any_number_of_stems(make: Callable[..., Estimates], name: str, stems: int) -> None:
    parts = make()
    masks, targets = parts.masks[:, :stems], parts.targets[:, :stems]
    waveforms, istft = parts.waveforms[:, :stems], StreamingISTFT(StreamingSTFT(WINDOW, HOP, 2), streams=2 * stems)
    estimates = Estimates(masks, targets.sum(1), targets, waveforms, istft)
    assert get_loss(name, stems)(estimates).shape == ()


def test_a_wrong_name_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"no loss 'sisdr_time'. Did you mean si_sdr_time") as error:
        get_loss("sisdr_time")
    assert "cross_entropy" in str(error.value), "all names are listed"


def test_time_needs_waveforms(make: Callable[..., Estimates]) -> None:
    parts = make()
    with pytest.raises(ValueError, match="needs waveforms and istft"):
        get_loss("l2_time")(Estimates(parts.masks, parts.mixture, parts.targets))
    get_loss("l2_freq")(Estimates(parts.masks, parts.mixture, parts.targets))
    short = Estimates(parts.masks, parts.mixture, parts.targets, parts.waveforms[..., 1:], parts.istft)
    with pytest.raises(ValueError, match=r"waveforms must be \[3, 4, 2, 768\] .* got \[3, 4, 2, 767\]"):
        get_loss("l2_time")(short)


def test_shapes_must_fit(make: Callable[..., Estimates]) -> None:
    parts = make()
    with pytest.raises(ValueError, match=r"targets must be \[3, 4, 2, 12, 129\]"):
        Estimates(parts.masks, parts.mixture, parts.targets[:, :3])
    with pytest.raises(ValueError, match="mixture must be"):
        Estimates(parts.masks, parts.mixture[:, :1], parts.targets)
    with pytest.raises(ValueError, match="logits must be"):
        Estimates(parts.masks, parts.mixture, parts.targets, logits=parts.masks[:2])
    with pytest.raises(ValueError, match="complex spectra"):
        Estimates(parts.masks, parts.mixture.abs(), parts.targets)


@pytest.mark.parametrize("name", ["adversarial", "deep_feature"])
def test_networks_need_room(make: Callable[..., Estimates], name: str) -> None:
    parts = make()
    loss = get_loss(name)
    loss(Estimates(parts.masks[..., :8, :64], parts.mixture[..., :8, :64], parts.targets[..., :8, :64]))
    for frames, bins in ((7, 64), (8, 63)):
        cut = (..., slice(frames), slice(bins))
        with pytest.raises(ValueError, match=f"at least 8 frames and 64 bins, got {frames} and {bins}"):
            loss(Estimates(parts.masks[cut], parts.mixture[cut], parts.targets[cut]))


@pytest.mark.parametrize("head", HEADS)
def test_heads_start_equal(head: str) -> None:
    masks, logits = apply_head(head, torch.zeros(2, 4, 1, 3, 5))
    torch.testing.assert_close(masks, torch.full((2, 4, 1, 3, 5), 0.25))
    assert (logits is None) == (head == "relu")


def test_unknown_head() -> None:
    with pytest.raises(ValueError, match="relu, softmax, sigmoid"):
        apply_head("tanh", torch.zeros(1, 4))
