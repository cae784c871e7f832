"""The two real-time threads: the worker computes hops, the filler keeps the output ring from running dry."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends.base import Backend
from rtsep.engine.config import EngineConfig
from rtsep.engine.handover import Handover
from rtsep.engine.late import HopWatch
from rtsep.engine.realtime import FILLER_PRIORITY, WORKER_PRIORITY, OverloadGuard, make_thread_realtime
from rtsep.engine.recorder import Recorder
from rtsep.engine.runner import ChainRunner
from rtsep.engine.stats import INDEX, bin_of
from rtsep.engine.timeline import Timeline
from rtsep.latency import LatencyPlan
from rtsep.notes.tap import Tap
from rtsep.plugins.slot import Abandoned

Audio = NDArray[np.float32]

_GUARD_S = 0.0005
_MAX_IDLE_S = 0.02
_HANDOVER_S = 5.0
# The filler steps in this long before a shortage (at most an eighth of the slack), and writes as much more than needed.
_MARGIN_S = 0.002
# A callback may come somewhat early after a late one, so it is expected after this part of the period.
_CALLBACK_AFTER = 0.7
_INTACT_DB = -3.0


@dataclass
class Injection:
    """Faults on demand, for tests: seconds that a thread will sleep at its next step, with the lock free."""

    worker_s: float = 0.0
    filler_s: float = 0.0


@dataclass
class Failure:
    """The first exception of a real-time thread."""

    error: BaseException | None = None
    happened: threading.Event = field(default_factory=threading.Event)

    def set(self, error: BaseException) -> None:
        """Keep `error` when it is the first."""
        if self.error is None:
            self.error = error
        self.happened.set()


class Worker:
    """Moves audio from the device through the chain and back, on time or with a substitute.

    Parameters
    ----------
    backend : Backend
        Started by `start`.
    runner : ChainRunner
    config : EngineConfig
    counters, histogram : arrays of int64
        Shared statistics.
    recorder : Recorder, optional
    tap : Tap, optional
        See the attribute.
    late : array of int64, optional
        Gets what late hops coincided with, as `rtsep.engine.late.HopWatch`.

    Notes
    -----
    Worker and filler share one lock, held for copies only, never while the model computes. Neither prints, logs, nor
    allocates big arrays.
    """

    def __init__(
        self,
        backend: Backend,
        runner: ChainRunner,
        config: EngineConfig,
        counters: NDArray[np.int64],
        histogram: NDArray[np.int64],
        recorder: Recorder | None = None,
        tap: Tap | None = None,
        late: NDArray[np.int64] | None = None,
    ) -> None:
        self.backend, self.runner, self._config = backend, runner, config
        self._counters, self._histogram, self._recorder = counters, histogram, recorder
        self.tap = tap
        """Gets the stems and the mix of every hop; the main thread may put another one, or None, in its place."""
        self.injection, self.failure = Injection(), Failure()
        self.plan: LatencyPlan | None = None
        self.timeline: Timeline | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._reset_asked = threading.Event()
        self._planned_block = 0
        self.latency_changed = threading.Event()
        self._watch = None if late is None else HopWatch(late, backend.samplerate)
        self._guard = OverloadGuard(runner.period_s, WORKER_PRIORITY)
        self._ahead = round(_MARGIN_S * backend.samplerate)
        self._margin = 0
        self._handover: Handover | None = None
        self._others_turn = False
        self._fit()
        self._seen_captured, self._callback_after, self._looked_at = -1, 0.0, 0.0
        self._threads = [threading.Thread(target=self._work, name="worker", daemon=True)]
        if backend.paced:
            self._threads.append(threading.Thread(target=self._fill, name="filler", daemon=True))

    def _fit(self) -> None:
        """Take the sizes of the runner."""
        runner = self.runner
        self._hop: Audio = np.zeros((runner.channels, runner.hop_device + 1), np.float32)
        self._behind = max(round(self._config.reset_after_s * self.backend.samplerate), 4 * runner.hop_device)
        self._slack = self._config.slack_hops * runner.hop_device

    def start(self) -> None:
        """Start the device and both threads. Raises DeviceError."""
        if self.backend.preset_clock:
            self._set_timeline()
            self.backend.start()
        else:
            self.backend.start()
            self._set_timeline()
        for thread in self._threads:
            thread.start()

    def plan_of(self, runner: ChainRunner) -> LatencyPlan:
        """Return the latency of a runner behind this device."""
        backend = self.backend
        return runner.plan(
            block=backend.block,
            block_varies=backend.block_varies,
            slack_hops=self._config.slack_hops,
            device_in=backend.device_in,
            device_out=backend.device_out,
        )

    def _make_plan(self) -> LatencyPlan:
        self._planned_block = self.backend.block
        self.plan = self.plan_of(self.runner)
        self._set_margin()
        return self.plan

    def _set_margin(self) -> None:
        # On time means: `slack` frames are left after a callback. The margin must not make that look like a shortage.
        self._margin = max(0, min(self._ahead, self._slack // 8, self._slack - self._planned_block))

    def _set_timeline(self) -> None:
        backend = self.backend
        self.plan = self._make_plan()
        timeline = Timeline(
            backend, self.runner.channels, self.plan, self.runner.hop_device, self._counters, self._recorder
        )
        if self._recorder is not None and self._config.record_captured:
            self._recorder.skip = self.plan.report.stream_samples
        self._counters[INDEX["block"]] = backend.block
        self._counters[INDEX["hop_period_ns"]] = round(self.runner.period_s * 1e9)
        self._counters[INDEX["ring_fill_min"]] = self.plan.queue_samples
        backend.expect_tail(self.plan.report.total_samples)
        timeline.begin()
        self.timeline = timeline

    def replace_thread(self) -> None:
        """Go on without the thread that a plugin holds, which ends as soon as the plugin lets go of it."""
        thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._threads[0] = thread
        self._reset_asked.set()
        thread.start()

    def ask_reset(self) -> None:
        """Start the model anew at the next hop; from any thread."""
        self._reset_asked.set()

    def hand_over(self, runner: ChainRunner) -> Handover:
        """Let another runner take the place of this one while it plays; waits for it. Any thread but the worker's.

        Raises
        ------
        EngineError
            It cannot be, and everything stays as it was.
        """
        assert self.timeline is not None
        handover = Handover(runner, self.plan_of(runner))
        with self._lock:
            self.timeline.ingest()
            ingested = self.timeline.ingested
        if handover.warm_up(self.timeline, ingested, self._planned_block):
            self._handover = handover
            if not handover.done.wait(_HANDOVER_S):
                with self._lock:
                    if not handover.done.is_set():
                        handover.fail(f"it was not done within {_HANDOVER_S:.0f} s")
                until = time.monotonic() + _HANDOVER_S
                while self._handover is handover and time.monotonic() < until:
                    time.sleep(0.01)  # the worker may be in the middle of its hop
        if handover.failed is not None:
            raise handover.failed
        return handover

    def stop(self, timeout: float) -> bool:
        """End both threads (the device runs on); False when one did not end in time."""
        self._stop.set()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # --- worker -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            if self._config.realtime and self.backend.paced:
                self._guard.start()
            self._counters[INDEX["realtime"]] = int(self._guard.realtime)
            while not self._stop.is_set():
                self._step()
        except Abandoned:
            return  # another thread has taken over
        except BaseException as error:
            self.failure.set(error)

    def _step(self) -> None:
        timeline, backend, runner = self.timeline, self.backend, self.runner
        assert timeline is not None
        if self.injection.worker_s:
            seconds, self.injection.worker_s = self.injection.worker_s, 0.0
            self._stop.wait(seconds)
        with self._lock:
            timeline.ingest()
            timeline.service()
            aligned_once = timeline.epoch > 0
            if backend.block > self._planned_block:
                self._follow_block(timeline)
            start = timeline.base + runner.taken
            seam, backend.seam = backend.seam, None
            if seam is not None and start + runner.needed <= seam:
                seam, backend.seam = None, seam  # not yet
            missing = start + runner.needed - timeline.ingested
            behind = timeline.ingested - start
            waits = missing
            if self._handover is not None and self._handover.failed is not None:
                self._handover = None
            handover = self._handover
            fresh = 0 if handover is None else handover.missing(timeline)
            if handover is not None:
                if handover.kept_all:
                    missing, behind = 1, 0  # the old model has done its part
                    waits = fresh
                else:
                    waits = min(missing, fresh)
        if not aligned_once:
            backend.wait(1, 0.0005)
            return
        if seam is not None:
            self._restart(timeline.boundary(seam))
            return
        if self._reset_asked.is_set() or (behind > self._behind and backend.paced):
            self._restart(start if behind <= self._behind else timeline.ingested)
            return
        if handover is not None and fresh <= 0 and (missing > 0 or self._others_turn):
            self._others_turn = False
            self._step_over(timeline, handover)
            return
        self._others_turn = True
        if missing > 0:
            rate, block = backend.samplerate, self._planned_block
            # Sleep until the last block can be there, then look a few times per block.
            nap = max((waits - block) / rate, min(max(block / rate / 8, 0.0003), 0.001))
            backend.wait(runner.needed, min(nap, _MAX_IDLE_S))
            return
        hop = self._hop[:, : runner.needed]
        timeline.take(start, hop)
        given, number, taken_ns = runner.given, runner.hops, time.monotonic_ns()
        if self._watch is not None:
            self._watch.begin(start + runner.needed, runner.period_s)
        began = time.perf_counter_ns()
        out = runner.run(hop)
        took = time.perf_counter_ns() - began
        if self._watch is not None:
            self._watch.end(took)
        with self._lock:
            if runner.content_samples != timeline.content:
                self._follow_plugins(timeline)
            timeline.ingest()
            fill = backend.output_fill if timeline.aligned else -1
            self._tell_fallback(timeline)
            if handover is not None and handover.at is not None:
                handover.keep(out)
                in_time = self._go_over(timeline, handover)
            else:
                in_time = timeline.publish(given, out, not runner.last_hop_failed)
            timeline.service()
        if (tap := self.tap) is not None:
            chain, epoch = runner.chain, int(self._counters[INDEX["model_resets"]])
            audible = chain.mixer.settings.audible()
            mix_at = timeline.base + given - runner.content_samples
            notes = tap.put(epoch, number, timeline.base, taken_ns, audible, chain.stems, out, mix_at)
            own = chain.session.notes
            if own is not None:
                for kind, target in zip(("onset", "frame", "velocity"), notes, strict=True):
                    np.copyto(target, own[kind])
            tap.publish()
        self._account(took, in_time, fill)
        self._guard.after_hop()
        self._counters[INDEX["realtime"]] = int(self._guard.realtime)

    def _step_over(self, timeline: Timeline, handover: Handover) -> None:
        """Compute a hop of the model that takes over."""
        handover.step(timeline)
        with self._lock:
            timeline.ingest()
            timeline.service()
            if handover.at is None and handover.missing(timeline) > 0:
                handover.begin(timeline.base + timeline.queue + self.runner.given)
                # What is queued runs down to what the new model needs.
                self._slack = min(self._slack, self._config.slack_hops * handover.runner.hop_device)
                self._set_margin()
            if not self._go_over(timeline, handover):
                self._counters[INDEX["late_hops"]] += 1

    def _go_over(self, timeline: Timeline, handover: Handover) -> bool:
        """Publish what there is of the fade; at its end the other runner is ours. Return whether it came in time."""
        if handover.failed is not None:
            return True
        over, in_time = handover.advance(timeline)
        if over:
            self._follow(handover)
        return in_time

    def _follow(self, handover: Handover) -> None:
        """The other runner is ours from here on."""
        self.runner, self.plan, self._handover = handover.runner, handover.plan, None
        self.backend.expect_tail(handover.plan.report.total_samples)
        self._fit()
        self._set_margin()
        self._guard.set_period(self.runner.period_s)
        self._histogram[:] = 0
        self._counters[INDEX["hop_max_ns"]] = 0
        self._counters[INDEX["hop_period_ns"]] = round(self.runner.period_s * 1e9)
        self._counters[INDEX["latency_changes"]] += 1
        handover.done.set()

    def _follow_block(self, timeline: Timeline) -> None:
        """The device's block grew while it runs (jack_bufsize does that): the old latency cannot be kept."""
        if self._handover is not None:
            self._handover.fail("the device changed its block size meanwhile")
            self._handover = None
        timeline.requeue(self._make_plan().queue_samples, self.runner.given)
        self._counters[INDEX["latency_changes"]] += 1
        self._counters[INDEX["block"]] = self._planned_block
        self.latency_changed.set()

    def _follow_plugins(self, timeline: Timeline) -> None:
        """The plugins' latency changed: the chain cross-fades to it, the queue stays as it is."""
        timeline.content = self.runner.content_samples
        backend = self.backend
        self.plan = self.plan_of(self.runner)
        backend.expect_tail(self.plan.report.total_samples)
        self._counters[INDEX["latency_changes"]] += 1
        self.latency_changed.set()

    def _restart(self, base: int) -> None:
        timeline = self.timeline
        assert timeline is not None
        self._reset_asked.clear()
        with self._lock:
            if self._handover is not None:  # it is warm: better than this one, which would begin with nothing
                self._handover.cut(timeline)
                self._follow(self._handover)
                return
        self.runner.reset()
        with self._lock:
            if self.runner.content_samples != timeline.content:
                self._follow_plugins(timeline)
            timeline.restart(base)
        self._counters[INDEX["model_resets"]] += 1

    def _tell_fallback(self, timeline: Timeline) -> None:
        fallback, settings = timeline.fallback, self.runner.chain.mixer.settings
        np.copyto(fallback.hold, self.runner.hold)
        if settings.bypass:
            fallback.intact_gain = 1.0
        elif settings.mute.any() or settings.solo.any() or settings.gain_db.min() < _INTACT_DB:
            fallback.intact_gain = None
        else:
            fallback.intact_gain = min(1.0, 10.0 ** (settings.master_db / 20.0))

    def _account(self, took: int, in_time: bool, fill: int) -> None:
        counters = self._counters
        counters[INDEX["hops"]] += 1
        counters[INDEX["hop_last_ns"]] = took
        if took > counters[INDEX["hop_max_ns"]]:
            counters[INDEX["hop_max_ns"]] = took
        self._histogram[bin_of(took)] += 1
        if not in_time:
            counters[INDEX["late_hops"]] += 1
            if self._watch is not None:
                self._watch.late()
        if self.runner.last_hop_failed:
            counters[INDEX["nonfinite_hops"]] += 1
        if fill >= 0:
            counters[INDEX["ring_fill"]] = fill
            if fill < counters[INDEX["ring_fill_min"]]:
                counters[INDEX["ring_fill_min"]] = fill

    # --- filler -------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        try:
            if self._config.realtime:
                make_thread_realtime(FILLER_PRIORITY)
            while not self._stop.is_set():
                if self.injection.filler_s:
                    seconds, self.injection.filler_s = self.injection.filler_s, 0.0
                    self._stop.wait(seconds)
                time.sleep(self._look())
        except BaseException as error:
            self.failure.set(error)

    def _look(self) -> float:
        """Cover a coming shortage; return the seconds until looking again.

        With `fill` frames queued the next ``fill // block`` callbacks are safe. Their phase is unknown; at worst the
        first one is due now, so the first unsafe one comes ``(fill // block) * block`` from now.
        """
        timeline, backend = self.timeline, self.backend
        assert timeline is not None
        with self._lock:
            timeline.ingest()
            timeline.service()
            if not timeline.aligned:
                return 0.0005
            block = max(backend.block, self._planned_block)
            period = block / backend.samplerate
            now = time.monotonic()
            if backend.captured != self._seen_captured:
                self._seen_captured, self._callback_after = backend.captured, self._looked_at
            self._looked_at = now
            fill = backend.output_fill
            if fill < block + self._margin and not backend.finished:
                # The callbacks that what is queued lasts for are still to come; the model gets that time too.
                left = self._callback_after + (fill // block + _CALLBACK_AFTER) * period - _GUARD_S - now
                left -= self._margin / backend.samplerate
                if left > 0.0:
                    return min(max(left, 0.0002), period / 4)
                timeline.cover(2 * block + self._ahead - fill)
                fill = backend.output_fill
        if fill < 2 * block + self._margin:
            return max(period / 4, 0.0003)
        return min((fill - self._margin) // block * period - _GUARD_S, _MAX_IDLE_S)
