"""Another model takes over while the engine plays: warmed up on what was just heard, then cross-faded.

The new model hears the last `WARM_S` seconds again, on a thread of its own, until it has caught up with the input; from
there on the worker computes both. From a hop boundary of the old one on, position `at`, what is published is a fade
from one to the other, as far as both have come; after `FADE_S` the new one goes on alone. Every sample of either stands
where its own latency puts it: the fade also takes the sound from the one delay to the other.
"""

from __future__ import annotations

import math
import threading
import time

import numpy as np
from numpy.typing import NDArray

from rtsep.engine.runner import ChainRunner
from rtsep.engine.timeline import Timeline
from rtsep.errors import EngineError
from rtsep.latency import LatencyPlan

Audio = NDArray[np.float32]

WARM_S = 1.0
FADE_S = 0.03
_WITHIN_S = 10.0  # a machine that cannot warm a model up in this time cannot run it either


class Handover:
    """From one runner to another.

    Parameters
    ----------
    runner : ChainRunner
        The new one, freshly reset, for the rate and channels of the device as the old one.
    plan : LatencyPlan
        Of the new one.

    Attributes
    ----------
    failed : EngineError or None
        Why it cannot take place.
    done : threading.Event
        Set when the new runner plays alone, or never will (then `failed` says so).
    """

    def __init__(self, runner: ChainRunner, plan: LatencyPlan) -> None:
        self.runner, self.plan = runner, plan
        self.done = threading.Event()
        self.failed: EngineError | None = None
        self.at: int | None = None
        self._fade = max(1, round(FADE_S * runner.samplerate))
        room = 2 * (plan.queue_samples + runner.hop_device + self._fade) + runner.samplerate
        self._fresh: Audio = np.zeros((runner.channels, room), np.float32)  # a ring: position modulo its size
        self._kept: Audio = np.zeros((runner.channels, self._fade), np.float32)
        self._rise: Audio = (np.arange(1, self._fade + 1) / (self._fade + 1)).astype(np.float32)
        self._kept_to = self._fresh_to = self._mixed_to = self._base = 0
        self._hop: Audio = np.zeros((runner.channels, runner.hop_device + 1), np.float32)

    # --- before it: any thread but the worker -------------------------------------------------------------------------

    def warm_up(self, timeline: Timeline, ingested: int, block: int) -> bool:
        """Let the new model hear what was just heard, until it has caught up; False when that takes too long.

        `ingested` is a moment's `Timeline.ingested`, between blocks: hops that begin anywhere else would have to wait
        longer for their last block than the latency allows for.
        """
        began = time.monotonic()
        self._base = ingested - math.ceil(WARM_S * self.runner.samplerate / block) * block
        while self.missing(timeline) <= 0:
            stepped = time.monotonic()
            if stepped - began > _WITHIN_S:
                self.fail(f"the new model did not catch up within {_WITHIN_S:.0f} s")
                return False
            self.step(timeline)
            time.sleep(0.25 * (time.monotonic() - stepped))  # a share of the interpreter is the worker's
        return True

    def fail(self, why: str) -> None:
        """Give it up; the old model plays on."""
        self.failed = EngineError(f"The model stays what it is: {why}. See: rtsep bench")
        self.done.set()

    # --- during it: the worker ----------------------------------------------------------------------------------------

    def missing(self, timeline: Timeline) -> int:
        """Return how many input samples the next hop of the new model still waits for; 0 or less for none."""
        return self._base + self.runner.taken + self.runner.needed - timeline.ingested

    def step(self, timeline: Timeline) -> None:
        """Compute the next hop of the new model. Real-time safe, as the runner is."""
        runner = self.runner
        hop = self._hop[:, : runner.needed]
        timeline.take(self._base + runner.taken, hop)
        start = self._base + self.plan.queue_samples + runner.given
        out = runner.run(hop)
        size = self._fresh.shape[1]
        first = min(out.shape[1], size - start % size)
        self._fresh[:, start % size : start % size + first] = out[:, :first]
        self._fresh[:, : out.shape[1] - first] = out[:, first:]
        self._fresh_to = start + out.shape[1]

    def begin(self, position: int) -> None:
        """From `position` on the old model's output comes here, see `keep`."""
        self.at = self._kept_to = self._mixed_to = position

    def keep(self, audio: Audio) -> None:
        """Take the old model's output, in order from `at` on."""
        assert self.at is not None
        have = self._kept_to - self.at
        count = min(audio.shape[1], self._fade - have)
        self._kept[:, have : have + count] = audio[:, :count]
        self._kept_to += count

    @property
    def kept_all(self) -> bool:
        """The old model is not needed any more."""
        return self.at is not None and self._kept_to - self.at >= self._fade

    def advance(self, timeline: Timeline) -> tuple[bool, bool]:
        """Publish what both models have computed of the fade, and at its end what the new one has beyond it.

        Returns
        -------
        over, in_time : bool
            Whether `timeline` is the new model's from here on; whether what was published came in time.
        """
        if self.at is None:
            return False, True
        to, in_time = min(self._kept_to, self._fresh_to), True
        if to > self._mixed_to:
            part = slice(self._mixed_to - self.at, to - self.at)
            audio = self._stretch(self._mixed_to, to)
            audio += (self._kept[:, part] - audio) * (1.0 - self._rise[part])
            in_time = timeline.put(self._mixed_to, audio)
            self._mixed_to = to
        if self._mixed_to - self.at < self._fade:
            return False, in_time
        beyond = self._stretch(self._mixed_to, self._fresh_to)
        timeline.go_over(self._base, self.plan, self.runner.hop_device, self._mixed_to, beyond)
        return True, in_time

    def cut(self, timeline: Timeline) -> None:
        """Go over without a fade: the old model is not there in time. What is missing is covered by the fallback."""
        start = max(self._fresh_to, timeline.model_to)
        timeline.model_from = timeline.model_to = start
        timeline.go_over(self._base, self.plan, self.runner.hop_device, start, self._fresh[:, :0])

    def _stretch(self, start: int, end: int) -> Audio:
        audio: Audio = self._fresh[:, np.arange(start, end) % self._fresh.shape[1]]
        return audio
