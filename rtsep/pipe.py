"""Blocks of any size and rate through a `HopChain`, offline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.resampler import StreamResampler, minimum_delay, whole_delay
from rtsep.chain import HopChain
from rtsep.wideband import Wideband

Audio = NDArray[np.float32]


class Pipe:
    """Blocks into the chain, at any rate: ``[C, n]`` in, ``[len(stems) + 1, C, m]`` out, mix last.

    At the model's own rate and on its channels everything comes from the chain. Otherwise stems and what they change of
    the mix are resampled, and the input itself is added as it is; see `rtsep.wideband`.
    """

    def __init__(
        self, chain: HopChain, samplerate: int, rate: int, stems: list[int], channels: int, longest: int
    ) -> None:
        self.chain, self.stems = chain, stems
        self._channels, self._mixed = channels, chain.dry.shape[0]
        self._waiting = np.zeros((self._mixed, 0), np.float32)
        self._in: StreamResampler | None = None
        self._out: StreamResampler | None = None
        # At the model's rate: the mix, and stems as their plugins leave them; the master's chain comes on top.
        inner = chain.latency_samples + chain.plugin_samples
        self.latency_samples = inner + chain.master_samples
        self._held = np.zeros((len(stems), channels, chain.master_samples), np.float32)
        self.delay_in = delay_out = 0
        """Of the first resampler, at the model's rate."""
        self.before_hop: Callable[[int], None] | None = None
        """Called with the number of each hop before it is processed."""
        self._hops = 0
        info = chain.session.info
        self._residual = None if info.residual_stem is None else info.stems.index(info.residual_stem)
        self._wide: Wideband | None = None
        # What is left over when all others are taken out of the input needs all others.
        self._lines = stems if self._residual not in stems else list(range(len(info.stems)))
        if rate != samplerate or self._mixed != channels:
            self._lines = [s for s in self._lines if s != self._residual]
        # What plugins change of a stem is resampled beside it.
        racks = chain.racks
        self._changed = [s for s in stems if racks is not None and racks.stems.chains[s] is not None]
        if rate != samplerate:
            # Padded so that the whole delay is a whole number of samples of the input.
            shortest = minimum_delay(samplerate, rate)
            delay = self.delay_in = whole_delay(shortest, chain.latency_samples, samplerate, rate)
            self._in = StreamResampler(samplerate, rate, self._mixed, delay_samples=delay)
            self._out = StreamResampler(rate, samplerate, (len(self._lines) + len(self._changed) + 1) * self._mixed)
            delay_out = self._out.delay_samples
            content = (delay + inner) * samplerate // rate + delay_out
            self.latency_samples = content + chain.master_samples
        if rate != samplerate or self._mixed != channels:
            most = longest + math.ceil((info.hop_samples + 1) * samplerate / rate) + 1
            sizes = (channels, self._mixed, samplerate, rate, info.hop_samples)
            self._wide = Wideband(*sizes, self.latency_samples - chain.master_samples, delay_out, most)

    def process(self, block: Audio) -> Audio:
        if self._wide is None:
            out = np.empty((len(self.stems) + 1, self._channels, self._arrive(block)), np.float32)
            for k, part in self._hops_of(out.shape[2]):
                out[-1, :, part] = self.chain.process_hop(self._next(k))
                for i, s in enumerate(self.stems):
                    changed = self.chain.changed(s)
                    out[i, :, part] = self.chain.aligned(s) if changed is None else changed
            return self._in_time(out)
        self._wide.take(block)
        if len(block) != self._mixed:
            block = block.mean(axis=0, keepdims=True, dtype=np.float32)
        length = self._arrive(block if self._in is None else self._in.process(block))
        lines = len(self._lines)
        inner = np.zeros((lines + len(self._changed) + 1, self._mixed, length), np.float32)
        factors = np.empty((self._mixed, self.chain.hop_samples), np.float32)
        for k, part in self._hops_of(length):
            wet = np.empty((self._mixed, self.chain.hop_samples), np.float32)
            self.chain.process_wet(self._next(k), wet, factors)
            self._wide.put_factors(factors)
            inner[-1, :, part] = wet
            for i, s in enumerate(self._lines):
                inner[i, :, part] = self.chain.aligned(s)
            for i, s in enumerate(self._changed):
                changed = self.chain.changed(s)
                if changed is not None:
                    np.subtract(changed, self.chain.aligned(s), out=inner[lines + i, :, part])
        if self._out is not None:
            flat = self._out.process(inner.reshape(inner.shape[0] * inner.shape[1], length))
            inner = flat.reshape(*inner.shape[:2], flat.shape[1])
        out = np.empty((len(self.stems) + 1, self._channels, inner.shape[2]), np.float32)
        mix, dry = self._wide.mix(inner[-1])
        self.chain.mixer.finish(mix)
        out[-1] = mix
        for i, s in enumerate(self.stems):
            out[i] = dry - inner[:lines].sum(axis=0) if s == self._residual else inner[self._lines.index(s)]
            if s in self._changed:
                out[i] += inner[lines + self._changed.index(s)]
        return self._in_time(out)

    def _in_time(self, out: Audio) -> Audio:
        """Make the stems as late as the mix, which went through the chain of the master."""
        late = self._held.shape[2]
        if late:
            stems = np.concatenate([self._held, out[:-1]], axis=2)
            out[:-1], self._held = stems[:, :, : out.shape[2]], stems[:, :, out.shape[2] :].copy()
        return out

    def _arrive(self, block: Audio) -> int:
        """Add samples at the model's rate; return how many whole hops of them wait."""
        self._waiting = np.concatenate([self._waiting, block], axis=1)
        return self._waiting.shape[1] // self.chain.hop_samples * self.chain.hop_samples

    def _hops_of(self, length: int) -> Iterator[tuple[int, slice]]:
        hop = self.chain.hop_samples
        for start in range(0, length, hop):
            yield self._hops, slice(start, start + hop)
            self._hops += 1

    def _next(self, number: int) -> Audio:
        if self.before_hop is not None:
            self.before_hop(number)
        hop = self.chain.hop_samples
        audio, self._waiting = self._waiting[:, :hop], self._waiting[:, hop:]
        return np.ascontiguousarray(audio)
