"""The reference form: upstream's counts to the last parameter, and its arithmetic against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.metatasnet.generator import GeneratedConv1d, GeneratedGroupNorm, MaskSizes
from models.metatasnet.loader import config_of
from models.metatasnet.reference import MetaTasNet, ReferenceConfig, Stage
from tests.models.metatasnet.upstream import TINY, namespace, plain_stage, random_state, shapes


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def published() -> MetaTasNet:
    with torch.device("meta"):  # shapes without memory
        return MetaTasNet()


def test_the_published_model_has_exactly_upstreams_parameters(published: MetaTasNet) -> None:
    assert count(published) == 45_545_602
    assert sum(p.numel() for p in published.parameters() if p.requires_grad) == 45_531_260
    assert len(published.state_dict()) == 1539


@pytest.mark.parametrize(
    ("index", "encoder", "decoder", "generator", "generated"),
    [
        (0, 601_500, 182_600, 9_279_762, 1_545_760),
        (1, 1_910_884, 730_400, 10_562_802, 1_759_600),
        (2, 6_654_852, 2_921_600, 12_701_202, 2_116_000),
    ],
)
def test_every_part_has_upstreams_parameters(
    published: MetaTasNet, index: int, encoder: int, decoder: int, generator: int, generated: int
) -> None:
    stage = published.stages[index]
    assert isinstance(stage, Stage)
    assert stage.instrument_embedding is not None
    assert (count(stage.encoder), count(stage.decoder)) == (encoder, decoder)
    assert count(stage.mask) + count(stage.instrument_embedding) == generator
    made = sum(m.kernel.out_features for m in stage.mask.modules() if isinstance(m, GeneratedConv1d))
    made += sum(m.affine.out_features for m in stage.mask.modules() if isinstance(m, GeneratedGroupNorm))
    assert made == generated


def test_independent_weights_have_upstreams_parameters() -> None:
    with torch.device("meta"):
        model = MetaTasNet(ReferenceConfig(rank=None))
    assert count(model) == 34_687_396


@pytest.mark.parametrize("independent", [False, True])
def test_names_and_shapes_are_upstreams(independent: bool) -> None:
    config = config_of(namespace(independent_params=independent))
    with torch.device("meta"):
        model = MetaTasNet(config)
    expected = shapes(vars(namespace(independent_params=independent)))
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("independent", [False, True])
@torch.no_grad()
def test_both_stages_compute_what_upstream_computes(independent: bool) -> None:
    arguments = TINY | {"independent_params": independent}
    state = random_state(shapes(arguments))
    model = MetaTasNet(config_of(namespace(**arguments))).double().eval()
    model.load_state_dict(state)
    rng = np.random.default_rng(1)
    audio = [rng.standard_normal(1200 * scale) for scale in (1, 2)]
    got = model([torch.from_numpy(x)[None, None] for x in audio])
    stems, separated = plain_stage(state, arguments, 0, audio[0], None)
    np.testing.assert_allclose(got[0][0, :, 0].numpy(), stems, rtol=1e-6, atol=1e-8)
    stems, _ = plain_stage(state, arguments, 1, audio[1], separated)
    np.testing.assert_allclose(got[1][0, :, 0].numpy(), stems, rtol=1e-6, atol=1e-8)
    assert np.abs(stems).max() > 1e-2  # not all zero


def test_wrong_lengths_are_named() -> None:
    model = MetaTasNet(config_of(namespace(**TINY)))
    with pytest.raises(ValueError, match=r"2 times, each twice as long.*\[1200, 1200\]"):
        model([torch.zeros(1, 1, 1200), torch.zeros(1, 1, 1200)])
    with pytest.raises(ValueError, match="multiple of the stride 20, got 1201"):
        model([torch.zeros(1, 1, 1201), torch.zeros(1, 1, 2402)])


def test_sizes_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of groups = 8, got 12"):
        MaskSizes(16, 16, width=12, hidden=16, layers=1, stacks=1)
    with pytest.raises(ValueError, match="layers must be 1 or more, got 0"):
        MaskSizes(16, 16, width=16, hidden=16, layers=0, stacks=1)
