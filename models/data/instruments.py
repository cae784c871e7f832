"""Instruments made of recorded single notes: decoded once, played at any length and near pitch.

The files are ``<root>/<instrument>/<midi>_<dynamic>_<length>.<suffix>``, one note each, as the sample libraries of
orchestras have them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from models.data.readers import AUDIO_SUFFIXES, Audio, DataError

FRAME_SECONDS = 0.005  # of the envelope that notes are trimmed by
START_DB, END_DB = -26.0, -35.0  # against the loudest frame: where a note begins, and where it has died away
LARGEST_SHIFT = 2.5  # semitones; further from its recording a note no longer sounds like the instrument
CROSSFADE_SECONDS = 0.03
FADE_SECONDS = 0.004
_FILE = re.compile(r"(?P<midi>\d{1,3})_(?P<dynamic>[a-z-]+)_\w+")


@dataclass(frozen=True)
class Recording:
    """One recorded note, without the silence before and after it.

    Attributes
    ----------
    midi : int
    dynamic : str
    samples : ndarray
        int16 ``[T]``.
    gain : float
        Brings int16 to float32 with an RMS of 1 where the note is loudest.
    loop : tuple of int
        Two samples in the sustained part where the waveform is alike: from the second one can go back to the first.
    """

    midi: int
    dynamic: str
    samples: NDArray[np.int16]
    gain: float
    loop: tuple[int, int]


class Instrument:
    """Notes of one instrument.

    Parameters
    ----------
    name : str
    recordings : list of Recording
        At least one.
    """

    def __init__(self, name: str, recordings: list[Recording], samplerate: int) -> None:
        self.name, self.recordings, self.samplerate = name, recordings, samplerate
        self.lowest, self.highest = min(r.midi for r in recordings), max(r.midi for r in recordings)

    def pick(self, rng: np.random.Generator, midi: float, dynamic: str = "") -> Recording:
        """Choose among the recordings nearest to a pitch, one of the wanted dynamic where there is one."""
        distance = np.array([abs(r.midi - midi) for r in self.recordings])
        near = [r for r, d in zip(self.recordings, distance, strict=True) if d <= distance.min() + 0.6]
        wanted = [r for r in near if r.dynamic == dynamic] or near
        return wanted[rng.integers(len(wanted))]

    def play(self, recording: Recording, midi: float, seconds: float) -> Audio:
        """Play a recording at a pitch for a time.

        Pitch moves by resampling, which keeps a vibrato within a sixth of its rate. A note that is longer than its
        recording goes round the loop.

        Parameters
        ----------
        recording : Recording
        midi : float
            At most :data:`LARGEST_SHIFT` semitones from the recording's, fractions are cents.
        seconds : float
            Until the release begins.

        Returns
        -------
        ndarray
            float32 ``[T]``, RMS about 1, with a short release after ``seconds``.

        Raises
        ------
        ValueError
            The pitch is too far from the recording's.
        """
        shift = midi - recording.midi
        if abs(shift) > LARGEST_SHIFT:
            raise ValueError(
                f"{self.name}: {midi} is {shift:+.1f} semitones from the recording; at most {LARGEST_SHIFT}."
            )
        rate = 2.0 ** (shift / 12)
        release = 0.05
        count = int((seconds + release) * self.samplerate * rate) + 1
        line = looped(recording, count, int(CROSSFADE_SECONDS * self.samplerate)) * np.float32(recording.gain)
        if shift:
            line = soxr.resample(line, self.samplerate * rate, self.samplerate, quality="LQ")
        keep = min(len(line), int((seconds + release) * self.samplerate))
        line = line[:keep].copy()
        fade = min(int(release * self.samplerate), keep)
        line[keep - fade :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(fade, dtype=np.float32) / fade)
        rise = min(int(FADE_SECONDS * self.samplerate), keep)
        line[:rise] *= np.arange(rise, dtype=np.float32) / max(rise, 1)
        return line


def looped(recording: Recording, count: int, crossfade: int) -> Audio:
    """The first ``count`` samples of a recording that goes round its loop until its end is due."""
    samples, (start, stop) = recording.samples, recording.loop
    if count <= len(samples) or stop - start <= crossfade or start < crossfade:
        return samples[:count].astype(np.float32)
    tail = len(samples) - stop
    rounds = -(-(count - stop - tail) // (stop - start))
    fade = np.arange(crossfade, dtype=np.float32) / crossfade
    body = samples[start:stop].astype(np.float32)
    # What runs into the end of a round turns into what runs into its start.
    body[-crossfade:] = body[-crossfade:] * (1 - fade) + samples[start - crossfade : start] * fade
    first = samples[:stop].astype(np.float32)
    first[-crossfade:] = body[-crossfade:]
    last = samples[start:].astype(np.float32)
    return np.concatenate([first, *([body] * (rounds - 1)), last])[:count]


def load_instruments(
    root: Path, samplerate: int, cache: Path, keep: Callable[[str, int], bool] = lambda name, midi: True
) -> dict[str, Instrument]:
    """Return the instruments of a folder by name, decoding what the cache does not hold yet.

    Parameters
    ----------
    root : Path
        Folder of instruments.
    samplerate : int
        Hz.
    cache : Path
        Folder for the decoded notes.
    keep : callable
        Of an instrument's name and a MIDI note: whether to use its recordings; to hold some out.

    Raises
    ------
    DataError
        There is no such folder, or no recording in it.
    """
    files = sorted(f for f in root.glob("*/*") if f.suffix in AUDIO_SUFFIXES and _FILE.fullmatch(f.stem))
    if not files:
        raise DataError(
            f"no recorded notes in {root}; expected <instrument>/<midi>_<dynamic>_<length>{AUDIO_SUFFIXES[0]} or alike."
        )
    samples, table = _decoded(root, files, samplerate, cache)
    recordings: dict[str, list[Recording]] = {}
    for row in table:
        if keep(row["instrument"], row["midi"]):
            part = samples[row["start"] : row["stop"]]
            recording = Recording(row["midi"], row["dynamic"], part, row["gain"], tuple(row["loop"]))
            recordings.setdefault(row["instrument"], []).append(recording)
    return {name: Instrument(name, notes, samplerate) for name, notes in recordings.items()}


def _decoded(
    root: Path, files: list[Path], samplerate: int, cache: Path
) -> tuple[NDArray[np.int16], list[dict[str, object]]]:
    facts = [samplerate, START_DB, END_DB, [(str(f.relative_to(root)), f.stat().st_size) for f in files]]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = cache / root.name
    array_path, table_path = folder / f"{key}.npy", folder / f"{key}.json"
    if not table_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows, parts, position = [], [], 0
        for file in files:
            name = _FILE.fullmatch(file.stem)
            assert name is not None
            audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
            note = trimmed(soxr.resample(audio.mean(1), rate, samplerate), samplerate)
            if len(note) < 0.1 * samplerate:
                continue  # a click, no note
            peak = float(np.abs(note).max())
            parts.append(np.round(note * (32767 / peak)).astype(np.int16))
            row = {"instrument": file.parent.name, "midi": int(name["midi"]), "dynamic": name["dynamic"]}
            row |= {"start": position, "stop": position + len(note), "loop": find_loop(note, samplerate)}
            rows.append(row | {"gain": peak / 32767 / float(envelope(note, samplerate).max())})
            position += len(note)
        np.save(array_path, np.concatenate(parts))
        partial = table_path.with_suffix(".part")
        partial.write_text(json.dumps(rows))
        partial.replace(table_path)
    return np.load(array_path, mmap_mode="r"), json.loads(table_path.read_text())


def envelope(audio: Audio, samplerate: int) -> Audio:
    """RMS of ``[T]`` in frames of 5 ms."""
    size = int(FRAME_SECONDS * samplerate)
    count = max(1, len(audio) // size)
    return np.sqrt(np.mean(np.square(audio[: count * size].reshape(count, -1)), axis=1) + 1e-12)


def trimmed(audio: Audio, samplerate: int) -> Audio:
    """Cut off what lies before a note begins and after it has died away."""
    level = 20 * np.log10(envelope(audio, samplerate))
    level -= level.max()
    first = int(np.argmax(level > START_DB))
    last = len(level) - int(np.argmax(level[::-1] > END_DB))
    size = int(FRAME_SECONDS * samplerate)
    return audio[first * size : last * size]


def find_loop(note: Audio, samplerate: int) -> tuple[int, int]:
    """Return two samples of the sustained part that are about 0.3 of the note apart and look most alike."""
    width = int(0.02 * samplerate)
    stop = int(0.65 * len(note))
    pattern = note[stop - width : stop]
    starts = np.arange(max(width, int(0.3 * len(note))), int(0.4 * len(note)))
    if not len(starts):
        return 0, 0
    windows = np.lib.stride_tricks.sliding_window_view(note, width)[starts - width]
    likeness = windows @ pattern / np.sqrt(np.sum(windows**2, axis=1) * np.sum(pattern**2) + 1e-12)
    return int(starts[int(likeness.argmax())]), stop
