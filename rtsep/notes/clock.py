"""When a device frame was captured, in the machine's time."""

from __future__ import annotations

import math


class CaptureClock:
    """Estimate of ``monotonic seconds - frame / samplerate`` from observations that can only be late.

    Whoever looks sees a frame some time after it was captured, never before: the smallest difference of the last
    seconds is the best, and it is the same for every note, so that the distance of notes is kept to well below the
    noise of the observations. Old observations are forgotten, since the clocks of device and machine drift.

    Parameters
    ----------
    samplerate : int
        Of the device, in hertz.
    memory_s : float
        For how long an observation counts; above 0.
    """

    _BUCKETS = 8

    def __init__(self, samplerate: int, memory_s: float = 8.0) -> None:
        self.samplerate = samplerate
        self._bucket_s = memory_s / self._BUCKETS
        self._smallest: list[float] = []  # by bucket, the newest last
        self._began = -math.inf

    def observe(self, frame: int, now_s: float) -> None:
        """At `now_s` (monotonic seconds) all frames before `frame` had been captured."""
        difference = now_s - frame / self.samplerate
        if now_s - self._began >= self._bucket_s:
            self._smallest = [*self._smallest[1 - self._BUCKETS :], difference]
            self._began = now_s
        else:
            self._smallest[-1] = min(self._smallest[-1], difference)

    def time_of(self, frame: float) -> float:
        """Monotonic seconds at which a frame was captured; before the first observation an error (ValueError)."""
        if not self._smallest:
            raise ValueError("The clock was never observed.")
        return min(self._smallest) + frame / self.samplerate
