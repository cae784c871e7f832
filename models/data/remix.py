"""Training segments: stems of different songs put together anew, each changed a little.

Every segment is unbroken audio of several seconds: models trained on short padded chunks were seen to fall
silent within two seconds of streaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from scipy.signal import sosfilt
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from models.data.library import Song
from models.data.readers import STEMS, Audio

_OTHER, _VOCALS = STEMS.index("other"), STEMS.index("vocals")
ACTIVE_RMS = 0.01  # a segment quieter than this (about 20 dB under a mix) counts as silence


@dataclass(frozen=True)
class RemixConfig:
    """Chances and ranges of the augmentation.

    Attributes
    ----------
    seconds : float
        Length of a segment.
    coherent : float
        Share of segments whose stems come from one place of one song, as a record has them.
    other_voice : float
        Chance that in such a segment somebody else sings: the vocals of another song over instruments that play
        together.
    glue : float
        Chance of a compressor over the whole mixture, as mastered records have one: all stems get the same gain.
    gain : tuple of float
        Range of each stem's linear gain (Uhlich et al., ICASSP 2017).
    resample : float
        Largest relative change of rate; it covers both 44.1 and 48 kHz with one model.
    filter : float
        Chance per stem of a gentle shelf or peak filter.
    noise : float
        Chance of steady noise, white to brown, in ``other``: 25 to 65 dB below full scale. Air conditioners and tapes
        are no drums.
    drop : float
        Chance per stem of silence, so that models learn that instruments can be absent.
    solo_stem : float
        Chance of a segment with one stem only.
    level_db : tuple of float
        Range of the level of the whole mixture against a mastered record.
    pairs : bool
        Take recordings of vocals and accompaniment, too, as they are: all of the accompaniment is ``other``. Only for
        models that tell nothing else apart. Their parts are not put together with others: they may lack highs that
        a model would learn to leave out.
    """

    seconds: float = 6.0
    coherent: float = 0.35
    other_voice: float = 0.0
    glue: float = 0.0
    noise: float = 0.0
    gain: tuple[float, float] = (0.25, 1.25)
    resample: float = 0.1
    filter: float = 0.3
    drop: float = 0.06
    solo_stem: float = 0.03
    level_db: tuple[float, float] = (-9.0, 3.0)
    pairs: bool = False


class RemixDataset(IterableDataset[Tensor]):
    """Endless stream of true stems ``[S, 2, T]`` float32; their sum is the mixture.

    Parameters
    ----------
    songs : list of Song
        Training material; stems of incomplete songs are used in remixes, but not their ``other``.
    weights : dict
        Source name -> how often, relative to the others, a stem is drawn from it.
    seed : int
        The stream is a function of the seed and of the data worker's number.
    """

    def __init__(
        self, songs: list[Song], weights: dict[str, float], config: RemixConfig, samplerate: int, seed: int
    ) -> None:
        self.config, self.samplerate, self.seed = config, samplerate, seed
        self.samples = round(config.seconds * samplerate)
        self.pools: dict[str, tuple[list[Song], np.ndarray]] = {}
        for stem in STEMS:
            pool = [s for s in songs if stem in s.stems and not s.pair and (stem != "other" or s.complete)]
            self.pools[stem] = (pool, self._chances(pool, weights))
        whole = [s for s in songs if s.complete or (config.pairs and s.pair)]
        self.whole = (whole, self._chances(whole, weights))

    def _chances(self, pool: list[Song], weights: dict[str, float]) -> np.ndarray:
        """Chance per song: the source's weight, shared by the square root of its songs' lengths."""
        raw = np.array([np.sqrt(song.length) for song in pool])
        for source in {song.source for song in pool}:
            mine = np.array([song.source == source for song in pool])
            raw[mine] *= weights[source] / raw[mine].sum()
        return raw / raw.sum()

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            yield torch.from_numpy(self.segment(rng))

    def segment(self, rng: np.random.Generator) -> np.ndarray:
        """Draw one segment ``[S, 2, T]``."""
        config = self.config
        if rng.random() < config.coherent:
            stems = self._from_one_song(rng)
            if config.other_voice and rng.random() < config.other_voice:
                stems[_VOCALS] = self._from_any_song(rng, "vocals")
        else:
            stems = np.stack([self._from_any_song(rng, stem) for stem in STEMS])
        keep = rng.random(len(STEMS)) >= config.drop
        if rng.random() < config.solo_stem:
            keep = np.arange(len(STEMS)) == rng.integers(len(STEMS))
        stems *= keep[:, None, None]
        if config.noise and rng.random() < config.noise:
            stems[_OTHER] += self._noise(rng)
        if config.glue and rng.random() < config.glue:
            stems *= self._compression(rng, stems.sum(0))
        stems *= 10 ** (rng.uniform(*config.level_db) / 20)
        # Records are limited, so that a hot remix is brought back under full scale.
        peak = float(np.abs(stems.sum(0)).max())
        if peak > 1.0:
            stems /= peak
        return stems.astype(np.float32)

    def _from_one_song(self, rng: np.random.Generator) -> np.ndarray:
        pool, chances = self.whole
        song = pool[rng.choice(len(pool), p=chances)]
        rate = 1 + rng.uniform(-1, 1) * self.config.resample
        start, count = self._place(rng, song, rate)
        names = ["accompaniment" if song.pair and stem == "other" else stem for stem in STEMS]
        silence = np.zeros((2, self.samples), np.float32)
        stems = np.stack(
            [self._stretch(song.read(n, start, count), rate) if n in song.stems else silence for n in names]
        )
        stems *= rng.uniform(0.7, 1.3, (len(STEMS), 1, 1)).astype(np.float32)
        return stems[:, ::-1].copy() if rng.random() < 0.5 else stems

    def _from_any_song(self, rng: np.random.Generator, stem: str) -> Audio:
        pool, chances = self.pools[stem]
        for _ in range(4):  # prefer a place where the stem plays
            song = pool[rng.choice(len(pool), p=chances)]
            rate = 1 + rng.uniform(-1, 1) * self.config.resample
            start, count = self._place(rng, song, rate)
            audio = song.read(stem, start, count)
            if float(np.sqrt(np.mean(np.square(audio)))) > ACTIVE_RMS:
                break
        audio = self._stretch(audio, rate)
        if len(song.stems) == 1:  # a solo recording: as loud as it would be inside a record
            audio *= 0.6 * rng.uniform(0.6, 1.2)
            audio = self._room(rng, audio)
        if rng.random() < self.config.filter:
            audio = self._filter(rng, audio)
        if rng.random() < 0.5:
            audio = audio[::-1]  # left and right
        if rng.random() < 0.5:
            audio = -audio
        return audio * np.float32(rng.uniform(*self.config.gain))

    def _place(self, rng: np.random.Generator, song: Song, rate: float) -> tuple[int, int]:
        count = int(np.ceil(self.samples * rate)) + 64
        return int(rng.integers(max(1, song.length - count + 1))), count

    def _stretch(self, audio: Audio, rate: float) -> Audio:
        """Play ``rate`` times as fast and cut to the segment."""
        # Cubic interpolation: quick, and its images are far below what augmentation changes anyway.
        out = soxr.resample(audio.T, self.samplerate * rate, self.samplerate, quality="QQ").T
        fitted = np.zeros((2, self.samples), np.float32)
        count = min(self.samples, out.shape[1])
        fitted[:, :count] = out[:, :count]
        return fitted

    def _filter(self, rng: np.random.Generator, audio: Audio) -> Audio:
        """A peak filter of up to 6 dB (R. Bristow-Johnson's audio EQ cookbook)."""
        gain = 10 ** (rng.uniform(-6, 6) / 40)
        highest = min(12000.0, 0.45 * self.samplerate)
        omega = 2 * np.pi * np.exp(rng.uniform(np.log(80), np.log(highest))) / self.samplerate
        alpha = np.sin(omega) / (2 * rng.uniform(0.4, 1.5))
        numerator = [1 + alpha * gain, -2 * np.cos(omega), 1 - alpha * gain]
        denominator = [1 + alpha / gain, -2 * np.cos(omega), 1 - alpha / gain]
        section = np.array([numerator + denominator]) / denominator[0]
        return np.asarray(sosfilt(section, audio, axis=1), dtype=np.float32)

    def _compression(self, rng: np.random.Generator, mixture: Audio) -> Audio:
        """Gain ``[T]`` of a compressor of ratio 1.5 to 4, in steps of about 5 ms with lines between them."""
        step = max(1, self.samplerate // 200)
        count = -(-mixture.shape[1] // step)
        power = np.zeros(count * step)
        power[: mixture.shape[1]] = np.square(mixture).mean(0)
        power = power.reshape(count, step).mean(1)
        attack, release = (
            np.exp(-step / self.samplerate / s) for s in (rng.uniform(0.003, 0.03), rng.uniform(0.06, 0.4))
        )
        level, levels = float(power[0]), np.empty(count)
        for i, now in enumerate(power):
            level = now + (attack if now > level else release) * (level - now)
            levels[i] = level
        threshold_db = 10 * np.log10(power.mean() + 1e-12) + rng.uniform(-6, 6)
        over_db = np.maximum(0.0, 10 * np.log10(levels + 1e-12) - threshold_db)
        gain = 10 ** (-over_db * (1 - 1 / rng.uniform(1.5, 4.0)) / 20)
        return np.interp(np.arange(mixture.shape[1]), (np.arange(count) + 0.5) * step, gain).astype(np.float32)

    def _noise(self, rng: np.random.Generator) -> Audio:
        """Noise ``[2, T]`` whose power falls with frequency by 0 to 6 dB an octave; the same on both sides, or not."""
        size = 1 << self.samples.bit_length()
        spectra = np.fft.rfft(rng.standard_normal((2, size)), axis=1)
        spectra *= np.arange(1, spectra.shape[1] + 1) ** -rng.uniform(0.0, 1.0)
        if rng.random() < 0.3:
            spectra[1] = spectra[0]
        audio = np.fft.irfft(spectra, size)[:, : self.samples]
        audio *= 10 ** (rng.uniform(-65, -25) / 20) / np.sqrt(np.mean(np.square(audio)))
        return audio.astype(np.float32)

    def _room(self, rng: np.random.Generator, audio: Audio) -> Audio:
        """Stereo reverberation by decaying noise: solo recordings are dry and mono, records are not."""
        if rng.random() < 0.3:
            return audio
        decay = rng.uniform(0.1, 0.5) * self.samplerate  # samples to fall by 60 dB, about
        length = int(decay)
        noise = rng.standard_normal((2, length)) * 10 ** (-3 * np.arange(length) / decay)
        noise *= 10 ** (rng.uniform(-22, -8) / 20) / np.sqrt(np.mean(np.sum(noise**2, axis=1)))
        size = 1 << (audio.shape[1] + length).bit_length()
        wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(noise, size), size)[:, : audio.shape[1]]
        return audio + wet.astype(np.float32)
