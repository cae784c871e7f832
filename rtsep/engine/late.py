"""What a late hop coincided with: written by the worker, kept for the last ones, in shared memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.engine.realtime import thread_usage

KEPT = 32
FIELDS = ("number", "at", "begun_late_us", "took_us", "usual_us", "cpu_us", "faults", "period_us")
_LEAK = 0.01
_SOON_PERIODS = 8


@dataclass(frozen=True)
class LateHop:
    """One late hop.

    Attributes
    ----------
    number : int
        Counts late hops, from 1.
    at : int
        Device frame that its last sample was captured at.
    begun_late_ms : float
        How much later than usual it was begun: its input came late from the device, or the worker took it late.
    took_ms, usual_ms : float
        To compute it; and what hops take usually.
    cpu_ms : float
        Processor time of that. What a virtual machine's host takes away counts as processor time.
    page_faults : int
        While it was computed.
    period_ms : float
    after_others : bool
        Another one had just been late.
    """

    number: int
    at: int
    begun_late_ms: float
    took_ms: float
    usual_ms: float
    cpu_ms: float
    page_faults: int
    period_ms: float
    after_others: bool = False

    @property
    def why(self) -> str:
        """What it coincided with, for a person."""
        over_ms, away_ms = self.took_ms - self.usual_ms, self.took_ms - self.cpu_ms
        if over_ms > 0.25 * self.period_ms and over_ms > 0.5 * self.begun_late_ms:
            if away_ms > 0.5 * over_ms:
                return f"its thread had to wait for {away_ms:.1f} ms"
            faults = f", with {self.page_faults} page faults" if self.page_faults else ""
            return f"took {self.took_ms:.1f} ms to compute, usually {self.usual_ms:.1f}{faults}"
        if self.begun_late_ms > 0.25 * self.period_ms:
            return f"was begun {self.begun_late_ms:.1f} ms late{', after others' if self.after_others else ''}"
        return "follows others" if self.after_others else "nothing else was slow"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--stats`` writes."""
        return {**asdict(self), "why": self.why}


class HopWatch:
    """Watches the hops of a worker.

    Parameters
    ----------
    records : array of int64 [KEPT, len(FIELDS)]
        Gets the late ones.
    samplerate : int
        Of the device.

    Notes
    -----
    For the worker's thread. Real-time safe: two system calls a hop.
    """

    def __init__(self, records: NDArray[np.int64], samplerate: int) -> None:
        self._records, self._rate = records, samplerate
        self._number = 0
        self._offset_us: float | None = None
        self._usual_us = 0.0
        self._end = 0
        self._before = (0, 0)
        self._begun_late_us = self._took_us = self._period_us = 0.0
        self._used = (0, 0)

    def begin(self, end: int, period_s: float) -> None:
        """A hop is about to be computed, whose last sample was captured as frame `end`."""
        self._end, self._period_us = end, 1e6 * period_s
        offset_us = time.monotonic_ns() / 1000 - 1e6 * end / self._rate
        if self._offset_us is None or offset_us < self._offset_us:
            self._offset_us = offset_us
        self._begun_late_us = offset_us - self._offset_us
        # What a device loses shifts its clock for good.
        self._offset_us += min(_LEAK * self._period_us, self._begun_late_us)
        self._before = thread_usage()

    def end(self, took_ns: int) -> None:
        """It was computed."""
        cpu_us, faults = thread_usage()
        self._used = (cpu_us - self._before[0], faults - self._before[1])
        self._took_us = took_ns / 1000
        usual = self._usual_us or self._took_us
        self._usual_us = usual + _LEAK * (min(self._took_us, 2 * usual) - usual)

    def late(self) -> None:
        """It came too late."""
        record = self._records[self._number % KEPT]
        self._number += 1
        record[0] = 0  # whoever reads it now leaves it out
        record[1], record[2], record[3] = self._end, int(self._begun_late_us), int(self._took_us)
        record[4], record[5], record[6] = int(self._usual_us), *self._used
        record[7] = int(self._period_us)
        record[0] = self._number


def late_hops_from(records: NDArray[np.int64], samplerate: int) -> list[LateHop]:
    """Return the late hops that are kept, the oldest first."""
    rows = sorted(row for row in records.tolist() if row[0] > 0)
    found: list[LateHop] = []
    for number, at, begun_late, took, usual, cpu, faults, period in rows:
        soon = _SOON_PERIODS * period * samplerate / 1e6
        after = bool(found) and found[-1].number == number - 1 and at - found[-1].at < soon
        times = (begun_late / 1000, took / 1000, usual / 1000, cpu / 1000)
        found.append(LateHop(number, at, *times, faults, period / 1000, after))
    return found
