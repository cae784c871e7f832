"""Bins grouped into bands whose width doubles towards high frequencies, by reshaping alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DoublingBands(nn.Module):
    """Bins below ``edges[0]`` one by one, then groups of 2, 4, 8 ... bins between the edges.

    Groups of equal width are a reshape and a mean; a padded matrix product for the same grouping was
    measured to cost ten times as much.

    Parameters
    ----------
    bins : int
        F, window / 2 + 1; the last bin joins the last band.
    edges : sequence of int
        Ascending; ``edges[i+1] - edges[i]`` divisible by ``2 ** (i + 1)``; the last is ``bins - 1``.
    """

    def __init__(self, bins: int, edges: tuple[int, ...]) -> None:
        super().__init__()
        if edges[-1] != bins - 1:
            raise ValueError(f"the last band edge must be bins - 1 = {bins - 1}, got {edges[-1]}.")
        self.bins, self.edges = bins, edges
        self.widths = [2 ** (i + 1) for i in range(len(edges) - 1)]
        for lower, upper, width in zip(edges, edges[1:], self.widths, strict=False):
            if upper <= lower or (upper - lower) % width:
                raise ValueError(f"bins {lower}..{upper} do not divide into groups of {width}.")
        groups = zip(edges, edges[1:], self.widths, strict=False)
        self.bands = edges[0] + sum((upper - lower) // width for lower, upper, width in groups)

    def merge(self, x: Tensor) -> Tensor:
        """Mean over the bins of each band: ``[..., F]`` -> ``[..., bands]``."""
        return torch.cat([part.mean(-1) for part in self._grouped(x)], dim=-1)

    def total(self, x: Tensor) -> Tensor:
        """Sum over the bins of each band: ``[..., F]`` -> ``[..., bands]``."""
        return torch.cat([part.sum(-1) for part in self._grouped(x)], dim=-1)

    def _grouped(self, x: Tensor) -> list[Tensor]:
        parts = [x[..., : self.edges[0], None]]
        for lower, upper, width in zip(self.edges, self.edges[1:], self.widths, strict=False):
            parts.append(x[..., lower:upper].unflatten(-1, (-1, width)))
        return parts

    def spread(self, x: Tensor) -> Tensor:
        """Give every bin its band's value: ``[..., bands]`` -> ``[..., F]``."""
        parts, start = [x[..., : self.edges[0]]], self.edges[0]
        for lower, upper, width in zip(self.edges, self.edges[1:], self.widths, strict=False):
            count = (upper - lower) // width
            part = x[..., start : start + count]
            parts.append(part.unsqueeze(-1).expand(*part.shape, width).flatten(-2))
            start += count
        parts.append(x[..., -1:])  # the Nyquist bin
        return torch.cat(parts, dim=-1)
