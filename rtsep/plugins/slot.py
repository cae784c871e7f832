"""One place in a chain: a plugin, its bypass, and what happens when it fails."""

from __future__ import annotations

import collections
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.delay import DryDelay, Recent
from rtsep.plugins.loader import LoadedPlugin

Audio = NDArray[np.float32]

BYPASS_FADE_MS = 10.0
SWAP_FADE_MS = 20.0
"""Of one chain into another, and of the sound that a new plugin hears first."""
BAD_HOPS = 3
"""Blocks in a row with NaN or infinity after which a plugin is left out for good."""
SLOW_HOPS = 4
"""Likewise for blocks that took longer than the budget."""
_HUGE = 1e30  # a sum of squares beyond it is as good as infinite


class Abandoned(Exception):
    """The thread was given up while a plugin held it; another one has taken over."""


class Slot:
    """Runs a plugin with its bypass, and leaves it out when it fails.

    Parameters
    ----------
    plugin : LoadedPlugin
    channels, samplerate, block : int
        `block` is the longest block.
    bypass : bool
        Of the start.
    budget_s : float, optional
        Longest time a block may take; 4 blocks in a row beyond it end the plugin. None: as long as it likes (offline).

    Attributes
    ----------
    latency_samples : int
        Holds while bypassed or failed, too: a bypass moves nothing in time.
    active : bool
        False while `process` gives the input itself, delayed, bit for bit.
    fault : str or None
        Why the plugin is left out for good.
    nonfinite_blocks, slow_blocks : int
        Since the start.
    entered_ns : int
        `time.monotonic_ns` of when the plugin got the block it is working on; 0 while it works on none.

    Notes
    -----
    `process` and `reset` are for one thread; everything else may be used from another one, too. A bypassed plugin
    keeps computing, so that switching it on again costs nothing new and sounds as if it had never been off; a failed
    one does not.
    """

    def __init__(
        self,
        plugin: LoadedPlugin,
        channels: int,
        samplerate: int,
        block: int,
        *,
        bypass: bool = False,
        budget_s: float | None = None,
    ) -> None:
        self.plugin, self.label = plugin, plugin.spec.label
        self.latency_samples = plugin.latency_samples
        self.on = not bypass
        self.fault: str | None = None
        self.abandoned = False
        self.nonfinite_blocks = self.slow_blocks = 0
        self.entered_ns = 0
        self.place: tuple[NDArray[np.int64], int] | None = None
        """Array of one, and what it holds while the plugin works: in shared memory it tells who ended the process."""
        self._pending: collections.deque[tuple[Any, ...]] = collections.deque()
        self._budget_ns = None if budget_s is None else int(1e9 * budget_s)
        self._bad = self._slow = 0
        self._delay = DryDelay(channels, self.latency_samples, block)
        self._dry: Audio = np.zeros((channels, block), np.float32)
        self._out: Audio = np.zeros((channels, block), np.float32)
        self._line: Audio = np.zeros(block, np.float32)
        fade = max(1, round(BYPASS_FADE_MS * samplerate / 1000.0))
        self._fade = fade
        self._steps: Audio = np.arange(1, block + 1, dtype=np.float32)
        self._decay: Audio = (1.0 - np.arange(1, fade + 1) / fade).astype(np.float32)
        self._level = 1.0 if self.on else 0.0
        self._last_dry: Audio = np.zeros(channels, np.float32)
        self._last_out: Audio = np.zeros(channels, np.float32)
        self._offset: Audio = np.zeros(channels, np.float32)
        self._decayed = fade
        self.past = Recent((channels,), past_samples(samplerate, block))
        """What it gave last, for a plugin that comes after it."""

    @property
    def active(self) -> bool:
        """See the class."""
        return self._level > 0.0 or (self.on and self.fault is None) or self._decayed < self._fade

    def post(self, prepared: tuple[Any, ...]) -> None:
        """Set what `LoadedPlugin.prepare` returned, before the next block; from any thread."""
        self._pending.append(prepared)

    def fail(self, why: str) -> None:
        """Leave the plugin out from the next block on; from any thread. The first reason stays."""
        self.fault = self.fault or why

    def reset(self) -> None:
        """Forget all past sound."""
        self._delay.reset()
        self._last_dry.fill(0.0)
        self._last_out.fill(0.0)
        self._decayed = self._fade
        self._level = 1.0 if self.on and self.fault is None else 0.0
        self._bad = self._slow = 0
        self.past.reset()
        if self.fault is None:
            self.plugin.reset()

    def process(self, audio: Audio) -> Audio:
        """Return ``audio`` [C, n] processed, [C, n], valid until the next call; `audio` itself where nothing changes.

        Raises
        ------
        Abandoned
            The slot was given up while its plugin worked.
        """
        n = audio.shape[1]
        dry = audio
        if self.latency_samples:
            dry = self._dry[:, :n]
            self._delay.process(audio, dry)
        wet = self._run(audio) if self.fault is None else None
        if wet is None:
            out = self._without(dry)
        else:
            out = self._blend(dry, wet)
        np.copyto(self._last_dry, dry[:, -1])
        np.copyto(self._last_out, out[:, -1])
        self.past.put(out)
        return out

    def _run(self, audio: Audio) -> Audio | None:
        """Return what the plugin makes of it; None when that cannot be used."""
        began = self.entered_ns = time.monotonic_ns()
        place = self.place
        if place is not None:
            place[0][0] = place[1]
        try:
            while self._pending:
                self.plugin.apply(self._pending.popleft())
            wet = self.plugin.process(audio)
            if wet.shape != audio.shape:
                raise RuntimeError(f"gave {list(wet.shape)} for {list(audio.shape)}")
            with np.errstate(all="ignore"):
                usable = _sum_of_squares(wet) < _HUGE
        except Exception as error:  # whatever a plugin does, the audio goes on
            self.fail(f"raised {type(error).__name__}: {error}")
            usable = False
        if self.abandoned:
            raise Abandoned(self.label)
        self.entered_ns = 0
        if place is not None:
            place[0][0] = 0
        took = time.monotonic_ns() - began
        if self._budget_ns is not None and took > self._budget_ns:
            self.slow_blocks += 1
            self._slow += 1
            if self._slow >= SLOW_HOPS:
                self.fail(
                    f"too slow: {took / 1e6:.1f} ms a hop, {SLOW_HOPS} hops in a row; "
                    f"{self._budget_ns / 1e6:.1f} ms are allowed"
                )
        else:
            self._slow = 0
        if self.fault is not None:
            return None
        if usable:
            self._bad = 0
            return wet
        self.nonfinite_blocks += 1
        self._bad += 1
        if self._bad >= BAD_HOPS:
            self.fail(f"gave NaN or infinity {BAD_HOPS} hops in a row")
        else:
            self.plugin.reset()  # what is in its memory stays NaN otherwise
        return None

    def _without(self, dry: Audio) -> Audio:
        """The input, with the step from the last sample to it decaying: nothing jumps."""
        if self._level > 0.0:
            self._level = 0.0
            np.subtract(self._last_out, self._last_dry, out=self._offset)
            self._decayed = 0
        if self._decayed >= self._fade:
            return dry
        out = self._out[:, : dry.shape[1]]
        np.copyto(out, dry)
        self._add_offset(out)
        return out

    def _blend(self, dry: Audio, wet: Audio) -> Audio:
        n = dry.shape[1]
        target = 1.0 if self.on else 0.0
        if self._level == target and self._decayed >= self._fade:
            return wet if target else dry
        out = self._out[:, :n]
        line = self._line[:n]
        step = 1.0 / self._fade if target > self._level else -1.0 / self._fade
        np.multiply(self._steps[:n], np.float32(step), out=line)
        line += np.float32(self._level)
        (np.minimum if step > 0 else np.maximum)(line, np.float32(target), out=line)
        self._level = float(line[-1])
        np.subtract(wet, dry, out=out)
        for channel in out:
            np.multiply(channel, line, out=channel)
        np.add(out, dry, out=out)
        if self._decayed < self._fade:
            self._add_offset(out)
        return out

    def _add_offset(self, out: Audio) -> None:
        n = min(out.shape[1], self._fade - self._decayed)
        decay, line = self._decay[self._decayed : self._decayed + n], self._line[:n]
        for c, channel in enumerate(out):
            np.multiply(decay, self._offset[c], out=line)
            channel[:n] += line
        self._decayed += n


