"""Hops of device samples through a `HopChain`, with resamplers around it where the rates differ.

Where they do, or where the device has more channels than the model, only what the model changes goes through the
resamplers: see `rtsep.wideband`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.resampler import Quality, StreamResampler, minimum_delay, whole_delay
from rtsep.latency import LatencyPlan, plan_latency
from rtsep.plugins.rack import LIVE_LIMIT_S
from rtsep.plugins.slot import SWAP_FADE_MS
from rtsep.wideband import Wideband

if TYPE_CHECKING:
    from rtsep.chain import HopChain

Audio = NDArray[np.float32]


def choose_rate(device: int, native: Sequence[int]) -> int:
    """Return the model's native rate (Hz) that suits a device best: its own, a whole ratio, or the nearest."""
    if device in native:
        return device
    whole = [rate for rate in native if rate % device == 0 or device % rate == 0]
    return min(whole or native, key=lambda rate: abs(math.log(rate / device)))


class ChainRunner:
    """Takes what the device captured, a hop at a time, and gives back as much.

    Hop `k` since `reset` takes the device samples from ``ceil(k * T)`` to ``ceil((k + 1) * T)`` and gives the output
    samples from ``floor(k * T)`` to ``floor((k + 1) * T)``, where `T` is the length of a hop in device samples. A sound
    at input sample `i` lies at output sample ``i + content_samples``.

    Parameters
    ----------
    chain : HopChain
        Made for `rate`.
    samplerate, rate : int
        Of the device and of the chain, in hertz.
    quality : {"QQ", "LQ", "MQ", "HQ", "VHQ"}
        Of the resamplers, when the rates differ.
    channels : int, optional
        Of the device. A model of one channel plays on two: it hears their mean.

    Attributes
    ----------
    channels : int
        Of what `run` takes and gives.
    content_samples : int
        Follows the plugins of the chain when their latency changes.

    Notes
    -----
    `run` and `reset` are for the worker thread: at equal rates they allocate nothing beyond views; resampling allocates
    a hop's worth of small arrays.
    """

    def __init__(
        self, chain: HopChain, samplerate: int, rate: int, quality: Quality = "LQ", channels: int | None = None
    ) -> None:
        self.chain, self.samplerate, self.rate = chain, samplerate, rate
        mixed = chain.dry.shape[0]
        self.channels = min(channels, 2) if channels is not None and mixed == 1 else mixed
        self._hop = chain.dry.shape[1]
        self._length = Fraction(self._hop * samplerate, rate)
        self.hop_device = math.ceil(self._length)
        self._number = 0
        self._audio: Audio = np.zeros((mixed, self._hop), np.float32)
        self.hold = np.ones(self.channels, np.float32)
        """Broadband gain of the last hops, output over dry, per channel: 0 to 1."""
        self._energy = np.zeros((2, self.channels), np.float64)
        self.last_hop_failed = False
        self._recovered = chain.session.recovered_hops
        self._resample_in: StreamResampler | None = None
        self._resample_out: StreamResampler | None = None
        self.delay_in = self.delay_out = 0
        if samplerate != rate:
            latency = chain.latency_samples
            self.delay_in = whole_delay(minimum_delay(samplerate, rate, quality), latency, samplerate, rate)
            self.delay_out = minimum_delay(rate, samplerate, quality)
            self._resample_in = StreamResampler(samplerate, rate, mixed, quality, self.delay_in)
            self._resample_out = StreamResampler(rate, samplerate, mixed, quality, self.delay_out)
            self._waiting: Audio = np.zeros((mixed, 2 * self._hop + 64), np.float32)
            self._waiting_count = 0
        self._plugins = (-1, -1)
        self._wide: Wideband | None = None
        self._follow_plugins()
        if samplerate != rate or self.channels != mixed:
            longest = self.hop_device + 1
            sizes = (self.channels, mixed, samplerate, rate, self._hop)
            spare = 0 if chain.racks is None else math.ceil(LIVE_LIMIT_S * samplerate)
            content = self.content_samples - chain.master_samples
            self._wide = Wideband(*sizes, content, self.delay_out, longest, spare)
            self._wet: Audio = np.zeros((mixed, self._hop), np.float32)
            self._factors: Audio = np.zeros((mixed, self._hop), np.float32)
            self._down: Audio = np.zeros((mixed, longest), np.float32)

    def _follow_plugins(self) -> None:
        """Bring `content_samples` up to date when the plugins' latency changed."""
        chain = self.chain
        plugins = (chain.plugin_samples, chain.master_samples)
        if plugins == self._plugins:
            return
        delay = Fraction((self.delay_in + chain.latency_samples + plugins[0]) * self.samplerate, self.rate)
        self.content_samples = int(delay + self.delay_out + plugins[1])
        if self._wide is not None and plugins[0] != self._plugins[0]:
            fade = round(SWAP_FADE_MS * self.samplerate / 1000.0)
            self._wide.realign(self.content_samples - plugins[1], fade)
        self._plugins = plugins

    def plan(self, *, block: int, block_varies: bool, slack_hops: int, device_in: int, device_out: int) -> LatencyPlan:
        """Return the latency of this chain behind a device."""
        return plan_latency(
            samplerate=self.samplerate,
            model_samplerate=self.rate,
            block=block,
            block_varies=block_varies,
            hop=self._hop,
            model_latency=self.chain.latency_samples,
            slack_hops=slack_hops,
            resampler_in=self.delay_in,
            resampler_out=self.delay_out,
            plugins=int(Fraction(self._plugins[0] * self.samplerate, self.rate)) + self._plugins[1],
            device_in=device_in,
            device_out=device_out,
        )

    @property
    def period_s(self) -> float:
        """Seconds between two hops."""
        return float(self._hop / self.rate)

    @property
    def hops(self) -> int:
        """Hops processed since `reset`."""
        return self._number

    @property
    def taken(self) -> int:
        """Device samples taken since `reset`."""
        return math.ceil(self._number * self._length)

    @property
    def given(self) -> int:
        """Output samples given since `reset`."""
        return math.floor(self._number * self._length)

    @property
    def needed(self) -> int:
        """Device samples the next hop takes."""
        return math.ceil((self._number + 1) * self._length) - self.taken

    def reset(self) -> None:
        """Forget all past audio; the next hop is hop 0."""
        self.chain.reset()
        self._follow_plugins()
        self._number = 0
        if self._wide is not None:
            self._wide.reset()
        if self._resample_in is not None and self._resample_out is not None:
            self._resample_in.reset()
            self._resample_out.reset()
            self._waiting_count = 0

    def run(self, audio: Audio) -> Audio:
        """Process the next hop.

        Parameters
        ----------
        audio : array [C, needed]
            Need not be contiguous.

        Returns
        -------
        array [C, m]
            Valid until the next call.
        """
        if self._wide is not None:
            return self._run_wide(self._wide, audio)
        np.copyto(self._audio, audio)
        out = self.chain.process_hop(self._audio)
        self._follow_plugins()
        self._number += 1
        self._account(out, self.chain.dry)
        return out

    def _run_wide(self, wide: Wideband, audio: Audio) -> Audio:
        wide.take(audio)
        heard = audio
        if len(audio) != len(self._audio):
            heard = self._down[:, : audio.shape[1]]
            np.mean(audio, axis=0, out=heard[0])
        if self._resample_in is None or self._resample_out is None:
            np.copyto(self._audio, heard)
        else:
            self._collect(self._resample_in.process(heard))
        self.chain.process_wet(self._audio, self._wet, self._factors)
        self._follow_plugins()
        self._number += 1
        wide.put_factors(self._factors)
        out, dry = wide.mix(self._wet if self._resample_out is None else self._resample_out.process(self._wet))
        self.chain.mixer.finish(out)
        self._account(out, dry)
        return out

    def _collect(self, fresh: Audio) -> None:
        """Put the next hop of the model into `_audio`."""
        count = self._waiting_count
        self._waiting[:, count : count + fresh.shape[1]] = fresh
        count += fresh.shape[1]
        self._audio[:] = self._waiting[:, : self._hop]
        rest = count - self._hop
        self._waiting[:, :rest] = self._waiting[:, self._hop : count].copy()
        self._waiting_count = rest

    def _account(self, out: Audio, dry: Audio) -> None:
        chain = self.chain
        self.last_hop_failed = chain.session.recovered_hops != self._recovered
        self._recovered = chain.session.recovered_hops
        # Two hops' worth of memory: one drum hit should not decide what a gap sounds like.
        self._energy *= 0.5
        for c in range(self.channels):
            self._energy[0, c] += float(np.dot(out[c], out[c]))
            self._energy[1, c] += float(np.dot(dry[c], dry[c]))
            if self._energy[1, c] > 1e-12:
                ratio = self._energy[0, c] / self._energy[1, c]
                self.hold[c] = 1.0 if ratio >= 1.0 else math.sqrt(ratio)
