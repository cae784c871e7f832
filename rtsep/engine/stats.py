"""Statistics of a running engine, and how they cross the process border."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends.base import XrunCounts

# Histogram of hop times: 40 bins an octave (1.7 % wide) from 1 us, 24 octaves.
BINS_PER_OCTAVE = 40
BINS = 24 * BINS_PER_OCTAVE

COUNTERS = (
    "hops", "late_hops", "fallback_hold_hops", "fallback_dry_hops", "fallback_hold_samples", "fallback_dry_samples",
    "silent_samples", "ring_underruns", "rearms", "input_overruns", "model_resets", "nonfinite_hops",
    "input_underflow", "input_overflow", "output_underflow", "output_overflow",
    "ring_fill", "ring_fill_min", "position", "block", "hop_max_ns", "hop_last_ns", "hop_period_ns",
    "record_frames", "record_lost", "realtime", "memory_locked", "latency_changes", "clock_offset",
    "plugin_faults", "plugin_at", "plugin_asked", "song_us", "song_seeks", "song_late_samples",
)  # fmt: skip
INDEX = {name: index for index, name in enumerate(COUNTERS)}


def bin_of(nanoseconds: int) -> int:
    """Return the histogram bin of a time; out of range goes to the first or last."""
    if nanoseconds <= 1000:
        return 0
    return min(BINS - 1, int(BINS_PER_OCTAVE * math.log2(nanoseconds / 1000.0)))


def percentile_ms(histogram: NDArray[np.int64], percent: float) -> float:
    """Return the upper edge in milliseconds of the bin that holds this percentile; 0 for an empty histogram."""
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    rank = math.ceil(total * percent / 100.0)
    index = int(np.searchsorted(np.cumsum(histogram), max(rank, 1)))
    return float(2.0 ** ((index + 1) / BINS_PER_OCTAVE) / 1000.0)


@dataclass(frozen=True)
class HopTimes:
    """Time one hop took to compute, in milliseconds, over all hops since the start (resolution 1.7 %)."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0
    last_ms: float = 0.0
    period_ms: float = 0.0


@dataclass(frozen=True)
class EngineStats:
    """A moment's view of a running engine; counts since the start.

    Parameters
    ----------
    hops, late_hops : int
        Hops computed; of these, the ones of which some samples came after the moment they were needed.
    fallback_hold_hops, fallback_dry_hops : int
        Hops (begun) that the listener got from rung 1 (delayed input, last stem gains held) and rung 2 (delayed input).
    silent_samples : int
        Samples of silence because even the fallback was late.
    ring_underruns, rearms : int
        Times the output ring ran dry; times output was started again.
    input_overruns : int
        Times the input ring overflowed.
    model_resets : int
        Rung 3: the model started afresh after a long gap (or on demand).
    nonfinite_hops : int
        Hops in which the model gave NaN or infinity; replaced by fallback, model reset.
    xruns : XrunCounts
        What the device lost, by kind.
    ring_fill, ring_fill_min : int
        Output frames queued when the last hop arrived, and the least so far.
    hop_times : HopTimes
    load : float
        p50 of the hop time over the hop period: 1.0 is a core fully busy.
    position : int
        Captured frames: the device's clock.
    block : int
        Frames per device callback, the largest seen.
    record_frames, record_lost : int
        Frames in the recording; frames it lost because the disk was too slow.
    realtime, memory_locked : bool
        Whether the worker has real-time priority now (it is taken away from a model that needs a whole core), and
        whether memory is locked.
    latency_changes : int
        Times the device changed its block size so that the latency had to change.
    clock_offset : int
        Device frame at which the output ring's first sample of this arming was played.
    plugin_faults : int
        Plugins that were left out for good: NaN, too slow, hung.
    song_late_samples : int
        Silence in the place of a file as input, because the disk was too slow.
    """

    hops: int = 0
    late_hops: int = 0
    fallback_hold_hops: int = 0
    fallback_dry_hops: int = 0
    fallback_hold_samples: int = 0
    fallback_dry_samples: int = 0
    silent_samples: int = 0
    ring_underruns: int = 0
    rearms: int = 0
    input_overruns: int = 0
    model_resets: int = 0
    nonfinite_hops: int = 0
    xruns: XrunCounts = field(default_factory=XrunCounts)
    ring_fill: int = 0
    ring_fill_min: int = 0
    hop_times: HopTimes = field(default_factory=HopTimes)
    load: float = 0.0
    position: int = 0
    block: int = 0
    record_frames: int = 0
    record_lost: int = 0
    realtime: bool = False
    memory_locked: bool = False
    latency_changes: int = 0
    clock_offset: int = 0
    plugin_faults: int = 0
    song_late_samples: int = 0

    @property
    def fallback_hops(self) -> int:
        """Hops covered by any fallback."""
        return self.fallback_hold_hops + self.fallback_dry_hops

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


_PLAIN = tuple(
    name for name in COUNTERS if name in EngineStats.__dataclass_fields__ and name not in ("realtime", "memory_locked")
)


def stats_from(counters: NDArray[np.int64], histogram: NDArray[np.int64]) -> EngineStats:
    """Build `EngineStats` from shared memory (read once, not consistent between fields)."""
    values = {name: int(counters[INDEX[name]]) for name in COUNTERS}
    seen = histogram.copy()
    period = values["hop_period_ns"] / 1e6
    largest = values["hop_max_ns"] / 1e6
    p50, p95, p99, p999 = (min(percentile_ms(seen, p), largest) for p in (50.0, 95.0, 99.0, 99.9))
    return EngineStats(
        **{name: values[name] for name in _PLAIN},
        xruns=XrunCounts(*(values[k] for k in XrunCounts.__dataclass_fields__)),
        hop_times=HopTimes(p50, p95, p99, p999, largest, values["hop_last_ns"] / 1e6, period),
        load=p50 / period if period else 0.0,
        realtime=bool(values["realtime"]),
        memory_locked=bool(values["memory_locked"]),
    )
