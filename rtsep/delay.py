"""Lines of memory for blocks of sound: one that delays, one that keeps the last moment."""

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


class Recent:
    """Keeps the last samples of a sound, ``[..., C, n]`` blocks of any size.

    Parameters
    ----------
    shape : tuple of int
        Of the sound, without its samples.
    samples : int
        How many are kept.

    Notes
    -----
    Real-time safe, for one thread.
    """

    def __init__(self, shape: tuple[int, ...], samples: int) -> None:
        self.samples = samples
        self._line: Audio = np.zeros((*shape, samples), np.float32)
        self._at = 0

    def reset(self) -> None:
        """Back to silence."""
        self._line.fill(0.0)

    def put(self, audio: Audio) -> None:
        """Add a block."""
        audio = audio[..., -self.samples :]
        n, at = audio.shape[-1], self._at
        first = min(n, self.samples - at)
        self._line[..., at : at + first] = audio[..., :first]
        self._line[..., : n - first] = audio[..., first:]
        self._at = (at + n) % self.samples

    def take(self, start: int, out: Audio) -> None:
        """Write what is kept, from its sample `start` (0 is the oldest) on, into ``out`` [C, n]; of one sound only."""
        n, at = out.shape[-1], (self._at + start) % self.samples
        first = min(n, self.samples - at)
        out[..., :first] = self._line[..., at : at + first]
        out[..., first:] = self._line[..., : n - first]

    def part(self, index: int) -> Recent:
        """Return one of several sounds kept together, as a view that is good until the next `put`."""
        one = Recent.__new__(Recent)
        one.samples, one._line, one._at = self.samples, self._line[index], self._at
        return one
