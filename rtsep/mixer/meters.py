"""Levels after the faders, in one flat array that may lie in shared memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError


class Meters:
    """Peak and RMS of every stem after its fader and of the master output.

    Peaks rise at once and fall by 20 dB a second; RMS is a mean of squares over about 300 ms.

    Parameters
    ----------
    stems : sequence of str
    values : array [Meters.size(len(stems))] of float64, optional
        Memory to live in; a new array of zeros when left out.

    Attributes
    ----------
    peak, rms : arrays [S]
        Factors of full scale (0 and up), after gain, pan, mute and solo.
    values : array [2 S + 3]
        All of it.
    """

    def __init__(self, stems: Sequence[str], values: NDArray[np.float64] | None = None) -> None:
        self.stems = tuple(stems)
        count = len(self.stems)
        if values is None:
            values = np.zeros(self.size(count), np.float64)
        if values.shape != (self.size(count),) or values.dtype != np.float64:
            raise UsageError(
                f"The meters of {count} stems need {self.size(count)} float64 values, "
                f"got shape {values.shape} of {values.dtype}."
            )
        self.values = values
        self.peak = values[:count]
        self.rms = values[count : 2 * count]

    @staticmethod
    def size(stem_count: int) -> int:
        """Number of float64 values the meters of so many stems take."""
        return 2 * stem_count + 3

    @property
    def master_peak(self) -> float:
        """Peak of the output, factor of full scale."""
        return float(self.values[-3])

    @property
    def master_rms(self) -> float:
        """RMS of the output, factor of full scale."""
        return float(self.values[-2])

    @property
    def clipped(self) -> int:
        """Samples of the output beyond full scale since the start or `Mixer.reset`."""
        return int(self.values[-1])

    def copy(self) -> Meters:
        """Return a snapshot that does not change any more."""
        return Meters(self.stems, self.values.copy())
