"""What is played in training clips: polyphonic textures, monophonic lines, drum patterns."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.data.ensembles import REST, Orchestra, melodic_line, read_scores
from models.data.instruments import load_instruments
from tools.multitracks import arrange as bands
from tools.multitracks import score
from tools.multitracks.score import Note
from tools.notes.play import Line

FRAME = 0.01  # seconds
# General MIDI programs from 0; what dies away by itself is not held for longer than it sounds.
KEYS, ORGANS, GUITARS = (0, 1, 2, 3, 4, 5, 6, 7), (16, 17, 18, 19, 20, 21), (24, 25, 26, 27, 28, 29, 30)
MALLETS, BOWED, BRASS, PLUCKED = (8, 9, 10, 11, 12, 13), (40, 41, 42, 44, 48), (56, 57, 60, 61), (45, 46, 104, 107)
SYNTHS, CHOIRS = (50, 51, 62, 63, 80, 81, 84, 87, 88, 90), (52, 53, 54)
POLYPHONIC = ((KEYS, 0.42), (GUITARS, 0.2), (ORGANS, 0.08), (MALLETS, 0.06), (BOWED, 0.08), (BRASS, 0.04))
POLYPHONIC += ((PLUCKED, 0.04), (SYNTHS, 0.06), (CHOIRS, 0.02))
LEADS = (22, 26, 27, 29, 30, 40, 41, 42, 52, 53, 54, 56, 57, 59, 60, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75)
LEADS += (78, 79, 80, 81, 82, 84, 85, 87, 52, 53, 54, 53, 54)
BASSES = (32, 33, 33, 34, 34, 35, 36, 37, 38, 39, 43, 58)
LONGEST = {28: 0.35, 9: 1.0, 12: 0.5, 13: 0.3, 45: 0.35, 104: 1.5, 107: 1.0, 8: 1.5, 10: 1.5, 11: 3.0, 46: 2.5, 6: 2.5}
LONGEST |= {7: 1.5, 36: 1.0, 37: 1.0, 15: 1.0}
KIT_PROGRAMS = (0, 0, 0, 8, 16, 24, 25, 32, 40)
DRUM_NOTES = (36, 38, 42, 46, 45, 49, 41, 43, 47, 48, 50, 51, 57, 53, 44, 37, 40)


@dataclass(frozen=True)
class Material:
    """What clips are made of, in a fixed order."""

    songs: list[Path]
    grooves: list[score.Groove]
    chorales: list[list[list[tuple[int, float]]]]
    orchestra: Orchestra | None


@dataclass
class Piece:
    """A clip before it sounds: lines to render, the notes in it, and for one voice its pitch per frame."""

    lines: list[Line]
    notes: list[Note]
    cents: float = 0.0
    pitch: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def find_material(pop909: Path, groove: Path, orchestra: Path, cache: Path, samplerate: int) -> Material:
    """List the material. Raises ``ScoreError`` or ``DataError`` where a folder of it is missing."""
    chorales = read_scores()
    library = load_instruments(orchestra, samplerate, cache)
    return Material(score.list_pop_songs(pop909), score.list_grooves(groove), chorales, Orchestra(library, chorales))


def polyphonic(material: Material, seconds: float, rng: np.random.Generator) -> Piece:
    """One or two instruments with chords or several voices."""
    what = str(rng.choice(["piano", "part", "chorale", "random"], p=[0.35, 0.25, 0.15, 0.25]))
    program = _program(rng)
    if what == "piano":
        notes = _piano(material, seconds, rng)
    elif what == "part":
        parts = [p for p in _band(material, seconds, rng).parts if p.stem == "other" and p.notes]
        chosen = [parts[i] for i in rng.permutation(len(parts))[: 1 + int(rng.random() < 0.35)]]
        if not chosen:
            return polyphonic(material, seconds, rng)
        lines = [_line([n for n in p.notes if n.start < seconds], p.program) for p in chosen]
        return Piece(lines, merged(lines), float(rng.normal(0, 8)), facts={"what": what, "program": program})
    elif what == "chorale":
        notes = _chorale(material, seconds, rng)
    else:
        notes = _texture(seconds, rng)
    move = int(rng.integers(-5, 7))
    notes = [n._replace(pitch=n.pitch + move) for n in notes if 21 <= n.pitch + move <= 108]
    line = _line(notes, program)
    return Piece([line], merged([line]), float(rng.normal(0, 8)), facts={"what": what, "program": program})


def _program(rng: np.random.Generator) -> int:
    groups, chances = zip(*POLYPHONIC, strict=True)
    group = groups[int(rng.choice(len(groups), p=np.array(chances) / sum(chances)))]
    return int(group[rng.integers(len(group))])


def _line(notes: list[Note], program: int) -> Line:
    """No two overlapping notes of one pitch on one channel, and none that is held after it died away."""
    longest = LONGEST.get(program, 12.0)
    last: dict[int, int] = {}
    kept: list[Note] = []
    for note in sorted(notes):
        note = note._replace(length=min(max(note.length, 0.04), longest), start=max(0.0, note.start))
        if note.pitch in last:
            before = kept[last[note.pitch]]
            room = note.start - before.start
            if room < 0.05:
                continue
            kept[last[note.pitch]] = before._replace(length=min(before.length, room - 0.005))
        last[note.pitch] = len(kept)
        kept.append(note)
    return Line(kept, program)


def merged(lines: list[Line]) -> list[Note]:
    """Notes of all lines; where two lines strike one pitch within 30 ms, one note."""
    notes: list[Note] = []
    for note in sorted(n for line in lines for n in line.notes):
        if not any(o.pitch == note.pitch and note.start - o.start < 0.03 for o in notes[-24:]):
            notes.append(note)
    return notes


def _song(material: Material, rng: np.random.Generator) -> score.PopSong:
    song = None
    while song is None:
        song = score.read_pop_song(material.songs[int(rng.integers(len(material.songs)))])
    return song


def _band(material: Material, seconds: float, rng: np.random.Generator) -> bands.Arrangement:
    return bands.arrange(_song(material, rng), material.grooves, seconds, int(rng.integers(-5, 7)), 0.5, rng)


def _excerpt(notes: list[Note], beat: float, seconds: float, rng: np.random.Generator) -> list[Note]:
    """A stretch in seconds of notes in beats."""
    if not notes:
        return []
    last = max(n.start for n in notes) - seconds / beat
    start = notes[0].start + rng.uniform(0, max(0.0, last - notes[0].start))
    part = score.cut(notes, start, seconds / beat)
    return [n._replace(start=n.start * beat, length=max(0.05, n.length * beat)) for n in part]


def _piano(material: Material, seconds: float, rng: np.random.Generator) -> list[Note]:
    song = _song(material, rng)
    beat = 60 / (song.tempo * rng.uniform(0.8, 1.35))
    notes = list(song.tracks["PIANO"])
    if song.tracks["MELODY"] and rng.random() < 0.4:
        notes += song.tracks["MELODY"]
    notes = _excerpt(sorted(notes), beat, seconds, rng)
    if rng.random() < 0.4:  # the pedal is lifted every so many beats
        lift = beat * float(rng.choice([1, 2, 2, 4]))
        notes = [n._replace(length=max(n.length, lift - n.start % lift)) for n in notes]
    return _uneven(notes, 0.008, rng)


def _uneven(notes: list[Note], tight: float, rng: np.random.Generator) -> list[Note]:
    """People: uneven time, dynamics of the whole and of single notes."""
    level, depth = rng.uniform(-35, 20), rng.uniform(3, 14)
    return [
        n._replace(
            start=max(0.0, n.start + float(np.clip(rng.normal(0, tight), -0.03, 0.03))),
            velocity=int(np.clip(n.velocity + level + rng.normal(0, depth), 18, 127)),
        )
        for n in notes
    ]


def _chorale(material: Material, seconds: float, rng: np.random.Generator) -> list[Note]:
    voices = material.chorales[int(rng.integers(len(material.chorales)))]
    quarter = rng.uniform(0.3, 0.9)
    length = min(sum(d for _, d in voice) for voice in voices) * quarter
    start = rng.uniform(0, max(0.0, length - seconds))
    notes = []
    for voice in voices:
        now = -start
        for midi, duration in voice:
            if midi != REST and 0 <= now < seconds:
                notes.append(Note(now, duration * quarter * rng.uniform(0.85, 1.0), midi, 84))
            now += duration * quarter
    return _uneven(notes, 0.012, rng)


def _texture(seconds: float, rng: np.random.Generator) -> list[Note]:
    """Runs, broken and repeated chords, trills, free chords: all registers, no harmony to rely on."""
    notes: list[Note] = []
    now = rng.uniform(0, 0.5)
    low, high = sorted(rng.uniform(26, 105, 2))
    low, high = int(low), int(max(high, low + 16))
    while now < seconds:
        kind, span = rng.integers(5), rng.uniform(0.6, 3.0)
        root, end = int(rng.integers(low, max(low + 1, high - 12))), now + span
        step = float(rng.choice([0.07, 0.1, 0.14, 0.2, 0.3]))
        if kind == 0:  # run
            pitch = root
            while now < end:
                notes.append(Note(now, step * rng.uniform(0.6, 1.3), pitch, 80))
                pitch = int(np.clip(pitch + rng.choice([-3, -2, -1, 1, 2, 3, 4]), 21, 108))
                now += step
        elif kind in (1, 2):  # broken or repeated chord
            chord = root + np.cumsum([0, *rng.integers(2, 8, int(rng.integers(1, 4)))])
            index = 0
            while now < end:
                struck = chord if kind == 2 else chord[index % len(chord) : index % len(chord) + 1]
                notes += [Note(now, step * (2.5 if kind == 1 else 0.9), int(p), 80) for p in struck]
                now, index = now + step * (1 if kind == 1 else 2), index + 1
        elif kind == 3:  # trill
            while now < end:
                notes.append(Note(now, step, root + int(rng.integers(0, 2)) * 2, 76))
                now += step
        else:  # held chords
            for _ in range(int(rng.integers(1, 4))):
                size = int(rng.integers(1, 7))
                pitches = {int(p) for p in rng.integers(low, high + 1, size)}
                spread = rng.uniform(0, 0.03)
                length = rng.uniform(0.2, 1.6)
                notes += [Note(now + spread * i, length, p, 84) for i, p in enumerate(sorted(pitches))]
                now += length * rng.uniform(0.5, 1.2)
        if rng.random() < 0.25:
            now += rng.uniform(0.1, 1.0)
    return _uneven([n for n in notes if 21 <= n.pitch <= 108], 0.006, rng)


def monophonic(material: Material, seconds: float, rng: np.random.Generator) -> Piece:
    """One voice: a tune, a bass line, or a random line, with bends."""
    what = str(rng.choice(["tune", "bass", "line"], p=[0.4, 0.3, 0.3]))
    if what == "bass":
        part = next(p for p in _band(material, seconds, rng).parts if p.stem == "bass")
        notes, program = [n for n in part.notes if n.start < seconds], int(rng.choice(BASSES))
        notes = [n._replace(pitch=n.pitch + 12 * int(rng.random() < 0.1)) for n in notes]
    elif what == "tune":
        song = _song(material, rng)
        tune = song.tracks["MELODY"] or song.tracks["BRIDGE"]
        beat = 60 / (song.tempo * rng.uniform(0.8, 1.4))
        move = int(rng.integers(-6, 7)) + 12 * int(rng.choice([-2, -1, 0, 0, 1]))
        notes = _uneven(_excerpt(tune, beat, seconds, rng), 0.01, rng)
        notes = [n._replace(pitch=n.pitch + move) for n in notes]
        program = int(rng.choice(LEADS))
    else:
        quarter, now, notes = rng.uniform(0.3, 0.8), 0.0, []
        move = int(rng.integers(-30, 25))
        for midi, length in melodic_line(rng, seconds / quarter + 4):
            if midi != REST and 24 <= midi + move <= 96:
                notes.append(Note(now, length * quarter * rng.uniform(0.6, 1.0), midi + move, 86))
            now += length * quarter
        notes = _uneven(notes, 0.01, rng)
        program = int(rng.choice(LEADS if move > -14 else BASSES))
    line = one_voice([n for n in notes if 24 <= n.pitch <= 96], LONGEST.get(program, 12.0))
    glide = rng.random() * (0.8 if program in LEADS else 0.25)
    played, bends, pitch = bent(line, seconds, glide, rng)
    return Piece(
        [Line(played, program, bends=bends)], line, float(rng.normal(0, 12)), pitch, {"what": what, "program": program}
    )


def one_voice(notes: list[Note], longest: float) -> list[Note]:
    """Each note ends before the next begins; the highest of notes that begin together stays."""
    line: list[Note] = []
    for note in sorted(notes, key=lambda n: (round(n.start, 2), n.pitch)):
        note = note._replace(length=min(max(note.length, 0.05), longest))
        if line and note.start - line[-1].start < 0.06:
            line[-1] = note._replace(start=line[-1].start)
            continue
        if line:
            room = note.start - line[-1].start
            line[-1] = line[-1]._replace(length=min(line[-1].length, room - 0.003))
        line.append(note)
    return line


def bent(
    line: list[Note], seconds: float, glide: float, rng: np.random.Generator
) -> tuple[list[Note], tuple[tuple[float, float], ...], np.ndarray]:
    """Give a line vibrato, scoops and, with the chance ``glide``, legato without a new attack.

    Returns
    -------
    notes : list of Note
        To be struck: a legato group is one long note that is bent to the next pitches.
    bends : tuple of (seconds, semitones)
    pitch : ndarray
        MIDI pitch per frame of 10 ms, 0 where nothing sounds.
    """
    frames = int(seconds / FRAME)
    time = (np.arange(frames) + 0.5) * FRAME
    pitch, bend = np.zeros(frames), np.zeros(frames)
    rate, depth = rng.uniform(4.5, 7.0), rng.uniform(0, 0.6) * (rng.random() < 0.6)
    played: list[Note] = []
    for i, note in enumerate(line):
        here = (time >= note.start) & (time < note.start + note.length)
        after = time[here] - note.start
        curve = note.pitch + depth * np.clip((after - 0.15) / 0.3, 0, 1) * np.sin(2 * np.pi * rate * after)
        before = line[i - 1] if i else None
        near = before is not None and note.start - before.start - before.length < 0.06
        struck = played[-1].pitch if played else 0
        if (
            near
            and before is not None
            and 0 < abs(note.pitch - before.pitch) <= 7
            and abs(note.pitch - struck) <= 9
            and rng.random() < glide
        ):
            # The new note is there when the glide has done half its way.
            width = rng.uniform(0.01, 0.07)
            slide = (time >= note.start - width / 2) & (time < note.start + width / 2)
            played[-1] = played[-1]._replace(length=note.start + note.length - played[-1].start)
            pitch[here] = curve
            way = (time[slide] - note.start) / width + 0.5
            pitch[slide] = before.pitch + (note.pitch - before.pitch) * way
            sounding = (time >= before.start) & (time < note.start + note.length)
            pitch[sounding & (pitch == 0)] = before.pitch
        else:
            if rng.random() < 0.3 * (glide > 0.15):  # a scoop from below
                curve = curve - rng.uniform(0.3, 1.5) * np.clip(1 - after / rng.uniform(0.03, 0.12), 0, 1)
            pitch[here] = curve
            played.append(note)
    for i, note in enumerate(played):
        until = played[i + 1].start if i + 1 < len(played) else seconds
        here = np.flatnonzero((time >= note.start - 0.004) & (time < until - 0.004))
        held = 0.0
        for frame in here:  # after its end a note dies away at its last pitch
            held = pitch[frame] - note.pitch if pitch[frame] > 0 else held
            bend[frame] = held
    changed = np.flatnonzero(np.abs(np.diff(bend, prepend=0.0)) > 1e-3)
    return played, tuple((float(time[i] - 0.5 * FRAME), float(bend[i])) for i in changed), pitch


def orchestral(kind: str, orchestra: Orchestra, seconds: float, rng: np.random.Generator) -> tuple[Piece, np.ndarray]:
    """Recorded notes: two to four instruments together, or one line. Onsets are those of the roll, in whole frames."""
    count = 1 if kind == "monophonic" else int(rng.integers(2, 5))
    names = [str(n) for n in rng.choice(orchestra.instruments, count, replace=False)]
    parts = orchestra.ensemble(rng, names, seconds, [int(rng.integers(-2, 3)) for _ in names])
    audio, notes, pitch = np.zeros(round(seconds * 16000), np.float32), [], None
    for part in parts:
        sound, roll = part(0)
        gain = 10 ** (rng.uniform(-5, 5) / 20)
        audio[: len(sound)] += gain * sound
        edges = np.flatnonzero(np.diff(roll, prepend=-1, append=-1))
        velocity = int(np.clip(80 + 20 * np.log10(gain) * 3, 30, 120))
        spans = itertools.pairwise(edges)
        notes += [Note(a * FRAME, (b - a) * FRAME, int(roll[a]), velocity) for a, b in spans if roll[a] != REST]
        pitch = roll.astype(float)
    line = Line([n for n in notes if n.length >= 0.04], 0)
    facts = {"what": "orchestra", "instruments": names, "font": "orchestra-notes"}
    return Piece([line], merged([line]), 0.0, pitch if kind == "monophonic" else None, facts), audio


def drums(material: Material, seconds: float, rng: np.random.Generator) -> Piece:
    """A performance at another tempo, or random strokes."""
    if rng.random() < 0.8:
        groove = material.grooves[int(rng.integers(len(material.grooves)))]
        hits, _ = score.read_groove(groove)
        beat = 60 / (groove.tempo * rng.uniform(0.85, 1.2))
        notes = _excerpt(hits, beat, seconds, rng)
        while notes and notes[-1].start < 0.7 * seconds:  # a short performance is played again
            again = notes[-1].start + beat
            notes += [n._replace(start=n.start + again) for n in notes if n.start + again < seconds]
        notes = _uneven(notes, 0.002, rng)
        what = groove.path.stem
    else:
        notes, what = [], "random"
        for pitch in rng.permutation(DRUM_NOTES)[: int(rng.integers(2, 8))]:
            now = rng.uniform(0, 1)
            gap = float(rng.choice([0.12, 0.2, 0.35, 0.6, 1.2]))
            while now < seconds:
                notes.append(Note(now, 0.1, int(pitch), int(rng.integers(30, 128))))
                now += max(0.06, gap * rng.exponential(1.0)) if rng.random() < 0.5 else gap
    # Recorded kits have no second kick drum.
    line = _line([n._replace(length=0.1, pitch=36 if n.pitch == 35 else n.pitch) for n in notes], 0)
    line = line._replace(program=int(rng.choice(KIT_PROGRAMS)), drums=True)
    return Piece([line], list(line.notes), facts={"what": what, "program": line.program})
