"""From the stems' rate down to the transcribers' with little delay: a short polyphase FIR.

libsoxr's streams keep some 20 ms for themselves at any quality that filters (`rtsep.audio.resampler`); a note cannot
wait that long. Here the filter is the delay: about 1 ms, for a stop band of 60 dB and an edge that no note needs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError

Audio = NDArray[np.float32]

_STOP_DB, _BETA = 60.0, 5.65
# Pass and stop edge as parts of half the output rate: what lies between folds onto the top of the band.
_PASS, _STOP = 0.88, 1.12


class Decimator:
    """Streaming sample rate reduction by a rational factor.

    After n input samples ``ceil(n * out_rate / in_rate)`` output samples have come out, whatever the blocks were. A
    sound at input sample `i` lies at output sample ``i * out_rate / in_rate + delay``.

    Parameters
    ----------
    in_rate, out_rate : int
        In hertz, ``in_rate >= out_rate``. When equal, blocks pass through.
    channels : int

    Attributes
    ----------
    delay : float
        In samples at `out_rate`.

    Raises
    ------
    UsageError
        The output rate is the higher one, or there is no channel.

    Notes
    -----
    Kaiser-windowed sinc. `process` allocates; cuts change a result by rounding at most.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        if not 0 < out_rate <= in_rate or channels < 1:
            raise UsageError(f"Cannot go from {in_rate} to {out_rate} Hz in {channels} channels.")
        common = math.gcd(in_rate, out_rate)
        self._up, self._down = out_rate // common, in_rate // common
        if self._up == self._down:
            self._taps: NDArray[np.float32] = np.ones((1, 1), np.float32)
        else:
            width = 2 * math.pi * (_STOP - _PASS) * out_rate / 2 / in_rate
            count = math.ceil((_STOP_DB - 8) / (2.285 * width)) + 1
            cutoff = (_PASS + _STOP) / 2 * out_rate / in_rate  # of half the input rate
            middle = (count - 1) / 2
            fraction = np.arange(self._up)[:, None] / self._up
            # Output m lies `fraction` after input sample floor(m * down / up), which tap 0 belongs to.
            offset = np.arange(count)[None, :] + fraction - middle
            inside = np.clip(1 - (offset / (middle + 1)) ** 2, 0, None)
            taps = cutoff * np.sinc(cutoff * offset) * np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA)
            self._taps = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
        self._count = self._taps.shape[1]
        self.delay = (self._count - 1) / 2 * self._up / self._down
        self._line: Audio = np.zeros((channels, self._count - 1), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next sample is sample 0."""
        self._line = np.zeros((len(self._line), self._count - 1), np.float32)
        self._taken = self._given = 0

    def process(self, audio: Audio) -> Audio:
        """Take ``audio`` [C, n], return [C, m], new."""
        line = np.concatenate([self._line, audio], axis=1)
        first = self._taken - (self._count - 1)  # input position of line[:, 0]
        self._taken += audio.shape[1]
        due = -(-self._taken * self._up // self._down)
        positions = np.arange(self._given, due) * self._down
        newest = positions // self._up - first  # index into the line
        out = np.zeros((len(line), len(positions)), np.float32)
        if len(positions):
            index = newest[:, None] - np.arange(self._count)[None, :]  # [m, taps]
            np.einsum("cmk,mk->cm", line[:, index], self._taps[positions % self._up], out=out)
        self._given = due
        self._line = line[:, line.shape[1] - (self._count - 1) :]
        return out
