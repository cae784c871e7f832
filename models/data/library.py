"""Decoded songs on disk, memory-mapped: decoded once, shared by all data workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.readers import STEMS, Audio, SongFiles, Source, find_songs, read_song

TARGET_RMS = 0.12  # about the level of a mastered record


@dataclass(frozen=True)
class Song:
    """A decoded song.

    Attributes
    ----------
    stems : dict
        Stem name -> int16 ``[2, T]``, memory-mapped.
    gain : float
        Brings int16 to float32 with the song's mixture at :data:`TARGET_RMS`.
    complete : bool
        All four stems are there, so that their sum is a record and each is clean. A song without a stem
        of its own for, say, the bass has the bass in ``other``.
    """

    name: str
    source: str
    stems: dict[str, NDArray[np.int16]]
    gain: float
    complete: bool

    @property
    def pair(self) -> bool:
        """Vocals and accompaniment; nothing is known of what the accompaniment is made of."""
        return "accompaniment" in self.stems

    @property
    def length(self) -> int:
        """Samples per stem."""
        return int(next(iter(self.stems.values())).shape[1])

    def read(self, stem: str, start: int, count: int) -> Audio:
        """``count`` samples of a stem from ``start`` as float32 ``[2, count]``, zeros past the end."""
        out = np.zeros((2, count), np.float32)
        piece = self.stems[stem][:, start : start + count]
        out[:, : piece.shape[1]] = piece
        out *= self.gain
        return out


def load_source(source: Source, samplerate: int, cache: Path) -> list[Song]:
    """Return the songs of a source, decoding those that the cache does not hold yet."""
    return [_cached(source, song, samplerate, cache / source.name) for song in find_songs(source)]


def _cached(source: Source, files: SongFiles, samplerate: int, folder: Path) -> Song:
    facts = [samplerate, sorted((s, str(p), p.stat().st_size, p.stat().st_mtime_ns) for s, p in files.stems.items())]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    array_path, facts_path = folder / f"{key}.npy", folder / f"{key}.json"
    if not facts_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _decode_into(files, samplerate, array_path, facts_path)
    known = json.loads(facts_path.read_text())
    array = np.load(array_path, mmap_mode="r")
    stems = {stem: array[i] for i, stem in enumerate(known["stems"])}
    return Song(files.name, source.name, stems, known["gain"], set(stems) == set(STEMS))


def _decode_into(files: SongFiles, samplerate: int, array_path: Path, facts_path: Path) -> None:
    stems = read_song(files, samplerate)
    names = [stem for stem in (*STEMS, "accompaniment") if stem in stems]
    stacked = np.stack([stems[name] for name in names])  # [S, 2, T]
    peak = max(float(np.abs(stacked).max()), 1e-6)
    rms = loud_rms(stacked.sum(0), samplerate)
    np.save(array_path, np.round(stacked * (32767 / peak)).astype(np.int16))
    facts = {"song": files.name, "stems": names, "gain": peak / 32767 * TARGET_RMS / max(rms, 1e-4)}
    partial = facts_path.with_suffix(".part")
    partial.write_text(json.dumps(facts))
    partial.replace(facts_path)


def loud_rms(audio: Audio, samplerate: int) -> float:
    """RMS over the seconds of ``[C, T]`` that are within 20 dB of the loudest one (pauses do not count)."""
    seconds = max(1, audio.shape[1] // samplerate)
    power = np.array([float(np.mean(np.square(part))) for part in np.array_split(audio, seconds, axis=1)])
    return float(np.sqrt(power[power >= 0.01 * power.max()].mean()))


def describe(sources: Sequence[Source], songs: Sequence[Song], samplerate: int) -> list[str]:
    """One line per source for logs and model cards: songs, minutes, terms."""
    lines = []
    for source in sources:
        mine = [song for song in songs if song.source == source.name]
        minutes = sum(song.length for song in mine) / samplerate / 60
        lines.append(f"{source.name}: {len(mine)} recordings, {minutes:.1f} min ({source.terms})")
    return lines
