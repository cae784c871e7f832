"""Halving and doubling of frequency with kernels of upstream's shape, causal in time.

Upstream halves time as well, which a live model cannot wait for: the deepest block would give a frame every 64. Here
every frame is computed, and a block's taps lie ``dilation`` frames apart. With dilations 1, 2, 4 ... the encoder
computes at every frame what the strided one computes at every 2nd, 4th, 8th ... (the algorithme à trous; Holschneider
et al., 1989), with the same weights and the same reach into the past.

Axes: B batch, C channels, N frames, F bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule

TAPS = 5  # over frequency, as upstream


class HalvingConv(StreamingModule):
    """Convolution ``[B, C, N, F]`` -> ``[B, outputs, N, F / 2]``.

    State ``past`` ``[B, C, (frames - 1) * dilation, F]``; none for one tap over time.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    bands : int
        F of the input, even.
    frames, dilation : int
        Taps over time, and frames from one to the next.
    """

    def __init__(self, inputs: int, outputs: int, bands: int, frames: int, dilation: int) -> None:
        super().__init__()
        self.inputs, self.bands, self.past_frames = inputs, bands, (frames - 1) * dilation
        self.conv = nn.Conv2d(inputs, outputs, (frames, TAPS), (1, 2), dilation=(dilation, 1))

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"past": (self.inputs, self.past_frames, self.bands)} if self.past_frames else {}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        line, new = with_past(self, x, state)
        return self.conv(nn.functional.pad(line, (1, 2))), new  # Keras' "same": less in front than behind


class DoublingConv(StreamingModule):
    """Transposed convolution ``[B, C, N, F]`` -> ``[B, outputs, N, 2 F]``; state as :class:`HalvingConv`.

    Computed as an ordinary convolution that gives even and odd bands as channels: over one new frame a transposed
    one would compute all its taps for all frames of the past and throw most away.

    Parameters
    ----------
    inputs, outputs, bands, frames, dilation : int
        As :class:`HalvingConv`.
    """

    def __init__(self, inputs: int, outputs: int, bands: int, frames: int, dilation: int) -> None:
        super().__init__()
        self.inputs, self.bands, self.past_frames = inputs, bands, (frames - 1) * dilation
        self.dilation = dilation
        self.conv = nn.ConvTranspose2d(inputs, outputs, (frames, TAPS), (1, 2))

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"past": (self.inputs, self.past_frames, self.bands)} if self.past_frames else {}

    def kernel(self) -> Tensor:
        """The transposed kernel ``[C, outputs, frames, 5]`` as that of a convolution ``[2 outputs, C, frames, 3]``.

        Band ``2 m`` takes the taps 3 and 1 of the bands ``m - 1`` and ``m``, band ``2 m + 1`` the taps 4, 2 and 0
        of ``m - 1``, ``m`` and ``m + 1``, which is Keras' cropping of the full result by 1 in front and 2 behind.
        """
        taps = self.conv.weight.flip(2).transpose(0, 1)  # [outputs, C, frames, 5], the newest frame last
        nothing = torch.zeros_like(taps[..., :1])
        even = torch.cat([taps[..., 3:4], taps[..., 1:2], nothing], dim=-1)
        odd = torch.cat([taps[..., 4:5], taps[..., 2:3], taps[..., 0:1]], dim=-1)
        return torch.stack([even, odd], dim=1).flatten(0, 1)  # [2 outputs, C, frames, 3]

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        line, new = with_past(self, x, state)
        assert self.conv.bias is not None
        bias = self.conv.bias.unsqueeze(1).expand(-1, 2).flatten()
        y = nn.functional.conv2d(line, self.kernel(), bias, padding=(0, 1), dilation=(self.dilation, 1))
        # [B, outputs * 2, N, F] -> [B, outputs, N, F, 2] -> [B, outputs, N, 2 F]
        return y.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).flatten(-2), new


def with_past(layer: HalvingConv | DoublingConv, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Return ``x`` behind the frames a layer remembers, and what it remembers next.

    Raises
    ------
    ValueError
        F is not the layer's.
    """
    if x.shape[-1] != layer.bands:
        raise ValueError(f"F must be {layer.bands}, which the state is made for, got {x.shape[-1]}.")
    state = layer.checked_state(state, x.shape[0])
    if not layer.past_frames:
        return x, {}
    line = torch.cat([state["past"].to(x.dtype), x], dim=2)  # [B, C, past + N, F]
    return line, {"past": line[:, :, line.shape[2] - layer.past_frames :]}
