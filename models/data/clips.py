"""Mono clips with exact notes, decoded once to 16 kHz and read from disk: what transcribers train on.

A bank is one int16 array on disk and a table beside it, under a cache folder; it is made when its sources change and
opened in no time afterwards. Readers: clips of ``tools/render_notes.py``, SSVD (sight-singing), MDB Drums, ``.notes``
files, and stems without notes, which serve as other instruments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from models.data.readers import AUDIO_SUFFIXES, Audio, DataError

SAMPLERATE = 16000
FRAMES_PER_SECOND = 100
HELD_OUT_DRUMS = ("MusicDelta_Rock", "MusicDelta_Shadows")
HELD_OUT_SONGS = ("Music Delta - Rock", "Music Delta - Shadows")  # the same recordings, as multitracks
HELD_OUT_SINGERS = ("heycat", "khair")
SSVD_EVERY = 3
FEWEST_NOTES = 3  # of a rendered clip: some excerpts of scores are rests
DRUM_NOTES = (36, 38, 42, 46, 45, 49)  # kick, snare, closed and open hi-hat, toms, cymbals
GM_TO_CLASS = {
    **dict.fromkeys((35, 36), 36),
    **dict.fromkeys((37, 38, 40), 38),
    **dict.fromkeys((42, 44), 42),
    46: 46,
    **dict.fromkeys((41, 43, 45, 47, 48, 50), 45),
    **dict.fromkeys((49, 51, 52, 53, 55, 57, 59), 49),
}
MDB_TO_CLASS = {"KD": 36, "SD": 38, "HH": 42, "TT": 45, "CY": 49}
"""MDB Drums does not tell open from closed hi-hats, and ``OT`` (side stick, tambourine ...) is none of ours."""
# Seconds added to annotated onsets, where a source's annotations lie systematically beside the sound; how they were
# measured: docs/transcribers.md.
ONSET_SHIFT = {"rendered": 0.0, "ssvd": 0.0, "mdb-drums": -0.007}


@dataclass
class Clip:
    """A recording and what is played in it.

    Attributes
    ----------
    name, source, role : str
        ``role`` is ``polyphonic``, ``monophonic`` or ``drums`` for clips with notes, else the stem it is.
    notes : ndarray
        ``[n, 4]``: onset s, offset s, MIDI pitch (fractions are cents), velocity 0..127 (0: not known).
    pitch : ndarray or None
        MIDI pitch per frame of 10 ms ``[N]``, 0 for none; None where only the notes are known.
    unsure : ndarray
        ``[m]`` times in seconds near which nothing is known (strokes of no class).
    start, stop : int
        Samples in the bank.
    """

    name: str
    source: str
    role: str
    notes: NDArray[np.float64]
    pitch: NDArray[np.float32] | None = None
    unsure: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    start: int = 0
    stop: int = 0

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.stop - self.start) / SAMPLERATE


class Bank:
    """Clips with their audio.

    Parameters
    ----------
    samples : ndarray
        int16 ``[T]``, memory-mapped.
    clips : list of Clip
    """

    def __init__(self, samples: NDArray[np.int16], clips: list[Clip]) -> None:
        self.samples, self.clips = samples, clips

    def read(self, clip: Clip, first: int = 0, count: int | None = None) -> Audio:
        """Audio ``[count]`` of a clip from sample ``first``, zeros beyond its end."""
        total = clip.stop - clip.start
        count = total - first if count is None else count
        piece = self.samples[clip.start + first : min(clip.start + first + count, clip.stop)]
        audio = np.zeros(count, np.float32)
        audio[: len(piece)] = piece.astype(np.float32) / 32768
        return audio


Reader = Callable[[Path], "list[tuple[Path, Clip]]"]


def open_bank(name: str, root: Path, reader: Reader, cache: Path) -> Bank:
    """Open the bank of a source, decoding it if the cache does not hold it yet.

    Parameters
    ----------
    name : str
        Of the cache's folder.
    root : Path
        Folder of the source.
    reader : callable
        Lists the audio files under a folder and what is in them, in a fixed order.
    cache : Path

    Raises
    ------
    DataError
        There is nothing to read.
    """
    found = reader(root)
    if not found:
        raise DataError(f"{name}: nothing to read in {root}.")
    facts = [SAMPLERATE, [(str(path.relative_to(root)), path.stat().st_size) for path, _ in found]]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = cache / "clips" / name
    array_path, table_path = folder / f"{key}.npy", folder / f"{key}.json"
    if not table_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts, bounds, position = [], [], 0
        for path, _ in found:
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
            mono = soxr.resample(audio.mean(1), rate, SAMPLERATE)
            parts.append(np.round(np.clip(mono, -1, 1) * 32767).astype(np.int16))
            bounds.append((position, position + len(mono)))
            position += len(mono)
        partial = array_path.with_name(array_path.stem + ".part.npy")
        np.save(partial, np.concatenate(parts))
        partial.replace(array_path)
        partial = table_path.with_suffix(".part")
        partial.write_text(json.dumps(bounds))
        partial.replace(table_path)
    clips = []
    for (_, clip), (start, stop) in zip(found, json.loads(table_path.read_text()), strict=True):
        clip.start, clip.stop = start, stop
        clips.append(clip)
    return Bank(np.load(array_path, mmap_mode="r"), clips)


def read_rendered(root: Path) -> list[tuple[Path, Clip]]:
    """Clips of ``tools/render_notes.py``; ``root`` ends in the kind."""
    found = []
    for path in sorted(root.glob("*.flac")):
        document = json.loads(path.with_suffix(".json").read_text())
        notes = np.array(document["notes"], float).reshape(-1, 4)
        notes[:, 2] += document["cents"] / 100 * (root.name != "drums")
        notes[:, :2] += ONSET_SHIFT["rendered"]
        if root.name == "drums":
            notes[:, 2] = [GM_TO_CLASS.get(int(note), 0) for note in notes[:, 2]]
        pitch = np.array(document["pitch"], np.float32) if "pitch" in document else None
        unsure = notes[notes[:, 2] == 0, 0]
        if len(notes) >= FEWEST_NOTES:
            found.append((path, Clip(path.stem, "rendered", root.name, notes[notes[:, 2] > 0], pitch, unsure)))
    return found


def read_ssvd(root: Path, *, held_out: bool = False) -> list[tuple[Path, Clip]]:
    """SSVD recordings; every third in the order of their names is held out."""
    found = []
    for index, path in enumerate(sorted(root.glob("*.ogg"))):
        if (index % SSVD_EVERY == SSVD_EVERY - 1) != held_out:
            continue
        notes = np.loadtxt(path.with_suffix(".txt"), ndmin=2)
        notes = np.column_stack([notes[:, :3], np.zeros(len(notes))])
        notes = notes[(notes[:, 1] > notes[:, 0]) & (notes[:, 2] > 20)]
        notes[:, :2] += ONSET_SHIFT["ssvd"]
        found.append((path, Clip(path.stem, "ssvd", "monophonic", notes)))
    return found


def read_ssvd_held_out(root: Path) -> list[tuple[Path, Clip]]:
    """The held-out recordings of :func:`read_ssvd`."""
    return read_ssvd(root, held_out=True)


def read_mdb_drums(root: Path, *, held_out: bool = False) -> list[tuple[Path, Clip]]:
    """Drum stems of MDB Drums without, or only, :data:`HELD_OUT_DRUMS`."""
    found = []
    for path in sorted(root.glob("MusicDelta_*.ogg")):
        if (path.stem in HELD_OUT_DRUMS) != held_out:
            continue
        rows = [line.split() for line in path.with_suffix(".txt").read_text().splitlines() if line.strip()]
        shift = ONSET_SHIFT["mdb-drums"]
        known = [(float(time) + shift, MDB_TO_CLASS[kind]) for time, kind in rows if kind in MDB_TO_CLASS]
        unsure = np.array([float(time) + shift for time, kind in rows if kind not in MDB_TO_CLASS])
        notes = np.array([(time, time + 0.05, note, 0.0) for time, note in known])
        found.append((path, Clip(path.stem, "mdb-drums", "drums", notes, None, unsure)))
    return found


def read_mdb_drums_held_out(root: Path) -> list[tuple[Path, Clip]]:
    """The held-out stems of :func:`read_mdb_drums`."""
    return read_mdb_drums(root, held_out=True)


def read_note_files(root: Path) -> list[tuple[Path, Clip]]:
    """Recordings beside ``.notes`` files: onset s, offset s, MIDI pitch, velocity."""
    found = []
    for table in sorted(root.rglob("*.notes")):
        path = next((p for s in AUDIO_SUFFIXES if (p := table.with_suffix(s)).is_file()), None)
        if path is None:
            raise DataError(f"{table} has no audio beside it.")
        role = "monophonic" if table.parent.name == "voice" else "polyphonic"
        found.append((path, Clip(table.stem, table.parent.name, role, np.loadtxt(table, ndmin=2))))
    return found


def read_stems(root: Path) -> list[tuple[Path, Clip]]:
    """Stems without notes: ``<root>/<song>/{vocals,drums,bass,other}.*``, held-out songs left out."""
    found = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name not in HELD_OUT_SONGS):
        for path in sorted(folder.iterdir()):
            if path.suffix in AUDIO_SUFFIXES and path.stem in ("vocals", "drums", "bass", "other"):
                found.append((path, Clip(f"{folder.name}/{path.stem}", root.name, path.stem, np.zeros((0, 4)))))
    return found


def onset_lag(audio: Audio, onsets: Sequence[float] | NDArray[np.float64], reach: float = 0.06) -> NDArray[np.float64]:
    """How far after each annotated onset the sound sets in, in seconds.

    Where the short-time level (RMS of 5 ms every 1 ms) rises most over 10 ms, within ``reach`` of the annotation, in
    audio with its low end taken away. NaN where it rises by less than 3 dB: onsets without an attack say nothing.

    Parameters
    ----------
    audio : ndarray
        ``[T]`` at 16 kHz.
    onsets : sequence of float
        Seconds.
    """
    emphasised = np.diff(audio, prepend=0.0)
    power = np.convolve(np.square(emphasised), np.ones(80) / 80, mode="same")[:: SAMPLERATE // 1000]
    level = 10 * np.log10(power + 1e-9)
    lags = np.full(len(onsets), np.nan)
    for index, onset in enumerate(onsets):
        first, last = round((onset - reach) * 1000), round((onset + reach) * 1000)
        if first < 10 or last + 10 > len(level):
            continue
        rise = level[first + 5 : last + 5] - level[first - 5 : last - 5]
        if rise.max() >= 3.0:
            lags[index] = (first + int(rise.argmax())) / 1000 - onset
    return lags


def read_karaoke(root: Path) -> list[tuple[Path, Clip]]:
    """Every fourth clip of MIR-1K as stems without notes, without the singers that validate other models."""
    found = []
    for path in sorted(root.glob("*.ogg"))[::4]:
        name, _, part = path.stem.rpartition(".")
        if not name.startswith(HELD_OUT_SINGERS):
            role = "vocals" if part == "vocals" else "other"
            found.append((path, Clip(path.stem, "mir-1k", role, np.zeros((0, 4)))))
    return found


READERS: dict[str, Reader] = {
    "rendered": read_rendered,
    "ssvd": read_ssvd,
    "mdb-drums": read_mdb_drums,
    "stems": read_stems,
    "karaoke": read_karaoke,
}
"""Of the sources that are trained on, by the ``kind`` in a training config."""
HELD_OUT: dict[str, Reader] = {
    "note-files": read_note_files,
    "ssvd": read_ssvd_held_out,
    "mdb-drums": read_mdb_drums_held_out,
}
"""Of what is validated on."""
