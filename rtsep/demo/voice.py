"""A singer: glottal pulses and breath through moving vocal-tract formants, with consonants between the vowels.

The source is the derivative of a glottal pulse (open phase, sharp closing, return phase), read from band-limited
tables; the tract is a cascade of resonances whose frequencies glide from vowel to vowel, applied to overlapping
frames so that all of it stays vectorised. One `Singer` is one person; `sing` gives mono ``[T]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsep.demo.synth import Audio, Rng, bandpass, highpass, midi_hz, noise, shape

HOP = 256  # samples between tract shapes
WINDOW = 1024
FFT = 2048

# First three formants in Hz of an adult man's sung vowels; a Singer scales them to the length of the tract.
VOWELS: dict[str, tuple[float, float, float]] = {
    "a": (730, 1150, 2500), "ae": (680, 1650, 2450), "e": (500, 1850, 2500), "eh": (570, 1720, 2450),
    "i": (290, 2250, 3000), "ih": (400, 1950, 2550), "o": (480, 880, 2450), "aw": (600, 950, 2450),
    "u": (320, 850, 2250), "uh": (620, 1200, 2450), "er": (480, 1300, 1750),
}  # fmt: skip
DIPHTHONGS = {"ai": ("a", "ih"), "ei": ("e", "i"), "ou": ("o", "u"), "au": ("a", "u"), "oi": ("aw", "i")}

# consonant: (seconds, voicing kept, formants it pulls to or None, noise class or None, noise level)
CONSONANTS: dict[str, tuple[float, float, tuple[float, float, float] | None, str | None, float]] = {
    "m": (0.075, 0.35, (260, 950, 2200), None, 0.0),
    "n": (0.065, 0.35, (270, 1500, 2500), None, 0.0),
    "l": (0.060, 0.6, (360, 1150, 2700), None, 0.0),
    "r": (0.070, 0.65, (400, 1150, 1600), None, 0.0),
    "w": (0.070, 0.55, (300, 650, 2200), None, 0.0),
    "y": (0.060, 0.6, (280, 2250, 3000), None, 0.0),
    "d": (0.050, 0.15, (280, 1750, 2600), "t", 0.35),
    "b": (0.050, 0.15, (260, 800, 2200), "p", 0.3),
    "g": (0.055, 0.15, (270, 1900, 2200), "k", 0.35),
    "v": (0.060, 0.4, (300, 1100, 2300), "f", 0.25),
    "z": (0.070, 0.3, (280, 1700, 2600), "s", 0.5),
    "t": (0.065, 0.0, (300, 1750, 2600), "t", 0.9),
    "k": (0.065, 0.0, (300, 1900, 2200), "k", 0.8),
    "p": (0.060, 0.0, (280, 800, 2200), "p", 0.7),
    "s": (0.110, 0.0, (300, 1700, 2600), "s", 1.0),
    "sh": (0.110, 0.0, (300, 1900, 2500), "sh", 1.0),
    "f": (0.090, 0.0, (300, 1100, 2300), "f", 0.55),
    "h": (0.070, 0.0, None, "h", 0.6),
}
BURSTS = {"t", "k", "p"}
BANDS = {"s": (5200, 11000), "sh": (2300, 6500), "f": (1500, 9000), "t": (3200, 9000), "k": (1400, 4200),
         "p": (500, 2500), "h": (500, 5000)}  # fmt: skip
ONSETS = ("m", "n", "l", "r", "w", "y", "d", "b", "g", "v", "z", "t", "k", "p", "s", "sh", "f", "h", "")
ONSET_WEIGHTS = np.array([8, 9, 7, 5, 6, 4, 7, 6, 4, 3, 2, 8, 5, 3, 8, 3, 4, 5, 8], float)
CODAS = ("", "n", "m", "s", "t", "l", "z", "k")
CODA_WEIGHTS = np.array([60, 10, 5, 8, 6, 6, 2, 3], float)


@dataclass(frozen=True)
class Syllable:
    """One sung note: when, how long, which pitch and which sounds.

    ``onset`` is a key of `CONSONANTS`, empty for none, or ``"-"`` to go on from the note before (melisma).
    """

    start_s: float
    duration_s: float
    midi: int
    velocity: float
    onset: str
    vowel: str
    coda: str


def words(rng: Rng, count: int) -> list[tuple[str, str, str]]:
    """``count`` syllables as (onset, vowel, coda)."""
    names = [*VOWELS, *DIPHTHONGS]
    onsets = rng.choice(len(ONSETS), count, p=ONSET_WEIGHTS / ONSET_WEIGHTS.sum())
    codas = rng.choice(len(CODAS), count, p=CODA_WEIGHTS / CODA_WEIGHTS.sum())
    return [(ONSETS[a], names[rng.integers(len(names))], CODAS[b]) for a, b in zip(onsets, codas, strict=True)]


def glottal_spectrum(open_quotient: float, return_s: float, harmonics: int) -> NDArray[np.complex128]:
    """Spectrum of one period of the glottal flow derivative; ``return_s`` in periods softens the closing."""
    n = 8192
    t = np.arange(n) / n
    rise, fall = open_quotient * 0.66, open_quotient * 0.34
    flow = np.where(t < rise, 0.5 - 0.5 * np.cos(np.pi * t / rise),
                    np.where(t < rise + fall, np.cos(0.5 * np.pi * (t - rise) / fall), 0.0))  # fmt: skip
    spectrum = np.fft.rfft(np.diff(flow, append=flow[0]) * n)[: harmonics + 1]
    spectrum = spectrum / (1 + 2j * np.pi * np.arange(harmonics + 1) * return_s)
    spectrum[0] = 0
    return np.asarray(spectrum)


class Singer:
    """One voice.

    Parameters
    ----------
    rng : draws the person: tract length, vibrato, breathiness, effort
    high : True for the longer formants and higher range of a woman's voice
    """

    def __init__(self, rng: Rng, samplerate: int, high: bool) -> None:
        self.rng, self.samplerate = rng, samplerate
        self.tract = rng.uniform(1.10, 1.24) if high else rng.uniform(0.93, 1.07)
        self.vibrato_hz = rng.uniform(4.8, 6.6)
        self.vibrato_cents = rng.uniform(22, 70)
        self.vibrato_after_s = rng.uniform(0.12, 0.4)
        self.glide_s = rng.uniform(0.03, 0.10)
        self.breath = 10 ** (rng.uniform(-30, -14) / 20)
        self.jitter_cents = rng.uniform(4, 11)
        self.open_quotient = rng.uniform(0.5, 0.72)
        self.sibilance = rng.uniform(0.5, 1.2)
        self.ring = rng.uniform(0.0, 1.0)  # singer's formant: how closely F3..F5 cluster
        self._tables()

    def _tables(self) -> None:
        """Two sets of tables (soft, pressed), each half an octave of fundamentals its own number of harmonics."""
        self._lowest_hz = 60.0
        levels = 12
        self.tables = np.zeros((2, levels, 2049), np.float32)
        for effort, (oq, ret) in enumerate(((self.open_quotient + 0.12, 0.030), (self.open_quotient - 0.08, 0.006))):
            for level in range(levels):
                top = self._lowest_hz * 2 ** ((level + 1) / 2)
                count = max(1, min(1000, int(min(0.45 * self.samplerate, 14000) / top)))
                spectrum = np.zeros(1025, np.complex128)
                spectrum[: count + 1] = glottal_spectrum(oq, ret, count)
                table = np.fft.irfft(spectrum, 2048)
                if level == 0:
                    norm = np.sqrt(np.mean(table**2))
                self.tables[effort, level, :2048] = table / norm
        self.tables[:, :, 2048] = self.tables[:, :, 0]

    def pitch(self, notes: list[Syllable], frames: int) -> NDArray[np.float64]:
        """Fundamental in Hz every `HOP` samples ``[frames]``, with glides, scoops, vibrato and drift."""
        rng, rate = self.rng, self.samplerate / HOP
        time = np.arange(frames) / rate
        midi = np.full(frames, float(notes[0].midi))
        swing = np.zeros(frames)
        for i, note in enumerate(notes):
            a = int(note.start_s * rate)
            b = frames if i + 1 == len(notes) else max(a, int(notes[i + 1].start_s * rate))
            since = time[a:b] - note.start_s
            midi[a:b] = note.midi + rng.normal(0, 0.04)
            fresh = i == 0 or notes[i - 1].start_s + notes[i - 1].duration_s < note.start_s - 0.12
            if fresh:
                midi[a:b] -= rng.uniform(0.3, 2.0) * np.exp(-since / 0.05)  # scoop up into a phrase
            last = i + 1 == len(notes) or note.start_s + note.duration_s < notes[i + 1].start_s - 0.12
            if last and note.duration_s > 0.3:
                midi[a:b] -= rng.uniform(0, 1.2) * np.clip((since - note.duration_s + 0.12) / 0.12, 0, 1)
            hold = np.clip((since - self.vibrato_after_s) / 0.25, 0, 1) * (
                note.duration_s > self.vibrato_after_s + 0.15
            )
            swing[a:b] = hold * rng.uniform(0.7, 1.2)
        width = max(3, int(self.glide_s * rate))
        kernel = np.hanning(width + 2)
        midi = np.convolve(np.pad(midi, width, mode="edge"), kernel / kernel.sum(), "same")[width:-width]
        rate_hz = self.vibrato_hz * (1 + 0.06 * self._slow(frames, 1.0))
        vibrato = np.sin(2 * np.pi * np.cumsum(rate_hz) / rate) * swing * self.vibrato_cents / 100
        drift = 0.10 * self._slow(frames, 2.0) + self.jitter_cents / 100 * self._slow(frames, 25.0)
        return 440.0 * 2.0 ** ((midi + vibrato + drift - 69.0) / 12.0)

    def _slow(self, frames: int, hz: float) -> NDArray[np.float64]:
        """Smooth random track of about unit size, band-limited to ``hz``."""
        step = max(1, int(self.samplerate / HOP / (2 * hz)))
        points = self.rng.standard_normal(frames // step + 3)
        return np.interp(np.arange(frames) / step, np.arange(len(points)), points)

    def sing(self, notes: list[Syllable], samples: int) -> Audio:
        """Render a melody, mono ``[samples]``, about -20 dBFS RMS while it sings; silence without notes."""
        notes = sorted((s for s in notes if s.start_s < samples / self.samplerate), key=lambda s: s.start_s)
        if not notes:
            return np.zeros(samples, np.float32)
        frames = samples // HOP + WINDOW // HOP + 2
        n = frames * HOP
        rate = self.samplerate / HOP
        f0 = self.pitch(notes, frames)
        formants, voiced, effort = self._gestures(notes, frames)
        formants[:, 0] = np.maximum(formants[:, 0], 1.02 * f0)  # singers open up rather than lose the fundamental
        at = np.arange(n) / HOP
        f0_n = np.interp(at, np.arange(frames), f0)
        f0_n *= 1 + 0.006 * np.interp(
            np.arange(n) / 400, np.arange(n // 400 + 2), self.rng.standard_normal(n // 400 + 2)
        )
        cycles = np.cumsum(f0_n / self.samplerate)
        level = np.clip(2 * np.log2(f0_n / self._lowest_hz), 0, 11).astype(np.int32)
        place = (cycles % 1.0 * 2048).astype(np.float32)
        index = np.minimum(place.astype(np.int32), 2047)
        part = place - index
        loud = np.interp(at, np.arange(frames), voiced).astype(np.float32)
        press = np.interp(at, np.arange(frames), effort).astype(np.float32)
        source = np.zeros(n, np.float32)
        for k, mix in ((0, 1 - press), (1, press)):
            flat = self.tables[k].ravel()
            i = level * 2049 + index
            source += mix * (flat[i] * (1 - part) + flat[i + 1] * part)
        shimmer = 1 + 0.04 * np.interp(
            np.arange(n) / 300, np.arange(n // 300 + 2), self.rng.standard_normal(n // 300 + 2)
        )
        gust = noise(self.rng, n) * (0.45 + 0.55 * (place < 2048 * self.open_quotient))
        source = np.asarray((source * shimmer.astype(np.float32) + np.float32(self.breath * 1.6) * gust) * loud)
        out = self._tract(source, formants, frames)
        out = self._level(out, np.interp(at, np.arange(frames), voiced), rate)
        out += self._noises(notes, n)
        return shape(out, self.samplerate, highpass(80))[:samples]

    def _gestures(
        self, notes: list[Syllable], frames: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Formants ``[frames, 3]`` in Hz, voicing ``[frames]`` 0..1 and effort ``[frames]`` 0..1."""
        rate = self.samplerate / HOP
        formants = np.tile(np.array(VOWELS["uh"]), (frames, 1))
        voiced, effort = np.zeros(frames), np.full(frames, 0.4)
        for i, note in enumerate(notes):
            onset = CONSONANTS.get(note.onset)
            coda = CONSONANTS.get(note.coda)
            room = note.duration_s * 0.35
            lead = min(onset[0], room) if onset else 0.0
            tail = min(coda[0], room) if coda else 0.0
            a, b = int((note.start_s - lead) * rate), min(int((note.start_s + note.duration_s) * rate), frames)
            a = max(a, 0)
            on, off = max(int(note.start_s * rate), a), max(int((note.start_s + note.duration_s - tail) * rate), a + 1)
            first, second = DIPHTHONGS.get(note.vowel, (note.vowel, note.vowel))
            turn = on + int((off - on) * 0.55)
            formants[on:turn] = VOWELS[first]
            formants[turn:b] = VOWELS[second]
            swell = 0.8 + 0.35 * np.sin(np.pi * np.linspace(0.15, 1, max(b - on, 1)) ** 0.8)
            voiced[on:b] = note.velocity * swell[: len(voiced[on:b])]
            effort[a:b] = np.clip(note.velocity * 0.9 + 0.05 * (note.midi - 60) / 4, 0.1, 1.0)
            if onset:
                if onset[2] is not None:
                    formants[a:on] = onset[2]
                else:
                    formants[a:on] = VOWELS[first]
                voiced[a:on] = onset[1] * note.velocity
            if coda:
                formants[off:b] = coda[2] if coda[2] is not None else VOWELS[second]
                voiced[off:b] = coda[1] * note.velocity
            follows = i + 1 < len(notes) and notes[i + 1].start_s - (note.start_s + note.duration_s) < 0.1
            if not follows:
                formants[b:] = formants[b - 1]
        soft = np.hanning(int(0.045 * rate) | 1)[:, None] if rate * 0.045 >= 3 else np.ones((1, 1))
        pad = len(soft) // 2
        padded = np.pad(formants, ((pad, pad), (0, 0)), mode="edge")
        smooth = sum(padded[k : k + frames] * soft[k] for k in range(len(soft))) / soft.sum()
        gate = np.hanning(7)[1:-1]
        voiced = np.convolve(voiced, gate / gate.sum(), "same")
        return np.asarray(smooth) * self.tract, voiced, effort

    def _tract(self, source: Audio, formants: NDArray[np.float64], frames: int) -> Audio:
        """Filter ``source`` ``[frames * HOP]`` with resonances that move every `HOP` samples."""
        sr = self.samplerate
        window = (np.hanning(WINDOW + 1)[:-1] / (WINDOW / HOP / 2)).astype(np.float32)
        padded = np.concatenate([np.zeros(WINDOW // 2, np.float32), source, np.zeros(WINDOW, np.float32)])
        pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
        active = np.flatnonzero(np.abs(pieces).max(axis=1) > 1e-7)
        top = min(int(13000 / sr * FFT), FFT // 2)
        z1 = np.exp(-2j * np.pi * np.arange(top) / FFT).astype(np.complex64)
        z2 = z1 * z1
        gather = 0.25 * self.ring
        f4 = 3500 * self.tract * (1 - 0.08 * gather)
        f5 = 4500 * self.tract * (1 - 0.2 * gather)
        fixed = np.ones(top, np.complex64)
        for k, hz in enumerate((f4, f5, *(1030.0 * self.tract * (j - 0.5) for j in range(6, 13)))):
            width = 130.0 + 45.0 * k
            r, c = np.exp(-np.pi * width / sr), 2 * np.exp(-np.pi * width / sr) * np.cos(2 * np.pi * hz / sr)
            fixed *= ((1 - c + r * r) / (1 - c * z1 + r * r * z2)).astype(np.complex64)
        # A close microphone and an engineer's top end: what a bare tract lacks against a record.
        fixed *= np.sqrt(1 + (np.arange(top) * sr / FFT / 2800) ** 2).astype(np.float32)
        fixed *= np.clip((top - np.arange(top)) / (0.15 * top), 0, 1).astype(np.float32)
        widths = (70.0, 90.0, 130.0)
        out = np.zeros((frames + FFT // HOP) * HOP, np.float32)
        for s in range(0, len(active), 512):
            part = active[s : s + 512]
            spectrum = np.fft.rfft(pieces[part] * window, FFT, axis=1)[:, :top]
            bottom = np.ones((len(part), top), np.complex64)
            gain = np.ones(len(part))
            for k, width in enumerate(widths):
                radius = np.exp(-np.pi * width / sr)
                turn = 2 * radius * np.cos(2 * np.pi * formants[part, k] / sr)
                bottom *= 1 - turn.astype(np.float32)[:, None] * z1 + np.complex64(radius * radius) * z2
                gain *= 1 - turn + radius * radius
            spectrum *= fixed * gain.astype(np.float32)[:, None] / bottom
            full = np.zeros((len(part), FFT // 2 + 1), np.complex64)
            full[:, :top] = spectrum
            y = np.fft.irfft(full, FFT, axis=1).astype(np.float32)
            for row, frame in zip(y, part, strict=True):
                out[frame * HOP : frame * HOP + FFT] += row
        return out[WINDOW // 2 : WINDOW // 2 + frames * HOP]

    def _level(self, x: Audio, voiced: NDArray[np.float64], rate: float) -> Audio:
        """Even out what vowels differ in loudness, as an engineer's compressor does (2:1), to -20 dBFS."""
        frames = len(x) // HOP
        power = (x[: frames * HOP].reshape(frames, HOP).astype(np.float64) ** 2).mean(1)
        kernel = np.hanning(int(0.12 * rate) + 2)
        smooth = np.sqrt(np.convolve(power, kernel / kernel.sum(), "same")) + 1e-9
        sung = voiced[::HOP][:frames] > 0.25
        usual = np.sqrt(np.mean(smooth[sung] ** 2)) if sung.any() else 1.0
        gain = 0.1 / usual * np.clip(smooth / usual, 0.05, 4.0) ** -0.5
        return x * np.interp(np.arange(len(x)) / HOP, np.arange(frames), gain).astype(np.float32)

    def _noises(self, notes: list[Syllable], n: int) -> Audio:
        """Sibilants, bursts and audible breaths between phrases."""
        sr, rng = self.samplerate, self.rng
        bank = {name: shape(noise(rng, 2 * sr), sr, bandpass(*band, 3)) for name, band in BANDS.items()}
        bank = {name: x / np.float32(np.std(x)) for name, x in bank.items()}
        out = np.zeros(n, np.float32)

        def put(name: str, start_s: float, seconds: float, level: float, burst: bool) -> None:
            size = int(seconds * sr)
            a = int(start_s * sr)
            if size < 8 or a < 0 or a + size > n:
                return
            t = np.linspace(0, 1, size, dtype=np.float32)
            envelope = np.exp(-5 * t) * np.minimum(t * 40, 1) if burst else np.sin(np.pi * t**0.8)
            p = int(rng.integers(0, 2 * sr - size))
            out[a : a + size] += np.float32(level) * bank[name][p : p + size] * envelope

        last_end = 0.0
        for note in notes:
            room = note.duration_s * 0.35
            for sound, end in ((note.onset, note.start_s), (note.coda, note.start_s + note.duration_s)):
                if sound in CONSONANTS and CONSONANTS[sound][3] is not None:
                    seconds, _, _, name, level = CONSONANTS[sound]
                    assert name is not None
                    seconds = min(seconds, room)
                    loud = 0.075 * level * self.sibilance * (0.5 + 0.5 * note.velocity)
                    if name in BURSTS:
                        put(name, end - 0.018, 0.045, loud * 1.3, True)
                    else:
                        put(name, end - seconds, seconds + 0.015, loud, False)
            gap = note.start_s - last_end
            if gap > 0.45:
                put("h", note.start_s - min(0.40, gap * 0.7), min(0.32, gap * 0.5), 0.005 + 0.02 * self.breath, False)
            last_end = note.start_s + note.duration_s
        return out


def range_of(rng: Rng, high: bool) -> tuple[int, int]:
    """Lowest and highest MIDI note of a singer's comfortable part."""
    low = int(rng.integers(55, 60)) if high else int(rng.integers(43, 51))
    return low, low + int(rng.integers(14, 18))


__all__ = ["Singer", "Syllable", "midi_hz", "range_of", "words"]
