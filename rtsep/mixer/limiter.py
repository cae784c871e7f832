"""A peak limiter without look-ahead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CEILING = 10 ** (-0.1 / 20)
"""No sample leaves the limiter beyond this (-0.1 dBFS)."""
_CELL = 1024


class PeakLimiter:
    """Turns the gain down in the very sample that needs it, and back up exponentially. Adds no latency.

    Parameters
    ----------
    samplerate : int
        Hz.
    release_ms : float
        Time in which a gain reduction falls to 37 %.

    Notes
    -----
    Without look-ahead a hard peak is flattened rather than foreseen: a guard, not a mastering tool. `process` is
    real-time safe and gives the same bits however the signal is cut.
    """

    def __init__(self, samplerate: int, release_ms: float = 80.0) -> None:
        step = 1000.0 / (release_ms * samplerate)
        # reduction[t] = max(wanted[t], reduction[t-1] * r). Divided by r^t that is a running maximum, which is one
        # vector operation and, unlike a sum, does not depend on where the signal is cut. Time is counted within
        # cells so that r^-t stays small.
        self._up = np.exp(step * np.arange(_CELL))
        self._down = np.exp(-step * np.arange(_CELL))
        self._fall = float(np.exp(-step))
        self._work = np.zeros(_CELL, np.float64)
        self._magnitude = np.zeros(_CELL, np.float32)
        self._other = np.zeros(_CELL, np.float32)
        self._gain = np.zeros(_CELL, np.float32)
        self.reset()

    def reset(self) -> None:
        """Back to unity gain."""
        self._at = 0
        self._scaled = 0.0

    def process(self, audio: NDArray[np.float32]) -> None:
        """Limit ``audio`` [C, T] in place; all channels get the same gain."""
        done = 0
        while done < audio.shape[1]:
            n = min(_CELL - self._at, audio.shape[1] - done)
            self._piece(audio[:, done : done + n])
            done += n

    def _piece(self, audio: NDArray[np.float32]) -> None:
        n, at = audio.shape[1], self._at
        work, magnitude, other, gain = self._work[:n], self._magnitude[:n], self._other[:n], self._gain[:n]
        np.abs(audio[0], out=magnitude)
        for channel in audio[1:]:
            np.abs(channel, out=other)
            np.maximum(magnitude, other, out=magnitude)
        np.maximum(magnitude, np.float32(CEILING), out=magnitude)
        np.copyto(work, magnitude)
        np.divide(CEILING, work, out=work)
        np.subtract(1.0, work, out=work)
        np.multiply(work, self._up[at : at + n], out=work)
        work[0] = max(work[0], self._scaled)
        np.maximum.accumulate(work, out=work)
        self._scaled = float(work[-1])
        self._at = at + n
        np.multiply(work, self._down[at : at + n], out=work)
        if self._at == _CELL:
            self._at, self._scaled = 0, float(work[-1]) * self._fall
        np.subtract(1.0, work, out=work)
        np.copyto(gain, work, casting="same_kind")
        for channel in audio:  # one by one: broadcasting would go through a temporary
            np.multiply(channel, gain, out=channel)
            np.clip(channel, -CEILING, CEILING, out=channel)  # the last bit that rounding may have added
