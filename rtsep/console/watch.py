"""What the page sees of a running engine: meters, counters, hop times, spectra; read from its shared memory, only read.

One frame is one binary message, thirty a second, the same for every client.
"""

from __future__ import annotations

import collections
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.console.config import ConsoleConfig
from rtsep.engine.late import late_hops_from
from rtsep.engine.shared import SharedBlock
from rtsep.engine.stats import BINS_PER_OCTAVE, INDEX, stats_from
from rtsep.notes.tap import Tap, TapHop

FRAMES_PER_S = 30
BANDS = 72
"""Bands of a spectrum, about eight an octave: from 40 Hz to 16 kHz, or to half the rate."""
LOWEST_HZ, HIGHEST_HZ = 40.0, 16_000.0
FLOOR_DB, CEILING_DB = -80.0, -8.0
"""What 0 and 255 of a spectrum stand for, in dB of a sine of full scale."""
WINDOW = 2048
_MOST_HOPS = 255
_HEAD = struct.Struct("<BBBBIddIIIIIIffff")
_STATS_EVERY = 6
_KEPT_EVENTS = 400
_XRUNS = ("input_underflow", "input_overflow", "output_underflow", "output_overflow")
_WATCHED = {"late": ("late_hops",), "xrun": _XRUNS, "dry ring": ("ring_underruns",), "reset": ("model_resets",)}
_HOP_MS = 2.0 ** ((np.arange(40 * 24) + 0.5) / BINS_PER_OCTAVE) / 1000.0


