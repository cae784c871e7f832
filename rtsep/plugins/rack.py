"""All chains at one point of the signal, changed while it plays: new ones are faded in, delays are evened out."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.delay import DryDelay, Recent
from rtsep.plugins.slot import SWAP_FADE_MS, Chain, past_samples

if TYPE_CHECKING:
    from rtsep.mixer.settings import MixerSettings

Audio = NDArray[np.float32]

LIVE_LIMIT_S = 0.1
"""Longest latency of the chains of all stems, and of the master's, in a running engine."""
WARM_UP = 0.2
"""Part of a block's time in which new plugins may hear what was before it; they take longer in the time to come."""


class _View:
    """One set of chains, and everything else delayed to go with the slowest of them."""

    def __init__(self, chains: Sequence[Chain | None], channels: int, block: int, unit: int) -> None:
        self.chains = tuple(chains)
        longest = max((chain.latency_samples for chain in self.chains if chain is not None), default=0)
        self.latency = -(-longest // unit) * unit
        self.dry: Audio | None = None
        self.processed: list[Audio | None] = [None] * len(self.chains)
        if not self.latency:
            return
        self._dry_line = DryDelay(channels, self.latency, block)
        self._dry_out: Audio = np.zeros((channels, block), np.float32)
        self._lines = [DryDelay(channels, self.latency, block) for _ in self.chains]
        self._stems_out: Audio = np.zeros((len(self.chains), channels, block), np.float32)
        self._rest = [
            None if chain is None else DryDelay(channels, self.latency - chain.latency_samples, block)
            for chain in self.chains
        ]
        self._rest_out: Audio = np.zeros((len(self.chains), channels, block), np.float32)

    def align(self, dry: Audio | None, stems: Audio, outs: Sequence[Audio | None]) -> None:
        """Set `dry`, `stems` and `processed` for one block; `outs` holds what the chains gave."""
        n = stems.shape[2]
        self.dry, self.stems = dry, stems
        if self.latency:
            if dry is not None:
                self.dry = self._dry_out[:, :n]
                self._dry_line.process(dry, self.dry)
            self.stems = self._stems_out[:, :, :n]
        for s, chain in enumerate(self.chains):
            if self.latency:
                self._lines[s].process(stems[s], self.stems[s])
            out = outs[s]
            if chain is not None and out is not None and self.latency:
                rest, line = self._rest_out[s, :, :n], self._rest[s]
                assert line is not None
                line.process(out, rest)
                out = rest
            # A chain that changes nothing is none at all: the mixer then computes what it would without it.
            self.processed[s] = out if chain is not None and chain.active else None

    def reset(self) -> None:
        if self.latency:
            self._dry_line.reset()
            for line in (*self._lines, *self._rest):
                if line is not None:
                    line.reset()


class Rack:
    """The chains of all stems, a block at a time.

    Parameters
    ----------
    count : int
        Stems.
    channels, samplerate, block : int
        `block` is the longest block.
    unit : int
        The common delay is a multiple of this many samples.

    Attributes
    ----------
    dry, stems : arrays [C, n], [S, C, n]
        What went into the last `process`, later by `latency_samples`.
    processed : list of array [C, n] or None
        What the chains made of each stem, in time with `dry` and `stems`; None where nothing changes it.
    latency_samples : int
        From the first block of a fade on that of the new chains.
    fading : bool
        A fade began or goes on in the last block.

    Notes
    -----
    `process` and `reset` are for the audio thread, `offer` and `collect` for one other. Nothing is locked: a set of
    chains is handed over by one assignment. The audio thread lets go of no chain, so that none is taken apart on it.
    """

    def __init__(self, count: int, channels: int, samplerate: int, block: int, unit: int = 1) -> None:
        self.count, self.channels, self.samplerate, self.block, self.unit = count, channels, samplerate, block, unit
        self._now = self._view([None] * count)
        self._next: _View | None = None
        self._offered: _View | None = None
        self._wanted = self._now
        self._retired: collections.deque[_View] = collections.deque()
        self._fade = max(1, round(SWAP_FADE_MS * samplerate / 1000.0))
        self._rise: Audio = (np.arange(1, self._fade + 1) / self._fade).astype(np.float32)
        self._before_fade = self._faded = self._risen = 0
        self.warm_up_s: float | None = None
        """Longest time of a block that may go into the past of new plugins; None for as long as it takes."""
        self._past = Recent((count, channels), past_samples(samplerate, block))
        self._past_rise: Audio = np.ones(self._past.samples, np.float32)
        self._past_rise[: self._fade] = self._rise
        self._past_block: Audio = np.zeros((channels, block), np.float32)
        self._outs: list[Audio | None] = [None] * count
        self._other_outs: list[Audio | None] = [None] * count
        self._line: Audio = np.zeros(block, np.float32)
        self._dry_mix: Audio = np.zeros((channels, block), np.float32)
        self._stems_mix: Audio = np.zeros((count, channels, block), np.float32)
        self._risen_mix: Audio = np.zeros((count, channels, block), np.float32)
        self._processed_mix: Audio = np.zeros((count, channels, block), np.float32)
        self.dry: Audio | None = None
        self.stems: Audio = np.zeros((count, channels, block), np.float32)
        self.processed: list[Audio | None] = [None] * count
        self.fading = False
        self.latency_samples = 0

    def _view(self, chains: Sequence[Chain | None]) -> _View:
        return _View(chains, self.channels, self.block, self.unit)

    @property
    def chains(self) -> tuple[Chain | None, ...]:
        """What plays, one a stem; while it is faded out the old one."""
        return self._now.chains

    @property
    def empty(self) -> bool:
        """No chain plays, none is to come, and nothing is delayed. Real-time safe."""
        return self._next is None and self._offered is None and not any(self._now.chains)

    # --- the other side -----------------------------------------------------------------------------------------------

    def offer(self, chains: Sequence[Chain | None], *, at_once: bool = False) -> None:
        """Play these chains (one a stem) from now on; those that play already go on, new ones are faded in.

        With `at_once`, before the first block, there is nothing to fade from.
        """
        self._wanted = self._view(chains)
        if at_once:
            self._now = self._wanted
            self.latency_samples = self._now.latency
        else:
            self._offered = self._wanted

    def collect(self) -> list[Chain]:
        """Return the chains that the audio thread is done with, to be dropped here."""
        kept = set(self._wanted.chains) | set(self._now.chains)
        for view in (self._next, self._offered):
            kept |= set(view.chains) if view is not None else set()
        gone: list[Chain] = []
        while self._retired:
            gone += [chain for chain in self._retired.popleft().chains if chain is not None and chain not in kept]
        return gone

    @property
    def settled(self) -> bool:
        """What was offered last is what plays."""
        return self._now is self._wanted

    # --- audio --------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget all past sound; a fade that goes on is over."""
        if self._offered is not None:
            self._next, self._offered = self._offered, None
        if self._next is not None:
            self._retired.append(self._now)
            self._now, self._next = self._next, None
        self.fading = False
        self.latency_samples = self._now.latency
        self._past.reset()
        self._now.reset()
        for chain in self._now.chains:
            if chain is not None:
                chain.reset()

    def process(self, dry: Audio | None, stems: Audio) -> None:
        """Take the next block, ``dry`` [C, n] and ``stems`` [S, C, n]; the results are in the attributes.

        Raises
        ------
        Abandoned
            As `Slot.process`.
        """
        if self._offered is not None and self._next is None:
            self._next, self._offered = self._offered, None
            self._faded = 0
            # What is new hears the music before it is heard, from a fade-in on and for as long as its delays are: a
            # reverb gives back every edge. What was just played is there at once; the rest is yet to come.
            self._before_fade = self._next.latency
            self._risen = self._fade if self._heard_the_past(self._next) else 0
            self._before_fade += self._fade - self._risen
        now, following = self._now, self._next
        for s, chain in enumerate(now.chains):
            self._outs[s] = None if chain is None else chain.process(stems[s])
        self._past.put(stems)
        now.align(dry, stems, self._outs)
        self.dry, self.stems = now.dry, now.stems
        for s, out in enumerate(now.processed):
            self.processed[s] = out
        self.fading = False
        if following is None:
            return
        n = stems.shape[2]
        rise = self._ramp(self._risen, n) if self._risen < self._fade else None
        self._risen += n
        for s, chain in enumerate(following.chains):
            if chain is not None and chain is now.chains[s]:
                self._other_outs[s] = self._outs[s]
            else:
                memory = self._risen_mix[s, :, :n]
                self._other_outs[s] = None if chain is None else chain.process(stems[s], now.chains[s], rise, memory)
        following.align(dry, stems, self._other_outs)
        if self._before_fade > 0:
            self._before_fade -= n
            return
        self._cross(now, following, n)

    def _heard_the_past(self, following: _View) -> bool:
        """Let what is new hear the last moment; False when that would take too long."""
        new = [
            (chain, before, self._past.part(s))
            for s, (chain, before) in enumerate(zip(following.chains, self._now.chains, strict=True))
            if chain is not None and chain is not before
        ]
        blocks = len(self._past_rise) // self.block
        cost_s = blocks * sum(slot.plugin.block_s for chain, before, _ in new for slot in chain.fresh(before))
        if self.warm_up_s is not None and cost_s > self.warm_up_s:
            return False
        for chain, before, past in new:
            chain.warm_up(before, past, self._past_rise, self._past_block)
        return True

    def _ramp(self, at: int, n: int) -> Audio:
        ramp = self._line[:n]
        left = min(n, self._fade - at)
        ramp[:left] = self._rise[at : at + left]
        ramp[left:] = 1.0
        return ramp

    def _cross(self, now: _View, following: _View, n: int) -> None:
        self.fading = True
        self.latency_samples = following.latency
        ramp = self._ramp(self._faded, n)
        if now.dry is not None and following.dry is not None:
            self.dry = _mixed(now.dry, following.dry, ramp, self._dry_mix[:, :n])
        if now.stems is not following.stems:
            self.stems = self._stems_mix[:, :, :n]
            for s in range(self.count):
                mixed = _mixed(now.stems[s], following.stems[s], ramp, self.stems[s])
                if mixed is not self.stems[s]:
                    np.copyto(self.stems[s], mixed)
        for s in range(self.count):
            old, new = now.processed[s], following.processed[s]
            if old is None and new is None:
                self.processed[s] = None
                continue
            old = now.stems[s] if old is None else old
            new = following.stems[s] if new is None else new
            self.processed[s] = _mixed(old, new, ramp, self._processed_mix[s, :, :n])
        self._faded += n
        if self._faded >= self._fade:
            self._retired.append(now)
            self._now, self._next = following, None


def _mixed(old: Audio, new: Audio, ramp: Audio, out: Audio) -> Audio:
    """Return ``old + (new - old) * ramp`` in `out`, or `new` itself where both are one."""
    if old is new:
        return new
    np.subtract(new, old, out=out)
    for channel in out:
        np.multiply(channel, ramp, out=channel)
    np.add(out, old, out=out)
    return out


class MasterRack(Rack):
    """The one chain that the whole mix goes through, in place.

    Parameters
    ----------
    channels, samplerate, block : int
        Of the output.
    settings : MixerSettings
        Its bypass goes round this chain, too.
    """

    def __init__(self, channels: int, samplerate: int, block: int, settings: MixerSettings) -> None:
        super().__init__(1, channels, samplerate, block)
        self._settings = settings
        self._level = 1.0
        self._step = 1.0 / max(1, round(10.0 * samplerate / 1000.0))
        self._steps: Audio = np.arange(1, block + 1, dtype=np.float32)
        self._gain: Audio = np.zeros(block, np.float32)

    def insert(self, audio: Audio) -> None:
        """Process ``audio`` [C, n] in place, n of any size. Raises as `process`."""
        if self.empty:
            self._level = 0.0 if self._settings.bypass else 1.0
            self._past.put(audio[None])
            return
        for start in range(0, audio.shape[1], self.block):
            self._piece(audio[:, start : start + self.block])

    def _piece(self, audio: Audio) -> None:
        n = audio.shape[1]
        stem = self._dry_mix[:, :n]
        np.copyto(stem, audio)
        self.process(None, stem[None])
        before, after = self.stems[0], self.processed[0]
        target = 0.0 if self._settings.bypass else 1.0
        if after is None or (self._level == target == 0.0):
            self._level = target
            np.copyto(audio, before)
        elif self._level == target:
            np.copyto(audio, after)
        else:
            gain = self._gain[:n]
            step = self._step if target > self._level else -self._step
            np.multiply(self._steps[:n], np.float32(step), out=gain)
            gain += np.float32(self._level)
            (np.minimum if step > 0 else np.maximum)(gain, np.float32(target), out=gain)
            self._level = float(gain[-1])
            np.copyto(audio, _mixed(before, after, gain, audio))


class Racks:
    """The chains of one `rtsep.chain.HopChain`.

    Attributes
    ----------
    stems : Rack
    master : MasterRack
    """

    def __init__(self, stems: Rack, master: MasterRack) -> None:
        self.stems, self.master = stems, master

    def reset(self) -> None:
        """Forget all past sound."""
        self.stems.reset()
        self.master.reset()
