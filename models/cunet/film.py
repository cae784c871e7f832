"""FiLM and the control networks that make its scales and shifts from a condition.

After Perez et al., "FiLM" (AAAI 2018), in the forms of Meseguer-Brocal and Peeters, "Conditioned-U-Net"
(ISMIR 2019): *simple* FiLM has one scale and one shift per encoder block, *complex* FiLM one per channel; the
control network is *dense* or convolutional (*cnn*). Shapes and orders are those of the published code.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

Variant = Literal["standard", "simple_dense", "complex_dense", "simple_cnn", "complex_cnn"]
VARIANTS: tuple[Variant, ...] = ("standard", "simple_dense", "complex_dense", "simple_cnn", "complex_cnn")
CONTROL_WIDTHS: dict[str, tuple[int, int, int]] = {
    "simple_dense": (16, 64, 256),
    "complex_dense": (16, 256, 1024),
    "simple_cnn": (16, 32, 64),
    "complex_cnn": (32, 64, 256),
}
"""Layer widths of the published control networks."""
CONDITIONS = 4
BATCH_NORM_EPSILON = 1e-3  # Keras' default; torch's is 1e-5


class ControlNetwork(nn.Module):
    """Scales and shifts of all encoder blocks from a condition.

    Parameters
    ----------
    variant : str
        One of :data:`VARIANTS` but ``"standard"``.
    channels : sequence of int
        Width of each encoder block.
    widths : tuple of int
        Of the three hidden layers.
    dropout : float
        After the second and the third, in training only.

    Raises
    ------
    ValueError
        The variant is unknown.
    """

    def __init__(
        self, variant: str, channels: tuple[int, ...], widths: tuple[int, int, int], dropout: float = 0.5
    ) -> None:
        super().__init__()
        if variant not in CONTROL_WIDTHS:
            raise ValueError(f"variant must be one of {', '.join(CONTROL_WIDTHS)}, got {variant!r}.")
        film, self.kind = variant.split("_")
        self.sizes = [1] * len(channels) if film == "simple" else list(channels)
        inputs = (CONDITIONS, *widths) if self.kind == "dense" else (1, *widths)
        layer = nn.Linear if self.kind == "dense" else _four_taps
        self.layers = nn.ModuleList(layer(a, b) for a, b in zip(inputs, widths, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, BATCH_NORM_EPSILON) for width in widths[1:])
        self.dropout = nn.Dropout(dropout)
        self.scales = nn.Linear(widths[-1], sum(self.sizes))
        self.shifts = nn.Linear(widths[-1], sum(self.sizes))

    def forward(self, condition: Tensor) -> list[tuple[Tensor, ...]]:
        """Map a condition to a scale and a shift per encoder block.

        Parameters
        ----------
        condition : Tensor
            ``[..., 4]``.

        Returns
        -------
        list of (Tensor, Tensor)
            Scale and shift per block, ``[..., 1]`` (simple) or ``[..., C]`` (complex).
        """
        lead = condition.shape[:-1]
        x = condition.reshape(-1, CONDITIONS)  # [M, 4]
        if self.kind == "cnn":
            x = x.unsqueeze(1)  # [M, 1, 4]
        for index, layer in enumerate(self.layers):
            if self.kind == "cnn" and index < 2:
                x = nn.functional.pad(x, (1, 2))  # Keras' "same" for a kernel of four; the last one is "valid"
            x = torch.relu(layer(x))
            if index:
                x = self.norms[index - 1](self.dropout(x))
        x = x.reshape(*lead, -1)  # [..., H]
        return list(zip(self.scales(x).split(self.sizes, -1), self.shifts(x).split(self.sizes, -1), strict=True))


def _four_taps(inputs: int, outputs: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 4)


def checked_variant(variant: str) -> Variant:
    """Return ``variant``; ValueError when it is none of :data:`VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    return cast(Variant, variant)
