"""Streaming STFT and inverse STFT with a long analysis and a short synthesis window.

The analysis window rises as a quarter sine over ``window - hop`` samples and falls as a quarter cosine
over the last ``hop``; the synthesis window covers the last ``2 * hop`` samples and makes the product of
both a Hann window there, so that overlapping frames add to one. The frequency resolution is that of
``window`` samples at the algorithmic latency of ``2 * hop``: one hop buffered, one hop overlapped.
After Mauler and Martin (2007) and Wang et al. (EUSIPCO 2021), in the form of a periodic product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.streaming.base import State, StreamingModule
from models.streaming.dft import RealDFT


def asymmetric_windows(window: int, hop: int) -> tuple[Tensor, Tensor]:
    """Return the analysis window ``[window]`` and the synthesis window ``[2 * hop]``.

    Raises
    ------
    ValueError
        ``window`` is shorter than ``2 * hop``.
    """
    if window < 2 * hop:
        raise ValueError(f"window must be at least 2 * hop = {2 * hop} samples, got {window}.")
    rise = torch.sin(math.pi / 2 * (torch.arange(window - hop).double() + 0.5) / (window - hop))
    fall = torch.cos(math.pi / 2 * (torch.arange(hop).double() + 0.5) / hop)
    analysis = torch.cat([rise, fall])
    hann = torch.sin(math.pi * (torch.arange(2 * hop).double() + 0.5) / (2 * hop)) ** 2
    synthesis = hann / analysis[-2 * hop :]
    return analysis.float(), synthesis.float()


class StreamingSTFT(StreamingModule):
    """Frames of the last ``window`` samples, one per hop.

    Parameters
    ----------
    window, hop : int
        Samples; ``window >= 2 * hop``.
    channels : int
        Audio channels C.
    """

    def __init__(self, window: int, hop: int, channels: int = 2) -> None:
        super().__init__()
        self.window_samples, self.hop_samples, self.channels = window, hop, channels
        self.dft = RealDFT(window, tail=2 * hop)
        analysis, _ = asymmetric_windows(window, hop)
        # A full-scale sine then has magnitude 1 in its bin, whatever the window.
        self.register_buffer("analysis", analysis * (2.0 / analysis.sum()), persistent=False)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"history": (self.channels, self.window_samples - self.hop_samples)}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, Tensor, State]:
        """Transform whole hops.

        Parameters
        ----------
        x : Tensor
            Audio ``[B, C, T]``, T a multiple of the hop.

        Returns
        -------
        re, im : Tensor
            Bins ``[B, C, N, F]``, N = T / hop, F = window / 2 + 1.
        delayed : Tensor
            ``x`` one hop late ``[B, C, T]``: what the inverse transform of these frames reconstructs.
        state : dict
        """
        if x.shape[-1] % self.hop_samples or x.shape[-1] == 0 or x.shape[1] != self.channels:
            raise ValueError(
                f"audio must be [B, {self.channels}, T] with T a multiple of the hop {self.hop_samples}, "
                f"got {list(x.shape)}."
            )
        state = self.checked_state(state, x.shape[0])
        line = torch.cat([state["history"], x], dim=-1)  # [B, C, window - hop + T]
        if x.shape[-1] == self.hop_samples:
            frames = line.unsqueeze(2)  # [B, C, 1, window]
        else:
            frames = line.unfold(-1, self.window_samples, self.hop_samples)  # [B, C, N, window]
        re, im = self.dft(frames * self.analysis)
        end = line.shape[-1]
        delayed = line[..., end - x.shape[-1] - self.hop_samples : end - self.hop_samples]
        history = line[..., end - (self.window_samples - self.hop_samples) :]
        return re, im, delayed, {"history": history}


class StreamingISTFT(StreamingModule):
    """Overlap-add of the short synthesis windows; the output is one hop late.

    Parameters
    ----------
    stft : StreamingSTFT
        The analysis it inverts; its DFT is shared.
    streams : int
        How many signals (stems times channels) are synthesised at once.
    """

    def __init__(self, stft: StreamingSTFT, streams: int) -> None:
        super().__init__()
        self.dft, self.hop_samples, self.streams = stft.dft, stft.hop_samples, streams
        self.latency = stft.hop_samples
        analysis, synthesis = asymmetric_windows(stft.window_samples, stft.hop_samples)
        self.register_buffer("synthesis", synthesis * (analysis.sum() / 2.0), persistent=False)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"tail": (self.streams, self.hop_samples)}

    def forward(self, re: Tensor, im: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Synthesise ``[B, streams, N, F]`` bins to audio ``[B, streams, N * hop]``."""
        state = self.checked_state(state, re.shape[0])
        frames = self.dft.inverse_tail(re, im) * self.synthesis  # [B, streams, N, 2 hop]
        rising, falling = frames.split(self.hop_samples, dim=-1)  # [B, streams, N, hop]
        before = torch.cat([state["tail"].unsqueeze(2), falling[:, :, :-1]], dim=2)
        audio = (rising + before).flatten(2)  # [B, streams, N hop]
        return audio, {"tail": falling[:, :, -1]}
