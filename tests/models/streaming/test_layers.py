"""Recurrent layers, input normalisation, masks and bands against plain computations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.streaming.bands import DoublingBands
from models.streaming.masks import apply_masks, mixture_consistent
from models.streaming.norm import InputNormalisation
from models.streaming.rnn import StreamingGRU, StreamingLSTM, recurrent


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("layer", "plain"), [(StreamingGRU, nn.GRU), (StreamingLSTM, nn.LSTM)])
def test_recurrent_layers_are_torchs_with_its_parameter_names(layer: type, plain: type) -> None:
    streaming, expected = layer(5, 6, layers=2), plain(5, 6, 2)
    streaming.rnn.load_state_dict(expected.state_dict())
    x = noise(3, 7, 5)
    y, state = streaming(x)
    reference, last = expected(x.transpose(0, 1))  # time first there
    torch.testing.assert_close(y, reference.transpose(0, 1))
    hidden = last[0] if isinstance(last, tuple) else last
    torch.testing.assert_close(state["hidden"].transpose(0, 1), hidden)
    assert streaming.latency == 0


def test_recurrent_is_chosen_by_name() -> None:
    assert isinstance(recurrent("gru", 4, 4, 1, 0.0), StreamingGRU)
    assert isinstance(recurrent("lstm", 4, 4, 1, 0.0), StreamingLSTM)
    with pytest.raises(ValueError, match=r"must be one of .*got 'rnn'"):
        recurrent("rnn", 4, 4, 1, 0.0)


def test_a_grus_state_stays_bounded_and_dropout_is_for_training_only() -> None:
    layer = StreamingGRU(4, 8, layers=2, dropout=0.5).eval()
    x = 100.0 * noise(1, 500, 4)
    with torch.no_grad():
        y, state = layer(x)
    assert float(state["hidden"].abs().max()) <= 1.0
    assert torch.equal(layer(x)[0], y)


def test_normalisation_takes_away_mean_and_deviation() -> None:
    layer = InputNormalisation(6)
    x = noise(2, 400, 6) * torch.arange(1.0, 7.0) + torch.arange(6.0)
    assert torch.equal(layer(x), x)  # nothing was set yet
    layer.set_statistics(x.mean((0, 1)), x.std((0, 1)))
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std((0, 1)), torch.ones(6), rtol=0, atol=1e-5)


def test_normalisation_looks_at_no_other_frame() -> None:
    layer = InputNormalisation(6)
    layer.set_statistics(noise(6), noise(6, seed=1).abs())
    x = noise(2, 20, 6)
    torch.testing.assert_close(torch.cat([layer(x[:, n : n + 1]) for n in range(20)], dim=1), layer(x))


def test_normalisation_does_not_blow_up_bins_that_never_moved() -> None:
    layer = InputNormalisation(2)
    layer.set_statistics(torch.zeros(2), torch.tensor([2.0, 0.0]))
    assert layer(torch.ones(2)).tolist() == pytest.approx([0.5, 50.0])


@pytest.mark.parametrize("learnt", [False, True])
def test_normalisation_is_stored_and_learnt_only_when_asked(learnt: bool) -> None:
    layer = InputNormalisation(3, learnt=learnt)
    assert set(layer.state_dict()) == {"offset", "scale"}
    assert len(list(layer.parameters())) == (2 if learnt else 0)


def test_masks_scale_the_mixture_and_keep_silence() -> None:
    masks = noise(2, 4, 2, 3, 5).abs()
    re, im = noise(2, 2, 3, 5, seed=1), noise(2, 2, 3, 5, seed=2)
    re[:, :, 1] = im[:, :, 1] = 0.0
    stem_re, stem_im = apply_masks(masks, re, im)
    for s in range(4):
        assert torch.equal(stem_re[:, s], masks[:, s] * re)
        assert torch.equal(stem_im[:, s], masks[:, s] * im)
    assert not stem_re[:, :, :, 1].any()
    assert not stem_im[:, :, :, 1].any()


@settings(max_examples=25, deadline=None)
@given(stems=st.integers(1, 6), seed=st.integers(0, 99))
def test_consistent_stems_add_to_the_mixture_and_share_the_rest_equally(stems: int, seed: int) -> None:
    estimates, mixture = noise(2, stems, 2, 9, seed=seed), noise(2, 2, 9, seed=seed + 1)
    out = mixture_consistent(estimates, mixture)
    torch.testing.assert_close(out.sum(1), mixture, rtol=0, atol=1e-5)
    moved = out - estimates  # [B, S, C, T]
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-5)
    # Already consistent: left alone.
    torch.testing.assert_close(mixture_consistent(out, mixture), out, rtol=0, atol=1e-5)


def test_bands_average_their_bins_and_spread_back() -> None:
    bands = DoublingBands(33, (8, 16, 32))
    assert bands.bands == 8 + 4 + 4
    x = noise(2, 33)
    merged = bands.merge(x)
    groups = [[i] for i in range(8)]
    groups += [list(range(i, i + 2)) for i in range(8, 16, 2)] + [list(range(i, i + 4)) for i in range(16, 32, 4)]
    torch.testing.assert_close(merged, torch.stack([x[:, g].mean(1) for g in groups], dim=1))
    torch.testing.assert_close(bands.total(x), torch.stack([x[:, g].sum(1) for g in groups], dim=1))
    spread = bands.spread(merged)
    for band, group in enumerate(groups):
        for k in group:
            assert torch.equal(spread[:, k], merged[:, band])
    assert torch.equal(spread[:, 32], merged[:, -1])
    torch.testing.assert_close(bands.merge(spread), merged)


def test_bands_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="bins - 1 = 32, got 31"):
        DoublingBands(33, (8, 31))
    with pytest.raises(ValueError, match=r"8\.\.15 do not divide into groups of 2"):
        DoublingBands(33, (8, 15, 32))