def _sum_of_squares(audio: Audio) -> float:
    """NaN and infinity in a block make this one NaN or infinite: one pass, no memory."""
    total = 0.0
    for channel in audio:
        total += float(np.dot(channel, channel))
    return total if not math.isnan(total) else math.inf


def past_samples(samplerate: int, block: int) -> int:
    """Return how much of the past a new plugin hears first: a swap's fade, in whole blocks."""
    return -(-round(SWAP_FADE_MS * samplerate / 1000.0) // block) * block


class Chain:
    """Slots one after the other.

    Two chains may begin with the same slots; where both play, for a cross-fade, those work once.

    Attributes
    ----------
    latency_samples : int
        Sum of all slots'.
    active : bool
        False while `process` gives the input itself, delayed, bit for bit.
    """

    def __init__(self, slots: list[Slot]) -> None:
        self.slots = slots
        self.latency_samples = sum(slot.latency_samples for slot in slots)
        self.active = False
        self._outs: list[Audio | None] = [None] * len(slots)
        self._actives = [False] * len(slots)

    def process(
        self, audio: Audio, after: Chain | None = None, rise: Audio | None = None, memory: Audio | None = None
    ) -> Audio:
        """Return ``audio`` [C, n] after all slots, [C, n], valid until the next call.

        `after` has already processed this block: the slots that both begin with are not run again. With `rise` [n] the
        sound for the others is multiplied by it, in `memory` [C, n].
        """
        active = False
        for index, slot in enumerate(self.slots):
            if after is not None and index < len(after.slots) and after.slots[index] is slot:
                out = after._outs[index]
                assert out is not None
                audio, active = out, after._actives[index]
            else:
                after = None
                if rise is not None and memory is not None:
                    for risen, channel in zip(memory, audio, strict=True):
                        np.multiply(channel, rise, out=risen)
                    audio, rise = memory, None
                before = slot.active
                audio = slot.process(audio)
                active = active or before or slot.active
            self._outs[index], self._actives[index] = audio, active
        self.active = active
        return audio

    def fresh(self, after: Chain | None) -> list[Slot]:
        """Return the slots that `after` does not begin with, too."""
        shared = 0
        for slot, playing in zip(self.slots, after.slots if after is not None else (), strict=False):
            if slot is not playing:
                break
            shared += 1
        return self.slots[shared:]

    def warm_up(self, after: Chain | None, past: Recent, rise: Audio, memory: Audio) -> None:
        """Let the slots that are `fresh` hear the last moment, before the next block.

        Parameters
        ----------
        after : Chain or None
            What plays, up to this moment.
        past : Recent
            What the chain is for, up to this moment; of the length of `rise`.
        rise : array [n]
            What that is multiplied by, in whole blocks.
        memory : array [C, block]
        """
        fresh, block = self.fresh(after), memory.shape[1]
        shared = len(self.slots) - len(fresh)
        if shared:
            past = self.slots[shared - 1].past
        for start in range(0, len(rise), block):
            past.take(start, memory)
            for channel in memory:
                np.multiply(channel, rise[start : start + block], out=channel)
            audio = memory
            for slot in fresh:
                audio = slot.process(audio)

    def reset(self) -> None:
        """Forget all past sound."""
        for slot in self.slots:
            slot.reset()
