"""Options of the band-split system: what masks on short frames cannot do.

Axes: N frames, B batch, S stems, C channels, F bins that lie in bands, K bands, D values per band.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.conv import CausalConv1d, CausalConvTranspose1d
from models.streaming.stft import asymmetric_windows


class DeepFilter(StreamingModule):
    """A complex filter per bin over the frames before this one, added to what the mask lets through.

    Deep Filtering (Mack and Habets, IEEE SPL 2020), causal: with the bins ``X`` of the mixture,
    ``Y[n] += gate sum_j tanh(h_j) X[n - j]``, ``j = 1 .. taps - 1``. The coefficients are per stem, common to the
    channels; every stem has one gate, which starts almost shut.

    Parameters
    ----------
    taps : int
        2 or more; the mask is the first of them.
    stems : int
        S, those that are filtered.
    channels, bins : int
    """

    def __init__(self, taps: int, stems: int, channels: int, bins: int) -> None:
        super().__init__()
        self.past, self.stems, self.channels, self.bins = taps - 1, stems, channels, bins
        self.values = stems * self.past * 2  # per bin, from the decoder
        self.gate = nn.Parameter(torch.full((stems, 1, 1), -2.0))

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"past": (self.past, 2, self.channels, self.bins)}

    def forward(
        self, re: Tensor, im: Tensor, values: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Filter.

        Parameters
        ----------
        re, im : Tensor
            Bins of the mixture ``[N, B, C, F]``.
        values : Tensor
            From the decoder ``[N, B, values, F]``.

        Returns
        -------
        re, im : Tensor
            What is to be added, ``[N, B, S, C, F]``.
        state : dict
            ``past`` ``[B, taps - 1, 2, C, F]``: the frames before, real and imaginary parts.
        """
        state = self.checked_state(state, re.shape[1])
        frames = re.shape[0]
        line = torch.cat([state["past"].transpose(0, 1), torch.stack([re, im], dim=2)])  # [past + N, B, 2, C, F]
        taps = torch.tanh(values).unflatten(2, (self.past, 2, self.stems, 1))  # [N, B, past, 2, S, 1, F]
        gate = torch.sigmoid(self.gate)
        total_re, total_im = torch.zeros_like(re).unsqueeze(2), torch.zeros_like(im).unsqueeze(2)
        for tap in range(self.past):
            before = line[self.past - 1 - tap : self.past - 1 - tap + frames].unsqueeze(3)  # [N, B, 2, 1, C, F]
            x_re, x_im = before[:, :, 0], before[:, :, 1]
            h_re, h_im = taps[:, :, tap, 0], taps[:, :, tap, 1]  # [N, B, S, 1, F]
            total_re = total_re + (h_re * x_re - h_im * x_im)
            total_im = total_im + (h_re * x_im + h_im * x_re)
        return gate * total_re, gate * total_im, {"past": line[frames:].transpose(0, 1)}


