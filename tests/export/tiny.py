"""Small streaming modules: one that follows the rules, and some that break one each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.masks import mixture_consistent
from models.streaming.rnn import StreamingGRU


class TinyMasks(StreamingModule):
    """A delay of `latency` samples, times gains per hop from a GRU over the level of the hop.

    The logarithm's floor of 1e-8 is the constant that onnxscript's rewrite rules take for zero.
    """

    stems = ("low", "mid", "high")
    samplerates = (44100, 48000)
    channels = 2

    def __init__(self, hop: int = 64, latency: int = 48, hidden: int = 8, residual_stem: str | None = None) -> None:
        super().__init__()
        self.hop_samples, self.latency, self.residual_stem = hop, latency, residual_stem
        self.gru = StreamingGRU(self.channels, hidden, layers=2)
        self.head = nn.Linear(hidden, len(self.stems))

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"line": (self.channels, self.latency)}

    def levels(self, audio: Tensor) -> Tensor:
        """Log power per hop, ``[B, N, C]``."""
        frames = audio.unflatten(-1, (-1, self.hop_samples))  # [B, C, N, hop]
        return torch.log10(frames.square().mean(-1) + 1e-8).transpose(1, 2) / 8

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.checked_state(state, audio.shape[0])
        hidden, after = self.gru(self.levels(audio), substate(state, "gru"))
        gains = torch.softmax(self.head(hidden), dim=-1)  # [B, N, S]
        line = torch.cat([state["line"], audio], dim=-1)
        delayed = line[..., : audio.shape[-1]]
        frames = delayed.unflatten(-1, (-1, self.hop_samples))  # [B, C, N, hop]
        stems = (frames.unsqueeze(1) * gains.transpose(1, 2)[:, :, None, :, None]).flatten(-2)
        return mixture_consistent(stems, delayed), {"line": line[..., audio.shape[-1] :], **prefixed("gru", after)}


class ChunkLevel(TinyMasks):
    """Divides by the level of the whole chunk: another result for every way to cut."""

    def levels(self, audio: Tensor) -> Tensor:
        return super().levels(audio / audio.abs().max().clamp_min(1e-3))


class WrongLatency(TinyMasks):
    """Says its latency is one hop more than it is."""

    def __init__(self) -> None:
        super().__init__()
        self.delay, self.latency = self.latency, self.latency + self.hop_samples

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"line": (self.channels, self.delay)}


class ForgetsState(TinyMasks):
    """Does not give the delay line back."""

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        stems, after = super().forward(audio, state)
        del after["line"]
        return stems, after


class NaNFromSilence(TinyMasks):
    """Divides what it puts out by a level without a floor."""

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        stems, after = super().forward(audio, state)
        total = stems.sum(dim=1, keepdim=True)
        return stems / total * total, after


class NotExportable(TinyMasks):
    """Branches on a value that only running gives."""

    def levels(self, audio: Tensor) -> Tensor:
        levels = super().levels(audio)
        return levels if float(audio.detach().abs().max()) > 0.5 else 2 * levels


class WithControl(TinyMasks):
    """A control that favours stems."""

    controls = (
        {
            "name": "favour",
            "shape": [3],
            "default": [0.0, 1.0, 0.0],
            "minimum": -4,
            "maximum": 4,
            "meaning": "log gain",
        },
    )

    def forward(  # type: ignore[override]
        self, audio: Tensor, state: State | None, controls: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        stems, after = super().forward(audio, state)
        weights = torch.softmax(controls["favour"], dim=-1)  # [B, S]
        delayed = stems.sum(dim=1, keepdim=True)  # [B, 1, C, T]
        return delayed * weights[:, :, None, None], after


def tiny(kind: type[TinyMasks] = TinyMasks, seed: int = 0) -> TinyMasks:
    """Return a module with weights large enough to matter, in evaluation mode."""
    torch.manual_seed(seed)
    module = kind()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    return module.eval()
