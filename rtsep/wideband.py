"""The full-band input beside a model that runs at another rate, or on fewer channels, than the device.

What a model changes is added to the input as it was captured: `out = f * dry + wet`, where the model's own rate and
channels hold for `wet` alone. The stem that takes what the others leave over (see ``residual_stem`` in the contract) is
then the input less the other stems, with everything the model never saw; with its fader at 0 dB and all others too,
`f` is 1, `wet` is 0 and the output is the input, bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


class Wideband:
    """Delays the input and adds to it what the model changes.

    Parameters
    ----------
    channels, mixed : int
        Of the device, and of the model: equal, or the model's is 1 and counts for all.
    samplerate, rate : int
        Of device and model, in hertz.
    hop : int
        Of the model.
    content : int
        By how many device samples the mix is later than the input.
    delay_out : int
        Of that, the resampler from the model's rate to the device's.
    longest : int
        Device samples taken or given at once, at most.
    spare : int
        Device samples that `content` may grow by, see `realign`.

    Notes
    -----
    Real-time safe but for small arrays.
    """

    def __init__(
        self,
        channels: int,
        mixed: int,
        samplerate: int,
        rate: int,
        hop: int,
        content: int,
        delay_out: int,
        longest: int,
        spare: int = 0,
    ) -> None:
        self.channels = channels
        self._per_device = rate / samplerate
        self._content, self._delay_out = content, delay_out
        self._line: Audio = np.zeros((channels, content + spare + 2 * longest + 64), np.float32)
        self._dry: Audio = np.zeros((channels, longest), np.float32)
        self._out: Audio = np.zeros((channels, longest), np.float32)
        self._steps = np.arange(longest, dtype=np.float64)
        # Factors of the model's samples, the newest last: as many as the output resampler may lag, and a few hops.
        size = math.ceil(delay_out * self._per_device) + 2 * hop + 2 * math.ceil(longest * self._per_device) + 8
        self._factors: Audio = np.ones((mixed, size), np.float32)
        self._axis = np.arange(size, dtype=np.float64)
        self._fade_from = self._fade_until = 0
        self._before = content
        self._older: Audio = np.zeros((channels, longest), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget all past audio; the next sample is sample 0."""
        self._line.fill(0.0)
        self._taken = self._given = self._mixed = 0
        self._before = self._content

    def realign(self, content: int, fade: int) -> None:
        """Be later by `content` device samples from now on, with a cross-fade of `fade` device samples.

        To be called before the `put_factors` of the hop whose mix begins to be later. The caller keeps within `spare`.
        """
        self._before, self._content = self._content, content
        self._fade_from = math.ceil(self._mixed / self._per_device) + self._delay_out
        self._fade_until = self._fade_from + fade

    def take(self, audio: Audio) -> None:
        """Remember ``audio`` [C, n] of the device."""
        size, count = self._line.shape[1], audio.shape[1]
        at = self._taken % size
        first = min(count, size - at)
        self._line[:, at : at + first] = audio[:, :first]
        self._line[:, : count - first] = audio[:, first:]
        self._taken += count

    def put_factors(self, factors: Audio) -> None:
        """Remember ``factors`` [mixed, n] of the dry signal, for the next n samples of the model's output."""
        count, size = factors.shape[1], self._factors.shape[1]
        if self._mixed == 0:
            self._factors[:] = factors[:, :1]  # what was before the beginning does not fade into it
        if count >= size:
            self._factors[:] = factors[:, count - size :]
        else:
            self._factors[:, : size - count] = self._factors[:, count:].copy()
            self._factors[:, size - count :] = factors
        self._mixed += count

    def dry(self, count: int) -> Audio:
        """Return the input [C, count] that belongs to the next `count` samples of output; a view of own memory."""
        dry, at = self._dry[:, :count], self._given
        if self._before == self._content or at >= self._fade_until:
            self._before = self._content
            return self._read(dry, self._content)
        if at + count <= self._fade_from:
            return self._read(dry, self._before)
        older = self._read(self._older[:, :count], self._before)
        self._read(dry, self._content)
        length = self._fade_until - self._fade_from
        ramp = np.clip((self._steps[:count] + (at + 1 - self._fade_from)) / length, 0.0, 1.0).astype(np.float32)
        for new, old in zip(dry, older, strict=True):
            new -= old
            new *= ramp
            new += old
        return dry

    def _read(self, out: Audio, content: int) -> Audio:
        count, start = out.shape[1], self._given - content
        silent = min(count, max(0, -start))
        out[:, :silent] = 0.0
        size = self._line.shape[1]
        at, rest = (start + silent) % size, count - silent
        first = min(rest, size - at)
        out[:, silent : silent + first] = self._line[:, at : at + first]
        out[:, silent + first :] = self._line[:, : rest - first]
        return out

    def mix(self, wet: Audio) -> tuple[Audio, Audio]:
        """Return output and dry signal ``[C, m]`` for ``wet`` [mixed, m] at the device's rate; views of own memory."""
        count = wet.shape[1]
        dry, out = self.dry(count), self._out[:, :count]
        size = self._factors.shape[1]
        begin = (self._given - self._delay_out) * self._per_device - self._mixed + size
        low = max(0, min(size - 1, math.floor(begin)))
        high = max(low + 1, min(size, math.ceil(begin + count * self._per_device) + 1))
        for c in range(self.channels):
            row = c if len(wet) > 1 else 0
            factors = self._factors[row]
            window = factors[low:high]
            if (window == window[0]).all():
                np.multiply(dry[c], window[0], out=out[c])
            else:
                positions = begin + self._steps[:count] * self._per_device
                np.multiply(dry[c], np.interp(positions, self._axis, factors), out=out[c], casting="same_kind")
            np.add(out[c], wet[row], out=out[c])
        self._given += count
        return out, dry
