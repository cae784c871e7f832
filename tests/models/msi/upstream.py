"""State dictionaries with the names and shapes of upstream's files, written down from their list of keys.

Not taken from our own class: a mistake in the class must not repeat itself in what it is tested with.
"""

from __future__ import annotations

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
CHANNELS = (2, 4, 8, 16, 32, 64)


def _norm(name: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (channels,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def _conv(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.conv.weight": (outputs, inputs, 3, 3)} | _norm(f"{name}.bn", outputs)


def query_net() -> Shapes:
    net = "network.queryNet"
    out = _norm(f"{net}.bn0.bn", 1) | _conv(f"{net}.layers.0", 2, 1) | _conv(f"{net}.layers.1", 4, 2)
    return out | {f"{net}.bottom.conv.weight": (6, 1024, 1), f"{net}.bottom.conv.bias": (6,)}


def encoder() -> Shapes:
    net = "network.unet.encoder"
    out = _norm(f"{net}.bn0.bn", 1)
    inputs = 1
    for i, c in enumerate(CHANNELS):
        out |= _conv(f"{net}.layers.{i}.conv1", c, inputs) | _conv(f"{net}.layers.{i}.conv2", c, c)
        for kind in ("gamma", "beta"):
            film = f"{net}.film_layers.{i}.{kind}.conv"
            out |= {f"{film}.weight": (2048, 6, 1), f"{film}.bias": (2048,)}
        inputs = c
    return out


def decoder() -> Shapes:
    net = "network.unet.decoder"
    out: Shapes = {f"{net}.bottom.conv.weight": (1, 2, 1, 1), f"{net}.bottom.conv.bias": (1,)}
    for i, c in enumerate((32, 16, 8, 4, 2)):
        out |= {f"{net}.layers.{i}.conv.weight": (2 * c, c, 3, 3)} | _norm(f"{net}.layers.{i}.bn", c)
        out |= _conv(f"{net}.layers.{i}.conv_block", c, 2 * c)
    return out


def transcriptor() -> Shapes:
    net = "network.transcriptor"
    out: Shapes = {f"{net}.bottom.conv.weight": (89, 2048, 1), f"{net}.bottom.conv.bias": (89,)}
    for i, (inputs, c) in enumerate(((64, 128), (128, 256))):
        out |= _conv(f"{net}.layers.{i}.conv1", c, inputs) | _conv(f"{net}.layers.{i}.conv2", c, c)
    return out


def disentangling() -> Shapes:
    out: Shapes = {}
    for i, c in enumerate(CHANNELS):
        out |= {f"network.pitchExtractor.layers.{i}.conv.weight": (4096, 89, 1)}
        out |= _conv(f"network.timbreFilter.layers.{i}", c, c)
    return out


FRONT_END: Shapes = {
    "stft.conv_real.weight": (1025, 1, 2048),
    "stft.conv_imag.weight": (1025, 1, 2048),
    "istft.conv_real.weight": (2048, 2048, 1),
    "istft.conv_imag.weight": (2048, 2048, 1),
    "istft.reverse.weight": (1023, 1025, 1),
    "istft.overlap_add.weight": (2048, 1, 2048, 1),
}


def shapes(variant: str = "MSI") -> Shapes:
    """Names and shapes of a variant's network."""
    out = query_net() | encoder()
    if variant != "MSS":
        out |= transcriptor()
    if variant != "AMT":
        out |= decoder()
    return out | disentangling() if variant == "MSI" else out


def random_state(sizes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Fill them so that no value is special."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in sizes.items():
        x = torch.randn(shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            x = torch.tensor(1234)
        elif key.endswith(("running_var", "bn.weight")):
            x = 0.5 + x.abs()
        elif len(shape) > 2:
            x = x / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        state[key] = x
    return state


def hollow(sizes: Shapes) -> dict[str, Tensor]:
    """Full-size tensors that are one stored number each, for files of a few kilobytes."""
    return {key: torch.full((1,), 0.01).expand(shape) for key, shape in sizes.items()}
