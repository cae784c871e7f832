"""Upstream's checkpoint layout, written down by itself, and its computation in plain numpy."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# The defaults of upstream's command line that its network looks at, and some that it does not.
ARGUMENTS: dict[str, Any] = {
    "B": 160,
    "E_1": 8,
    "E_2": 5,
    "H": 160,
    "L": 20,
    "N": 440,
    "W": 20,
    "base_directory": ".",
    "batch_size": 12,
    "checkpoint": None,
    "dropout": 0.0,
    "filters": 3,
    "independent_params": False,
    "kernel": 3,
    "layers": 6,
    "learning_rate": 1e-3,
    "num_mels": 256,
    "residual_bias": False,
    "sampling_rate": 8000,
    "stack": 3,
    "stages_num": 3,
}
TINY = ARGUMENTS | {"B": 8, "H": 16, "N": 16, "num_mels": 6, "layers": 2, "stack": 2, "stages_num": 2}
OneShape = tuple[int, ...]


def namespace(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**(ARGUMENTS | changes))


def shapes(arguments: dict[str, Any] | None = None) -> dict[str, OneShape]:
    """Names and shapes of a state dictionary."""
    a = arguments or ARGUMENTS
    result: dict[str, OneShape] = {}
    for stage in range(a["stages_num"]):
        scale = 2**stage
        latents, kernel = scale * a["N"], scale * a["L"]
        bins = 512 * scale * (a["sampling_rate"] // 8000) + 1
        seen = latents + (latents // 2 if stage else 0)
        own: dict[str, OneShape] = {"encoder.spectrogram.window": (2 * (bins - 1),)}
        for name in ("mean", "std", "affine_bias", "affine_scale"):
            own[f"encoder.spectrogram.{name}"] = (1, bins, 1)
        own["encoder.spectrogram.mel_transform.weight"] = (a["num_mels"], bins, 1)
        own["encoder.spectrogram.mel_transform.bias"] = (a["num_mels"],)
        for i in range(a["filters"]):
            own[f"encoder.filters.{i}.weight"] = (latents // 4, 1, kernel * 2**i)
            own[f"decoder.filters.{i}.weight"] = (latents // 2 ** (i + 1), 1, kernel * 2**i)
        own["encoder.bottleneck.0.weight"] = (latents, a["filters"] * (latents // 4) + a["num_mels"], 1)
        own["encoder.bottleneck.2.weight"] = (latents, latents, 1)
        own["decoder.bottleneck.0.weight"] = (latents, sum(latents // 2 ** (i + 1) for i in range(a["filters"])), 1)
        if not a["independent_params"]:
            own["instrument_embedding.weight"] = (4, a["E_1"])
        for number, channels in ((1, seen), (2, a["B"]), (3, a["B"]), (4, latents)):
            own |= _norm(a, f"mask.norm_{number}", channels) | {f"mask.prelu_{number}.weight": (1,)}
        own |= _conv(a, "mask.in_conv", seen, a["B"]) | _conv(a, "mask.mask_output", a["B"], latents)
        for i in range(a["layers"] * a["stack"]):
            name = f"mask.tcn.{i}"
            for number in (1, 2):
                own |= _norm(a, f"{name}.norm_{number}", a["H"]) | {f"{name}.prelu_{number}.weight": (1,)}
            own |= _conv(a, f"{name}.conv1d", a["B"], a["H"])
            own |= _conv(a, f"{name}.dconv1d", 1, a["H"], a["kernel"])
            own |= _conv(a, f"{name}.res_out", a["H"], a["B"]) | _conv(a, f"{name}.skip_out", a["H"], a["B"])
        result |= {f"stages.{stage}.{name}": shape for name, shape in own.items()}
    return result


def _conv(a: dict[str, Any], name: str, inputs: int, outputs: int, kernel: int = 1) -> dict[str, OneShape]:
    if a["independent_params"]:
        return {f"{name}.conv.weight": (4 * outputs, inputs, kernel)}
    return _generated(a, name) | {
        f"{name}.kernel.weight": (outputs * inputs * kernel, a["E_2"]),
        f"{name}.kernel.bias": (outputs * inputs * kernel,),
    }


def _norm(a: dict[str, Any], name: str, channels: int) -> dict[str, OneShape]:
    if a["independent_params"]:
        return {f"{name}.group_norm.weight": (4 * channels,), f"{name}.group_norm.bias": (4 * channels,)}
    return _generated(a, name) | {
        f"{name}.affine.weight": (2 * channels, a["E_2"]),
        f"{name}.affine.bias": (2 * channels,),
    }


def _generated(a: dict[str, Any], name: str) -> dict[str, OneShape]:
    return {f"{name}.bottleneck.weight": (a["E_2"], a["E_1"]), f"{name}.bottleneck.bias": (a["E_2"],)}


def random_state(layout: dict[str, OneShape], seed: int = 0) -> dict[str, Tensor]:
    """Weights that are not special: spectrogram statistics above 0, everything else around it."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in layout.items():
        values = 0.5 * rng.standard_normal(shape)
        if name.endswith("spectrogram.std"):
            values = 1.0 + np.abs(values)
        elif name.endswith("window"):
            values = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(shape[0]) / shape[0])
        state[name] = torch.from_numpy(values).float()
    return state


