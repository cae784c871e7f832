"""When a frame of a running engine's device was captured, on this process's clock."""

from __future__ import annotations

import time

from rtsep.engine import Engine


class DeviceClock:
    """Time of the device's frames, from the engine's count of captured frames.

    The count is looked at late, never early, so that the earliest of many looks is right: within the time that a look
    takes, about 0.2 ms. For the clocked backends, whose clock is the machine's.

    Parameters
    ----------
    engine : Engine
        Started; on the `file` or the `dummy` backend.
    seconds : float
        For how long to look.
    """

    def __init__(self, engine: Engine, seconds: float = 1.0) -> None:
        rate = engine.samplerate
        last, end, first = engine.position_samples, time.monotonic() + seconds, float("inf")
        while time.monotonic() < end:
            count = engine.position_samples
            if count != last:
                first, last = min(first, time.monotonic() - count / rate), count
            time.sleep(0.0001)
        if first == float("inf"):
            raise RuntimeError(f"the device captured nothing within {seconds} s")
        self._zero, self._rate = first, rate

    def captured_s(self, frame: float) -> float:
        """Return when a frame of the input was captured, on `time.monotonic`."""
        return self._zero + frame / self._rate

    def played_s(self, frame: float, block: int) -> float:
        """Return when a frame of the output is played: its block goes out when as much is captured."""
        return self._zero + (frame + block) / self._rate
