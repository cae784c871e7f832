"""Real DFT and its inverse as two small matrix products with twiddles between them.

``torch.stft`` does not export to ONNX, and ONNX's own DFT op runs neither on CUDA nor fast for real
input. Splitting ``K = K1 * K2`` (Cooley and Tukey, 1965) leaves two dense products of sizes K1 and K2,
which every execution provider runs well. Training uses ``torch.fft``; both are the same linear map and
are tested against each other.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Implementation = Literal["fft", "factored"]


def factor(size: int) -> tuple[int, int]:
    """Return ``(K1, K2)`` with ``K1 * K2 == size``, ``K1 >= K2``, as square as possible, K1 even."""
    for k2 in range(math.isqrt(size), 0, -1):
        if size % k2 == 0 and (size // k2) % 2 == 0:
            return size // k2, k2
    raise ValueError(f"DFT size must be even, got {size}.")


class RealDFT(nn.Module):
    """DFT of real frames and its inverse, with interchangeable implementations.

    With ``n = K2 n1 + n2`` and ``k = k1 + K1 k2``::

        X[k1 + K1 k2] = sum_n2 W_K2^(n2 k2)  W_K^(n2 k1)  sum_n1 W_K1^(n1 k1) x[K2 n1 + n2]

    Real input needs ``k1 <= K1/2`` only; bins with another residue are conjugates of computed ones.
    The inverse is the transpose of the same steps with Hermitian weights, and computes only the last
    ``tail`` samples of the frame.

    Parameters
    ----------
    size : int
        Frame length K in samples, even.
    tail : int
        How many samples at the end of the frame the inverse returns; a multiple of K2, at most K.
    """

    def __init__(self, size: int, tail: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.bins = size // 2 + 1
        self.tail = size if tail is None else tail
        self.k1, self.k2 = factor(size)
        if self.tail % self.k2 or not 0 < self.tail <= size:
            raise ValueError(f"tail must be a multiple of {self.k2} up to {size}, got {self.tail}.")
        self.implementation: Implementation = "fft"
        half = self.k1 // 2 + 1
        n1, n2 = torch.arange(self.k1), torch.arange(self.k2)
        k1 = torch.arange(half)

        angle = 2 * math.pi * torch.outer(k1, n1).double() / self.k1  # [H1, K1]
        first = torch.cat([angle.cos(), -angle.sin()])  # [2 H1, K1]
        angle = 2 * math.pi * torch.outer(k1, n2).double() / size  # [H1, K2]
        twiddle = torch.stack([angle.cos(), -angle.sin()])  # [2, H1, K2]
        angle = 2 * math.pi * torch.outer(n2, n2).double() / self.k2  # [K2, K2]
        c, s = angle.cos(), angle.sin()
        # (re, im) @ second = (re c + im s, im c - re s)
        second = torch.cat([torch.cat([c, -s], 1), torch.cat([s, c], 1)])  # [2 K2, 2 K2]

        # Slot (k1, k2) of the grid holds bin k1 + K1 k2, or the conjugate of bin K - that.
        grid_bin = k1[:, None] + self.k1 * n2[None, :]  # [H1, K2]
        slot = torch.full((self.bins,), -1)
        sign = torch.ones(self.bins, dtype=torch.double)
        for flat, k in enumerate(grid_bin.flatten().tolist()):
            target, conjugate = (k, False) if k <= size // 2 else (size - k, True)
            if slot[target] < 0:
                slot[target] = flat
                sign[target] = -1.0 if conjugate else 1.0
        weight = torch.full((self.bins,), 2.0 / size, dtype=torch.double)
        weight[0] = weight[-1] = 1.0 / size
        # Inverse: every bin goes back to its one slot, the duplicates of k1 = 0 and K1/2 get nothing.
        source = torch.zeros(half * self.k2, dtype=torch.long)
        back = torch.zeros(half * self.k2, dtype=torch.double)
        source[slot] = torch.arange(self.bins)
        back[slot] = weight

        for name, value in {"first": first, "twiddle": twiddle, "second": second, "sign": sign}.items():
            self.register_buffer(name, value.float(), persistent=False)
        self.register_buffer("slot", slot, persistent=False)
        self.register_buffer("source", source, persistent=False)
        self.register_buffer("back_re", back.float().view(half, self.k2), persistent=False)
        back_im = torch.zeros_like(back)
        back_im[slot] = weight * sign
        self.register_buffer("back_im", back_im.float().view(half, self.k2), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part, ``[..., K/2 + 1]`` each, of real frames ``[..., K]``."""
        if self.implementation == "fft":
            spectrum = torch.fft.rfft(x)
            return spectrum.real, spectrum.imag
        lead = x.shape[:-1]
        half = self.k1 // 2 + 1
        grid = x.reshape(*lead, self.k1, self.k2)  # [..., K1, K2]
        re, im = torch.matmul(self.first, grid).split(half, dim=-2)  # [..., H1, K2]
        cos, sin = self.twiddle[0], self.twiddle[1]
        turned = torch.cat([re * cos - im * sin, re * sin + im * cos], dim=-1)  # [..., H1, 2 K2]
        re, im = torch.matmul(turned, self.second).split(self.k2, dim=-1)  # [..., H1, K2]
        re = re.reshape(*lead, half * self.k2).index_select(-1, self.slot)
        im = im.reshape(*lead, half * self.k2).index_select(-1, self.slot)
        return re, im * self.sign

    def inverse_tail(self, re: Tensor, im: Tensor) -> Tensor:
        """Return the last ``tail`` samples ``[..., tail]`` of the frames whose bins are given."""
        if self.implementation == "fft":
            return torch.fft.irfft(torch.complex(re, im), n=self.size)[..., self.size - self.tail :]
        lead = re.shape[:-1]
        half = self.k1 // 2 + 1
        re = re.index_select(-1, self.source).reshape(*lead, half, self.k2) * self.back_re
        im = im.index_select(-1, self.source).reshape(*lead, half, self.k2) * self.back_im
        spectrum = torch.cat([re, im], dim=-1)  # [..., H1, 2 K2]
        re, im = torch.matmul(spectrum, self.second.t()).split(self.k2, dim=-1)  # [..., H1, K2]
        cos, sin = self.twiddle[0], self.twiddle[1]
        turned = torch.cat([re * cos + im * sin, im * cos - re * sin], dim=-2)  # [..., 2 H1, K2]
        rows = self.tail // self.k2
        grid = torch.matmul(self.first[:, self.k1 - rows :].t(), turned)  # [..., rows, K2]
        return grid.reshape(*lead, self.tail)
