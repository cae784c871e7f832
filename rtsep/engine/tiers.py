"""A busy machine gets a cheaper model, and the better one back when there is room again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtsep.engine.stats import percentile_ms
from rtsep.errors import RtsepError

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine

WINDOW_S = 1.0
TOO_MUCH, ROOM = 0.8, 0.5
"""Load above which a cheaper model is wanted, and the better one's, as expected, below which that is."""
_TWICE = 2  # windows that have to agree: one bad second is no trend
_LATE = 3
_PATIENCE, _LONGEST_PATIENCE = 10, 300  # windows
_RELAPSE = 30  # windows after going up within which coming down means it was too early


class TierPolicy:
    """When to go down a ladder of models, and when up.

    Down after two windows with a load above `TOO_MUCH` or three late hops. Up after ten in which the better model,
    judged by what both cost, would have had a load below `ROOM`; twice as many after each time that was too early.

    Parameters
    ----------
    costs : sequence of float
        What each model needs of a hop, in any unit, the best model first.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        self._costs = list(costs)
        self.at = 0
        self._busy = self._roomy = 0
        self._patience, self._since_up = _PATIENCE, _RELAPSE

    def decide(self, load: float, late: int) -> int:
        """Take a window's load (95th percentile of the hop time over the hop's duration) and late hops.

        Returns
        -------
        int
            -1 to go up, 1 to go down, 0 to stay. Call `moved` when it was done.
        """
        self._since_up += 1
        self._busy = self._busy + 1 if load > TOO_MUCH or late >= _LATE else 0
        expected = load * self._costs[self.at - 1] / self._costs[self.at] if self.at else 1.0
        self._roomy = self._roomy + 1 if expected < ROOM and not late else 0
        if self._busy >= _TWICE and self.at + 1 < len(self._costs):
            return 1
        return -1 if self.at and self._roomy >= self._patience else 0

    def moved(self, step: int) -> None:
        """The model was changed."""
        if step > 0 and self._since_up < _RELAPSE:
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
        if step < 0:
            self._since_up = 0
        self.at += step
        self._busy = self._roomy = 0


class TierKeeper:
    """Changes the model of a running engine as `TierPolicy` says, on a thread of its own; context manager.

    Parameters
    ----------
    engine : Engine
        Started, with the first model.
    models : sequence of str
        The best first; all with the same stems.
    costs : sequence of float
        See `TierPolicy`.
    tell : callable
        Gets a sentence for the person after each change, and when one was not possible.
    """

    def __init__(
        self, engine: Engine, models: Sequence[str], costs: Sequence[float], tell: Callable[[str], None]
    ) -> None:
        self._engine, self._models, self._tell = engine, list(models), tell
        self.policy = TierPolicy(costs)
        self._path: Path | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tiers", daemon=True)

    def __enter__(self) -> TierKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10.0)

    def _watch(self) -> None:
        seen, late_before = self._engine.hop_histogram(), self._engine.stats().late_hops
        self._path = self._engine.model_path
        while not self._stop.wait(WINDOW_S) and self._engine.running:
            if self._engine.model_path != self._path:
                return  # a person has chosen another one
            histogram, stats = self._engine.hop_histogram(), self._engine.stats()
            period_ms = stats.hop_times.period_ms
            fresh = histogram - seen
            seen, late, late_before = histogram, stats.late_hops - late_before, stats.late_hops
            if not fresh.sum() or not period_ms or fresh.min() < 0:
                continue
            load = percentile_ms(fresh, 95.0) / period_ms
            step = self.policy.decide(load, late)
            if step and not self._engine.tapped and not self._stop.is_set():  # a take keeps its model
                self._change(step, load, late)
                seen, late_before = self._engine.hop_histogram(), self._engine.stats().late_hops

    def _change(self, step: int, load: float, late: int) -> None:
        model = self._models[self.policy.at + step]
        try:
            self._engine.change_model(model)
        except RtsepError as error:
            self._tell(str(error))
            return
        self.policy.moved(step)
        self._path = self._engine.model_path
        ms = self._engine.latency().total_ms
        if step > 0:
            self._tell(f"The machine is busy (load {100 * load:.0f} %, {late} late): on with {model}, {ms:.1f} ms.")
        else:
            self._tell(f"There is room again: back to {model}, {ms:.1f} ms.")