def band_weights(rate: int, window: int = WINDOW, bands: int = BANDS) -> NDArray[np.float32]:
    """Return the weights that make bands of a power spectrum, [bins, bands].

    Triangles evenly spaced by the logarithm of the frequency; a band narrower than a bin shares its neighbours.
    """
    top = min(HIGHEST_HZ, 0.5 * rate)
    edges = LOWEST_HZ * (top / LOWEST_HZ) ** (np.arange(bands + 2) / (bands + 1))
    position = edges * window / rate
    bins = np.arange(window // 2 + 1)[:, np.newaxis]
    width = np.maximum(np.diff(position), 1.0)
    rise = (bins - position[1:-1]) / width[:-1] + 1
    fall = (position[1:-1] - bins) / width[1:] + 1
    return np.clip(np.minimum(rise, fall), 0.0, 1.0).astype(np.float32)  # [bins, bands]


class Spectra:
    """The last moment of every stem, as levels by band.

    Parameters
    ----------
    stems, rate : int
        Number of stems; their rate in hertz.
    """

    def __init__(self, stems: int, rate: int) -> None:
        self._recent: NDArray[np.float32] = np.zeros((stems, WINDOW), np.float32)
        # A sine of full scale is 1 after the window.
        self._window = (np.hanning(WINDOW) * 4 / WINDOW).astype(np.float32)
        self._weights = band_weights(rate)

    def push(self, stems: NDArray[np.float32]) -> None:
        """Take stems [S, C, hop]."""
        mono = stems.mean(axis=1)[:, -WINDOW:]
        count = mono.shape[1]
        self._recent[:, :-count] = self._recent[:, count:]
        self._recent[:, -count:] = mono

    def forget(self) -> None:
        """Begin with silence."""
        self._recent.fill(0.0)

    def levels(self) -> NDArray[np.uint8]:
        """Return the levels [S, BANDS], 0 at `FLOOR_DB` to 255 at `CEILING_DB`."""
        spectrum = np.fft.rfft(self._recent * self._window)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._weights
        level_db = 10 * np.log10(power + 1e-12)
        scaled = (level_db - FLOOR_DB) * (255.0 / (CEILING_DB - FLOOR_DB))
        levels: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
        return levels


class Watch:
    """Reads a running engine.

    Parameters
    ----------
    config : ConsoleConfig

    Raises
    ------
    OSError, EngineError
        The engine's memory is not there any more.

    Notes
    -----
    The memory is mapped for reading only: nothing here can change what the engine does, or hold it up.
    """

    def __init__(self, config: ConsoleConfig) -> None:
        self._config = config
        self._shared = SharedBlock(config.shared, readonly=True)
        _, self._meters = self._shared.mixer(config.stems)
        self._tap = Tap(config.tap, readonly=True) if config.tap is not None else None
        self._spectra = Spectra(len(config.stems), config.rate) if self._tap is not None else None
        self._hop: tuple[int, int] | None = None
        self._column_s = 0.0
        self._histogram = self._shared.histogram.copy()
        self._frames = 0
        self._stats = stats_from(self._shared.counters, self._shared.histogram)
        self._seen = dict.fromkeys(_WATCHED, 0)
        self._late = 0
        self.events: collections.deque[dict[str, Any]] = collections.deque(maxlen=_KEPT_EVENTS)
        """Late hops, xruns and the like, as `look` found them."""

    @property
    def position_s(self) -> float:
        """The device's clock, in seconds since the start."""
        return float(self._shared.counters[INDEX["position"]]) / self._config.samplerate

    def look(self) -> list[dict[str, Any]]:
        """Return what was lost since the last look: ``at`` (seconds of the device's clock), ``kind``, ``count``;
        for late hops ``why``."""
        counters, at = self._shared.counters, self.position_s
        found = []
        for kind, names in _WATCHED.items():
            total = sum(int(counters[INDEX[name]]) for name in names)
            if total > self._seen[kind]:
                found.append({"at": round(at, 3), "kind": kind, "count": total - self._seen[kind]})
                if kind == "late" and (why := self._why_late()):
                    found[-1]["why"] = why
            self._seen[kind] = total
        self.events.extend(found)
        return found

    def _why_late(self) -> str:
        """What the first hop that was late since the last look coincided with."""
        hops = [hop for hop in late_hops_from(self._shared.late, self._config.samplerate) if hop.number > self._late]
        if not hops:
            return ""
        self._late = hops[-1].number
        return hops[0].why

    def rest(self) -> None:
        """Nobody looks: what comes until the next frame is not shown."""
        if self._tap is not None:
            self._tap.position = self._tap.written
        self._hop = None
        np.copyto(self._histogram, self._shared.histogram)

    def frame(self) -> bytes:
        """Return the next frame; the page's ``frame.js`` reads it.

        Little-endian: kind 1, stems, bands (0 without a new spectrum), 0; number; seconds of the device's clock now and
        of the middle of the spectrum; hops, late, xruns, hops of fallback, clipped samples, milliseconds of silence;
        p50, p99, largest hop time and the period in ms; per stem peak and rms, then the master's, in hundredths of dBFS
        (i16); a count, and as many hop times since the last frame in hundredths of a millisecond (u16); levels
        [stems, bands] (u8).
        """
        levels = self._read_tap()
        stems = len(self._config.stems)
        if self._frames % _STATS_EVERY == 0:
            self._stats = stats_from(self._shared.counters, self._shared.histogram)
        self._frames += 1
        counters, stats = self._shared.counters, self._stats
        times = stats.hop_times
        head = _HEAD.pack(
            1,
            stems,
            0 if levels is None else BANDS,
            0,
            self._frames & 0xFFFFFFFF,
            self.position_s,
            self._column_s,
            int(counters[INDEX["hops"]]) & 0xFFFFFFFF,
            int(counters[INDEX["late_hops"]]) & 0xFFFFFFFF,
            sum(int(counters[INDEX[name]]) for name in _XRUNS) & 0xFFFFFFFF,
            stats.fallback_hops & 0xFFFFFFFF,
            min(self._meters.clipped, 0xFFFFFFFF),
            int(1000 * stats.silent_samples / self._config.samplerate) & 0xFFFFFFFF,
            times.p50_ms,
            times.p99_ms,
            times.max_ms,
            times.period_ms,
        )
        meters = self._meters
        linear = np.concatenate([meters.peak, meters.rms, [meters.master_peak, meters.master_rms]])
        level_db = 20 * np.log10(np.clip(np.nan_to_num(linear), 1e-6, 1e6))
        hops = self._new_hops()
        return b"".join(
            (
                head,
                (100 * level_db).astype("<i2").tobytes(),
                struct.pack("<H", len(hops)),
                hops.tobytes(),
                b"" if levels is None else levels.tobytes(),
            )
        )

    def _new_hops(self) -> NDArray[np.uint16]:
        """Times of the hops since the last frame, in hundredths of a millisecond; the longest first."""
        now = self._shared.histogram.copy()
        counts = np.clip(now - self._histogram, 0, _MOST_HOPS)
        self._histogram = now
        bins = np.flatnonzero(counts)
        times = np.repeat(_HOP_MS[bins], counts[bins])[::-1][:_MOST_HOPS]
        return np.clip(100 * times, 0, 65535).astype("<u2")

    def _read_tap(self) -> NDArray[np.uint8] | None:
        tap, spectra = self._tap, self._spectra
        if tap is None or spectra is None:
            return None
        # After a pause the window's worth is enough.
        needed = 2 + WINDOW // tap.layout.hop
        tap.position = max(tap.position, tap.written - min(needed, tap.layout.slots - 2))
        last: TapHop | None = None
        while (hop := tap.read()) is not None:
            if self._hop is not None and self._hop != (hop.epoch, hop.hop):
                spectra.forget()
            self._hop = (hop.epoch, hop.hop + 1)
            spectra.push(hop.stems)
            last = hop
        if last is None:
            return None
        c = self._config
        end = (last.hop + 1) * tap.layout.hop - WINDOW / 2 - c.stem_delay
        self._column_s = last.base / c.samplerate + end / c.rate
        return spectra.levels()
