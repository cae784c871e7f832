"""Duets, trios and quartets with exact stems and exact notes, for models that separate by query and transcribe.

Two kinds of players: :class:`Orchestra` plays scores on recorded single notes, with the unevenness of people;
:class:`StemPlayers` takes excerpts of recorded stems that come with their notes (URMP, folders with MIDI).
:class:`EnsembleDataset` makes training examples of either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from scipy.signal import sosfilt
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from models.data.instruments import LARGEST_SHIFT, Instrument
from models.data.notes import REST, Note, NotedStem, roll_of
from models.data.readers import Audio

SCORES = Path(__file__).with_name("chorales.json")
SMALLEST_GAP_SECONDS = 0.05  # before a note of the same pitch is struck anew
Voice = list[tuple[int, float]]  # MIDI number (or REST) and duration in quarters, in turn
Roll = NDArray[np.int64]
Part = Callable[[int], tuple[Audio, Roll]]
"""Renders one excerpt at a transposition in semitones: audio ``[T]`` and its roll ``[N]``; else always the same."""


class Players(Protocol):
    """A source of music for known instruments.

    ``shift`` moves an instrument's formants by semitones, where the players can; what belongs to one instrument of
    one example has the same shift.
    """

    instruments: tuple[str, ...]

    def ensemble(
        self, rng: np.random.Generator, instruments: Sequence[str], seconds: float, shifts: Sequence[int]
    ) -> list[Part]:
        """Draw a part for each instrument; they may belong together."""
        ...

    def solo(self, rng: np.random.Generator, instrument: str, seconds: float, shift: int) -> Audio:
        """Draw a recording ``[T]`` of an instrument that plays nearly all the time: a query."""
        ...


def read_scores(path: Path = SCORES, *, held_out: bool = False, every: int = 5) -> list[list[Voice]]:
    """Return the voices of chorales; every fifth chorale is held out for validation.

    Parameters
    ----------
    path : Path
        As ``tools/extract_chorales.py`` writes it.
    held_out : bool
        Return those held out instead of the others.
    every : int
    """
    document = json.loads(path.read_text())
    ticks = document["ticks_per_quarter"]
    return [
        [[(pitch, length / ticks) for pitch, length in zip(flat[::2], flat[1::2], strict=True)] for flat in voices]
        for index, voices in enumerate(document["chorales"].values())
        if (index % every == 0) == held_out
    ]


def melodic_line(rng: np.random.Generator, quarters: float) -> Voice:
    """A random walk through a scale, with rests: what chorales lack (leaps, fast notes, wide range)."""
    scale = np.cumsum([0, *rng.permutation([2, 2, 1, 2, 2, 2, 1])[:6]])
    unit = rng.choice([0.25, 0.5, 1.0], p=[0.3, 0.5, 0.2])
    step, total = 7, 0.0
    voice: Voice = []
    while total < quarters:
        length = float(unit * rng.choice([1, 2, 3, 4], p=[0.55, 0.3, 0.05, 0.1]))
        leap = rng.choice([-4, -2, -1, 0, 1, 2, 4], p=[0.06, 0.2, 0.24, 0.08, 0.2, 0.14, 0.08])
        step = int(np.clip(step + leap, 0, 20))
        midi = 55 + int(scale[step % 7]) + 12 * (step // 7)
        voice.append((REST if rng.random() < 0.08 else midi, length))
        total += length
    return voice


def transposed(voice: Voice, semitones: int) -> Voice:
    """Move the notes of a voice, not its rests."""
    return [(midi if midi == REST else midi + semitones, length) for midi, length in voice]


class Orchestra:
    """Plays chorales and random lines on recorded notes.

    Parameters
    ----------
    instruments : dict
        By name, of :func:`models.data.instruments.load_instruments`.
    scores : list
        Of :func:`read_scores`.
    """

    def __init__(self, instruments: dict[str, Instrument], scores: list[list[Voice]]) -> None:
        self.library, self.scores = instruments, scores
        self.instruments = tuple(sorted(instruments))

    def ensemble(
        self, rng: np.random.Generator, instruments: Sequence[str], seconds: float, shifts: Sequence[int]
    ) -> list[Part]:
        """Draw parts: voices of one chorale, or, in two of five cases, unrelated music for each."""
        quarter = rng.uniform(0.35, 0.9)  # seconds
        if rng.random() < 0.6:
            score = self.scores[rng.integers(len(self.scores))]
            voices = [score[i] for i in np.sort(rng.permutation(len(score))[: len(instruments)])]
            voices += [melodic_line(rng, seconds / quarter + 8) for _ in instruments[len(voices) :]]
            order = np.argsort([-self.library[name].highest for name in instruments])  # high voices to high instruments
            key = int(rng.integers(-5, 7))
            voices = [transposed(voices[i], key) for i in np.argsort(order)]
            length = min(sum(duration for _, duration in voice) for voice in voices) * quarter
            start = rng.uniform(0, max(length - seconds, 0.0))
            music = [(voice, quarter, start) for voice in voices]
        else:
            music = [self._anything(rng, seconds) for _ in instruments]
        return [
            self._part(rng, name, *piece, seconds, shift)
            for name, piece, shift in zip(instruments, music, shifts, strict=True)
        ]

    def solo(self, rng: np.random.Generator, instrument: str, seconds: float, shift: int) -> Audio:
        """Draw a voice and leave its rests out."""
        voice, quarter, start = self._anything(rng, 2 * seconds)
        dense = [(midi, length) for midi, length in voice if midi != REST]
        audio, _ = self._part(rng, instrument, dense, quarter, min(start, seconds), seconds, shift)(0)
        return audio

    def _anything(self, rng: np.random.Generator, seconds: float) -> tuple[Voice, float, float]:
        """A voice in any key, seconds per quarter and where to start in it, in seconds."""
        quarter, key = rng.uniform(0.35, 0.9), int(rng.integers(-5, 7))
        if rng.random() < 0.5:
            return transposed(melodic_line(rng, seconds / quarter + 4), key), quarter, rng.uniform(0, 1.0)
        score = self.scores[rng.integers(len(self.scores))]
        voice = transposed(score[rng.integers(len(score))], key)
        length = sum(duration for _, duration in voice) * quarter
        return voice, quarter, rng.uniform(0, max(length - seconds, 0.0))

    def _part(
        self,
        rng: np.random.Generator,
        name: str,
        voice: Voice,
        quarter: float,
        start: float,
        seconds: float,
        shift: int,
    ) -> Part:
        """Bind music, instrument and one player's habits."""
        instrument = self.library[name]
        timed, onset = [], -start
        for midi, length in voice:
            if midi != REST and onset + length * quarter > 0 and onset < seconds:
                timed.append((onset, length * quarter, midi))
            onset += length * quarter
        habits = {
            "seed": int(rng.integers(2**31)),
            "dynamic": str(rng.choice(sorted({r.dynamic for r in instrument.recordings}))),
            "legato": rng.uniform(0.7, 1.03),
            "jitter": rng.uniform(0.010, 0.025),
            "tuning": float(np.clip(rng.normal(0, 0.08), -0.2, 0.2)),
        }
        samples = round(seconds * instrument.samplerate)

        def render(semitones: int) -> tuple[Audio, Roll]:
            return self._perform(instrument, timed, semitones, shift, samples, **habits)

        return render

    def _perform(
        self,
        instrument: Instrument,
        timed: list[tuple[float, float, int]],
        semitones: int,
        shift: int,
        samples: int,
        *,
        seed: int,
        dynamic: str,
        legato: float,
        jitter: float,
        tuning: float,
    ) -> tuple[Audio, Roll]:
        rng = np.random.default_rng(seed)
        uneven = rng.standard_normal((len(timed), 3))
        swell = rng.uniform(0, 2 * np.pi)
        rate = instrument.samplerate
        pitches = in_range([midi + semitones for _, _, midi in timed], instrument, rng)
        onsets = [o + float(np.clip(jitter * u, -0.04, 0.04)) for (o, _, _), u in zip(timed, uneven[:, 0], strict=True)]
        audio, notes = np.zeros(samples, np.float32), []
        for index, ((_, duration, _), onset, midi) in enumerate(zip(timed, onsets, pitches, strict=True)):
            sounding = duration * legato * (1 + 0.05 * uneven[index, 1])
            if index + 1 < len(timed):
                until_next = onsets[index + 1] - onset
                # A little over the next note where it is another one, a gap where it is the same.
                gap = SMALLEST_GAP_SECONDS if pitches[index + 1] == midi else -0.03
                sounding = min(sounding, until_next - gap)
            recording = instrument.pick(rng, midi - shift, dynamic)
            if abs(midi + tuning - recording.midi) > LARGEST_SHIFT:
                recording = instrument.pick(rng, midi, dynamic)
            if sounding < 0.04 or abs(midi + tuning - recording.midi) > LARGEST_SHIFT:
                continue
            line = instrument.play(recording, midi + tuning, sounding)
            level_db = 3.0 * np.sin(swell + 1.5 * onset) + 1.2 * float(np.clip(uneven[index, 2], -2, 2))
            first = round(onset * rate)
            begin, end = max(first, 0), min(first + len(line), samples)
            if end > begin:
                audio[begin:end] += np.float32(10 ** (level_db / 20)) * line[begin - first : end - first]
            notes.append(Note(onset, onset + min(sounding, len(line) / rate), midi))
        return audio, roll_of(notes, samples / rate)