def hollow_state(layout: dict[str, OneShape]) -> dict[str, Tensor]:
    """Weights that take no memory or time to save: one value, expanded."""
    return {name: torch.full((1,) * len(shape), 0.01).expand(shape) for name, shape in layout.items()}


def document(state: dict[str, Tensor], args: Any) -> dict[str, Any]:
    """As upstream's trainer saves it."""
    return {"epoch": 7, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}, "steps": 123, "args": args}


def plain_stage(
    state: dict[str, Tensor], a: dict[str, Any], stage: int, audio: Array, previous: Array | None
) -> tuple[Array, Array]:
    """One stage for one clip ``[T]``: stems ``[4, T]`` and separated latents ``[4, latents, N]``, loop by loop."""
    prefix = f"stages.{stage}."
    w = {k.removeprefix(prefix): v.double().numpy() for k, v in state.items() if k.startswith(prefix)}
    stride, samples = a["W"] * 2**stage, len(audio)
    frames = samples // stride

    def embedded(name: str) -> Array:
        bottleneck = w["instrument_embedding.weight"] @ w[f"{name}.bottleneck.weight"].T
        return bottleneck + w[f"{name}.bottleneck.bias"]  # [4, E_2]

    def kernels(name: str, outputs: int, inputs: int, kernel: int = 1) -> Array:
        if a["independent_params"]:
            return w[f"{name}.conv.weight"].reshape(4, outputs, inputs, kernel)
        flat = embedded(name) @ w[f"{name}.kernel.weight"].T + w[f"{name}.kernel.bias"]
        return flat.reshape(4, outputs, inputs, kernel)

    def norm(name: str, x: Array) -> Array:  # [4, C, N]
        channels = x.shape[1]
        if a["independent_params"]:
            scale = w[f"{name}.group_norm.weight"].reshape(4, channels)
            bias = w[f"{name}.group_norm.bias"].reshape(4, channels)
        else:
            affine = embedded(name) @ w[f"{name}.affine.weight"].T + w[f"{name}.affine.bias"]
            scale, bias = affine[:, :channels], affine[:, channels:]
        y = np.empty_like(x)
        for instrument in range(4):
            for group in np.array_split(np.arange(channels), 8):
                part = x[instrument, group]
                y[instrument, group] = (part - part.mean()) / np.sqrt(part.var() + 1e-8)
        return y * scale[:, :, None] + bias[:, :, None]

    def prelu(name: str, x: Array) -> Array:
        return np.where(x >= 0, x, w[f"{name}.weight"][0] * x)

    def pointwise(name: str, x: Array, outputs: int) -> Array:
        k = kernels(name, outputs, x.shape[1])[..., 0]
        return np.stack([k[i] @ x[i] for i in range(4)])

    def depthwise(name: str, x: Array, dilation: int) -> Array:
        k = kernels(name, x.shape[1], 1, a["kernel"])[:, :, 0]
        y = np.zeros_like(x)
        for tap in range(a["kernel"]):
            shift = (tap - a["kernel"] // 2) * dilation
            for n in range(x.shape[2]):
                if 0 <= n + shift < x.shape[2]:
                    y[:, :, n] += k[:, :, tap] * x[:, :, n + shift]
        return y

    # Encoder: kernel i of channel j is channel j * filters + i.
    columns = []
    for i in range(a["filters"]):
        kernel = w[f"encoder.filters.{i}.weight"][:, 0]
        pad = (kernel.shape[1] - stride) // 2
        line = np.pad(audio, pad)
        columns.append(np.stack([kernel @ line[n * stride : n * stride + kernel.shape[1]] for n in range(frames)], 1))
    waves = np.stack(columns, 1).reshape(-1, frames).clip(0)
    n_fft, hop = 1024 * 2**stage, 256 * 2**stage
    line = np.pad(audio, n_fft // 2, mode="reflect")
    spectra = [
        np.fft.rfft(line[s : s + n_fft] * w["encoder.spectrogram.window"]) for s in range(0, len(line) - n_fft + 1, hop)
    ]
    power = np.log10(np.abs(np.stack(spectra, 1)) ** 2 + 1e-8)  # [F, columns]
    spectrogram = (power - w["encoder.spectrogram.mean"][0]) / w["encoder.spectrogram.std"][0]
    spectrogram = spectrogram * w["encoder.spectrogram.affine_scale"][0] + w["encoder.spectrogram.affine_bias"][0]
    mels = w["encoder.spectrogram.mel_transform.weight"][..., 0] @ spectrogram
    mels = mels + w["encoder.spectrogram.mel_transform.bias"][:, None]
    places = np.linspace(0, mels.shape[1] - 1, frames)
    mels = np.stack([np.interp(places, np.arange(mels.shape[1]), row) for row in mels])
    latents = w["encoder.bottleneck.0.weight"][..., 0] @ np.concatenate([waves, mels])
    latents = w["encoder.bottleneck.2.weight"][..., 0] @ latents.clip(0)  # [latents, N]

    x = np.repeat(latents[None], 4, 0)
    if previous is not None:
        x = np.concatenate([x, previous], 1)
    x = pointwise("mask.in_conv", norm("mask.norm_1", prelu("mask.prelu_1", x)), a["B"])
    x = norm("mask.norm_2", prelu("mask.prelu_2", x))
    skips: Any = 0
    for i in range(a["layers"] * a["stack"]):
        name = f"mask.tcn.{i}"
        y = norm(f"{name}.norm_1", prelu(f"{name}.prelu_1", pointwise(f"{name}.conv1d", x, a["H"])))
        y = depthwise(f"{name}.dconv1d", y, 2 ** (i % a["layers"]))
        y = norm(f"{name}.norm_2", prelu(f"{name}.prelu_2", y))
        x = x + pointwise(f"{name}.res_out", y, a["B"])
        skips = skips + pointwise(f"{name}.skip_out", y, a["B"])
    y = pointwise("mask.mask_output", norm("mask.norm_3", prelu("mask.prelu_3", skips)), len(latents))
    y = np.exp(norm("mask.norm_4", prelu("mask.prelu_4", y)))
    separated = latents * y / y.sum(0)

    stems = np.zeros((4, samples))
    for instrument in range(4):
        wide = (w["decoder.bottleneck.0.weight"][..., 0].T @ separated[instrument]).clip(0)
        start = 0
        for i in range(a["filters"]):
            kernel = w[f"decoder.filters.{i}.weight"][:, 0]
            width, length = kernel.shape
            pad = (length - stride) // 2
            line = np.zeros(samples + 2 * pad)
            for n in range(frames):
                line[n * stride : n * stride + length] += wide[start : start + width, n] @ kernel
            stems[instrument] += line[pad : pad + samples]
            start += width
    return stems, separated
