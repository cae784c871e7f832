"""Write figures: facts of the machine, percentiles, histograms, rounds. `rtsep.figures` has the form and reads it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtsep.cli.common import machine, versions
from rtsep.figures import Figure, Run, to_line
from tests.support.stalls import MachineStalls, StallWatch

ROOT = Path(__file__).resolve().parents[1]
BINS = 48
"""Bins of a histogram, in equal steps of the logarithm."""


def percentiles(samples: ArrayLike) -> dict[str, float]:
    """Return ``p50 p95 p99 p99.9 max count`` of samples, with four digits."""
    array = np.asarray(samples, float)
    found = np.percentile(array, (50, 95, 99, 99.9, 100))
    names = ("p50", "p95", "p99", "p99.9", "max")
    return {**{name: digits(value) for name, value in zip(names, found, strict=True)}, "count": array.size}


def histogram(samples: ArrayLike) -> dict[str, list[float]] | None:
    """Return ``edges`` and ``counts`` over equal steps of the logarithm; None for samples that are alike or 0."""
    array = np.asarray(samples, float)
    low, high = float(array.min()), float(array.max())
    if low <= 0 or high / low < 1.0001:
        return None
    counts, edges = np.histogram(array, np.geomspace(low * 0.9999, high * 1.0001, BINS + 1))
    return {"edges": [digits(edge, 6) for edge in edges], "counts": [int(count) for count in counts]}


def engine_histogram(counts: NDArray[np.int64]) -> dict[str, list[float]] | None:
    """As `histogram`, in milliseconds, of what `rtsep.engine.Engine.hop_histogram` gives."""
    from rtsep.engine.stats import BINS_PER_OCTAVE

    there = np.flatnonzero(counts)
    if not len(there):
        return None
    first, last = int(there[0]), int(there[-1]) + 1
    step = max(1, -(-(last - first) // BINS))
    edges = np.arange(first, last + step, step)
    sums = [int(counts[a:b].sum()) for a, b in pairwise(edges)]
    return {"edges": [digits(2.0 ** (edge / BINS_PER_OCTAVE) / 1000, 6) for edge in edges], "counts": sums}


def digits(value: float, count: int = 5) -> float:
    """Round to significant digits, so that files stay small."""
    return float(f"{float(value):.{count}g}")


def realtime_allowed() -> bool:
    """Return whether the system grants real-time priority to this user."""
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-c", "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(60))"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def facts_of_machine() -> dict[str, Any]:
    """Return what a reader needs to judge figures."""
    memory = None
    with contextlib.suppress(OSError, ValueError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {**machine(), "kernel": os.uname().release, "memory_gib": memory, "realtime": realtime_allowed()}


def commit() -> str:
    """Return the commit of the checkout, with a ``+`` when files differ from it; "unknown" outside of one."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "rtsep", "models", "benchmarks/*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Recorder:
    """Appends figures to a file, each as soon as it is measured, and says so on stderr.

    Parameters
    ----------
    path : path
        Made anew.
    seed : int
        What all random audio and times come from.
    command : str
        What a reader runs to measure the same.

    Attributes
    ----------
    minutes : float
        How long each kind of load lasts where deadlines alone are measured.
    loads : tuple of str
        The kinds of load of the deadlines; empty: as many as the depth says.
    """

    def __init__(self, path: str | Path, seed: int = 0, command: str = "") -> None:
        self.path, self.seed = Path(path), seed
        self.minutes, self.loads = 1.0, tuple[str, ...]()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.run = Run(
            run=uuid.uuid4().hex[:8],
            commit=commit(),
            machine=facts_of_machine(),
            versions={**versions(), "numpy": np.__version__},
            seed=seed,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
        )
        self.path.write_text(to_line(self.run) + "\n", encoding="utf-8")
        self.figures: list[Figure] = []
        self._watch: StallWatch | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count the machine's stalls meanwhile; figures put inside carry them."""
        self._watch = StallWatch()
        try:
            yield
        finally:
            self._watch.close()
            self._watch = None

    def stalls(self, began: float) -> MachineStalls:
        """Return the stalls since a `time.monotonic`; none outside of `watching`."""
        late = self._watch.since(began) if self._watch else []
        return MachineStalls(len(late), 1e3 * max(late, default=0.0))

    def put(
        self,
        benchmark: str,
        figure: str,
        value: float | None,
        unit: str,
        *,
        better: str = "lower",
        parameters: Mapping[str, Any] | None = None,
        rounds: Sequence[float] = (),
        samples: ArrayLike | None = None,
        percentiles_: Mapping[str, float] | None = None,
        histogram_: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        note: str = "",
        began: float | None = None,
    ) -> Figure:
        """Write one figure.

        Parameters
        ----------
        benchmark, figure, value, unit, better, parameters, rounds, facts, note
            As in `rtsep.figures.Figure`.
        samples : array, optional
            Of which percentiles and a histogram are kept.
        percentiles_, histogram_ : mapping, optional
            The same, where the samples themselves are not there.
        began : float, optional
            `time.monotonic` when it began, for the stalls of the machine.
        """
        more = dict(facts or {})
        if began is not None:
            stalls = self.stalls(began)
            more |= {"stalls": stalls.count, "longest_stall_ms": digits(stalls.longest_ms, 3)}
            more["seconds"] = digits(time.monotonic() - began, 3)
        more["load"] = round(os.getloadavg()[0], 2)
        entry = Figure(
            run=self.run.run,
            benchmark=benchmark,
            figure=figure,
            parameters=dict(parameters or {}),
            unit=unit,
            better=better,
            value=None if value is None else digits(value),
            rounds=[digits(number) for number in rounds],
            percentiles=percentiles(samples) if samples is not None else percentiles_ and dict(percentiles_),
            histogram=histogram(samples) if samples is not None else histogram_ and dict(histogram_),
            facts=more,
            note=note,
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_line(entry) + "\n")
        self.figures.append(entry)
        said = "not measured: " + note if value is None else f"{entry.value:g} {unit}"
        where = ", ".join(f"{key} {val}" for key, val in entry.parameters.items())
        print(f"  {benchmark}: {figure}: {said}  ({where})", file=sys.stderr, flush=True)
        return entry

    def missing(self, benchmark: str, figure: str, why: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Write down that something was not measured, and why."""
        self.put(benchmark, figure, None, "", better="neither", parameters=parameters, note=why)
