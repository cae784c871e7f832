"""Instruments made with numpy alone: drums, basses, keys, strings, leads, and the room around them.

Everything returns float32 at the samplerate given. Sounds are one-shots (``[T]``, mono) that `Track.add` places on a
stereo track; a one-shot is made once a pitch and cut to the length a note needs, which is what keeps a song at many
times real time on one core. Nothing here runs on the audio thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Rng = np.random.Generator
Gain = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Frequencies in Hz to factors, for `shape`."""


def midi_hz(midi: float) -> float:
    """Frequency in Hz of a MIDI note number (69 is 440 Hz; fractions are cents)."""
    return float(440.0 * 2.0 ** ((midi - 69.0) / 12.0))


def good_length(n: int) -> int:
    """Smallest length of at least ``n`` that an FFT likes (2^k times 1, 9/8, 5/4 or 3/2)."""
    p = 1 << max(n - 1, 7).bit_length()
    return min(c for c in (p // 2, p * 9 // 16, p * 5 // 8, p * 3 // 4, p) if c >= n)


def shape(x: Audio, samplerate: int, gain: Gain) -> Audio:
    """Filter ``x`` with zero phase; ``gain`` maps frequencies in Hz to factors."""
    n = good_length(x.shape[-1] + 256)
    hz = np.asarray(np.fft.rfftfreq(n, 1.0 / samplerate), np.float64)
    spectrum = np.fft.rfft(x, n) * gain(hz).astype(np.float32)
    return np.ascontiguousarray(np.fft.irfft(spectrum, n)[..., : x.shape[-1]], dtype=np.float32)


def highpass(hz: float, order: int = 2) -> Gain:
    """Gain of a Butterworth high-pass."""
    return lambda f: np.sqrt(1.0 / (1.0 + (hz / np.maximum(f, 1e-3)) ** (2 * order)))


def lowpass(hz: float, order: int = 2) -> Gain:
    """Gain of a Butterworth low-pass."""
    return lambda f: np.sqrt(1.0 / (1.0 + (f / hz) ** (2 * order)))


def bandpass(low_hz: float, high_hz: float, order: int = 2) -> Gain:
    """Gain of a high-pass and a low-pass in series."""
    up, down = highpass(low_hz, order), lowpass(high_hz, order)
    return lambda f: up(f) * down(f)


def noise(rng: Rng, n: int) -> Audio:
    """White noise of standard deviation 1."""
    return rng.standard_normal(n, dtype=np.float32)


def fades(x: Audio, samplerate: int, attack_s: float, release_s: float) -> Audio:
    """Fade both ends of ``x`` in place and return it."""
    a, r = min(int(attack_s * samplerate), len(x)), min(int(release_s * samplerate), len(x))
    if a:
        x[:a] *= np.linspace(0, 1, a, endpoint=False, dtype=np.float32)
    if r:
        x[-r:] *= np.cos(np.linspace(0, np.pi / 2, r, dtype=np.float32))
    return x


def partials(
    hz: NDArray[np.float64], amplitude: NDArray[np.float64], decay_s: NDArray[np.float64], n: int, samplerate: int
) -> Audio:
    """Sum of sines, each with its own exponential decay, ``[T]``.

    Powers of one complex step are built by doubling: no sine is evaluated a sample at a time, and the phase stays
    exact however long the note is.
    """
    keep = hz < 0.45 * samplerate
    hz, amplitude, decay_s = hz[keep], amplitude[keep], decay_s[keep]
    if n <= 0 or not len(hz):
        return np.zeros(max(n, 0), np.float32)
    step = (2j * np.pi * hz - 1.0 / decay_s) / samplerate
    z = np.empty((len(hz), n), np.complex64)
    z[:, 0] = 1
    done = 1
    while done < n:
        more = min(done, n - done)
        np.multiply(z[:, :more], np.exp(step * done).astype(np.complex64)[:, None], out=z[:, done : done + more])
        done += more
    return np.ascontiguousarray(amplitude.astype(np.float32) @ z.imag, dtype=np.float32)


class Track:
    """A stereo track that notes are placed on, ``audio`` is ``[2, T]``."""

    def __init__(self, n: int) -> None:
        self.audio: Audio = np.zeros((2, n), np.float32)

    def add(self, start: int, sound: Audio, gain: float, pan: float = 0.0) -> None:
        """Add a mono sound at sample ``start`` with equal-power ``pan`` (-1 left, 1 right)."""
        if start < 0:
            sound, start = sound[-start:], 0
        stop = min(start + len(sound), self.audio.shape[1])
        if stop <= start:
            return
        angle = (pan + 1.0) * np.pi / 4.0
        part = sound[: stop - start]
        self.audio[0, start:stop] += np.float32(gain * np.sqrt(2.0) * np.cos(angle)) * part
        self.audio[1, start:stop] += np.float32(gain * np.sqrt(2.0) * np.sin(angle)) * part


def reverb(x: Audio, samplerate: int, rng: Rng, seconds: float, dark_hz: float = 6000.0) -> Audio:
    """Wet signal of a diffuse stereo room for ``x`` ``[2, T]``; ``seconds`` is the time to -60 dB."""
    n = int(samplerate * min(seconds, 3.0))
    t = np.arange(n, dtype=np.float32) / samplerate
    out = np.empty_like(x)
    size = good_length(x.shape[1] + n)
    pre = int(0.012 * samplerate)
    for c in range(2):
        tail = noise(rng, n) * np.exp(-6.9 * t / seconds)
        bright = shape(tail * np.exp(-10.0 * t / seconds), samplerate, bandpass(200, 2 * dark_hz))
        dark = shape(tail, samplerate, bandpass(180, 0.45 * dark_hz))
        ir = bright + dark
        ir[:pre] *= np.linspace(0, 1, pre, dtype=np.float32)
        ir /= np.float32(np.sqrt(np.sum(ir**2)) + 1e-9)
        wet = np.fft.irfft(np.fft.rfft(x[c], size) * np.fft.rfft(ir, size), size)
        out[c] = wet[: x.shape[1]]
    return out


def delay(x: Audio, samplerate: int, seconds: float, feedback: float, repeats: int = 5) -> Audio:
    """Ping-pong echoes of ``x`` ``[2, T]`` without the dry signal."""
    out = np.zeros_like(x)
    step = int(seconds * samplerate)
    dull = shape(x, samplerate, bandpass(250, 4500, 1))
    for k in range(1, repeats + 1):
        if k * step >= x.shape[1]:
            break
        out[:, k * step :] += np.float32(feedback**k) * dull[:: (-1) ** k, : -k * step]
    return out


class Kit:
    """One drum kit: one-shots by name, four takes each so that no two strokes are the same.

    Names: kick, snare, clap, rim, closed, open, crash, ride, tom1, tom2, tom3, shaker.
    """

    # fmt: off
    PANS: ClassVar[dict[str, float]] = {
        "closed": 0.22, "open": 0.22, "crash": -0.4, "ride": 0.4, "tom1": -0.35, "tom2": 0.0, "tom3": 0.35,
        "shaker": -0.3, "rim": -0.08,
    }
    GM: ClassVar[dict[str, int]] = {
        "kick": 36, "snare": 38, "clap": 39, "rim": 37, "closed": 42, "open": 46, "crash": 49, "ride": 51,
        "tom1": 50, "tom2": 47, "tom3": 43, "shaker": 70,
    }
    # fmt: on

    def __init__(self, rng: Rng, samplerate: int, electronic: bool) -> None:
        self.rng, self.samplerate, self.electronic = rng, samplerate, electronic
        self._kick = (rng.uniform(42, 58), rng.uniform(140, 320), rng.uniform(0.012, 0.04), rng.uniform(0.10, 0.28))
        self._snare = (rng.uniform(160, 240), rng.uniform(0.09, 0.24), rng.uniform(0.5, 1.5), rng.uniform(1200, 2600))
        self._metal = rng.uniform(38, 60)
        self._hat = (rng.uniform(5500, 8500), rng.uniform(0.02, 0.06), rng.uniform(0.18, 0.45))
        self._crash = (rng.uniform(2500, 4500), rng.uniform(0.5, 1.1))
        self._tom = rng.uniform(75, 105)
        self._drive = rng.uniform(1.0, 3.0)
        self._takes: dict[str, list[Audio]] = {}

    def take(self, name: str, index: int) -> Audio:
        """One-shot ``[T]`` of a drum, peak 1; ``index`` picks one of four takes."""
        if name not in self._takes:
            self._takes[name] = [self._normal(self._make(name)) for _ in range(4)]
        return self._takes[name][index % 4]

    @staticmethod
    def _normal(x: Audio) -> Audio:
        return x / np.float32(np.max(np.abs(x)) + 1e-9)

    def _t(self, seconds: float) -> Audio:
        return np.arange(int(seconds * self.samplerate), dtype=np.float32) / np.float32(self.samplerate)

    def _sweep(self, t: Audio, low: float, high: float, fall_s: float) -> Audio:
        hz = low + (high - low) * np.exp(-t.astype(np.float64) / fall_s)
        return np.sin(2 * np.pi * np.cumsum(hz) / self.samplerate).astype(np.float32)

    def _metallic(self, t: Audio) -> Audio:
        ratios = np.array([2.0, 3.0, 4.16, 5.43, 6.79, 8.21, 10.7, 13.1])
        hz = self._metal * 4 * ratios * self.rng.uniform(0.99, 1.01, len(ratios))
        phase = hz[:, None] * t[None, :].astype(np.float64) + self.rng.uniform(0, 1, len(ratios))[:, None]
        return np.asarray(np.sign((phase % 1.0) - 0.5).sum(0).astype(np.float32) / len(ratios), np.float32)

    def _make(self, name: str) -> Audio:
        rng, sr = self.rng, self.samplerate
        vary = rng.uniform(0.94, 1.06)
        if name == "kick":
            low, high, fall, decay = self._kick
            t = self._t(min(0.7, decay * 4))
            click = shape(noise(rng, len(t)), sr, bandpass(900, 6500)) * np.exp(-t / 0.004)
            body = self._sweep(t, low, high * vary, fall) * np.exp(-t / decay)
            return fades(np.tanh(self._drive * (body + 0.35 * click)), sr, 0.0005, 0.02)
        if name == "snare":
            hz, decay, wires, cut = self._snare
            t = self._t(0.5)
            body = self._sweep(t, hz * vary, hz * 1.7, 0.012) + 0.5 * self._sweep(t, hz * 1.83, hz * 2.4, 0.01)
            body *= np.exp(-t / 0.06)
            rattle = shape(noise(rng, len(t)), sr, bandpass(cut, 11000, 1)) * np.exp(-t / decay) * np.float32(0.5)
            return fades(np.tanh(1.4 * (body + np.float32(wires) * rattle)), sr, 0.0005, 0.08)
        if name == "clap":
            t = self._t(0.4)
            burst = sum(np.where(t >= s, np.exp(-np.maximum(t - s, 0) / 0.006), 0) for s in (0.0, 0.011, 0.021))
            envelope = (burst + np.where(t >= 0.03, np.exp(-np.maximum(t - 0.03, 0) / 0.09), 0)).astype(np.float32)
            return fades(shape(noise(rng, len(t)), sr, bandpass(850 * vary, 4200)) * envelope, sr, 0.0005, 0.05)
        if name == "rim":
            t = self._t(0.12)
            return fades(self._sweep(t, 430 * vary, 900, 0.004) * np.exp(-t / 0.012)
                         + 0.6 * self._sweep(t, 1710, 2100, 0.004) * np.exp(-t / 0.02), sr, 0.0003, 0.02)  # fmt: skip
        if name in ("closed", "open"):
            cut, short, long = self._hat
            decay = (short if name == "closed" else long) * vary
            t = self._t(min(1.2, decay * 6))
            grain = shape(noise(rng, len(t)) * np.float32(0.6) + self._metallic(t), sr, highpass(cut, 3))
            return fades(grain * np.exp(-t / decay), sr, 0.0008, 0.02)
        if name in ("crash", "ride"):
            cut, decay = self._crash
            t = self._t(2.6 if name == "crash" else 1.2)
            wash = shape(noise(rng, len(t)) + self._metallic(t), sr, highpass(cut, 2)) * np.exp(-t / decay)
            if name == "ride":
                ping = partials(np.array([2150.0, 3020, 4410, 5870]) * vary, np.array([1.0, 0.8, 0.6, 0.4]),
                                np.full(4, 0.25), len(t), sr)  # fmt: skip
                return fades(0.3 * wash * np.exp(-t / 0.3) + 0.5 * ping, sr, 0.001, 0.1)
            return fades(wash, sr, 0.002, 0.3)
        if name == "shaker":
            t = self._t(0.14)
            swell = np.minimum(t / 0.03, 1) * np.exp(-np.maximum(t - 0.03, 0) / 0.025)
            return fades(shape(noise(rng, len(t)), sr, bandpass(4500, 12000)) * swell, sr, 0.001, 0.02)
        hz = self._tom * {"tom1": 1.6, "tom2": 1.25, "tom3": 0.9}[name]
        t = self._t(0.8)
        skin = shape(noise(rng, len(t)), sr, bandpass(300, 3500)) * np.exp(-t / 0.02)
        return fades(self._sweep(t, hz * vary, hz * 1.6, 0.03) * np.exp(-t / 0.18) + 0.2 * skin, sr, 0.0005, 0.1)


class Instrument:
    """A pitched instrument; ``note(midi, seconds, velocity)`` returns ``[T]``, about peak 1 before velocity.

    Parameters
    ----------
    kind : one of `BASSES`, `CHORDAL` or `LEADS`
    rng : draws the timbre once, and the small differences between notes
    """

    BASSES = ("finger", "pick", "sawbass", "sub")
    CHORDAL = ("epiano", "piano", "acoustic", "clean", "distorted", "pad", "strings", "organ", "pluck")
    LEADS = ("flute", "violin", "sawlead", "bell", "clarinet")
    # fmt: off
    RELEASE_S: ClassVar[dict[str, float]] = {
        "pad": 0.5, "strings": 0.35, "organ": 0.06, "epiano": 0.18, "piano": 0.2, "acoustic": 0.25,
        "clean": 0.2, "distorted": 0.08, "flute": 0.08, "violin": 0.12, "bell": 0.4,
    }
    # fmt: on

    def __init__(self, kind: str, rng: Rng, samplerate: int, longest_s: float) -> None:
        self.kind, self.rng, self.samplerate = kind, rng, samplerate
        self.longest_s = longest_s
        self.release_s = self.RELEASE_S.get(kind, 0.06)
        self.a, self.b, self.c = (float(v) for v in rng.uniform(0, 1, 3))
        self.drawbars = rng.choice([0.0, 0.3, 0.6, 1.0], 9)
        self.drawbars[[0, 2]] = 1.0, rng.uniform(0.5, 1.0)
        self._made: dict[tuple[int, int], Audio] = {}

    def note(self, midi: int, seconds: float, velocity: float) -> Audio:
        """Sound of one note ``[T]``, scaled by ``velocity`` (0..1); ``T`` covers the release."""
        loud = 2 if velocity > 0.8 else 1 if velocity > 0.55 else 0
        key = (midi, loud)
        if key not in self._made:
            n = int((self.longest_s + self.release_s) * self.samplerate)
            x = self._make(midi_hz(midi), n, (0.45, 0.7, 0.95)[loud])
            peak = np.float32(np.max(np.abs(x)) + 1e-9)
            self._made[key] = np.ascontiguousarray(x / peak, dtype=np.float32)
        n = int((min(seconds, self.longest_s) + self.release_s) * self.samplerate)
        x = self._made[key][:n] * np.float32(velocity)
        return fades(x, self.samplerate, 0.002, self.release_s)

    def _harmonic(self, hz: float, n: int, count: int, amplitude: Gain, decay: Gain, stretch: float = 0.0) -> Audio:
        h = np.arange(1, max(2, min(count, int(0.4 * self.samplerate / hz))) + 1, dtype=np.float64)
        return partials(hz * h * np.sqrt(1 + stretch * h * h), amplitude(h), decay(h), n, self.samplerate)

    def _string(self, hz: float, n: int, brightness: float, loss: float) -> Audio:
        """Karplus-Strong string, one vector operation a period (a period depends on the one before it only)."""
        period = self.samplerate / hz - 0.5  # the two-point average delays by half a sample
        whole = int(period)
        part = np.float32(period - whole)
        start = shape(noise(self.rng, whole + 2), self.samplerate, lowpass(1200 + 9000 * brightness, 1))
        spot = max(1, int(whole * (0.12 + 0.2 * self.a)))  # plucked there: a comb in the spectrum
        start = start - np.roll(start, spot)
        y = np.zeros(n + 2 * whole + 4, np.float32)
        y[: whole + 2] = start - start.mean()
        w0, w1, w2 = (np.float32(v * loss) for v in (0.5 * (1 - part), 0.5, 0.5 * part))
        at, step = whole + 2, whole
        while at < n + whole + 2:
            p = at - whole
            y[at : at + step] = w0 * y[p : p + step] + w1 * y[p - 1 : p - 1 + step] + w2 * y[p - 2 : p - 2 + step]
            at += step
        return y[whole : whole + n]

    def _table(self, hz: float, n: int, tilt: float, cut_hz: float, wobble: float = 0.0) -> Audio:
        """Detuned copies of one band-limited saw, slowly vibrating."""
        h = np.arange(1, max(2, int(min(0.4 * self.samplerate, 4 * cut_hz) / hz)) + 1)
        spectrum = np.zeros(2049, np.complex128)
        h = h[h < 2048]
        spectrum[h] = -1j * h.astype(np.float64) ** -tilt / np.sqrt(1 + (h * hz / cut_hz) ** 4)
        table = np.fft.irfft(spectrum, 4096).astype(np.float32)
        t = np.arange(n) / self.samplerate
        out = np.zeros(n, np.float32)
        for cents in (-7 - 6 * self.b, 0.0, 6 + 7 * self.c):
            swing = wobble * np.sin(2 * np.pi * (5.2 * t + self.rng.uniform())) * np.minimum(t / 0.4, 1)
            phase = hz * 2 ** (cents / 1200) * t + hz * swing / 30 + self.rng.uniform()
            out += table[((phase % 1.0) * 4096).astype(np.int32) & 4095]
        return out

    def _make(self, hz: float, n: int, velocity: float) -> Audio:
        sr, kind = self.samplerate, self.kind
        t = np.arange(n, dtype=np.float32) / np.float32(sr)
        if kind in ("finger", "pick"):
            place = 0.15 + 0.2 * self.a
            tilt = 1.7 - 0.6 * velocity - (0.5 if kind == "pick" else 0.0)
            x = self._harmonic(hz, n, 28, lambda h: np.abs(np.sin(np.pi * h * place)) / h**tilt,
                               lambda h: (0.9 + self.b) / (1 + 0.35 * h), 1e-4)  # fmt: skip
            tick = shape(noise(self.rng, n), sr, bandpass(700, 4000)) * np.exp(-t / 0.006)
            return fades(np.tanh((1 + self.c) * x) + (0.05 if kind == "finger" else 0.12) * tick, sr, 0.003, 0)
        if kind == "sawbass":
            depth = 2.0 + 8 * self.a
            x = self._harmonic(hz, n, 30, lambda h: 1 / h, lambda h: (0.25 + self.b) / (0.3 + (h - 1) / depth) + 0.03)
            return fades(np.tanh(1.5 * x), sr, 0.004, 0)
        if kind == "sub":
            x = self._harmonic(hz, n, 4, lambda h: 0.35 ** (h - 1) * (0.5 + self.a), lambda h: 1.5 + 0 * h)
            return fades(np.tanh((1.5 + 2 * self.b) * x), sr, 0.006, 0)
        if kind == "epiano":
            index = (1.0 + 2.0 * velocity) * np.exp(-t / (0.25 + 0.5 * self.a))
            tine = 0.18 * velocity * np.exp(-t / 0.08) * np.sin(2 * np.pi * hz * (14.0 if self.b > 0.5 else 7.0) * t)
            x = np.sin(2 * np.pi * hz * t + index * np.sin(2 * np.pi * hz * t)) * np.exp(-t / 1.1) + tine
            return fades(x * (1 - 0.25 * self.c * (1 + np.sin(2 * np.pi * 5 * t)) / 2), sr, 0.002, 0)
        if kind == "piano":
            x = self._harmonic(hz, n, 24, lambda h: np.abs(np.sin(np.pi * h / 7.3)) / h ** (1.5 - 0.7 * velocity),
                               lambda h: 1.6 * (200 / hz) ** 0.4 / (1 + 0.25 * h), 3e-4)  # fmt: skip
            knock = shape(noise(self.rng, n), sr, bandpass(150, 1800)) * np.exp(-t / 0.012)
            return fades(x + 0.06 * knock, sr, 0.002, 0)
        if kind in ("acoustic", "clean"):
            loss = 0.9985 if kind == "acoustic" else 0.9975
            x = self._string(hz, n, velocity * (0.5 + 0.5 * self.b), loss)
            if kind == "acoustic":
                x = shape(
                    x, sr, lambda f: 1 + 1.2 * np.exp(-(((f - 110) / 40) ** 2)) + np.exp(-(((f - 220) / 60) ** 2))
                )
            return x
        if kind == "distorted":
            x = self._string(hz, n, 0.6, 0.9992) + self._string(hz * 1.4983, n, 0.6, 0.9992)
            x /= np.float32(np.max(np.abs(x)) + 1e-9)
            return shape(
                np.tanh(12 * np.exp(t * 0.8) * shape(x, sr, highpass(120, 1))), sr, bandpass(90, 4200 + 900 * self.a, 3)
            )
        if kind == "organ":
            ratios = np.array([1, 1.5, 2, 3, 4, 5, 6, 8, 10]) * 0.5 * 2
            x = partials(hz * ratios, self.drawbars / np.sqrt(ratios), np.full(9, 60.0), n, sr)
            spin = 0.12 * np.sin(2 * np.pi * (6.6 if self.a > 0.5 else 0.9) * t)
            return fades(x * (1 + spin), sr, 0.006, 0)
        if kind == "pluck":
            x = self._harmonic(hz, n, 24, lambda h: 1 / h, lambda h: (0.12 + 0.5 * self.a) / (1 + 0.4 * h))
            return fades(x, sr, 0.002, 0)
        if kind == "pad":
            x = self._table(hz, n, 1.0, 700 + 1800 * self.a)
            return np.asarray(x * np.minimum(t / (0.08 + 0.4 * self.b), 1), np.float32)
        if kind in ("strings", "violin"):
            x = self._table(hz, n, 0.9, 2600 + 1500 * self.a, 0.08 if kind == "strings" else 0.16)
            body = shape(
                x, sr, lambda f: 1 + 0.8 * np.exp(-(((f - 450) / 120) ** 2)) + np.exp(-(((f - 2600) / 700) ** 2))
            )
            return np.asarray(body * np.minimum(t / (0.15 if kind == "strings" else 0.06), 1), np.float32)
        if kind == "bell":
            ratios = np.array([1.0, 2.0, 2.76, 4.1, 5.4, 8.9])
            return partials(hz * ratios, np.array([1, 0.5, 0.5, 0.3, 0.25, 0.1]), 1.2 / ratios, n, sr)
        vibrato = 0.12 * np.sin(2 * np.pi * 5.1 * t) * np.minimum(t / 0.5, 1)
        phase = 2 * np.pi * hz * (t + vibrato / 200)
        if kind == "flute":
            air = shape(noise(self.rng, n), sr, bandpass(0.8 * hz, 6 * hz + 2000, 1)) * np.float32(0.05)
            x = np.sin(phase) + 0.35 * np.sin(2 * phase) + 0.12 * np.sin(3 * phase) + air
            return fades(x, sr, 0.05, 0)
        if kind == "clarinet":
            x = sum(np.sin(h * phase) / h**1.1 for h in (1, 3, 5, 7, 9) if h * hz < 0.4 * sr)
            return fades(np.asarray(x, np.float32), sr, 0.03, 0)
        return fades(self._table(hz, n, 1.0, 3500 + 3000 * self.a, 0.06), sr, 0.008, 0)  # sawlead
