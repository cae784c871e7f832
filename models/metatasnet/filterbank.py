"""Learnt analysis and synthesis by kernels of several lengths, as a stream.

A latent frame is the last ``span`` samples times the analysis kernels; the shorter ones see the newest
samples. The synthesis adds a frame's kernels up over the same samples, so that the output is ``span - stride``
samples late. Both start as a frame in the mathematical sense (:func:`cosine_frame`): with the sizes of the default
model, analysis and synthesis undo each other to -67 dB before any training, and masks can be learnt from the first
step on.

Axes: B batch, C channels, T samples, N latent frames, K kernel samples, D latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule


@dataclass(frozen=True)
class Bank:
    """Sizes of a bank of kernels.

    Attributes
    ----------
    lengths, latents : tuple of int
        Kernel lengths in samples, and how many of each; D is the sum of the latter.
    stride : int
        Samples per latent frame; divides the longest kernel, which is the ``span`` of a frame.
    centred : bool
        Shorter kernels stand in the middle of the span (as padding on both sides has them) instead of at its end.

    Raises
    ------
    ValueError
        The sizes do not fit together.
    """

    lengths: tuple[int, ...]
    latents: tuple[int, ...]
    stride: int
    centred: bool = False

    def __post_init__(self) -> None:
        if not self.lengths or len(self.lengths) != len(self.latents) or min(self.latents) < 1:
            raise ValueError(f"latents must say how many of each of the kernels {self.lengths}, got {self.latents}.")
        if self.stride < 1 or min(self.lengths) < self.stride or self.span % self.stride:
            raise ValueError(f"stride must divide {self.span} and be at most {min(self.lengths)}, got {self.stride}.")

    @property
    def span(self) -> int:
        """Samples of a frame."""
        return max(self.lengths)

    @property
    def latency(self) -> int:
        """Samples by which analysis and synthesis together are late: ``span - stride``."""
        return self.span - self.stride

    def start(self, length: int) -> int:
        """Where in the span kernels of a length begin."""
        return (self.span - length) // 2 if self.centred else self.span - length

    def parameters(self) -> nn.ParameterList:
        """Kernels ``[D, K]`` per length, random."""
        sizes = zip(self.latents, self.lengths, strict=True)
        return nn.ParameterList(nn.Parameter(torch.randn(d, k) / k**0.5) for d, k in sizes)


class Analysis(StreamingModule):
    """``[B, C, T]`` -> ``[B, C, N, D]``; every channel by the same kernels.

    State ``history`` ``[B, C, span - stride]``; none when that is 0.

    Parameters
    ----------
    bank : Bank
    channels : int
    """

    def __init__(self, bank: Bank, channels: int) -> None:
        super().__init__()
        self.bank, self.channels, self.kernels = bank, channels, bank.parameters()

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"history": (self.channels, self.bank.latency)} if self.bank.latency else {}

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """Analyse whole strides.

        Returns
        -------
        latents : Tensor
            ``[B, C, N, D]``.
        delayed : Tensor
            ``audio`` late by ``span - stride``, ``[B, C, T]``: what the synthesis gives back.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        samples = audio.shape[-1]
        line = torch.cat([state["history"], audio], dim=-1) if state else audio
        return self.of_line(line), line[..., :samples], {"history": line[..., samples:]} if state else {}

    def of_line(self, line: Tensor) -> Tensor:
        """Analyse ``[..., span - stride + T]`` -> ``[..., N, D]``, without state."""
        bank = self.bank
        frames = line.unsqueeze(-2) if line.shape[-1] == bank.span else line.unfold(-1, bank.span, bank.stride)
        parts = []  # of frames [..., N, span]
        for length, kernel in zip(bank.lengths, self.kernels, strict=True):
            start = bank.start(length)
            parts.append(torch.matmul(frames[..., start : start + length], kernel.t()))
        return torch.cat(parts, dim=-1)


