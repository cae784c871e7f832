"""The reference networks against their known sizes and a plain computation; the separator around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.openunmix.reference import OpenUnmix, ReferenceConfig, ReferenceSeparator, bandwidth_to_max_bin
from models.openunmix.wiener import wiener
from tests.models.openunmix.upstream import plain_forward, random_state, shapes

SMALL: dict[str, Any] = {"n_fft": 64, "hop": 16, "max_bin": 20, "hidden": 12, "layers": 2}
SMALL_SHAPES: dict[str, Any] = {"bins": 33, "max_bin": 20, "hidden": 12, "layers": 2}


@pytest.mark.parametrize(
    ("parameters", "sizes"),
    [
        (8_893_348, {}),  # umx, umxhq
        (28_257_188, {"hidden": 1024}),  # umxl
        (1_583_622, {"channels": 1, "n_fft": 1024, "max_bin": 513, "hidden": 256}),  # umxse
        (10_466_212, {"unidirectional": True}),
        (34_548_644, {"unidirectional": True, "hidden": 1024}),
        (6_759_426, {"variant": "early", "channels": 1, "max_bin": 1393}),
        (8_521_730, {"variant": "early", "max_bin": 1393}),
        (8_616_962, {"variant": "early", "max_bin": 1486}),
        (40_870_832, {"variant": "heads", "heads": 4, "hidden": 1024}),
        (15_212_464, {"variant": "heads", "heads": 4}),
        (47_162_288, {"variant": "heads", "heads": 4, "hidden": 1024, "unidirectional": True}),
    ],
)
def test_parameters_are_as_many_as_upstreams(parameters: int, sizes: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = OpenUnmix(ReferenceConfig(**sizes))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_umx_has_as_many_buffers_as_upstream() -> None:
    with torch.device("meta"):
        network = OpenUnmix(ReferenceConfig())
    assert sum(b.numel() for b in network.buffers()) == 10_247


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        ({}, {}),
        ({"channels": 1}, {"channels": 1}),
        ({"unidirectional": True}, {"unidirectional": True}),
        ({"variant": "early"}, {"early": True}),
        ({"variant": "early", "channels": 1}, {"early": True, "channels": 1}),
        ({"variant": "heads", "heads": 3}, {"heads": 3}),
    ],
)
def test_names_shapes_and_output_are_those_of_the_plain_network(config: dict[str, Any], layout: dict[str, Any]) -> None:
    state = random_state(shapes(**SMALL_SHAPES, **layout))
    network = OpenUnmix(ReferenceConfig(**SMALL, **config)).eval()
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == {k: tuple(v.shape) for k, v in state.items()}
    network.load_state_dict(state)
    network.double()
    rng = np.random.default_rng(5)
    magnitude = rng.gamma(1.0, 1.0, (2, network.config.channels, 33, 9))
    with torch.no_grad():
        got = network(torch.from_numpy(magnitude)).numpy()
    early, heads = bool(layout.get("early")), layout.get("heads", 0)
    for item in range(2):
        expected = plain_forward(state, magnitude[item], early=early, heads=heads)
        assert expected.std() > 0.05  # not everything is cut off at zero
        np.testing.assert_allclose(got[item], expected, rtol=1e-9, atol=1e-9)


def test_the_bidirectional_network_hears_the_future_and_the_other_does_not() -> None:
    for unidirectional in (False, True):
        torch.manual_seed(0)
        network = OpenUnmix(ReferenceConfig(**SMALL, unidirectional=unidirectional)).eval()
        x = torch.rand(1, 2, 33, 10)
        other = x.clone()
        other[..., 6:] += 3.0
        with torch.no_grad():
            same = torch.equal(network(x)[..., :6], network(other)[..., :6])
        assert same == unidirectional


def test_statistics_go_in_as_minus_mean_and_one_over_deviation() -> None:
    network = OpenUnmix(ReferenceConfig(**SMALL))
    mean, std = torch.rand(33), torch.rand(33) + 0.1
    network.set_input_statistics(mean, std)
    torch.testing.assert_close(network.input_mean.detach(), -mean[:20])
    torch.testing.assert_close(network.input_scale.detach(), 1 / std[:20])
    with pytest.raises(ValueError, match=r"std must be above 0 in every bin, got 0"):
        network.set_input_statistics(mean, torch.zeros(33))
    with pytest.raises(ValueError, match=r"mean must be \[20 bins or more\], got \(7,\)"):
        network.set_input_statistics(mean[:7], std)
    with pytest.raises(ValueError, match="holds no input statistics"):
        OpenUnmix(ReferenceConfig(**SMALL, variant="early")).set_input_statistics(mean, std)


def test_bandwidth_is_counted_as_upstream_does() -> None:
    assert bandwidth_to_max_bin(44100, 4096, 16000) == 1487
    assert bandwidth_to_max_bin(44100, 4096, 16000, early=True) == 1486
    assert bandwidth_to_max_bin(44100, 4096, 15000, early=True) == 1393
    assert bandwidth_to_max_bin(16000, 1024, 16000) == 513  # never beyond the last bin
    for bandwidth in (0.0, 999.0, 8000.0, 22050.0):
        frequencies = np.linspace(0, 22050, 2049)
        assert bandwidth_to_max_bin(44100, 4096, bandwidth) == np.flatnonzero(frequencies <= bandwidth)[-1] + 1
    with pytest.raises(ValueError, match=r"bandwidth_hz must be 0 or more, got -1"):
        bandwidth_to_max_bin(44100, 4096, -1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"variant": "v2"}, "variant must be one of v1, early, heads, got 'v2'"),
        ({"n_fft": 63}, "n_fft must be an even number"),
        ({"hop": 0}, "hop must be 1 or more, got 0"),
        ({"channels": 3}, "channels must be 1 or 2, got 3"),
        ({"max_bin": 34}, "max_bin must be 1 to 33 with n_fft 64, got 34"),
        ({"hidden": 13}, "hidden must be even"),
        ({"heads": 2}, "heads must be 1 with variant 'v1', got 2"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceConfig(**(SMALL | sizes))


def gain(value: float, **sizes: Any) -> OpenUnmix:
    """Return a network whose mask is ``value`` everywhere."""
    network = OpenUnmix(ReferenceConfig(**(SMALL | sizes))).eval()
    with torch.no_grad():
        network.output_scale.zero_()
        network.output_mean.fill_(value)
    return network


def noise(channels: int = 2, samples: int = 700) -> Tensor:
    return torch.randn(2, channels, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("softmask", [False, True])
def test_constant_masks_give_scaled_mixtures(softmask: bool) -> None:
    separator = ReferenceSeparator({"vocals": gain(0.25), "drums": gain(0.75)}, iterations=0, softmask=softmask)
    x = noise()
    y = separator(x)
    assert separator.stems == ("vocals", "drums")
    assert y.shape == (2, 2, 2, 700)
    torch.testing.assert_close(y, torch.stack([0.25 * x, 0.75 * x], dim=1), rtol=0, atol=1e-5)


def test_alpha_is_an_exponent_of_the_magnitudes() -> None:
    # Ratio masks of equal magnitudes 1:3 become 1:9.
    separator = ReferenceSeparator({"a": gain(0.25), "b": gain(0.75)}, iterations=0, softmask=True, alpha=2.0)
    x = noise()
    torch.testing.assert_close(separator(x)[:, 0], 0.1 * x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("iterations", [0, 1])
def test_the_residual_takes_what_the_targets_leave(iterations: int) -> None:
    separator = ReferenceSeparator({"vocals": gain(0.25)}, iterations=iterations, residual="rest")
    x = noise()
    y = separator(x)
    assert separator.stems == ("vocals", "rest")
    torch.testing.assert_close(y.sum(1), x, rtol=0, atol=1e-3)
    if iterations == 0:
        torch.testing.assert_close(y[:, 1], 0.75 * x, rtol=0, atol=1e-5)


def test_heads_come_out_under_their_names() -> None:
    network = gain(0.25, variant="heads", heads=2)
    with torch.no_grad():
        network.output_scale.fill_(1.0)
        network.bn3_1.weight.zero_()
        network.bn3_2.weight.zero_()
        network.bn3_2.bias.fill_(0.5)
    separator = ReferenceSeparator((network, ["vocals", "drums"]), iterations=0)
    x = noise()
    torch.testing.assert_close(separator(x), torch.stack([0.25 * x, 0.75 * x], dim=1), rtol=0, atol=1e-5)


@torch.no_grad()
def test_windows_of_the_filter_are_filtered_on_their_own() -> None:
    torch.manual_seed(3)
    networks = {name: OpenUnmix(ReferenceConfig(**SMALL)).eval() for name in ("a", "b")}
    whole = ReferenceSeparator(networks, wiener_frames=None)
    windowed = ReferenceSeparator(networks, wiener_frames=20)
    x = noise(samples=640)  # 41 frames
    assert torch.equal(whole(x), ReferenceSeparator(networks, wiener_frames=41)(x))
    assert not torch.allclose(whole(x), windowed(x), atol=1e-3)
    mixture = whole.analyse(x)
    magnitudes = torch.stack([network(mixture.abs())[:, 0] for network in networks.values()], dim=1)
    parts = [wiener(mixture[..., a:b], magnitudes[..., a:b]) for a, b in ((0, 20), (20, 40), (40, 41))]
    torch.testing.assert_close(windowed(x), whole.synthesise(torch.cat(parts, dim=-1), 640), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["v1", "early"])
def test_a_mono_network_filters_both_channels_of_a_stereo_clip(variant: str) -> None:
    torch.manual_seed(2)
    network = OpenUnmix(ReferenceConfig(**SMALL, channels=1, variant=variant)).eval()  # type: ignore[arg-type]
    separator = ReferenceSeparator({"speech": network}, iterations=0)
    x = noise()
    spectrum = separator.analyse(x)
    left, right = spectrum.abs().unbind(1)
    seen = (left + right) / 2 if variant == "v1" else torch.sqrt(left**2 + right**2)
    magnitude = network(seen[:, None])[:, 0]  # [B, 1, F, N]
    expected = separator.synthesise((magnitude * torch.exp(1j * spectrum.angle()))[:, None], 700)
    torch.testing.assert_close(separator(x), expected, rtol=0, atol=1e-5)
    assert separator(noise(channels=1)).shape == (2, 1, 1, 700)


def test_analysis_is_centred_reflected_and_inverted() -> None:
    separator = ReferenceSeparator({"a": gain(1.0)}, iterations=0)
    x = noise()
    spectrum = separator.analyse(x)
    assert spectrum.shape == (2, 2, 33, 700 // 16 + 1)
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (32, 32)), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    for n in (0, 1, 20, 43):
        expected = np.fft.rfft(padded[..., n * 16 : n * 16 + 64] * window)
        np.testing.assert_allclose(spectrum[..., n].numpy(), expected, atol=1e-4)
    torch.testing.assert_close(separator.synthesise(spectrum[:, None], 700)[:, 0], x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("networks", "options", "message"),
    [
        ({}, {}, "one target or more"),
        ({"a": {}}, {"iterations": 1}, "single target 'a' without a residual.*name a residual"),
        ({"a": {}}, {"iterations": -1}, "iterations must be 0 or more, got -1"),
        ({"a": {}}, {"residual": "a"}, "residual must not be a target's name"),
        ({"a": {}, "b": {}}, {"wiener_frames": 0}, "wiener_frames must be 1 or more"),
        ({"a": {}, "b": {"hop": 32}}, {}, r"must be equal in all networks, got \[\(2, 64, 16, 44100\)"),
        ({"a": {"variant": "heads", "heads": 2}}, {}, "must be 2 different names"),
    ],
)
def test_separators_that_cannot_work_are_refused(
    networks: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceSeparator({name: gain(1.0, **sizes) for name, sizes in networks.items()}, **options)


def test_audio_that_does_not_fit_is_refused() -> None:
    separator = ReferenceSeparator({"a": gain(1.0)}, iterations=0)
    with pytest.raises(ValueError, match=r"C in \(2,\), got \(2, 1, 700\)"):
        separator(noise(channels=1))
    with pytest.raises(ValueError, match="T must be above n_fft / 2 = 32, got 32"):
        separator(noise(samples=32))
    with pytest.raises(ValueError, match=r"magnitude must be \[B, 2, 33, N\].*got \(1, 2, 20, 4\)"):
        gain(1.0)(torch.zeros(1, 2, 20, 4))
