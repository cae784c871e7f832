"""What holds for every form of the band-split system: cuts, causality, sums, silence, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.parity import TOLERANCE
from export.pipeline import Facts, export_model
from models.bandsplit.config import BandSplitConfig
from models.bandsplit.streaming import StreamingBandSplit
from models.checkpoint import load_checkpoint, save_checkpoint
from tests.models.bandsplit.small import OPTIONS, SMALL, noise, small

every_form = pytest.mark.parametrize("name", OPTIONS)


def in_hops(model: Any, audio: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Run a model on successive chunks of so many hops."""
    state, pieces, start = None, [], 0
    for size in sizes:
        stop = start + size * model.hop_samples
        stems, state = model(audio[..., start:stop], state)
        pieces.append(stems)
        start = stop
    assert state is not None
    return torch.cat(pieces, -1), state


@every_form
@settings(max_examples=3, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=6), batch=st.integers(1, 2))
@torch.no_grad()
def test_any_cut_gives_the_same_stems_and_state(name: str, sizes: list[int], batch: int) -> None:
    model = small(name, torch.float64)
    audio = noise(model, sum(sizes), batch)
    whole, state = model(audio)
    cut, cut_state = in_hops(model, audio, sizes)
    torch.testing.assert_close(cut, whole, rtol=1e-8, atol=1e-8)
    assert state.keys() == cut_state.keys() == model.state_shapes().keys()
    for key, value in state.items():
        assert tuple(value.shape) == (batch, *model.state_shapes()[key])
        torch.testing.assert_close(cut_state[key], value, rtol=1e-8, atol=1e-8)


@every_form
@torch.no_grad()
def test_hops_of_single_precision_stay_with_the_whole_clip(name: str) -> None:
    model = small(name)
    audio = noise(model, 40, batch=1)
    whole, _ = model(audio)
    hops, _ = in_hops(model, audio, [1] * 40)
    assert float((hops - whole).abs().max()) < 1e-4 * float(whole.abs().max())


@every_form
@torch.no_grad()
def test_the_future_never_changes_the_past(name: str) -> None:
    model = small(name)
    audio = noise(model, 12)
    other = audio.clone()
    now = 7 * model.hop_samples
    other[..., now:] *= -50.0
    before, after = model(audio)[0], model(other)[0]
    assert torch.equal(before[..., :now], after[..., :now])
    assert not torch.equal(before[..., now:], after[..., now:])


@every_form
@torch.no_grad()
def test_stems_add_up_to_the_late_mixture(name: str) -> None:
    model = small(name)
    audio = noise(model, 20)
    stems, _ = model(audio)
    assert stems.shape == (2, len(model.stems), model.channels, audio.shape[-1])
    late = model.latency
    assert late == model.hop_samples * (1 + model.config.lookahead)
    torch.testing.assert_close(stems.sum(1)[..., late:], audio[..., :-late], rtol=0, atol=1e-6)
    assert float(stems.sum(1)[..., :late].abs().max()) < 1e-6


@every_form
@torch.no_grad()
def test_silence_is_silence_even_after_sound(name: str) -> None:
    model = small(name)
    hop = model.hop_samples
    longest = max(model.config.window, model.config.bass_window) // hop + model.config.filter_taps + 3
    longest += model.config.lookahead
    audio = torch.cat([noise(model, 8), torch.zeros(2, model.channels, (longest + 4) * hop)], -1)
    stems, _ = model(audio)
    assert stems[..., : 8 * hop].abs().max() > 0
    assert not stems[..., (8 + longest) * hop :].any()
    assert not model(torch.zeros_like(audio))[0].any()


@torch.no_grad()
def test_without_the_level_masks_do_not_depend_on_it() -> None:
    model = small("shared bands, no level", torch.float64)
    audio = noise(model, 20)
    soft, _ = model(0.01 * audio)
    torch.testing.assert_close(100 * soft, model(audio)[0], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_new_model_gives_every_stem_its_share() -> None:
    """A start from equal shares; the options start as nothing."""
    model = StreamingBandSplit(BandSplitConfig(**{**SMALL, **OPTIONS["residual"]})).eval()
    for weight in model.decode.project.weights:
        weight.zero_()
    model.decode.top.weight.zero_()
    audio = noise(model, 20)
    stems, _ = model(audio)
    hop = model.hop_samples
    expected = 0.25 * audio[:, None, :, :-hop].expand(-1, 4, -1, -1)
    torch.testing.assert_close(stems[..., hop:], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_left_and_right_are_heard_apart() -> None:
    model = small()
    audio = noise(model, 12)
    one_side = audio * torch.tensor([1.0, 0.0])[:, None]
    stems, _ = model(one_side)
    assert not stems[:, :, 1].any(), "masks do not put sound where there is none"
    assert stems[:, :, 0].any()


@torch.no_grad()
def test_look_ahead_behind_a_trained_model_starts_as_nothing_but_delay() -> None:
    trained = small()
    ahead = StreamingBandSplit(BandSplitConfig(**{**SMALL, "lookahead": 2})).eval()
    missing, unknown = ahead.load_state_dict(trained.state_dict(), strict=False)
    assert not unknown
    assert {name.split(".")[0] for name in missing} == {"ahead"}
    audio = noise(trained, 20)
    late = 2 * trained.hop_samples
    torch.testing.assert_close(ahead(audio)[0][..., late:], trained(audio)[0][..., :-late], rtol=0, atol=1e-6)
    ahead.ahead.out.weight.copy_(torch.eye(SMALL["width"]))
    # What comes in the two frames that are waited for changes what comes out, and nothing later does.
    other, now = audio.clone(), 10 * trained.hop_samples
    other[..., now:] *= -3.0
    differs = (ahead(audio)[0] != ahead(other)[0]).flatten(0, 2).any(0)
    assert not differs[:now].any()
    assert differs[now : now + trained.hop_samples].any()


@pytest.mark.parametrize("name", ["mono, two stems", "look-ahead", "all"])
def test_the_graph_computes_what_pytorch_computes(tmp_path: Path, name: str) -> None:
    model = small(name, layers=1)
    save_checkpoint(tmp_path / "model.pt", "bandsplit", model, {"licence": "MIT"})
    loaded, extras = load_checkpoint(tmp_path / "model.pt", "bandsplit")
    assert loaded.config == model.config
    assert extras == {"licence": "MIT"}
    facts = Facts("small", "1", "MIT", (), {}, "a small band-split model", {})
    seconds = 40 * model.hop_samples / model.samplerates[-1]
    report = export_model(loaded, tmp_path / "model.onnx", facts, seconds=seconds, benchmark_hops=5)
    assert report.card.parity["max_abs_error"] < TOLERANCE
    assert report.card.parity["sum_error"] < TOLERANCE
    assert report.info.stems == model.stems
    assert report.info.residual_stem == model.config.rest
    assert report.info.latency_samples == model.latency
    kinds = [node.op_type for node in onnx.load(report.path).graph.node]
    # The layer of a look-ahead has none of all bands.
    expected = 3 * model.config.layers + 2 * (model.ahead is not None)
    assert kinds.count("GRU") == expected, "every recurrence is one node"
    assert "Loop" not in kinds
    assert "Scan" not in kinds
