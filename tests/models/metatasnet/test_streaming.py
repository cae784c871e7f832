"""The streaming forms: causal, the same for any cut, exact sums, views, materialised and interpolated models."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.metatasnet.mask import FixedWeights
from models.metatasnet.reference import INSTRUMENTS, MetaTasNet
from models.metatasnet.stages import HALVING_DELAY, StagesConfig, StreamingStages
from models.metatasnet.streaming import MetaTasNetConfig, StreamingMetaTasNet
from tests.models.metatasnet.small import SIZES, STAGE_SIZES, scatter, small, small_stages

FORMS = {
    "stereo": small,
    "mono": lambda **k: small(channels=1, **k),
    "two frames a hop, groups": lambda **k: small(hop=32, groups=2, width=16, **k),
    "vocals and rest": lambda **k: small(stems=("vocals", "rest"), **k),
    "materialised": lambda **k: small(**k).materialise(),
    "stages": small_stages,
}
every_form = pytest.mark.parametrize("build", FORMS.values(), ids=FORMS.keys())


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 0.5


def late(x: Tensor, samples: int) -> Tensor:
    return torch.nn.functional.pad(x, (samples, 0))[..., : x.shape[-1]]


@every_form
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=7), seed=st.integers(0, 2**16))
def test_any_cut_gives_the_same_stems_and_state(build: Any, sizes: list[int], seed: int) -> None:
    model = build(dtype=torch.float64)
    hop = model.hop_samples
    x = noise(2, model.channels, sum(sizes) * hop, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        whole, after = model(x)
        state, pieces = None, []
        for chunk in x.split([size * hop for size in sizes], dim=-1):
            stems, state = model(chunk, state)
            pieces.append(stems)
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, rtol=1e-9, atol=1e-9)
    assert state is not None
    assert state.keys() == after.keys()
    for key in after:
        torch.testing.assert_close(state[key], after[key], rtol=1e-9, atol=1e-9)


@every_form
@torch.no_grad()
def test_the_future_never_changes_the_past(build: Any) -> None:
    model = build()
    hop = model.hop_samples
    x = noise(1, model.channels, 12 * hop)
    before, _ = model(x)
    for now in (0, 5, 11):
        other = x.clone()
        other[..., now * hop :] *= -3.0
        after, _ = model(other)
        assert torch.equal(before[..., : now * hop], after[..., : now * hop])
        assert not torch.equal(before[..., now * hop :], after[..., now * hop :])


@every_form
@torch.no_grad()
def test_stems_add_to_the_mixture_late_by_the_latency(build: Any) -> None:
    model = build()
    x = noise(2, model.channels, 30 * model.hop_samples)
    stems, _ = model(x)
    assert stems.shape == (2, len(model.stems), model.channels, x.shape[-1])
    torch.testing.assert_close(stems.sum(1), late(x, model.latency), rtol=0, atol=2e-6)
    assert float((stems[:, 0] - stems[:, 1]).abs().max()) > 1e-3  # not all the same


@every_form
def test_every_parameter_has_a_say(build: Any) -> None:
    model = build()
    x = noise(2, model.channels, 40 * model.hop_samples)
    stems, _ = model(x)
    (stems * noise(*stems.shape, seed=4)).sum().backward()
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    without = [name for name, p in learnt.items() if p.grad is None or not p.grad.any()]
    # As upstream: the last residual goes nowhere. Nothing else may.
    last = len(model.stages[0].mask.layers if hasattr(model, "stages") else model.mask.layers) - 1
    assert [name for name in without if f"tcn.{last}.res_out." not in name] == []


@every_form
@torch.no_grad()
def test_strict_state(build: Any) -> None:
    model = build()
    x = noise(1, model.channels, model.hop_samples)
    state = model.initial_state(1)
    some = next(iter(state))
    with pytest.raises(KeyError, match="unknown \\['stray'\\]"):
        model(x, {**state, "stray": torch.zeros(1)})
    with pytest.raises(KeyError, match="missing"):
        model(x, {key: value for key, value in state.items() if key != some})
    with pytest.raises(ValueError, match=f"state '{some}' must be"):
        model(x, {**state, some: torch.zeros(1, 1)})


@torch.no_grad()
def test_silence_is_silence_and_stays_finite() -> None:
    model = small()
    stems, state = model(noise(1, 2, 20 * 16))
    stems, _ = model(torch.zeros(1, 2, 200 * 16), state)
    assert bool(torch.isfinite(stems).all())
    assert not stems[..., 112:].any()  # past the kernels of analysis and synthesis: exactly zero


@torch.no_grad()
def test_a_materialised_model_computes_what_its_generator_makes() -> None:
    model = small()
    fixed = model.materialise()
    assert isinstance(fixed.weights, FixedWeights)
    assert not [name for name, _ in fixed.named_modules() if "generator" in name or "embedding" in name]
    x = noise(1, 2, 40 * 16)
    # The unfolded arithmetic, layer by layer: convolution, then scale and bias.
    torch.testing.assert_close(fixed(x)[0], model(x)[0], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="has no embeddings"):
        fixed.interpolate("bass", "vocals", 0.5)
    again = StreamingMetaTasNet(MetaTasNetConfig.from_dict(_plain(fixed.config)))
    again.load_state_dict(fixed.state_dict())
    assert torch.equal(again.eval()(x)[0], fixed(x)[0])


def _plain(config: MetaTasNetConfig) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in config.to_dict().items()}


@torch.no_grad()
def test_folded_weights_do_what_the_layers_say() -> None:
    """The mask network against its layers one after the other, nothing folded, on frames by themselves."""
    model = small(torch.float64, layers=2, stacks=1, groups=2)
    weights = model.weights
    generator, embeddings = weights.generator, weights.embeddings.weight  # type: ignore[union-attr]
    x = noise(1, 1, 7, 16, dtype=torch.float64)

    def norm(layer: Any, y: Tensor, affine: bool = True) -> Tensor:  # [I, N, C]
        parts = y.unflatten(-1, (2, -1))
        y = (parts - parts.mean(-1, True)) / (parts.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        scale, bias = layer.weights(embeddings)
        return y.flatten(-2) * scale[:, None] + bias[:, None] if affine else y.flatten(-2)

    def conv(layer: Any, y: Tensor) -> Tensor:
        return torch.einsum("inc,ioc->ino", y, layer.weights(embeddings)[..., 0])

    g = generator
    y = x[0].expand(4, -1, -1)
    y = norm(g.norm_2, g.prelu_2(conv(g.in_conv, norm(g.norm_1, g.prelu_1(y)))))
    skips = torch.zeros_like(y)
    for layer, dilation in zip(g.tcn, (1, 2), strict=True):
        z = norm(layer.norm_1, layer.prelu_1(conv(layer.conv1d, y)))
        _, bias = layer.norm_1.weights(embeddings)
        before = bias[:, None].expand(-1, 2 * dilation, -1)  # the bias counts before the stream begins
        line = torch.cat([before, z], dim=1)
        taps = layer.dconv1d.weights(embeddings)[:, :, 0]  # [I, H, 3]
        z = sum(line[:, t * dilation : t * dilation + 7] * taps[:, None, :, t] for t in range(3))
        z = norm(layer.norm_2, layer.prelu_2(z))
        y, skips = y + conv(layer.res_out, z), skips + conv(layer.skip_out, z)
    y = g.prelu_4(conv(g.mask_output, norm(g.norm_3, g.prelu_3(skips))))
    scale, bias = g.norm_4.weights(embeddings)
    expected = y * scale[:, None] + bias[:, None]
    logits, _ = model.mask(x, weights())
    torch.testing.assert_close(logits[0], expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_views_show_the_same_stems() -> None:
    model = small()
    x = noise(1, 2, 30 * 16)
    four, _ = model(x)
    consistent = four - four.mean(1, keepdim=True)
    one, _ = model.view(("vocals", "rest"))(x)
    two, _ = model.view(("vocals", "drums", "rest"))(x)
    assert (one.shape[1], two.shape[1]) == (2, 3)
    torch.testing.assert_close(one[:, 0], two[:, 0], rtol=0, atol=1e-6)
    # Apart from the share of what the synthesis misses, they are the full model's.
    difference = consistent[:, 3] - consistent[:, 0]
    torch.testing.assert_close(two[:, 0] - two[:, 1], difference, rtol=0, atol=1e-5)
    swapped, _ = model.view(("vocals", "other", "bass", "drums"))(x)
    torch.testing.assert_close(swapped.flip(1), four, rtol=0, atol=1e-6)


@torch.no_grad()
def test_interpolation_goes_from_one_instrument_to_the_other() -> None:
    model = small()
    x = noise(1, 2, 30 * 16)
    ends = {name: model.view((name, "rest"))(x)[0][:, 0] for name in ("bass", "vocals")}
    first = model.interpolate("bass", "vocals", 0.0)
    assert first.stems == ("bass-vocals", "rest")
    assert first.config.materialised
    torch.testing.assert_close(first(x)[0][:, 0], ends["bass"], rtol=0, atol=1e-5)
    torch.testing.assert_close(model.interpolate("bass", "vocals", 1.0)(x)[0][:, 0], ends["vocals"], rtol=0, atol=1e-5)
    half = model.interpolate("bass", "vocals", 0.5, name="blend")
    stems, _ = half(x)
    assert half.stems[0] == "blend"
    torch.testing.assert_close(stems.sum(1), late(x, model.latency), rtol=0, atol=1e-6)
    assert float((stems[:, 0] - ends["bass"]).abs().max()) > 1e-3
    for arguments, message in (
        (("bass", "flute", 0.5), "no instrument 'flute'; the model has drums, bass"),
        (("bass", "bass", 0.5), "two different instruments"),
        (("bass", "vocals", 1.5), "share of 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.interpolate(*arguments)


@torch.no_grad()
def test_one_more_instrument_takes_its_part_of_the_softmax() -> None:
    model = small()
    x = noise(1, 2, 30 * 16)
    vocals = model.embeddings.weight[3]
    grown = model.with_instrument("choir", vocals)
    assert grown.stems == ("choir", "rest")
    both = grown.view(("choir", "vocals", "rest"))(x)[0]
    torch.testing.assert_close(both[:, 0], both[:, 1], rtol=0, atol=1e-6)  # twice the same embedding
    with pytest.raises(ValueError, match="the name 'drums' is taken"):
        model.with_instrument("drums", vocals)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop": 24}, "hop must be a multiple of the stride 16, got 24"),
        ({"groups": 4, "width": 8}, "width must be 3 or more per group, got 8 in 4"),
        ({"channels": 3}, "channels must be 1 or 2, got 3"),
        ({"stems": ("vocals", "vocals")}, "stems must have different names"),
        ({"stems": ("vocals", "drums")}, "and then a name of its own for what they leave over"),
        ({"stems": ("rest", "vocals")}, "and then a name of its own"),
        ({"stems": ("rest",)}, "and then a name of its own"),
        ({"stems": (*INSTRUMENTS, "rest", "more")}, "and then a name of its own"),
    ],
)
def test_configs_that_cannot_be_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingMetaTasNet(MetaTasNetConfig(**(SIZES | changes)))


def test_config_survives_json_and_refuses_unknown_keys() -> None:
    config = MetaTasNetConfig(**SIZES)
    assert MetaTasNetConfig.from_dict(_plain(config)) == config
    assert {field.name for field in dataclasses.fields(config)} == set(_plain(config))
    with pytest.raises(TypeError, match="widht"):
        MetaTasNetConfig.from_dict({"widht": 3})
    stages = StagesConfig(STAGE_SIZES)
    assert StagesConfig.from_dict(stages.to_dict()) == stages


def test_the_default_model_fits_its_budget() -> None:
    model = StreamingMetaTasNet(MetaTasNetConfig())
    assert model.latency + model.hop_samples <= 1024
    assert sum(p.numel() for p in model.materialise().parameters()) * 4 < 10e6
    start = model.latency
    assert start == 768


@pytest.mark.parametrize("independent", [False, True])
@torch.no_grad()
def test_upstream_weights_start_the_stages(independent: bool) -> None:
    sizes = dataclasses.replace(STAGE_SIZES, rank=None) if independent else STAGE_SIZES
    torch.manual_seed(1)
    reference = MetaTasNet(sizes).eval()
    scatter(reference)
    model = StreamingStages.from_reference(reference)
    x = noise(1, 1, 12 * model.hop_samples)
    for mine, theirs in zip(model.stages, reference.stages, strict=True):
        stride = theirs.sizes.stride
        samples = 12 * 12 * stride
        # The reference's kernels are centred on a stride; here they are one and a half strides late.
        waves = torch.stack([conv(late(x[..., :samples], 3 * stride // 2)) for conv in theirs.encoder.filters], dim=2)
        got = mine.filters(x[..., :samples])[0].squeeze(1).unflatten(-1, (3, -1)).permute(0, 3, 2, 1)
        torch.testing.assert_close(got[..., :-2], waves[..., :-2], rtol=0, atol=1e-5)
        generated = [weights.shape for weights in mine.weights().values()]
        assert any(shape[0] == 4 for shape in generated)
    # The decoder, on latents that both are given.
    last = reference.stages[-1]
    latents = noise(4, 64, 40, seed=5)
    expected = last.decoder(latents)  # [I, 1, T]
    got, _ = model.synthesis(model.decoder(latents.transpose(1, 2).unsqueeze(0)))
    shift = 3 * last.sizes.stride // 2
    torch.testing.assert_close(got[0, :, shift:-200], expected[:, 0, : -200 - shift], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        model.stages[0].spectrum.mel_transform.weight,
        reference.stages[0].encoder.spectrogram.mel_transform.weight[..., 0],
    )


@torch.no_grad()
def test_the_stages_of_one_instant_meet() -> None:
    model = StreamingStages(StagesConfig(dataclasses.replace(STAGE_SIZES, stages=3)))
    time = torch.arange(8 * model.hop_samples) / model.samplerates[0]
    high = torch.sin(2 * torch.pi * 700 * time)[None, None]
    middle, _ = model.halvings[0](high)
    low, _ = model.halvings[1](middle)
    rates = [delay(x)[0] for delay, x in zip(model.delays, (low, middle, high), strict=True)]
    settled = slice(100, None)
    torch.testing.assert_close(rates[1][..., ::2][..., settled], rates[0][..., settled], rtol=0, atol=2e-3)
    torch.testing.assert_close(rates[2][..., ::4][..., settled], rates[0][..., settled], rtol=0, atol=2e-3)
    assert model.delays[2].latency == 6 * HALVING_DELAY


@torch.no_grad()
def test_the_halving_filter_keeps_the_lower_half() -> None:
    model = StreamingStages(StagesConfig(STAGE_SIZES))
    time = torch.arange(4096) / 16000
    levels = {}
    for hertz in (1000, 3000, 5500, 7500):
        y, _ = model.halvings[0](torch.sin(2 * torch.pi * hertz * time)[None, None])
        levels[hertz] = float(20 * torch.log10(y[..., 100:].square().mean().sqrt() * 2**0.5))
    assert abs(levels[1000]) < 0.05
    assert abs(levels[3000]) < 0.5
    assert levels[5500] < -35
    assert levels[7500] < -50
