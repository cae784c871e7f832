"""Waiting some frames before deciding: what comes right after says much about what a sound is.

Axes: N frames, B batch, K bands, D values per band, F bins, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.bandsplit.layers import Layer
from models.streaming.base import State, StreamingModule, prefixed, substate


class LookAhead(StreamingModule):
    """The mixture and the bands' values some frames late, the values improved by what has come since.

    ``y[n] = x[n - frames] + W tanh(V [x[n - frames], x[n]])``, then a layer like those before it. ``W`` and what the
    layer adds start as zero: put behind a trained model it changes nothing but the delay, and learns from there.

    Parameters
    ----------
    frames : int
        1 or more.
    width : int
        D.
    layer : Layer
        Of the same width and bands.
    bands, channels, bins, hop : int
        K, C, F, and samples of a frame.
    """

    def __init__(self, frames: int, width: int, layer: Layer, bands: int, channels: int, bins: int, hop: int) -> None:
        super().__init__()
        self.frames, self.width, self.bands, self.channels = frames, width, bands, channels
        self.bins, self.hop_samples, self.latency = bins, hop, frames
        self.join = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)
        self.layer = layer
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        layer.start_as_nothing()

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "values": (self.frames, self.bands, self.width),
            "mixture": (self.frames, 2, self.channels, self.bins),
            "audio": (self.channels, self.frames * self.hop_samples),
        }

    def forward(
        self, x: Tensor, re: Tensor, im: Tensor, audio: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, State]:
        """Delay everything by ``frames``.

        Parameters
        ----------
        x : Tensor
            Values of the bands ``[N B K, D]``.
        re, im : Tensor
            Bins of the mixture ``[N, B, C, F]``.
        audio : Tensor
            ``[B, C, T]``.

        Returns
        -------
        x, re, im, audio : Tensor
            As given, ``frames`` later; ``x`` knows what has come since.
        state : dict
        """
        count = re.shape[0]
        values = torch.cat([state["values"].transpose(0, 1), x.reshape(*re.shape[:2], self.bands, self.width)])
        mixture = torch.cat([state["mixture"].transpose(0, 1), torch.stack([re, im], dim=2)])
        line = torch.cat([state["audio"], audio], dim=-1)
        new = {
            "values": values[count:].transpose(0, 1),
            "mixture": mixture[count:].transpose(0, 1),
            "audio": line[..., audio.shape[-1] :],
        }
        before = values[:count].reshape(-1, self.width)
        y = before + self.out(torch.tanh(self.join(torch.cat([before, x], dim=-1))))
        y, changed = self.layer(y, substate(state, "layer"))
        re, im = mixture[:count].unbind(2)
        return y, re, im, line[..., : audio.shape[-1]], new | prefixed("layer", changed)
