"""Log-frequency features of two windows with one right edge: resolution for pitch, quickness for onsets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.stft import StreamingSTFT

FLOOR_DB = 80.0  # below full scale: what is softer is silence, and exactly 0
GROUP = 36  # log-frequency bins that share one slice of the spectrum


class LogFrequency(StreamingModule):
    """Levels of log-spaced bins of a long and a short window; 0 is silence, 1 a full-scale sine.

    Both windows rise slowly and fall within one hop (:mod:`models.streaming.stft`), so that the newest 10 ms count
    nearly in full whatever the length; the trick is known from Hu et al. (ISMIR 2025). Where the bins of the long
    window are no wider than a log-frequency bin, its levels go up to ``long_hz``, above that those of the short one.

    Parameters
    ----------
    samplerate, hop : int
        Hz, samples.
    long, short : int
        Windows in samples.
    lowest_midi : int
        The first semitone.
    semitones, per_semitone : int
        Range and resolution; F = semitones * per_semitone, the middle one of a semitone's bins is in tune.
    long_hz : float
    """

    def __init__(
        self,
        samplerate: int,
        hop: int,
        long: int,
        short: int,
        lowest_midi: int,
        semitones: int,
        per_semitone: int,
        long_hz: float = 1800.0,
    ) -> None:
        super().__init__()
        self.hop_samples, self.bins = hop, semitones * per_semitone
        self.long, self.short = StreamingSTFT(long, hop, 1), StreamingSTFT(short, hop, 1)
        offsets = (torch.arange(self.bins).double() - (per_semitone - 1) / 2) / per_semitone
        centres = 440.0 * 2.0 ** ((lowest_midi + offsets - 69) / 12)  # Hz
        self.split = int((centres < long_hz).sum())
        self.slices: dict[str, list[tuple[int, int]]] = {}
        for name, window, part in (("long", long, centres[: self.split]), ("short", short, centres)):
            self._make_filters(name, window, samplerate, part, 2.0 ** (1 / (12 * per_semitone)))

    def _make_filters(self, name: str, window: int, samplerate: int, centres: Tensor, step: float) -> None:
        """Triangles of height 1 on the power spectrum, never narrower than a bin of it."""
        width = samplerate / window  # Hz
        hertz = torch.arange(window // 2 + 1).double() * width
        self.slices[name] = []
        for index, group in enumerate(centres.split(GROUP)):
            half = torch.clamp(group * (step - 1), min=1.2 * width)
            first = max(0, math.floor(float(group[0] - half[0]) / width))
            last = min(window // 2 + 1, math.ceil(float(group[-1] + half[-1]) / width) + 1)
            slope = 1 - (hertz[first:last, None] - group[None]).abs() / half[None]
            weights = slope.clamp_min(0.0).float()  # [bins, GROUP]
            self.register_buffer(f"{name}_{index}", weights, persistent=False)
            self.slices[name].append((first, last))

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map audio ``[B, 1, T]``, T in whole hops, to levels ``[B, 2, N, F]``: long window, short window."""
        state = self.checked_state(state, audio.shape[0])
        levels, after = {}, {}
        for name, stft in (("long", self.long), ("short", self.short)):
            re, im, _, stft_state = stft(audio, substate(state, name))
            after |= prefixed(name, stft_state)
            power = re * re + im * im  # [B, 1, N, bins]
            bands = [
                torch.matmul(power[..., first:last], self.get_buffer(f"{name}_{index}"))
                for index, (first, last) in enumerate(self.slices[name])
            ]
            levels[name] = self._level(torch.cat(bands, dim=-1))  # [B, 1, N, split or F]
        upper = levels["short"][..., self.split :]
        return torch.cat([torch.cat([levels["long"], upper], dim=-1), levels["short"]], dim=1), after

    @staticmethod
    def _level(power: Tensor) -> Tensor:
        floor = 10 ** (-FLOOR_DB / 10)
        # ln(1 + p / floor) is 0 for silence, and smooth there.
        return torch.log1p(power / floor) * (10 / math.log(10) / FLOOR_DB)
