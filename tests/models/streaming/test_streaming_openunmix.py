"""The whole streaming Open-Unmix: what its users count on, at small and at default size."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig

SMALL = StreamingOpenUnmixConfig(window=64, hop=16, edges=(8, 16, 32), hidden=12)


def model(config: StreamingOpenUnmixConfig = SMALL, implementation: str = "fft") -> StreamingOpenUnmix:
    torch.manual_seed(0)
    module = StreamingOpenUnmix(config).eval()
    module.stft.dft.implementation = implementation  # type: ignore[assignment]
    with torch.no_grad():
        module.fc3.weight.mul_(20.0)  # masks far from one quarter each
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize("implementation", ["fft", "factored"])
@torch.no_grad()
def test_stems_add_to_the_mixture_late_by_the_latency(implementation: str) -> None:
    module = model(implementation=implementation)
    x = noise(2, 2, 20 * 16)
    stems, _ = module(x)
    assert stems.shape == (2, 4, 2, 320)
    late = torch.cat([torch.zeros(2, 2, module.latency), x[..., : -module.latency]], dim=-1)
    torch.testing.assert_close(stems.sum(1), late, rtol=0, atol=1e-6)
    # They differ, so the sum is not that of four equal shares.
    assert float((stems[:, 0] - stems[:, 1]).abs().max()) > 0.05


@torch.no_grad()
def test_an_impulse_is_late_by_the_latency_in_every_stem() -> None:
    module = model()
    x = torch.zeros(1, 2, 20 * 16)
    at = 7 * 16 + 3
    x[..., at] = 1.0
    stems, _ = module(x)
    assert not stems[..., : 7 * 16].any()  # nothing before the hop that holds it
    assert int(stems.sum(1)[0, 0].abs().argmax()) == at + module.latency


@torch.no_grad()
def test_masks_are_shares_before_the_rounding_is_shared_out() -> None:
    module = model()
    features = noise(2, 6, module.fc1.in_features)
    masks, _ = module.band_masks(features)
    assert masks.shape == (2, 4, 2, 6, 16)
    assert float(masks.min()) >= 0.0
    assert float(masks.max()) > 0.5
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 2, 6, 16), rtol=0, atol=1e-6)


@torch.no_grad()
def test_silence_gives_exact_silence_whatever_came_before() -> None:
    module = model()
    _, state = module(noise(1, 2, 30 * 16))
    settle = 64 // 16 + 1
    _, state = module(torch.zeros(1, 2, settle * 16), state)
    stems, _ = module(torch.zeros(1, 2, 10 * 16), state)
    assert not stems.any()


@torch.no_grad()
def test_features_are_log_powers_of_left_right_middle_and_side() -> None:
    module = model()
    re, im = noise(1, 2, 3, 33, seed=1), noise(1, 2, 3, 33, seed=2)
    bins = torch.complex(re, im)[0].to(torch.complex128)  # [C, N, F]
    left, right = bins
    views = [left, right, (left + right) / 2, (left - right) / 2]
    edges = [*range(8), *range(8, 16, 2), *range(16, 32, 4), 32]
    expected = []
    for view in views:
        power = view.abs().square()[:, :32]  # [N, F] without the last bin
        bands = [power[:, a:b].sum(1) for a, b in itertools.pairwise(edges)]
        expected.append(torch.log10(torch.stack(bands, dim=1) + 1e-8))
    got = module.features(re, im)[0].double()  # [N, views * bands]
    torch.testing.assert_close(got, torch.cat(expected, dim=-1), rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_default_model_streams_as_it_runs_offline() -> None:
    config = StreamingOpenUnmixConfig()
    offline, live = model(config), model(config, "factored")
    assert all(torch.equal(a, b) for a, b in zip(offline.parameters(), live.parameters(), strict=True))
    hops = 24
    x = noise(1, 2, hops * config.hop)
    whole, _ = offline(x)
    state, pieces = live.initial_state(1), []
    for hop in x.split(config.hop, dim=-1):
        stems, state = live(hop, state)
        pieces.append(stems)
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=0, atol=1e-4)


def test_config_survives_json_and_refuses_unknown_keys() -> None:
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in SMALL.to_dict().items()}
    assert StreamingOpenUnmixConfig.from_dict(plain) == SMALL
    with pytest.raises(TypeError, match="hiden"):
        StreamingOpenUnmixConfig.from_dict({"hiden": 3})
    assert {field.name for field in dataclasses.fields(SMALL)} == set(plain)


@torch.no_grad()
def test_every_parameter_has_a_say() -> None:
    module = model()
    with torch.enable_grad():
        stems, _ = module(noise(2, 2, 12 * 16))
        (stems * noise(2, 4, 2, 12 * 16, seed=4)).sum().backward()
    without = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