class BassAnalysis(StreamingModule):
    """The lowest bins of a longer window that ends at the same sample: resolution for the bass without latency.

    They are few, so that a dense product with their sines is cheaper than a transform of all bins.

    Parameters
    ----------
    window, hop : int
        Samples.
    bins : int
        From the first above 0 Hz.
    channels : int
    width : int
        D.
    bands : int
        How many of the lowest bands hear of it.
    """

    floor, depth = 1e-12, 1e6  # as in models.bandsplit.layers.BandEncoder

    def __init__(self, window: int, hop: int, bins: int, channels: int, width: int, bands: int) -> None:
        super().__init__()
        self.window_samples, self.hop_samples, self.channels, self.bands = window, hop, channels, bands
        analysis, _ = asymmetric_windows(window, hop)
        analysis = (analysis * (2.0 / analysis.sum())).double()
        angle = 2 * math.pi * torch.outer(torch.arange(1, bins + 1), torch.arange(window)).double() / window
        basis = torch.cat([angle.cos(), -angle.sin()]) * analysis  # [2 bins, window]
        self.register_buffer("basis", basis.float(), persistent=False)
        self.out = nn.Linear(3 * channels * bins, bands * width)
        nn.init.zeros_(self.out.weight)  # it can be given to what is trained already
        nn.init.zeros_(self.out.bias)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"history": (self.channels, self.window_samples - self.hop_samples)}

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map whole hops ``[B, C, T]`` to what is to be added to the lowest bands, ``[N B, bands, D]``."""
        state = self.checked_state(state, audio.shape[0])
        line = torch.cat([state["history"], audio], dim=-1)  # [B, C, window - hop + T]
        history = line[..., line.shape[-1] - (self.window_samples - self.hop_samples) :]
        if audio.shape[-1] == self.hop_samples:
            values = torch.matmul(line, self.basis.t())  # [B, C, 2 bins]
        else:
            filters = self.basis.unsqueeze(1)
            values = nn.functional.conv1d(line.flatten(0, 1).unsqueeze(1), filters, stride=self.hop_samples)
            values = values.unflatten(0, line.shape[:2]).permute(3, 0, 1, 2).flatten(0, 1)  # [N B, C, 2 bins]
        re, im = values.chunk(2, dim=-1)
        power = re.square() + im.square()  # [N B, C, bins]
        mean = power.mean(dim=(1, 2), keepdim=True) + self.floor
        logs = 0.125 * torch.log(1.0 + power * (self.depth / mean))
        features = torch.cat([values * torch.rsqrt(mean), logs], dim=-1).flatten(1)  # [N B, 3 C bins]
        return self.out(features).unflatten(-1, (self.bands, -1)), {"history": history}


class WaveformResidual(StreamingModule):
    """Learnt filters on the waveform, gated several times per hop: the attacks that long frames smear.

    The mixture goes through short filters, their outputs are multiplied by gates that the body of the model sets, and
    go back through filters of the same length, as in a TasNet (Luo and Mesgarani, TASLP 2019) without biases, so that
    silence stays silence. Its own delay is filled up to one hop. It starts as nothing.

    Parameters
    ----------
    hop, taps, stride : int
        Samples; see :class:`models.bandsplit.config.BandSplitConfig`.
    basis : int
        Filters per channel.
    channels, width : int
        C and D.
    """

    def __init__(self, hop: int, taps: int, stride: int, basis: int, channels: int, width: int) -> None:
        super().__init__()
        self.channels, self.steps, self.delay_samples = channels, hop // stride, hop - (taps - stride)
        self.norm = nn.LayerNorm(width)
        self.gates = nn.Linear(width, channels * basis * self.steps)
        self.analyse = CausalConv1d(channels, channels * basis, taps, stride, groups=channels, bias=False)
        self.synthesise = CausalConvTranspose1d(channels * basis, channels, taps, stride, groups=channels, bias=False)
        nn.init.zeros_(self.synthesise.conv.weight)
        self.latency = hop

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"delay": (self.channels, self.delay_samples)} if self.delay_samples else {}

    def forward(self, audio: Tensor, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Filter whole hops.

        Parameters
        ----------
        audio : Tensor
            ``[B, C, T]``.
        x : Tensor
            The mean of the body's values over the bands ``[N B, D]``.

        Returns
        -------
        y : Tensor
            ``[B, C, T]``, one hop late.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        new: State = {}
        if self.delay_samples:
            line = torch.cat([state["delay"], audio], dim=-1)
            audio, new["delay"] = line[..., : audio.shape[-1]], line[..., audio.shape[-1] :]
        encoded, analysed = self.analyse(audio, substate(state, "analyse"))  # [B, C basis, N steps]
        gates = torch.sigmoid(self.gates(self.norm(x)))  # [N B, C basis steps]
        gates = gates.reshape(-1, audio.shape[0], encoded.shape[1], self.steps)  # [N, B, C basis, steps]
        gates = gates.permute(1, 2, 0, 3).flatten(2)  # [B, C basis, N steps]
        y, synthesised = self.synthesise(encoded * gates, substate(state, "synthesise"))
        return y, {**new, **prefixed("analyse", analysed), **prefixed("synthesise", synthesised)}
