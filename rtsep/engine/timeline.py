"""The absolute timeline: which sample is played when, whatever happened before.

Position `p` is the device frame number: frame `p` of the input is captured in the callback that plays frame `p` of the
output. Output sample `j` of the chain belongs at position ``j + queue``; the sound in it was captured at
``j - content``. Both numbers come from `rtsep.latency.LatencyPlan` and never change while the device's block stays.

What is written to the output ring goes out in order, so its position is known once the ring's start is: `captured`
minus `consumed` is constant from arming to the next shortage. After a shortage the ring starts anew at a measured
position, and exactly the samples that belong there follow; what came too late is dropped. Latency after a stall is what
it was before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends.base import Backend
from rtsep.engine.fallback import Fallback
from rtsep.engine.recorder import Recorder
from rtsep.engine.stats import INDEX
from rtsep.latency import LatencyPlan

Audio = NDArray[np.float32]

_CHUNK = 1024
_FADE_S = 0.005
_NONE, _FROM_FALLBACK, _FROM_SILENCE = 0, 1, 2


class Timeline:
    """Input history, output queue, alignment and fallback of one engine.

    Parameters
    ----------
    backend : Backend
    channels : int
        Of the model.
    plan : LatencyPlan
    hop : int
        Device samples of a hop, rounded up.
    counters : array of int64
        Shared statistics, see `rtsep.engine.stats`.
    recorder : Recorder, optional
        Gets every frame by position.

    Notes
    -----
    Not locked: worker and filler hold the engine's one lock around every call. Real-time safe after construction.
    """

    def __init__(
        self,
        backend: Backend,
        channels: int,
        plan: LatencyPlan,
        hop: int,
        counters: NDArray[np.int64],
        recorder: Recorder | None = None,
    ) -> None:
        self.backend, self.channels, self.hop = backend, channels, hop
        self.queue, self.content = plan.queue_samples, plan.content_samples
        self._counters, self._recorder = counters, recorder
        rate = backend.samplerate
        size = 4 * rate + 2 * (self.queue + self.content) + 4 * hop
        self._history: Audio = np.zeros((channels, size), np.float32)
        self._model: Audio = np.zeros((channels, 2 * (self.queue + hop) + rate), np.float32)
        self._in: Audio = np.zeros((_CHUNK, backend.input_channels), np.float32)
        self._out: Audio = np.zeros((_CHUNK, backend.output_channels), np.float32)
        self._finite = np.zeros((_CHUNK, backend.input_channels), np.bool_)
        self._mix: Audio = np.zeros((channels, _CHUNK), np.float32)
        self._dry: Audio = np.zeros((channels, _CHUNK), np.float32)
        self._ramp_part: Audio = np.zeros(_CHUNK, np.float32)
        fade = max(1, round(_FADE_S * rate))
        self._ramp: Audio = (np.arange(1, fade + 1) / (fade + 1)).astype(np.float32)
        self.fallback = Fallback(channels, rate, hop, fade)
        self.ingested = 0  # input frames in the history
        self.base = 0  # position of the first sample of hop 0 since the last restart
        self.model_from = self.model_to = 0  # positions for which model output is there
        self.silence_until = 0  # before this position the output is silence because nothing was captured yet
        self.write_at = 0  # position of the next frame to go into the output ring
        self.aligned = False
        self.epoch = 0
        self._last: Audio = np.zeros(channels, np.float32)
        self._source_is_model = True
        self._fade_kind, self._fade_at = _NONE, fade
        self._seen_captured, self._seen_offset = -1, 0
        self.ended_at: int | None = None
        self.nonfinite_input = 0

    # --- start --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Arm output for the first time; with a preset clock this is before the device starts."""
        if self.backend.preset_clock:
            self.backend.arm_output(0)
            self._align(0)
            self._pump()
        else:
            self._arm()

    def _arm(self) -> None:
        # Long enough to read the clock twice before it is used up.
        self.backend.arm_output(2 * self.backend.block + self.backend.samplerate // 200)
        self.aligned = False
        self._seen_captured = -1

    def _measure(self) -> None:
        """Find captured - consumed; two equal readings from different callbacks, as one may fall into a callback."""
        backend = self.backend
        consumed = backend.consumed
        captured = backend.captured
        if consumed == 0 or captured == self._seen_captured or backend.consumed != consumed:
            return
        offset = captured - consumed
        if self._seen_captured >= 0 and offset == self._seen_offset:
            self._align(offset)
        self._seen_captured, self._seen_offset = captured, offset

    def _align(self, offset: int) -> None:
        first = self.epoch == 0
        starts_at = offset + self.backend.consumed + self.backend.output_fill
        if first:
            self.base = self.boundary(max(offset, starts_at - self.queue, 0))
            self.silence_until = self.base + self.queue
            self.model_from = self.model_to = self.silence_until
            self._record_silence(starts_at)
            self.backend.begin_at(self.base)
        else:
            self._count("silent_samples", max(0, starts_at - self.write_at))
            self._record_silence(starts_at - self.write_at)
            self._last[:] = 0.0
            self._source_is_model = False
            self._fade_kind, self._fade_at = _FROM_SILENCE, 0
            self.fallback.begin_from_silence()
        self.write_at = starts_at
        self.epoch += 1
        self.aligned = True
        self._counters[INDEX["clock_offset"]] = offset

    def boundary(self, position: int) -> int:
        """Return the next boundary between the device's blocks from `position` on.

        The latency counts on hops that begin there: any other hop waits longer for the block its last sample is in,
        and its time to compute is shorter by as much.
        """
        captured, block = self.backend.captured, self.backend.block
        return captured - (captured - position) // block * block

    # --- input --------------------------------------------------------------------------------------------------------

    def ingest(self) -> None:
        """Move all captured frames into the history."""
        backend = self.backend
        if not backend.input_active:
            # Seconds were lost. The clock goes on, the gap reads as silence.
            backend.rearm_input()
            self._count("input_overruns", 1)
            self._history[:] = 0.0
            self.ingested = backend.captured
        size = self._history.shape[1]
        while (waiting := backend.readable) > 0:
            block = self._in[: min(waiting, _CHUNK)]
            count = backend.read(block)
            if count == 0:
                return
            np.isfinite(block, out=self._finite[: len(block)])
            if not self._finite[: len(block)].all():
                self.nonfinite_input += 1
                np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            start = self.ingested % size
            first = min(count, size - start)
            self._store(block[:first], start)
            if count > first:
                self._store(block[first:count], 0)
            self.ingested += count

    def _store(self, frames: Audio, start: int) -> None:
        target = self._history[:, start : start + len(frames)]
        if frames.shape[1] == self.channels or frames.shape[1] == 1:
            target[:] = frames.T
        else:
            np.mean(frames, axis=1, out=target[0])

    def take(self, start: int, out: Audio) -> None:
        """Copy the history from position `start` on into ``out`` [C, n]; silence before the beginning."""
        count = out.shape[1]
        if start < 0:
            silent = min(count, -start)
            out[:, :silent] = 0.0
            out, start, count = out[:, silent:], 0, count - silent
        size = self._history.shape[1]
        at = start % size
        first = min(count, size - at)
        out[:, :first] = self._history[:, at : at + first]
        if count > first:
            out[:, first:] = self._history[:, : count - first]

    # --- output -------------------------------------------------------------------------------------------------------

    def restart(self, base: int) -> None:
        """Go on with hop 0 at input position `base`; what the chain cannot know yet is covered by the fallback."""
        self.base = base
        self.model_from = self.model_to = max(base + self.queue + self.content, self.model_to)
        self._pump()

    def requeue(self, queue: int, given: int) -> None:
        """Change the latency while running: what follows hop output sample `given` is played `queue` after capture."""
        self._pump()
        self.queue = queue
        self.model_from = self.model_to = self.base + queue + given
        self._pump()

    def publish(self, given: int, audio: Audio, usable: bool = True) -> bool:
        """Take ``audio`` [C, n], the chain's output from sample `given` after the restart on.

        Parameters
        ----------
        usable : bool
            False for a hop in which the model failed: its positions go to the fallback.

        Returns
        -------
        bool
            Whether all of it came in time.
        """
        count = audio.shape[1]
        start = self.base + self.queue + given
        due = self.write_at if self.aligned else self.backend.captured
        late = self.model_from <= start < due
        if not usable:
            self.model_from = self.model_to = start + count
            self._pump()
            return not late
        self._keep(start, audio)
        return not late

    def put(self, start: int, audio: Audio) -> bool:
        """Take ``audio`` [C, n] for position `start`, the end of what was taken before; False when that is over."""
        in_time = not self.model_from <= start < self.write_at
        self._keep(start, audio)
        self._pump()
        return in_time

    def go_over(self, base: int, plan: LatencyPlan, hop: int, start: int, audio: Audio) -> None:
        """Go on with another chain, whose hop 0 was at input position `base`.

        Parameters
        ----------
        plan : LatencyPlan
        hop : int
            Of the other chain, as at the construction.
        start : int
            Position of ``audio`` [C, n]: the end of the first chain's output, and the other's since then.
        """
        self._keep(start, audio)
        self.base, self.hop, self.fallback.hop = base, hop, hop
        self.queue, self.content = plan.queue_samples, plan.content_samples
        self._pump()

    def _keep(self, start: int, audio: Audio) -> None:
        """Put model output into its place, short of what is before `model_from`."""
        skip = max(0, self.model_from - start)
        rest = audio.shape[1] - skip
        if rest <= 0:
            return
        size = self._model.shape[1]
        at = (start + skip) % size
        first = min(rest, size - at)
        self._model[:, at : at + first] = audio[:, skip : skip + first]
        self._model[:, : rest - first] = audio[:, skip + first :]
        self.model_to = start + audio.shape[1]

    def service(self) -> None:
        """Find the clock after arming, arm again after a shortage, and write what is known into the output ring."""
        backend = self.backend
        if not backend.output_active and not backend.finished:
            if self.aligned:
                self._count("ring_underruns", 1)
                self._counters[INDEX["ring_fill_min"]] = 0
            if self.epoch:
                self._count("rearms", 1)
            self._arm()
        if not self.aligned:
            self._measure()
        if self.aligned:
            self._pump()
        if self._recorder is not None:
            self._recorder.heard = backend.captured
        self._counters[INDEX["position"]] = backend.captured

    def cover(self, frames: int) -> None:
        """Write at least `frames` more frames: of the model where there are some, else of the fallback."""
        if not self.aligned:
            return
        until = self.write_at + frames
        self._pump()
        while self.write_at < until:
            wanted = until - self.write_at
            if self.model_from > self.write_at:
                wanted = min(wanted, self.model_from - self.write_at)
            if not self._emit_fallback(wanted):
                return
            self._pump()

    def _pump(self) -> None:
        while self.aligned:
            at = self.write_at
            if at < self.silence_until:
                done = self._emit_silence(self.silence_until - at)
            elif at < self.model_from:
                done = self._emit_fallback(self.model_from - at)
            elif at < self.model_to:
                done = self._emit_model(self.model_to - at)
            else:
                return
            if not done:
                return

    def _room(self, wanted: int) -> int:
        return min(wanted, _CHUNK, self.backend.output_space)

    def _emit_silence(self, wanted: int) -> bool:
        count = self._room(wanted)
        self._mix[:, :count] = 0.0
        return self._send(count)

    def _emit_model(self, wanted: int) -> bool:
        count = self._room(wanted)
        mix = self._mix[:, :count]
        size = self._model.shape[1]
        at = self.write_at % size
        first = min(count, size - at)
        mix[:, :first] = self._model[:, at : at + first]
        if count > first:
            mix[:, first:] = self._model[:, : count - first]
        if not self._source_is_model:
            self._source_is_model = True
            if self._fade_kind != _FROM_SILENCE or self._fade_at >= len(self._ramp):
                self._fade_kind, self._fade_at = _FROM_FALLBACK, 0
        fading = min(count, len(self._ramp) - self._fade_at)
        if fading > 0:
            ramp = self._ramp[self._fade_at : self._fade_at + fading]
            if self._fade_kind == _FROM_SILENCE:
                mix[:, :fading] *= ramp
            else:
                # model + (fallback - model) * (1 - ramp): exact where the two are equal
                old = self._dry[:, :fading]
                self.take(self.write_at - self.queue - self.content, old)
                self.fallback.shape(old)
                old -= mix[:, :fading]
                part = self._ramp_part[:fading]
                np.subtract(1.0, ramp, out=part)
                old *= part
                mix[:, :fading] += old
            self._fade_at += fading
        return self._send(count)

    def _emit_fallback(self, wanted: int) -> bool:
        # Short of what the model still has to be told apart from, and never beyond what was captured.
        captured = self.ingested + self.queue + self.content - self.write_at
        count = self._room(min(wanted, captured))
        if count <= 0:
            return False
        mix = self._mix[:, :count]
        dry_at = self.write_at - self.queue - self.content
        self.take(dry_at, mix)
        if self._source_is_model:
            self._source_is_model = False
            self._fade_kind, self._fade_at = _NONE, len(self._ramp)
            before = self._dry[:, :1]
            self.take(dry_at - 1, before)
            self.fallback.begin(before[:, 0], self._last)
        rung_two = self.fallback.shape(mix)
        fading = min(count, len(self._ramp) - self._fade_at)
        if fading > 0:
            mix[:, :fading] *= self._ramp[self._fade_at : self._fade_at + fading]
            self._fade_at += fading
        name = "fallback_dry" if rung_two else "fallback_hold"
        self._count(f"{name}_samples", count)
        if self.fallback.hop_begun:
            self._count(f"{name}_hops", self.fallback.hop_begun)
        return self._send(count)

    def _send(self, count: int) -> bool:
        if count <= 0:
            return False
        mix = self._mix[:, :count]
        self._last[:] = mix[:, -1]
        frames = self._out[:count]
        if frames.shape[1] == self.channels or self.channels == 1:
            frames[:] = mix.T
        elif frames.shape[1] == 1:
            np.mean(mix, axis=0, out=frames[:, 0])
        else:
            frames[:] = 0.0
            both = min(frames.shape[1], self.channels)
            frames[:, :both] = mix[:both].T
        written = self.backend.write(frames)
        if self._recorder is not None:
            self._recorder.put(frames[:written])
        self.write_at += written
        return written == count

    def _record_silence(self, count: int) -> None:
        if self._recorder is None:
            return
        self._out[:] = 0.0
        while count > 0:
            part = min(count, _CHUNK)
            self._recorder.put(self._out[:part])
            count -= part

    def _count(self, name: str, amount: int) -> None:
        self._counters[INDEX[name]] += amount
