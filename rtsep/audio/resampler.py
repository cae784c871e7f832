"""A streaming resampler whose delay is a constant that is known beforehand."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import soxr
from numpy.typing import NDArray

from rtsep.errors import UsageError

Audio = NDArray[np.float32]
Quality = Literal["QQ", "LQ", "MQ", "HQ", "VHQ"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000

# libsoxr hands out what it has whenever its blocks are full, so how much comes out depends on how it is fed. Always
# feeding it chunks of this size makes the amount a function of the number of samples alone.
_CHUNK = 32
# The calibration below sees a finite time; libsoxr's fill may be this much lower at a phase it did not see.
_MARGIN_CHUNKS = 1
_CALIBRATION_SAMPLES = 400_000


@lru_cache(maxsize=64)
def minimum_delay(in_rate: int, out_rate: int, quality: Quality = "HQ") -> int:
    """Return the smallest constant delay at which `StreamResampler` never runs short, in samples at `out_rate`.

    Found by running libsoxr over silence (some 10 milliseconds of work), then remembered.
    """
    _check(in_rate, out_rate, quality)
    if in_rate == out_rate:
        return 0
    stream = soxr.ResampleStream(in_rate, out_rate, 1, "float32", quality)
    chunk = np.zeros((_CHUNK, 1), np.float32)
    produced, short = 0, 0
    for fed in range(_CHUNK, _CALIBRATION_SAMPLES, _CHUNK):
        produced += len(stream.resample_chunk(chunk))
        # Up to one chunk may lie in front of libsoxr when its output is asked for.
        short = max(short, (fed + _CHUNK - 1) * out_rate // in_rate - produced)
    return int(short + _MARGIN_CHUNKS * math.ceil(_CHUNK * out_rate / in_rate))


def whole_delay(minimum: int, plus: int, in_rate: int, out_rate: int) -> int:
    """Return the smallest delay >= `minimum` for which ``(delay + plus)`` at `out_rate` is whole at `in_rate`.

    Lets the dry signal of a resampled chain be aligned to the sample: model latency (`plus`) and resampler together
    then are a whole number of device samples.
    """
    step = out_rate // math.gcd(in_rate, out_rate)
    return math.ceil((minimum + plus) / step) * step - plus


class StreamResampler:
    """Resample a stream block by block with an exact, constant delay.

    After `n` input samples, exactly ``n * out_rate // in_rate`` output samples have come out, whatever the blocks were,
    and the blocks do not change a single bit of them. A sound at input sample `i` lies at output sample
    ``delay_samples + i * out_rate / in_rate``.

    Parameters
    ----------
    in_rate, out_rate : int
        In hertz, 8000 to 192000. When equal, blocks pass through untouched.
    channels : int
        1 or more.
    quality : {"QQ", "LQ", "MQ", "HQ", "VHQ"}
        libsoxr's recipes. HQ costs about 20 ms a direction, LQ 0.5 to 10 ms, QQ (cubic, it aliases) under 1 ms.
    delay_samples : int, optional
        At `out_rate`; `minimum_delay` when left out.

    Raises
    ------
    UsageError
        When a rate, the quality or the delay is out of range.

    Notes
    -----
    `process` allocates small arrays (libsoxr's binding returns new ones) and takes no lock; fine for the worker thread,
    not for an audio callback. Construct before the stream starts.
    """

    def __init__(
        self,
        in_rate: int,
        out_rate: int,
        channels: int,
        quality: Quality = "HQ",
        delay_samples: int | None = None,
    ) -> None:
        shortest = minimum_delay(in_rate, out_rate, quality)
        if channels < 1:
            raise UsageError(f"channels must be 1 or more, got {channels}.")
        if delay_samples is not None and delay_samples < shortest:
            raise UsageError(
                f"delay_samples must be {shortest} or more for {in_rate} to {out_rate} Hz at quality {quality}, "
                f"got {delay_samples}."
            )
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.delay_samples = shortest if delay_samples is None else delay_samples
        self._stream = soxr.ResampleStream(in_rate, out_rate, channels, "float32", quality)
        self._pending = np.zeros((_CHUNK, channels), np.float32)
        self._ready = np.zeros((channels, self.delay_samples + 4096), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next sample is sample 0 again."""
        self._stream.clear()
        self._ready[:, : self.delay_samples] = 0.0
        self._first, self._last = 0, self.delay_samples
        self._waiting = 0
        self.samples_in = 0
        self.samples_out = 0

    def process(self, audio: Audio) -> Audio:
        """Take ``audio`` [C, n], return [C, m]: all output that is due, possibly none.

        The array returned is new.
        """
        if self.in_rate == self.out_rate:
            self.samples_in += audio.shape[1]
            self.samples_out += audio.shape[1]
            return np.array(audio, np.float32)
        count = audio.shape[1]
        taken = 0
        while taken < count:
            step = min(_CHUNK - self._waiting, count - taken)
            self._pending[self._waiting : self._waiting + step] = audio[:, taken : taken + step].T
            self._waiting += step
            taken += step
            if self._waiting == _CHUNK:
                self._append(self._stream.resample_chunk(self._pending))
                self._waiting = 0
        self.samples_in += count
        due = self.samples_in * self.out_rate // self.in_rate - self.samples_out
        if due > self._last - self._first:
            raise AssertionError(f"resampler short by {due - (self._last - self._first)} samples: margin too small")
        out = self._ready[:, self._first : self._first + due].copy()
        self._first += due
        self.samples_out += due
        return out

    def _append(self, frames: Audio) -> None:
        count = len(frames)
        if self._last + count > self._ready.shape[1]:
            waiting = self._last - self._first
            if waiting + count > self._ready.shape[1]:
                self._ready = np.concatenate([self._ready, np.zeros((self.channels, waiting + count), np.float32)], 1)
            self._ready[:, :waiting] = self._ready[:, self._first : self._last].copy()
            self._first, self._last = 0, waiting
        self._ready[:, self._last : self._last + count] = frames.T
        self._last += count


def _check(in_rate: int, out_rate: int, quality: str) -> None:
    for rate in (in_rate, out_rate):
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise UsageError(f"sample rate must be {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}.")
    if quality not in QUALITIES:
        raise UsageError(f"resampler quality must be one of {', '.join(QUALITIES)}, got {quality!r}.")
