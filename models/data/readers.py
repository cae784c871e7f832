"""Readers of songs with stems, in the layouts that people have them in.

========== ==================================================================================
kind       what is read
========== ==================================================================================
musdb18    a folder of ``*.stem.mp4`` (streams: mixture, drums, bass, other, vocals); needs ffmpeg
folders    a folder of songs, each a folder of ``vocals.*, drums.*, bass.*, other.*`` (MUSDB18-HQ,
           and any other; other files in it, such as ``mixture.wav``, are left alone)
solo       a folder of recordings that all belong to one stem
karaoke    a folder of ``NAME.vocals.*`` and ``NAME.accompaniment.*``
========== ==================================================================================
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

STEMS = ("drums", "bass", "other", "vocals")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff")
Audio = NDArray[np.float32]


class DataError(Exception):
    """Training data is missing, of an unknown layout, or unreadable."""


@dataclass(frozen=True)
class Source:
    """One named source of training material, as written in a training config.

    Attributes
    ----------
    name, path, kind : str
        ``kind`` as in the table above.
    terms : str
        What the source says of its use; goes into the model card.
    weight : float
        How often, relative to other sources, a stem is drawn from here.
    stem : str
        For ``solo``: the stem that the recordings belong to.
    pattern : str
        Glob of the files or song folders to take.
    exclude : tuple of str
        Names of songs to leave out, or patterns of them (``heycat_*``).
    """

    name: str
    path: str
    kind: str
    terms: str
    weight: float = 1.0
    stem: str = "vocals"
    pattern: str = "*"
    exclude: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class SongFiles:
    """Where a song is; ``stems`` maps a stem name to its file (one file for ``musdb18``)."""

    name: str
    kind: str
    stems: dict[str, Path]


def find_songs(source: Source) -> list[SongFiles]:
    """List the songs of a source in a fixed order.

    Raises
    ------
    DataError
        The folder is missing, the kind unknown, or nothing in it can be read.
    """
    root = Path(source.path)
    if not root.is_dir():
        raise DataError(f"source '{source.name}': no folder at {root}. Correct `path` in the config.")
    finders = {"musdb18": _find_musdb18, "folders": _find_folders, "solo": _find_solo, "karaoke": _find_karaoke}
    if source.kind not in finders:
        raise DataError(f"source '{source.name}': kind must be one of {sorted(finders)}, got {source.kind!r}.")
    songs = [s for s in finders[source.kind](source, root) if not _left_out(s.name, source.exclude)]
    if not songs:
        raise DataError(
            f"source '{source.name}': nothing of kind {source.kind!r} matches {source.pattern!r} in {root}."
        )
    return songs


def _left_out(name: str, exclude: tuple[str, ...]) -> bool:
    return name in exclude or any("*" in pattern and fnmatch.fnmatchcase(name, pattern) for pattern in exclude)


def _find_musdb18(source: Source, root: Path) -> Iterator[SongFiles]:
    for path in sorted(root.glob(source.pattern)):
        if path.name.endswith(".stem.mp4"):
            yield SongFiles(path.name.removesuffix(".stem.mp4"), "musdb18", dict.fromkeys(STEMS, path))


def _find_folders(source: Source, root: Path) -> Iterator[SongFiles]:
    for folder in sorted(p for p in root.glob(source.pattern) if p.is_dir()):
        files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in AUDIO_SUFFIXES}
        stems = {stem: files[stem] for stem in STEMS if stem in files}
        if stems:
            yield SongFiles(folder.name, "folders", stems)


def _find_solo(source: Source, root: Path) -> Iterator[SongFiles]:
    if source.stem not in STEMS:
        raise DataError(f"source '{source.name}': stem must be one of {STEMS}, got {source.stem!r}.")
    for path in sorted(root.glob(source.pattern)):
        if path.suffix.lower() in AUDIO_SUFFIXES:
            yield SongFiles(path.stem, "solo", {source.stem: path})


def _find_karaoke(source: Source, root: Path) -> Iterator[SongFiles]:
    files = {p.stem: p for p in sorted(root.glob(source.pattern)) if p.suffix.lower() in AUDIO_SUFFIXES}
    for stem, path in files.items():
        name, _, kind = stem.rpartition(".")
        if kind == "vocals" and (rest := files.get(f"{name}.accompaniment")) is not None:
            yield SongFiles(name, "karaoke", {"vocals": path, "accompaniment": rest})


def read_song(song: SongFiles, samplerate: int) -> dict[str, Audio]:
    """Read the stems of a song as ``[2, T]`` float32 at ``samplerate``, padded to one length.

    Raises
    ------
    DataError
        A file cannot be decoded, or ffmpeg is missing where it is needed.
    """
    if song.kind == "musdb18":
        stems = _decode_stem_mp4(next(iter(song.stems.values())), samplerate)
    else:
        stems = {stem: _decode(path, samplerate) for stem, path in song.stems.items()}
    length = max(audio.shape[1] for audio in stems.values())
    return {stem: np.pad(audio, ((0, 0), (0, length - audio.shape[1]))) for stem, audio in stems.items()}


def _decode(path: Path, samplerate: int) -> Audio:
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"cannot decode {path}: {error}") from error
    audio = audio[:, :2] if audio.shape[1] >= 2 else np.repeat(audio, 2, axis=1)
    if rate != samplerate:
        audio = soxr.resample(audio, rate, samplerate, quality="HQ")
    return np.ascontiguousarray(audio.T, dtype=np.float32)  # [2, T]


def _decode_stem_mp4(path: Path, samplerate: int) -> dict[str, Audio]:
    if shutil.which("ffmpeg") is None:
        raise DataError(f"{path.name} needs ffmpeg to be decoded. Install it, for example: apt install ffmpeg")
    stems = {}
    for stream, stem in enumerate(STEMS, start=1):
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:{stream}"]
        command += ["-f", "f32le", "-ac", "2", "-ar", str(samplerate), "-"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode or not done.stdout:
            raise DataError(f"ffmpeg cannot decode stream {stream} of {path}: {done.stderr.decode()[-300:].strip()}")
        stems[stem] = np.frombuffer(done.stdout, np.float32).reshape(-1, 2).T.copy()
    return stems
