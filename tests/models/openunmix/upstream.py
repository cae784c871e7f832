"""State dictionaries with the names and shapes of the published Open-Unmix files, and plain networks on them.

The shapes are written down here from the published files' lists, not taken from our own class: a mistake in
the class must not repeat itself in what it is tested with. The networks are computed in NumPy, one frame and
one gate at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Shapes = dict[str, tuple[int, ...]]


def shapes(
    *,
    hidden: int = 512,
    max_bin: int = 1487,
    bins: int = 2049,
    channels: int = 2,
    layers: int = 3,
    unidirectional: bool = False,
    early: bool = False,
    heads: int = 0,
) -> Shapes:
    """Names and shapes of one network's tensors; ``heads=0`` is the plain single output."""
    directions = [""] if unidirectional else ["", "_reverse"]
    cell = hidden if unidirectional else hidden // 2
    out: Shapes = {
        "output_scale": (bins,),
        "output_mean": (bins,),
        "fc1.weight": (hidden, max_bin * channels),
    }
    if not early:
        out |= {"input_mean": (max_bin,), "input_scale": (max_bin,)}
    for layer in range(layers):
        for end in directions:
            out |= {
                f"lstm.weight_ih_l{layer}{end}": (4 * cell, hidden),
                f"lstm.weight_hh_l{layer}{end}": (4 * cell, cell),
                f"lstm.bias_ih_l{layer}{end}": (4 * cell,),
                f"lstm.bias_hh_l{layer}{end}": (4 * cell,),
            }
    out["fc2.weight"] = (hidden, hidden if early else 2 * hidden)
    norms = {} if early else {"bn1": hidden, "bn2": hidden}
    for suffix in [f"_{k + 1}" for k in range(heads)] or [""]:
        out[f"fc3{suffix}.weight"] = (bins * channels, hidden)
        if not early:
            norms[f"bn3{suffix}"] = bins * channels
    for name, width in norms.items():
        out |= {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}
        out[f"{name}.num_batches_tracked"] = ()
    return out


def random_state(sizes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Fill them so that no value is special: scales near one, variances positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in sizes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(1234)
            continue
        x = torch.randn(shape, generator=generator)
        if key.endswith(("running_var", "_scale")) or (key.startswith("bn") and key.endswith(".weight")):
            state[key] = 0.5 + 0.5 * x.abs()
        else:
            state[key] = x / max(shape[-1], 4) ** 0.5 if len(shape) == 2 else 0.3 * x
    return state


def hollow_state(sizes: Shapes) -> dict[str, Tensor]:
    """Full-size tensors that are one stored number each, for files of a few kilobytes."""
    return {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.full((1,), 0.01).expand(shape)
        for key, shape in sizes.items()
    }


FRONT_END = {  # what the files of 2019 hold besides
    "sample_rate": torch.tensor(44100.0),
    "stft.window": torch.hann_window(4096),
    "transform.0.window": torch.hann_window(4096),
}


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def _lstm_direction(x: Array, w: Mapping[str, Array], end: str, backwards: bool) -> Array:
    """One layer and direction over ``[N, H]``; gates in torch's order: input, forget, cell, output."""
    cell_size = w[f"lstm.weight_hh_{end}"].shape[1]
    h, c = np.zeros(cell_size), np.zeros(cell_size)
    out = np.zeros((len(x), cell_size))
    for n in reversed(range(len(x))) if backwards else range(len(x)):
        gates = w[f"lstm.weight_ih_{end}"] @ x[n] + w[f"lstm.bias_ih_{end}"]
        gates = gates + w[f"lstm.weight_hh_{end}"] @ h + w[f"lstm.bias_hh_{end}"]
        i, f, g, o = np.split(gates, 4)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        out[n] = h
    return out


def plain_forward(state: Mapping[str, Tensor], magnitude: Array, *, early: bool, heads: int = 0) -> Array:
    """Compute a network on one clip's magnitudes ``[C, F, N]``; targets ``[S, C, F, N]``."""
    w = {key: value.double().numpy() for key, value in state.items()}
    channels, bins, frames = magnitude.shape
    max_bin = w["fc1.weight"].shape[1] // channels

    def norm(x: Array, name: str) -> Array:  # [N, units]
        if early:
            return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        spread = np.sqrt(w[f"{name}.running_var"] + 1e-5)
        return (x - w[f"{name}.running_mean"]) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = np.zeros((frames, channels * max_bin))
    for c in range(channels):
        part = magnitude[c, :max_bin].T  # [N, max_bin]
        if not early:
            part = (part + w["input_mean"]) * w["input_scale"]
        x[:, c * max_bin : (c + 1) * max_bin] = part
    if early:
        x = norm(x, "")
    x = np.tanh(norm(x @ w["fc1.weight"].T, "bn1"))
    y, layer = x, 0
    while f"lstm.weight_ih_l{layer}" in w:
        ends = [end for end in (f"l{layer}", f"l{layer}_reverse") if f"lstm.weight_ih_{end}" in w]
        y = np.concatenate([_lstm_direction(y, w, end, end.endswith("reverse")) for end in ends], axis=1)
        layer += 1
    y = y if early else np.concatenate([x, y], axis=1)
    y = np.maximum(norm(y @ w["fc2.weight"].T, "bn2"), 0.0)
    targets = []
    for suffix in [f"_{k + 1}" for k in range(heads)] or [""]:
        z = norm(y @ w[f"fc3{suffix}.weight"].T, f"bn3{suffix}")  # [N, C * F]
        out = np.zeros_like(magnitude)
        for c in range(channels):
            part = z[:, c * bins : (c + 1) * bins] * w["output_scale"] + w["output_mean"]  # [N, F]
            out[c] = np.maximum(part, 0.0).T
        targets.append(out if early else out * magnitude)
    return np.stack(targets)