def in_range(pitches: list[int], instrument: Instrument, rng: np.random.Generator) -> list[int]:
    """Move a voice by octaves to where most of it can be played, and single notes where they cannot."""
    if not pitches:
        return []
    line = np.array(pitches)
    octaves = 12 * np.arange(-5, 6)
    outside = [int(np.sum((line + o < instrument.lowest) | (line + o > instrument.highest))) for o in octaves]
    best = np.flatnonzero(np.array(outside) == min(outside))
    line = line + octaves[best[rng.integers(len(best))]]
    line = np.where(line > instrument.highest, line - 12 * np.ceil((line - instrument.highest) / 12), line)
    line = np.where(line < instrument.lowest, line + 12 * np.ceil((instrument.lowest - line) / 12), line)
    return [int(midi) for midi in line]


class StemPlayers:
    """Excerpts of recorded stems with notes; cannot move formants, and parts of an ensemble are unrelated.

    Parameters
    ----------
    stems : list of NotedStem
    samplerate : int
        Hz, to convert to.
    """

    def __init__(self, stems: list[NotedStem], samplerate: int) -> None:
        self.stems, self.samplerate = stems, samplerate
        self.instruments = tuple(sorted({stem.instrument for stem in stems}))

    def ensemble(
        self, rng: np.random.Generator, instruments: Sequence[str], seconds: float, shifts: Sequence[int]
    ) -> list[Part]:
        """Draw a place in a recording for each instrument, near the onset of a note."""
        return [self._part(rng, name, seconds) for name in instruments]

    def _part(self, rng: np.random.Generator, name: str, seconds: float) -> Part:
        stem = self._draw(rng, name)
        note = stem.notes[rng.integers(len(stem.notes))]
        start = max(0.0, note.onset - rng.uniform(0, 0.7 * seconds))

        def render(semitones: int) -> tuple[Audio, Roll]:
            rate = 2.0 ** (semitones / 12)  # pitch and tempo together
            audio = self._read(stem, start, seconds * rate, rate)
            fitted = np.zeros(round(seconds * self.samplerate), np.float32)
            fitted[: len(audio)] = audio[: len(fitted)]
            notes = [Note((n.onset - start) / rate, (n.offset - start) / rate, n.midi + semitones) for n in stem.notes]
            return fitted, roll_of(notes, seconds)

        return render

    def solo(self, rng: np.random.Generator, instrument: str, seconds: float, shift: int) -> Audio:
        """Draw notes in succession from a recording, without the rests between them, at another pitch."""
        stem = self._draw(rng, instrument)
        rate = 2.0 ** (rng.integers(-4, 5) / 12)
        index = int(rng.integers(len(stem.notes)))
        audio = np.zeros(0, np.float32)
        for _ in range(len(stem.notes) + 1):
            note = stem.notes[index % len(stem.notes)]
            audio = np.concatenate([audio, self._read(stem, note.onset, note.offset - note.onset, rate)])
            index += 1
            if len(audio) >= seconds * self.samplerate:
                break
        return np.resize(audio, round(seconds * self.samplerate))  # round again where the recording is short

    def _draw(self, rng: np.random.Generator, name: str) -> NotedStem:
        mine = [stem for stem in self.stems if stem.instrument == name]
        return mine[rng.integers(len(mine))]

    def _read(self, stem: NotedStem, start: float, seconds: float, rate: float) -> Audio:
        with soundfile.SoundFile(stem.path) as file:
            file.seek(min(int(start * file.samplerate), file.frames))
            audio = file.read(int(seconds * file.samplerate), dtype="float32", always_2d=True).mean(1)
            return soxr.resample(audio, file.samplerate * rate, self.samplerate)


