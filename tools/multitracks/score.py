"""Free MIDI files as notes on a beat grid: POP909 songs and Groove MIDI drum performances."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np

BEATS_PER_BAR = 4
POP_TRACKS = ("MELODY", "BRIDGE", "PIANO")
EARLY = 0.06  # beats by which a note may come before the line that it belongs to
# Roland TD-11 notes of the Groove data set that General MIDI kits lack or use otherwise.
TD11_TO_GM = {22: 42, 26: 46, 58: 43, 47: 45, 55: 49, 52: 57, 59: 51, 40: 38}
_GROOVE_NAME = re.compile(r"\d+_(?P<style>[^_]+)_(?P<bpm>\d+)_beat_4-4$")


class ScoreError(Exception):
    """A folder of MIDI files is missing or holds nothing that can be used."""


class Note(NamedTuple):
    """One note; ``start`` and ``length`` in beats (in seconds once arranged), velocity 1..127."""

    start: float
    length: float
    pitch: int
    velocity: int


class Chord(NamedTuple):
    """The harmony of half a bar: lowest pitch class and up to four pitch classes, strongest first."""

    root: int
    tones: tuple[int, ...]


@dataclass(frozen=True)
class PopSong:
    """A POP909 song with beat 0 at the start of a bar; ``tempo`` in beats per minute."""

    name: str
    tempo: float
    tracks: dict[str, list[Note]]


@dataclass(frozen=True)
class Groove:
    """A drum performance in 4/4 that starts on a bar line; ``tempo`` is the metronome's."""

    path: Path
    style: str
    tempo: float


def _read_notes(path: Path) -> tuple[float, dict[str, list[Note]]]:
    """Tempo of the first tempo event and the notes, in beats, by track name."""
    midi = mido.MidiFile(path)
    tempo = next((m.tempo for track in midi.tracks for m in track if m.type == "set_tempo"), 500000)
    tracks: dict[str, list[Note]] = {}
    for track in midi.tracks:
        notes: list[Note] = []
        open_notes: dict[int, list[tuple[int, int]]] = defaultdict(list)
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                open_notes[message.note].append((now, message.velocity))
            elif message.type in ("note_on", "note_off") and open_notes[message.note]:
                start, velocity = open_notes[message.note].pop(0)
                beats = midi.ticks_per_beat
                notes.append(Note(start / beats, max(now - start, 1) / beats, message.note, velocity))
        tracks.setdefault(track.name, []).extend(sorted(notes))
    return 60e6 / tempo, tracks


def _bar_phase(notes: list[Note]) -> float:
    """Where in the file bars begin, in beats.

    The files of POP909 lie on a grid of sixteenths that is shifted by some ticks against the file's beats. The shift
    is the circular mean of the onsets; of the sixteen places left, bars begin where long low notes begin.
    """
    starts = np.array([note.start for note in notes])
    shift = float(np.angle(np.exp(2j * np.pi * starts * 4).mean()) / (2 * np.pi * 4))
    weights = np.array([min(note.length, 2.0) * max(0, 60 - note.pitch) + 0.1 * note.length for note in notes])
    places = np.round((starts - shift) * 4).astype(int) % (4 * BEATS_PER_BAR)
    strength = np.bincount(places, weights, minlength=4 * BEATS_PER_BAR)
    return shift + int(strength.argmax()) / 4


def read_pop_song(path: Path) -> PopSong | None:
    """Read one POP909 file; None where it has no accompaniment to arrange."""
    tempo, tracks = _read_notes(path)
    piano = tracks.get("PIANO", [])
    if len(piano) < 100:
        return None
    phase = _bar_phase(piano)
    moved = {
        name: [note._replace(start=note.start - phase) for note in tracks.get(name, []) if note.start >= phase - EARLY]
        for name in POP_TRACKS
    }
    return PopSong(path.stem, tempo, moved)


def list_pop_songs(folder: Path) -> list[Path]:
    """Return the POP909 files under a folder in a fixed order.

    Raises
    ------
    ScoreError
        There is none.
    """
    paths = sorted(folder.glob("**/*.mid"))
    if not paths:
        raise ScoreError(f"no POP909 files (*.mid) in {folder}. Pass the folder that holds them with --pop909.")
    return paths


def list_grooves(folder: Path) -> list[Groove]:
    """Return the beats in 4/4 of the Groove MIDI data set in a fixed order, known by their file names.

    Raises
    ------
    ScoreError
        There is none.
    """
    found = []
    for path in sorted(folder.glob("**/*_beat_4-4.mid")):
        if match := _GROOVE_NAME.match(path.stem):
            found.append(Groove(path, match["style"].split("-")[0], float(match["bpm"])))
    if not found:
        raise ScoreError(
            f"no drum performances (*_beat_4-4.mid) in {folder}. Pass the Groove MIDI data set's folder with --groove."
        )
    return found


def read_groove(groove: Groove) -> tuple[list[Note], int]:
    """Return the hits of a performance, in beats with General MIDI pitches, and its length in whole bars."""
    _, tracks = _read_notes(groove.path)
    hits = sorted(
        note._replace(pitch=TD11_TO_GM.get(note.pitch, note.pitch)) for notes in tracks.values() for note in notes
    )
    bars = int((hits[-1].start + 0.5) // BEATS_PER_BAR) if hits else 0
    return hits, bars


def cut(notes: list[Note], start: float, beats: float) -> list[Note]:
    """Return the notes that begin within ``beats`` from ``start``, moved to begin there; tails are cut at the end."""
    return [
        note._replace(start=max(0.0, note.start - start), length=min(note.length, start + beats - note.start))
        for note in notes
        if start - EARLY <= note.start < start + beats - EARLY
    ]


def chords(notes: list[Note], halves: int) -> list[Chord]:
    """Estimate the harmony of each half bar from an accompaniment that starts at beat 0."""
    found: list[Chord | None] = []
    for i in range(halves):
        start, end = 2.0 * i, 2.0 * i + 2
        weight = np.zeros(12)
        lowest: int | None = None
        for note in notes:
            overlap = min(note.start + max(note.length, 0.5), end) - max(note.start, start)
            if overlap > 0.1:
                weight[note.pitch % 12] += min(overlap, 1.0)
                lowest = note.pitch if lowest is None else min(lowest, note.pitch)
        tones = tuple(int(p) for p in np.argsort(-weight, kind="stable")[:4] if weight[p] > 0.2 * weight.max())
        found.append(None if lowest is None else Chord(lowest % 12, tones))
    known = next((chord for chord in found if chord), Chord(0, (0, 4, 7)))
    filled = []
    for chord in found:
        known = chord or known
        filled.append(known)
    return filled
