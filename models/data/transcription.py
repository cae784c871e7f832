"""Training examples for transcribers: a stretch of a clip, degraded, and what it should be written down as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from models.data.clips import DRUM_NOTES, SAMPLERATE, Bank, Clip
from models.data.degrade import Degradation, coloured_noise, degrade, finish, rms
from models.data.readers import Audio

HOP = 160
FRAME_SECONDS = HOP / SAMPLERATE
ONSET_REACH = 2.0  # frames: the onset target falls linearly to 0 over this
UNSURE_FRAMES = 3
# Whose bleed a transcriber of a kind has to bear, and what it should stay silent for when nothing else sounds.
OTHERS = {
    "polyphonic": ("drums", "bass", "vocals"),
    "monophonic": ("drums", "other", "polyphonic"),
    "drums": ("vocals", "bass", "other", "polyphonic", "monophonic"),
}
SILENT_FOR = {
    "polyphonic": ("drums",),
    "monophonic": ("drums",),
    "drums": ("vocals", "bass", "other", "polyphonic", "monophonic"),
}
Rolls = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ExampleConfig:
    """Chances and lengths.

    Attributes
    ----------
    seconds : float
        Length of an example.
    warmup : float
        Seconds at its beginning that do not count: notes may already sound there.
    negative : float
        Chance of an example without any note: silence, noise, other instruments.
    shift : float
        Largest transposition in semitones, by resampling.
    degradation : Degradation
    """

    seconds: float = 5.0
    warmup: float = 0.25
    negative: float = 0.1
    shift: float = 2.0
    degradation: Degradation = field(default_factory=Degradation)

    @property
    def frames(self) -> int:
        """Frames N of an example."""
        return round(self.seconds / FRAME_SECONDS)


def rolls_of(
    notes: NDArray[np.float64],
    frames: int,
    midi_notes: Sequence[int],
    unsure: NDArray[np.float64] | None = None,
    pitch: NDArray[np.float32] | None = None,
) -> Rolls:
    """Targets of notes ``[n, 4]`` (onset s, offset s, MIDI pitch, velocity) that begin at the first frame.

    Frame f covers ``[f, f + 1)`` times 10 ms; all arrays are ``[N, P]`` except ``pitch``.

    Returns
    -------
    dict
        ``onset``: a triangle over :data:`ONSET_REACH` frames either side of the onset, so that it also says where in
        the frame; ``frame``: 1 where at least half of the frame is inside the note, and where it begins;
        ``velocity``: of the note around its onset, 0 elsewhere or where unknown; ``weight``: 1 where the target is
        known; ``pitch`` ``[N]``: MIDI pitch, 0 where there is none or it is unknown.
    """
    count = len(midi_notes)
    column = {midi: index for index, midi in enumerate(midi_notes)}
    rolls: Rolls = {name: np.zeros((frames, count), np.float32) for name in ("onset", "frame", "velocity")}
    rolls["weight"] = np.ones((frames, count), np.float32)
    rolls["pitch"] = np.zeros(frames, np.float32)
    for onset, offset, midi, velocity in notes:
        p = column.get(round(midi))
        if p is None:
            continue
        at = onset / FRAME_SECONDS  # the middle of frame f is f + 0.5
        first = max(0, round(at))
        last = max(round(offset / FRAME_SECONDS), int(at) + 2)
        rolls["frame"][max(0, int(at)) if at > 0 else 0 : max(0, last), p] = 1.0
        if pitch is None and midi != round(midi) and last - first > 10:
            # A sung note's mean is not its pitch at every moment, but right in the median of its middle.
            rolls["pitch"][first + 5 : last - 3] = midi
        lower, upper = max(0, int(at - ONSET_REACH)), min(frames, int(at + ONSET_REACH) + 1)
        for f in range(lower, upper):
            height = 1 - abs(at - f - 0.5) / ONSET_REACH
            if height > rolls["onset"][f, p]:
                rolls["onset"][f, p] = height
                rolls["velocity"][f, p] = velocity / 127
    for time in unsure if unsure is not None else ():
        at = int(time / FRAME_SECONDS)
        rolls["weight"][max(0, at - UNSURE_FRAMES) : max(0, at + UNSURE_FRAMES + 1)] = 0.0
    if pitch is not None:
        rolls["pitch"][: len(pitch)] = pitch[:frames]
    return rolls


class TranscriptionDataset(IterableDataset[dict[str, Tensor]]):
    """Endless stream of examples, a function of the seed and of the data worker's number.

    Each is a dictionary: ``audio`` ``[1, T]`` and the rolls of :func:`rolls_of`.

    Parameters
    ----------
    kind : str
        ``polyphonic``, ``monophonic`` or ``drums``.
    banks : list of (Bank, float)
        Clips with notes, and how often to draw from each.
    bleed : list of Bank
        Stems without notes, and clips of other kinds, for bleed.
    midi_notes : sequence of int
    config : ExampleConfig
    seed : int
    """

    def __init__(
        self,
        kind: str,
        banks: list[tuple[Bank, float]],
        bleed: list[Bank],
        midi_notes: Sequence[int],
        config: ExampleConfig,
        seed: int,
    ) -> None:
        self.kind, self.banks, self.midi_notes, self.config, self.seed = kind, banks, midi_notes, config, seed
        weights = np.array([weight for _, weight in banks])
        self.chances = weights / weights.sum()
        self.others: dict[str, list[tuple[Bank, Clip]]] = {}
        for bank in bleed:
            for clip in bank.clips:
                self.others.setdefault(clip.role, []).append((bank, clip))
        self.lengths = [np.array([c.seconds for c in bank.clips]) for bank, _ in banks]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            yield {key: torch.from_numpy(value) for key, value in self.example(rng).items()}

    def example(self, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        """Draw an example."""
        config = self.config
        samples = config.frames * HOP
        if rng.random() < config.negative:
            audio = self._nothing(samples, rng)
            rolls = rolls_of(np.zeros((0, 4)), config.frames, self.midi_notes)
            if self.kind == "drums":  # noise that sets in does sound like a stroke
                rolls["weight"][: round(config.warmup / FRAME_SECONDS)] = 0.0
        else:
            audio, rolls = self._something(samples, rng)
            audio = degrade(audio, self._other(OTHERS[self.kind], samples, rng), config.degradation, rng)
            rolls["weight"][: round(config.warmup / FRAME_SECONDS)] = 0.0
        return {"audio": audio[None], **rolls}

    def _something(self, samples: int, rng: np.random.Generator) -> tuple[Audio, Rolls]:
        """A stretch of a clip at another pitch and speed, and its rolls."""
        which = int(rng.choice(len(self.banks), p=self.chances))
        bank, lengths = self.banks[which][0], self.lengths[which]
        clip = bank.clips[int(rng.choice(len(lengths), p=lengths / lengths.sum()))]
        pitched = self.kind != "drums"
        semitones = 0.0
        if rng.random() < 0.6:
            semitones = float(rng.uniform(-1, 1)) * self.config.shift * (1.0 if pitched else 0.7)
            if self.kind == "polyphonic":  # whole semitones and a few cents: instruments are in tune
                semitones = round(semitones) + float(rng.normal(0, 0.06))
        rate = 2.0 ** (semitones / 12)
        needed = int(samples * rate) + 200
        spare = clip.stop - clip.start - needed
        first = int(rng.integers(0, max(1, spare)))
        audio = bank.read(clip, first, needed)
        if semitones:
            audio = soxr.resample(audio, SAMPLERATE * rate, SAMPLERATE, quality="LQ")
        audio = np.ascontiguousarray(audio[:samples])
        if len(audio) < samples:
            audio = np.pad(audio, (0, samples - len(audio)))
        start = first / SAMPLERATE
        notes = clip.notes.copy()
        notes[:, :2] = (notes[:, :2] - start) / rate
        notes = notes[(notes[:, 1] > 0) & (notes[:, 0] < samples / SAMPLERATE)]
        unsure = (clip.unsure - start) / rate
        unsure = unsure[(unsure > -0.1) & (unsure < samples / SAMPLERATE)]
        pitch = None
        if pitched:
            notes[:, 2] += semitones
            if clip.pitch is not None:
                frames = np.round((np.arange(self.config.frames) * rate) + start / FRAME_SECONDS).astype(int)
                frames = np.minimum(frames, len(clip.pitch) - 1)
                pitch = np.where(clip.pitch[frames] > 0, clip.pitch[frames] + np.float32(semitones), 0)
                pitch = pitch.astype(np.float32)
        rolls = rolls_of(notes, self.config.frames, self.midi_notes, unsure, pitch)
        if clip.source == "mdb-drums":  # whether a hi-hat is open is not known there
            closed, opened = DRUM_NOTES.index(42), DRUM_NOTES.index(46)
            near = np.convolve(rolls["onset"][:, closed], np.ones(9), "same") > 0
            rolls["weight"][near, opened] = 0.0
        return audio, rolls

    def _other(self, roles: Sequence[str], samples: int, rng: np.random.Generator) -> Audio | None:
        """One or two other instruments at equal levels."""
        there = [role for role in roles if role in self.others]
        if not there:
            return None
        total = np.zeros(samples, np.float32)
        for _ in range(1 + int(rng.random() < 0.5)):
            pool = self.others[there[int(rng.integers(len(there)))]]
            bank, clip = pool[int(rng.integers(len(pool)))]
            length = clip.stop - clip.start
            audio = bank.read(clip, int(rng.integers(0, max(1, length - samples))), samples)
            if length < samples:
                audio = np.resize(audio[:length], samples)
            total += audio / np.float32(max(rms(audio), 1e-3))
        return total

    def _nothing(self, samples: int, rng: np.random.Generator) -> Audio:
        """Silence, noise, or instruments of another kind."""
        what = rng.random()
        if what < 0.15:
            return np.zeros(samples, np.float32)
        if what < 0.5:
            # Noise at any level, in half of them coming and going.
            noise = coloured_noise(samples, rng) * np.float32(10 ** (rng.uniform(-60, -12) / 20))
            if rng.random() < 0.5:
                knots = rng.uniform(0, 1, 2 + int(rng.integers(1, 12))) ** 2
                noise *= np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, len(knots)), knots).astype(np.float32)
            return np.clip(noise, -1, 1).astype(np.float32)
        other = self._other(SILENT_FOR[self.kind], samples, rng)
        if other is None:
            return np.zeros(samples, np.float32)
        return finish(other, self.config.degradation, rng)