@dataclass(frozen=True)
class EnsembleConfig:
    """Chances and ranges of training examples.

    Attributes
    ----------
    seconds, query_seconds : float
        Lengths of the mixture and of each query.
    sizes : tuple of float
        Chances of two, three, four ... instruments.
    gain_db : float
        Largest difference of an instrument's level from the others', either way.
    level_db : tuple of float
        Range of the RMS of mixtures and queries against full scale.
    shift : int
        Largest move of formants in semitones.
    equaliser, room, absent : float
        Chances per instrument of a filter and of a room; and that the queried instrument does not play.
    second_shift : int
        Largest transposition of a source in the second mixture (MSI-DIS); 0 makes none.
    """

    seconds: float = 3.0
    query_seconds: float = 2.0
    sizes: tuple[float, ...] = (0.6, 0.25, 0.15)
    gain_db: float = 5.0
    level_db: tuple[float, float] = (-32.0, -14.0)
    shift: int = 2
    equaliser: float = 0.5
    room: float = 0.6
    absent: float = 0.05
    second_shift: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> EnsembleConfig:
        """Build from plain TOML values; unknown keys raise ``TypeError``."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})  # type: ignore[arg-type]


class EnsembleDataset(IterableDataset[dict[str, Tensor]]):
    """Endless stream of examples, a function of the seed and of the data worker's number.

    Each is a dictionary: ``mixture`` and ``target`` ``[T]``; ``roll`` ``[N]`` of the target (MIDI numbers, 0 for
    rests, 100 a second); ``queries`` ``[2, 2, Tq]``, two recordings each of the target's and of another
    instrument of the mixture; with ``second_shift`` also ``second`` ``[T]``, the mixture with every source
    transposed anew.

    Parameters
    ----------
    players : list of Players
    weights : list of float
        How often to draw from each.
    config : EnsembleConfig
    samplerate, seed : int
    """

    def __init__(
        self, players: list[Players], weights: list[float], config: EnsembleConfig, samplerate: int, seed: int
    ) -> None:
        self.players, self.config, self.samplerate, self.seed = players, config, samplerate, seed
        self.chances = np.array(weights) / np.sum(weights)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            yield {key: torch.from_numpy(value) for key, value in self.example(rng).items()}

    def example(self, rng: np.random.Generator, target: str = "", others: Sequence[str] = ()) -> dict[str, NDArray]:
        """Draw an example, of given instruments if they are named."""
        config = self.config
        players = self.players[rng.choice(len(self.players), p=self.chances)]
        names = [target, *others] if target else self._names(rng, players)
        shifts = [int(rng.integers(-config.shift, config.shift + 1)) for _ in names]
        colours = [self._colour(rng) for _ in names]
        parts = players.ensemble(rng, names, config.seconds, shifts)
        gains = 10 ** (rng.uniform(-config.gain_db, config.gain_db, len(names)) / 20)
        if rng.random() < config.absent:
            gains[0] = 0.0
        rendered = [part(0) for part in parts]
        stems = np.stack([g * c(audio) for g, c, (audio, _) in zip(gains, colours, rendered, strict=True)])  # [S, T]
        mixture = stems.sum(0)
        scale = self._level(rng, mixture)
        roll = rendered[0][1] if gains[0] else np.full_like(rendered[0][1], REST)
        queries = [
            [c(players.solo(rng, name, config.query_seconds, shift)) for _ in range(2)]
            for name, shift, c in zip(names[:2], shifts, colours, strict=False)
        ]
        leveled = [[query * self._level(rng, query) for query in pair] for pair in queries]
        example = {"mixture": mixture * scale, "target": stems[0] * scale, "queries": np.array(leveled)}
        if config.second_shift:
            moves = rng.integers(-config.second_shift, config.second_shift + 1, len(names))
            again = [g * c(part(int(m))[0]) for g, c, part, m in zip(gains, colours, parts, moves, strict=True)]
            example["second"] = np.sum(again, axis=0) * scale
        return {**{key: value.astype(np.float32) for key, value in example.items()}, "roll": roll}

    def _names(self, rng: np.random.Generator, players: Players) -> list[str]:
        size = 2 + int(rng.choice(len(self.config.sizes), p=self.config.sizes))
        return [str(name) for name in rng.permutation(players.instruments)[:size]]

    def _level(self, rng: np.random.Generator, audio: Audio) -> float:
        """Gain that brings audio to a random level, and never over full scale."""
        rms, peak = float(np.sqrt(np.mean(np.square(audio)))), float(np.abs(audio).max())
        wanted = 10 ** (rng.uniform(*self.config.level_db) / 20)
        return min(wanted / max(rms, 1e-4), 0.99 / max(peak, 1e-4))

    def _colour(self, rng: np.random.Generator) -> Callable[[Audio], Audio]:
        """Draw a filter and a room for one instrument."""
        sections = [self._peak(rng) for _ in range(3)] if rng.random() < self.config.equaliser else []
        room = self._room(rng) if rng.random() < self.config.room else None

        def colour(audio: Audio) -> Audio:
            if sections:
                audio = sosfilt(np.array(sections), audio).astype(np.float32)
            if room is not None:
                size = 1 << (len(audio) + len(room)).bit_length()
                wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(room, size), size)
                audio = audio + wet[: len(audio)].astype(np.float32)
            return audio

        return colour

    def _peak(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """A peak filter of up to 8 dB (R. Bristow-Johnson's audio EQ cookbook)."""
        gain = 10 ** (rng.uniform(-8, 8) / 40)
        omega = 2 * np.pi * np.exp(rng.uniform(np.log(150), np.log(0.4 * self.samplerate))) / self.samplerate
        alpha = np.sin(omega) / (2 * rng.uniform(0.4, 1.5))
        ends = [1 + alpha * gain, -2 * np.cos(omega), 1 - alpha * gain]
        below = [1 + alpha / gain, -2 * np.cos(omega), 1 - alpha / gain]
        return np.array(ends + below) / below[0]

    def _room(self, rng: np.random.Generator) -> Audio:
        """Decaying noise: a room of 0.1 to 0.5 s, 8 to 22 dB under the direct sound."""
        decay = rng.uniform(0.1, 0.5) * self.samplerate
        noise = rng.standard_normal(int(decay)) * 10 ** (-3 * np.arange(int(decay)) / decay)
        return noise * 10 ** (rng.uniform(-22, -8) / 20) / np.sqrt(np.sum(noise**2))
