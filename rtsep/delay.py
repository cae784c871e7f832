"""A delay line for blocks of sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


class DryDelay:
    """Delays ``[C, T]`` blocks of up to a fixed size by a fixed number of samples.

    Parameters
    ----------
    channels, samples, block : int
        `samples` is the delay, 0 or more; `block` the longest block.

    Notes
    -----
    `process` is real-time safe.
    """

    def __init__(self, channels: int, samples: int, block: int) -> None:
        self.samples = samples
        self._line = np.zeros((channels, samples + block), np.float32)
        self._at = 0

    def reset(self) -> None:
        """Back to silence."""
        self._line.fill(0.0)
        self._at = 0

    def process(self, audio: Audio, out: Audio) -> None:
        """Write ``audio`` [C, n] into the line and what is `samples` older into ``out`` [C, n]."""
        size, n = self._line.shape[1], audio.shape[1]
        at = self._at
        first = min(n, size - at)
        self._line[:, at : at + first] = audio[:, :first]
        self._line[:, : n - first] = audio[:, first:]
        read = (at + size - self.samples) % size
        first = min(n, size - read)
        out[:, :first] = self._line[:, read : read + first]
        out[:, first:] = self._line[:, : n - first]
        self._at = (at + n) % size