class Synthesis(StreamingModule):
    """``[B, M, N, D]`` -> ``[B, M, N * stride]`` for M signals, overlapped and added.

    State ``tail`` ``[B, M, span / stride - 1, stride]``; none when the span is one stride.

    Parameters
    ----------
    bank : Bank
    signals : int
        M.
    """

    def __init__(self, bank: Bank, signals: int) -> None:
        super().__init__()
        self.bank, self.signals, self.latency, self.kernels = bank, signals, bank.latency, bank.parameters()
        self.overlap = bank.span // bank.stride - 1

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"tail": (self.signals, self.overlap, self.bank.stride)} if self.overlap else {}

    def forward(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Add up the kernels of all frames; the rest of the last ones is the state ``tail``."""
        return self.of(latents, self.checked_state(state, latents.shape[0]))

    def of(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """As a call, for any number of signals: ``state`` is not checked."""
        frames, stride = latents.shape[2], self.bank.stride
        late: list[list[Tensor]] = [[] for _ in range(self.overlap + 1)]  # what a frame adds to stride after stride
        for part, kernel in zip(latents.split(self.bank.latents, dim=-1), self.kernels, strict=True):
            place, lead = divmod(self.bank.start(kernel.shape[1]), stride)
            whole = nn.functional.pad(kernel, (lead, -(lead + kernel.shape[1]) % stride))
            strides = torch.matmul(part, whole).unflatten(-1, (-1, stride)).unbind(-2)  # [B, M, N, stride] each
            for offset, samples in enumerate(strides):
                late[place + offset].append(samples)
        sums = [reduce(torch.add, samples) for samples in late]
        if not state:
            return sums[0].flatten(2), {}
        total = nn.functional.pad(state["tail"], (0, 0, 0, frames))  # [B, M, overlap + N, stride]
        for place, samples in enumerate(sums):
            total = total + nn.functional.pad(samples, (0, 0, place, self.overlap - place))
        return total[:, :, :frames].flatten(2), {"tail": total[:, :, frames:]}


def cosine_frame(bank: Bank) -> tuple[list[Tensor], list[Tensor]]:
    """Return analysis and synthesis kernels that undo each other, ``[D, K]`` per length.

    The spectrum is shared out: the longest kernels take the lowest frequencies, and each length as many cosines (and
    sines) at its own resolution as it has latents. A length with fewer latents than two per bin up to the Nyquist
    frequency has sines for the lower part of its band only, and one phase per bin above (as an MDCT has) so that the
    highest kernels reach the Nyquist frequency. The synthesis is the least squares dual of the analysis, per kernel
    length (the shorter ones again stand at the end of the span).

    Parameters
    ----------
    bank : Bank
        Not centred.
    """
    lengths, latents = bank.lengths, bank.latents
    analysis: dict[int, Tensor] = {}
    edge = 0.0  # in cycles per sample: what longer kernels cover already
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for place, index in enumerate(order):
        length, count = lengths[index], latents[index]
        first = round(edge * length)
        last = place == len(order) - 1
        # With everything above to cover: pairs bins have cosine and sine, singles one phase.
        bins = max(length // 2 - first, 1)
        pairs = min(max(count - bins, 0), bins) if last else count // 2
        singles = max(count - 2 * pairs, 0)
        analysis[index] = _atoms(length, first, pairs, singles)
        edge = (first + pairs + singles) / length
    kernels = [analysis[i] for i in range(len(lengths))]
    return kernels, _dual(kernels, bank.span, bank.stride)


def _atoms(length: int, first: int, pairs: int, singles: int) -> Tensor:
    """Windowed cosines ``[2 * pairs + singles, length]`` of unit norm, from bin ``first`` up."""
    time = torch.arange(length).double() + 0.5
    window = torch.sin(math.pi * time / length)
    bins = first + torch.arange(pairs).double() + 0.5
    angle = 2 * math.pi / length * torch.outer(bins, time)
    both = torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)  # cosine, sine, cosine, ...
    bins = first + pairs + torch.arange(singles).double() + 0.5
    single = torch.cos(2 * math.pi / length * torch.outer(bins, time + length / 4))
    atoms = torch.cat([both, single]) * window
    return (atoms / atoms.norm(dim=1, keepdim=True)).float()


def _dual(kernels: list[Tensor], span: int, stride: int) -> list[Tensor]:
    """Synthesis kernels with the least error over one stride, given that every frame is analysed by ``kernels``."""
    overlap = span // stride - 1
    padded = torch.cat([nn.functional.pad(k, (span - k.shape[1], 0)) for k in kernels]).double()  # [D, span]
    lengths = torch.tensor([k.shape[1] for k in kernels for _ in range(len(k))])
    # Samples of one output stride lie in overlap + 1 frames, which together see this many samples.
    seen = overlap * stride + span
    rows, used = [], []
    for late in range(overlap + 1):
        start = (overlap - late) * stride
        rows.append(nn.functional.pad(padded, (start, seen - span - start)))
        used.append(lengths >= span - late * stride)  # a shorter kernel has no samples in this part of the span
    frames, mask = torch.cat(rows), torch.cat(used)
    target = torch.zeros(stride, seen, dtype=torch.double)
    target[torch.arange(stride), overlap * stride + torch.arange(stride)] = 1.0
    present = frames[mask]
    gram = present @ present.t() + 1e-4 * torch.eye(len(present), dtype=torch.double)
    solved = torch.zeros(len(frames), stride, dtype=torch.double)
    solved[mask] = torch.linalg.solve(gram, present @ target.t())
    whole = solved.unflatten(0, (overlap + 1, -1)).transpose(0, 1).flatten(1).float()  # [D, span]
    return [
        part[:, span - kernel.shape[1] :].contiguous()
        for part, kernel in zip(whole.split([len(k) for k in kernels]), kernels, strict=True)
    ]
