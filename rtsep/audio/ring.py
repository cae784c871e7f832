"""Single-reader, single-writer ring of frames for threads of one process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


class FrameRing:
    """Ring of interleaved float32 frames with 64-bit counters that never wrap in practice.

    One thread writes, one reads; each only advances its own counter, after the copy, so no lock is needed. Real-time
    safe after construction.

    Parameters
    ----------
    frames : int
        Capacity, 1 or more.
    channels : int
        1 or more.
    """

    def __init__(self, frames: int, channels: int) -> None:
        self._data = np.zeros((frames, channels), np.float32)
        self._capacity = frames
        self.written = 0
        self.consumed = 0

    @property
    def fill(self) -> int:
        """Frames waiting to be read."""
        return self.written - self.consumed

    @property
    def space(self) -> int:
        """Frames that can be written."""
        return self._capacity - self.fill

    def write(self, frames: Audio) -> int:
        """Write as much of ``frames`` [T, channels] as fits; return how many frames that was."""
        count = min(len(frames), self.space)
        start = self.written % self._capacity
        first = min(count, self._capacity - start)
        self._data[start : start + first] = frames[:first]
        if count > first:
            self._data[: count - first] = frames[first:count]
        self.written += count
        return count

    def read(self, frames: Audio) -> int:
        """Read into ``frames`` [T, channels] what there is; return how many frames that was."""
        count = min(len(frames), self.fill)
        start = self.consumed % self._capacity
        first = min(count, self._capacity - start)
        frames[:first] = self._data[start : start + first]
        if count > first:
            frames[first:count] = self._data[: count - first]
        self.consumed += count
        return count

    def clear(self) -> None:
        """Forget everything; only while neither side is in use."""
        self.written = 0
        self.consumed = 0
