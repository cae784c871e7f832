"""The reference form: upstream's counts, Keras' own results, and whole recordings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.cunet.film import VARIANTS, ControlNetwork
from models.cunet.loader import load_reference
from models.cunet.reference import CUNet, ReferenceConfig, ReferenceSeparator, keras_parameters, normalise_complex
from tests.models.cunet.upstream import PARAMETERS, SMALL

DATA = Path(__file__).parent / "data"


def small(variant: str = "simple_dense", **changes: Any) -> CUNet:
    torch.manual_seed(0)
    config = ReferenceConfig(variant=variant, filters=SMALL[0], control_widths=SMALL[1], frames=8, window=32, hop=8)
    return CUNet(ReferenceConfig(**{**config.__dict__, **changes})).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_upstreams_to_the_last_one(variant: str) -> None:
    assert keras_parameters(CUNet(ReferenceConfig(variant=variant))) == PARAMETERS[variant]


@pytest.mark.parametrize("file", [*(f"{variant}.index" for variant in VARIANTS), "complex_cnn.h5"])
def test_keras_itself_gives_the_same(file: str) -> None:
    """Files, inputs and outputs were made by TensorFlow: see data/make.py."""
    variant = file.partition(".")[0]
    example = np.load(DATA / f"{variant}.npz")
    network = load_reference(DATA / file)
    assert network.config.variant == variant
    magnitude = torch.from_numpy(example["magnitude"]).permute(0, 3, 1, 2)  # [B, F, N, 1] -> [B, 1, F, N]
    condition = None if variant == "standard" else torch.from_numpy(example["condition"])
    with torch.no_grad():
        output = magnitude * network(magnitude, condition)
    expected = torch.from_numpy(example["output"]).permute(0, 3, 1, 2)
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-6)


@torch.no_grad()
def test_a_full_size_patch_goes_through() -> None:
    mask = CUNet(ReferenceConfig(variant="complex_cnn")).eval()(noise(1, 1, 512, 128).abs(), torch.ones(1, 4))
    assert mask.shape == (1, 1, 512, 128)
    assert 0.0 <= float(mask.min()) <= float(mask.max()) <= 1.0


@torch.no_grad()
def test_the_condition_changes_the_mask_and_only_where_there_is_one() -> None:
    network = small()
    patch = noise(1, 1, 16, 8).abs()
    one, other = (network(patch, torch.tensor([c])) for c in ([1.0, 0, 0, 0], [0, 0, 0, 1.0]))
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="takes a condition"):
        network(patch)
    with pytest.raises(ValueError, match="takes no condition"):
        small("standard")(patch, torch.ones(1, 4))


@torch.no_grad()
def test_patches_are_separated_one_by_one_and_put_together_in_order() -> None:
    network = small()
    separator = ReferenceSeparator(network, patches_at_once=2)
    magnitude, condition = noise(16, 8 * 5 + 3).abs(), torch.tensor([0.0, 1, 0, 1])
    masks = separator.masks(magnitude, condition)
    assert masks.shape == (16, 43)
    for start in range(0, 40, 8):
        patch = magnitude[None, None, :, start : start + 8]
        torch.testing.assert_close(masks[:, start : start + 8], network(patch, condition[None])[0, 0])
    last = torch.nn.functional.pad(magnitude[None, None, :, 40:], (0, 5))
    torch.testing.assert_close(masks[:, 40:], network(last, condition[None])[0, 0, :, :3])


@torch.no_grad()
def test_a_mask_of_one_gives_the_recording_back() -> None:
    network = small("standard")
    network.decoder_norms[-1].weight.zero_()
    network.decoder_norms[-1].bias.fill_(50.0)
    audio = noise(1001)
    torch.testing.assert_close(ReferenceSeparator(network).separate(audio), audio, rtol=0, atol=1e-5)
    network.decoder_norms[-1].bias.fill_(0.0)
    torch.testing.assert_close(ReferenceSeparator(network).separate(audio), 0.5 * audio, rtol=0, atol=1e-5)


@torch.no_grad()
def test_silence_stays_silent() -> None:
    assert not ReferenceSeparator(small()).separate(torch.zeros(500), [1, 0, 0, 0]).any()


def test_normalisation_is_numpys_on_complex_numbers() -> None:
    spectrum = torch.complex(noise(17, 9, seed=1), noise(17, 9, seed=2))
    spectrum[3, 4] = complex(-0.7, 0.3)
    spectrum[5, 6] = complex(-0.7, -0.2)  # equal real parts: the imaginary part decides
    array = spectrum.numpy()
    expected = (array - array.min()) / (array.max() - array.min())
    torch.testing.assert_close(normalise_complex(spectrum), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("audio", "condition", "message"),
    [
        (torch.zeros(2, 500), [1, 0, 0, 0], r"mono \[T\] at 8192 Hz with more than 16 samples, got [2, 500]"),
        (torch.zeros(10), [1, 0, 0, 0], "got [10]"),
        (torch.zeros(500), [1, 0, 0], "four values 0 to 1 for bass, drums, rest, vocals"),
        (torch.zeros(500), [1, 0, 0, 1.5], "four values 0 to 1"),
        (torch.zeros(500), [1, 0, 0, float("nan")], "four values 0 to 1"),
    ],
)
def test_what_cannot_be_separated_is_said(audio: Tensor, condition: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message.replace("\\", ""))):
        ReferenceSeparator(small()).separate(audio, condition)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="variant must be one of standard, simple_dense"):
        ReferenceConfig(variant="dense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames must be a multiple of 64"):
        ReferenceConfig(frames=100)
    with pytest.raises(ValueError, match="three widths"):
        ReferenceConfig(control_widths=(16, 64))
    with pytest.raises(ValueError, match="variant must be one of simple_dense"):
        ControlNetwork("standard", (16,), (1, 2, 3))


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_scales_and_shifts_go_to_their_blocks(variant: str) -> None:
    """Every head's row belongs to one block: all of a block's channels, or the channel of its place."""
    network = small(variant)
    assert network.control is not None
    films = network.control(torch.rand(3, 7, 4))
    rows = network.control.scales(torch.zeros(1, SMALL[1][-1]))[0]
    sizes = [1, 1] if variant.startswith("simple") else [2, 3]
    assert [tuple(scale.shape) for scale, _ in films] == [(3, 7, size) for size in sizes]
    assert rows.shape == (sum(sizes),)
    network.control.scales.weight.zero_()
    network.control.scales.bias.copy_(torch.arange(sum(sizes)))
    films = network.control(torch.rand(1, 4))
    assert torch.cat([scale[0] for scale, _ in films]).tolist() == list(range(sum(sizes)))
