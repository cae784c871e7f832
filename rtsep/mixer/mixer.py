"""The mixer: what is heard as the delayed input plus what the faders change of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError
from rtsep.mixer.limiter import PeakLimiter
from rtsep.mixer.meters import Meters
from rtsep.mixer.settings import GAIN_MIN_DB, MixerSettings

Audio = NDArray[np.float32]
Processed = Sequence[Audio | None] | None

MIN_RAMP_MS = 5.0
_RMS_SECONDS = 0.3
_PEAK_FALL_DB_PER_SECOND = 20.0


class Mixer:
    """``out = master * (d * dry + sum_s (g[s, c] - d) * stem_s)``, every factor ramped.

    A stem that plugins changed is ``g[s, c] * processed_s - d * stem_s`` in that sum.

    ``g`` is gain times balance, 0 when muted or when another stem is soloed; ``d`` is 1, and 0 while something is
    soloed. With all faders at 0 dB, centred, and nothing switched, the output is ``dry`` bit for bit; a soloed stem at
    0 dB is the stem itself bit for bit.

    Parameters
    ----------
    stems : sequence of str
        Names, in the order of axis ``S``.
    channels : int
        1 or more.
    samplerate : int
        Hz.
    output_samplerate : int, optional
        Of what `finish` gets, in hertz; `samplerate` when left out.
    ramp_ms : float
        Length of the linear ramp of every change, 5 or more.
    settings, meters : optional
        Objects to use, for example on shared memory; new ones when left out.
    max_block : int
        Samples that are worked on at once; longer blocks are cut.

    Attributes
    ----------
    settings : MixerSettings
        Read once at the start of every `process`; may be written by any thread or process.
    meters : Meters
        Written at the end of every `process`.
    insert : callable or None
        Gets what `finish` gets, ``[C, T]``, before limiter and meters, and may change it: plugins on the master.

    Raises
    ------
    UsageError
        A parameter is out of range, or `settings` and `meters` name other stems.

    Notes
    -----
    A change takes effect at the first sample of the next `process`; from there on the output does not depend on how the
    signal is cut into blocks, not by a bit.
    """

    def __init__(
        self,
        stems: Sequence[str],
        channels: int,
        samplerate: int,
        ramp_ms: float = 10.0,
        *,
        output_samplerate: int | None = None,
        settings: MixerSettings | None = None,
        meters: Meters | None = None,
        max_block: int = 4096,
    ) -> None:
        if not stems or channels < 1 or samplerate < 1 or max_block < 1:
            raise UsageError(
                f"A mixer needs 1 or more stems, channels, Hz and samples; got {len(stems)} stems, "
                f"{channels} channels, {samplerate} Hz, max_block {max_block}."
            )
        if not ramp_ms >= MIN_RAMP_MS:
            raise UsageError(f"ramp_ms is {ramp_ms}; {MIN_RAMP_MS:g} or more is needed, less would click.")
        self.stems = tuple(stems)
        self.channels = channels
        self.samplerate = samplerate
        self.settings = settings or MixerSettings(self.stems)
        self.meters = meters or Meters(self.stems)
        for part in (self.settings, self.meters):
            if part.stems != self.stems:
                raise UsageError(f"Settings or meters are for {part.stems}, the mixer is for {self.stems}.")
        count = len(self.stems)
        self.ramp_samples = max(1, round(ramp_ms * samplerate / 1000.0))
        self._rise = (np.arange(1, self.ramp_samples + 1) / self.ramp_samples).astype(np.float32)
        # One row a strip, then dry, master and bypass; columns are channels.
        rows = count + 3
        self._dry_row, self._master_row, self._bypass_row = count, count + 1, count + 2
        self._from: Audio = np.zeros((rows, channels), np.float32)
        self._to: Audio = np.zeros((rows, channels), np.float32)
        self._span: Audio = np.zeros((rows, channels), np.float32)
        self._wanted: Audio = np.zeros((rows, channels), np.float32)
        self._left = np.zeros(rows, np.int64)  # samples of the ramp still to come
        self._seen = self.settings.values.copy()
        self._changed = np.zeros(self._seen.shape, np.bool_)
        self._max_block = max_block
        self._a = np.zeros(max_block, np.float32)
        self._b = np.zeros(max_block, np.float32)
        self._d = np.zeros(max_block, np.float32)
        self._square = np.zeros(max_block, np.float32)
        self._over = np.zeros(max_block, np.bool_)
        self._out = np.zeros((channels, max_block), np.float32)
        self._output_samplerate = output_samplerate or samplerate
        self._limiter = PeakLimiter(self._output_samplerate)
        self.insert: Callable[[Audio], None] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget ramps and levels; the settings stay, and the next block starts with them at once."""
        self._primed = False
        self._left[:] = 0
        self._limiter.reset()
        self.meters.values[:] = 0.0

    def process(self, dry: Audio, stems: Audio, out: Audio | None = None, processed: Processed = None) -> Audio:
        """Mix one block.

        Parameters
        ----------
        dry : array [C, T]
            The input, delayed by the latency of the model.
        stems : array [S, C, T]
        out : array [C, T], optional
            Receives the mix; must not overlap `dry` or `stems`. Memory of the mixer, valid until the next call, when
            left out.
        processed : sequence of array [C, T] or None, optional
            What plugins made of each stem; None for stems that they left alone.

        Returns
        -------
        array [C, T]
            `out`.

        Raises
        ------
        ValueError
            The shapes do not fit.

        Notes
        -----
        Real-time safe: no allocation of arrays when `out` is given or ``T <= max_block``, no locks.
        """
        length = dry.shape[-1]
        shape = (self.channels, length)
        if dry.shape != shape or stems.shape != (len(self.stems), *shape):
            raise ValueError(f"dry {dry.shape} and stems {stems.shape} do not fit {len(self.stems)} stems of {shape}.")
        if out is None:
            out = self._out[:, :length] if length <= self._max_block else np.empty(shape, np.float32)
        elif out.shape != shape:
            raise ValueError(f"out is {out.shape}, the block is {shape}.")
        self._follow_settings()
        for part in self._parts(length):
            self._segment(dry[:, part], stems[:, :, part], out[:, part], processed, part)
        self._measure_stems(stems, processed)
        self.finish(out)
        return out

    def process_wet(
        self,
        stems: Audio,
        wet: Audio,
        factors: Audio,
        residual: int | None = None,
        processed: Processed = None,
    ) -> None:
        """Mix one block for a dry signal that is elsewhere: it is to be multiplied by `factors`, and `wet` added.

        Parameters
        ----------
        stems : array [S, C, T]
        wet, factors : arrays [C, T]
            Receive the results.
        residual : int, optional
            Stem that is the dry signal less all others. Then ``factors = master * g_r`` and
            ``wet = master * sum_s (g_s - g_r) * stem_s``; else ``d`` takes the place of ``g_r``.
        processed : sequence of array [C, T] or None, optional
            As `process`; of the residual stem what plugins changed of it is added.

        Raises
        ------
        ValueError
            The shapes do not fit.

        Notes
        -----
        Real-time safe. `finish` is to be called on the sum.
        """
        length = wet.shape[-1]
        shape = (self.channels, length)
        if wet.shape != shape or factors.shape != shape or stems.shape != (len(self.stems), *shape):
            raise ValueError(f"stems {stems.shape}, wet {wet.shape}, factors {factors.shape} do not fit {shape}.")
        self._follow_settings()
        reference = self._dry_row if residual is None else residual
        for part in self._parts(length):
            self._wet_segment(stems[:, :, part], wet[:, part], factors[:, part], reference, processed, part)
        self._measure_stems(stems, processed)

    def finish(self, out: Audio) -> None:
        """Insert, limit (if that is on) and measure what is heard, ``out`` [C, T], in place. Real-time safe."""
        if self.insert is not None:
            self.insert(out)
        if self.settings.limiter:
            self._limiter.process(out)
        length = out.shape[1]
        for start in range(0, length, self._max_block):
            self._measure_out(out[:, start : min(length, start + self._max_block)])

    def _parts(self, length: int) -> Iterator[slice]:
        """Cut where a ramp ends: inside a part every factor is all ramp or constant."""
        done = 0
        while done < length:
            n = min(length - done, self._max_block)
            for left in self._left:
                if 0 < left < n:
                    n = int(left)
            yield slice(done, done + n)
            done += n

    # --- factors ------------------------------------------------------------------------------------------------------

    def _follow_settings(self) -> None:
        values = self.settings.values
        np.not_equal(values, self._seen, out=self._changed)
        if self._primed and not self._changed.any():
            return
        np.copyto(self._seen, values)  # another process may write on while this one computes
        count = len(self.stems)
        gain_db, pan, mute, solo = (self._seen[k * count : (k + 1) * count] for k in range(4))
        soloed = bool(solo.any())
        wanted = self._wanted
        for s in range(count):
            silent = mute[s] != 0 or (soloed and solo[s] == 0)
            wanted[s] = 0.0 if silent else _factor(float(gain_db[s]))
            if self.channels >= 2 and not silent:
                wanted[s, 0] *= min(1.0, 1.0 - float(pan[s]))
                wanted[s, 1] *= min(1.0, 1.0 + float(pan[s]))
        wanted[self._dry_row] = 0.0 if soloed else 1.0
        wanted[self._master_row] = _factor(float(self._seen[-3]))
        wanted[self._bypass_row] = 1.0 if self._seen[-2] else 0.0
        if not self._primed:
            self._from[:], self._to[:], self._left[:], self._primed = wanted, wanted, 0, True
            return
        for row in range(count + 3):
            for c in range(self.channels):
                if wanted[row, c] != self._to[row, c]:
                    self._start_ramp(row)
                    break

    def _start_ramp(self, row: int) -> None:
        left = int(self._left[row])
        if left:  # from where the running ramp is now
            position = self._rise[self.ramp_samples - left - 1] if left < self.ramp_samples else np.float32(0)
            for c in range(self.channels):
                self._from[row, c] += self._span[row, c] * position
        else:
            self._from[row] = self._to[row]
        self._to[row] = self._wanted[row]
        np.subtract(self._to[row], self._from[row], out=self._span[row])
        self._left[row] = self.ramp_samples

    def _factors(self, row: int, c: int, memory: Audio) -> Audio | np.float32:
        """Factor of a row over the segment: one number, or a vector in `memory` while it ramps."""
        left = int(self._left[row])
        if not left:
            return self._to[row, c]  # type: ignore[no-any-return]
        start = self.ramp_samples - left
        np.multiply(self._rise[start : start + len(memory)], self._span[row, c], out=memory)
        np.add(memory, self._from[row, c], out=memory)
        if left == len(memory):
            memory[-1] = self._to[row, c]  # the end is met exactly
        return memory

    # --- sound --------------------------------------------------------------------------------------------------------

    def _segment(self, dry: Audio, stems: Audio, out: Audio, processed: Processed, part: slice) -> None:
        n = dry.shape[1]
        a, b, d_memory = self._a[:n], self._b[:n], self._d[:n]
        for c in range(self.channels):
            mix = out[c]
            d = self._factors(self._dry_row, c, d_memory)
            ramps = bool(self._left[self._dry_row])
            if not ramps and d == 1.0:
                if mix is not dry[c]:
                    np.copyto(mix, dry[c])
            elif not ramps and d == 0.0:
                mix.fill(0.0)
            else:
                np.multiply(dry[c], d, out=mix)
            for s in range(len(self.stems)):
                g = self._factors(s, c, a)
                changed = None if processed is None else processed[s]
                if changed is not None:
                    np.multiply(changed[c, part], g, out=b)
                    np.add(mix, b, out=mix)
                    np.multiply(stems[s, c], d, out=b)
                    np.subtract(mix, b, out=mix)
                elif ramps or self._left[s]:
                    np.subtract(g, d, out=a)
                    np.multiply(stems[s, c], a, out=b)
                    np.add(mix, b, out=mix)
                elif g != d:
                    np.multiply(stems[s, c], g - d, out=b)
                    np.add(mix, b, out=mix)
            master = self._factors(self._master_row, c, a)
            if self._left[self._master_row] or master != 1.0:
                np.multiply(mix, master, out=mix)
            bypass = self._factors(self._bypass_row, c, a)
            if self._left[self._bypass_row]:
                np.subtract(dry[c], mix, out=b)
                np.multiply(b, bypass, out=b)
                np.add(mix, b, out=mix)
            elif bypass == 1.0:
                np.copyto(mix, dry[c])
        self._advance(n)

    def _wet_segment(
        self, stems: Audio, wet: Audio, factors: Audio, reference: int, processed: Processed, part: slice
    ) -> None:
        n = wet.shape[1]
        a, b, d_memory = self._a[:n], self._b[:n], self._d[:n]
        for c in range(self.channels):
            mix, f = wet[c], factors[c]
            d = self._factors(reference, c, d_memory)
            f[:] = d
            mix.fill(0.0)
            for s in range(len(self.stems)):
                changed = None if processed is None else processed[s]
                if s == reference and changed is None:
                    continue
                g = self._factors(s, c, a)
                if changed is not None:
                    np.multiply(changed[c, part], g, out=b)
                    np.add(mix, b, out=mix)
                    np.multiply(stems[s, c], d, out=b)
                    np.subtract(mix, b, out=mix)
                elif self._left[reference] or self._left[s]:
                    np.subtract(g, d, out=a)
                    np.multiply(stems[s, c], a, out=b)
                    np.add(mix, b, out=mix)
                elif g != d:
                    np.multiply(stems[s, c], g - d, out=b)
                    np.add(mix, b, out=mix)
            master = self._factors(self._master_row, c, a)
            if self._left[self._master_row] or master != 1.0:
                np.multiply(mix, master, out=mix)
                np.multiply(f, master, out=f)
            bypass = self._factors(self._bypass_row, c, a)
            if self._left[self._bypass_row] or bypass != 0.0:
                np.subtract(1.0, bypass, out=b)
                np.multiply(mix, b, out=mix)
                np.multiply(f, b, out=f)
                np.add(f, bypass, out=f)
        self._advance(n)

    def _advance(self, n: int) -> None:
        for row in range(len(self._left)):
            if self._left[row]:
                self._left[row] -= n

    def _measure_stems(self, stems: Audio, processed: Processed) -> None:
        for start in range(0, stems.shape[2], self._max_block):
            self._measure_part(stems, processed, slice(start, min(start + self._max_block, stems.shape[2])))

    def _measure_part(self, stems: Audio, processed: Processed, part: slice) -> None:
        n, meters = part.stop - part.start, self.meters
        square = self._square[:n]
        keep = np.exp(-n / (_RMS_SECONDS * self.samplerate))
        fall = 10.0 ** (-_PEAK_FALL_DB_PER_SECOND / 20.0 * n / self.samplerate)
        for s in range(len(self.stems)):
            peak = power = 0.0
            changed = None if processed is None else processed[s]
            for c in range(self.channels):
                gain = abs(float(self._to[s, c]))
                heard = stems[s, c, part] if changed is None else changed[c, part]
                np.multiply(heard, heard, out=square)
                peak = max(peak, gain * float(square.max()) ** 0.5)
                power += gain * gain * float(square.mean()) / self.channels
            meters.peak[s] = max(peak, meters.peak[s] * fall)
            meters.rms[s] = (keep * meters.rms[s] ** 2 + (1.0 - keep) * power) ** 0.5

    def _measure_out(self, out: Audio) -> None:
        n, values = out.shape[1], self.meters.values
        square, over = self._square[:n], self._over[:n]
        keep = np.exp(-n / (_RMS_SECONDS * self._output_samplerate))
        fall = 10.0 ** (-_PEAK_FALL_DB_PER_SECOND / 20.0 * n / self._output_samplerate)
        peak = power = 0.0
        clipped = 0
        for channel in out:
            np.multiply(channel, channel, out=square)
            peak = max(peak, float(square.max()) ** 0.5)
            power += float(square.mean()) / len(out)
            np.greater(square, np.float32(1.0), out=over)
            clipped += int(np.count_nonzero(over))
        values[-3] = max(peak, values[-3] * fall)
        values[-2] = (keep * values[-2] ** 2 + (1.0 - keep) * power) ** 0.5
        values[-1] += clipped


def _factor(db: float) -> float:
    return 0.0 if db <= GAIN_MIN_DB else 10.0 ** (db / 20.0)
