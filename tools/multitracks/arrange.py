"""Arrange an excerpt of a POP909 song for a band: who plays what, with which sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.multitracks import score
from tools.multitracks.score import BEATS_PER_BAR, Chord, Groove, Note, PopSong

# General MIDI programs, from 0.
PIANO, ELECTRIC_PIANO, ORGAN, CLAVINET = (0, 1, 2, 3), (4, 5), (16, 17, 18, 19), (6, 7)
MALLETS, ACCORDION = (8, 10, 11, 12, 13), (21, 23)
ACOUSTIC_GUITAR, CLEAN_GUITAR, MUTED_GUITAR, DRIVEN_GUITAR = (24, 25), (26, 27), (28,), (27, 29, 30)
STRINGS, BRASS, PAD = (44, 48, 49, 50, 51), (61, 62, 63), (88, 89, 90, 92, 93, 94, 95)
PLUCK, LEAD = (45, 46, 80, 81, 84, 87, 104, 107), (80, 81, 82, 83, 84, 86, 87)
SOLO = (22, 40, 41, 42, 56, 57, 59, 60, 64, 65, 66, 68, 71, 72, 73, 75, 105, 11, *LEAD)
FINGERED_BASS, SYNTH_BASS = (32, 33, 34, 35, 36, 37), (38, 39, 87)


@dataclass(frozen=True)
class Style:
    """What a band of a kind plays; chances of its layers, in the order tried."""

    layers: tuple[tuple[str, tuple[int, ...], float], ...]
    grooves: tuple[str, ...]
    bass: tuple[str, ...]
    synth_bass: float
    kits: tuple[float, float, float]  # chances of a General MIDI kit, a recorded soundfont kit, a Hydrogen kit


STYLES = {
    "rock": Style(
        (
            ("power", DRIVEN_GUITAR, 0.95),
            ("strum", CLEAN_GUITAR + ACOUSTIC_GUITAR, 0.5),
            ("block", ORGAN + PIANO, 0.35),
        ),
        ("rock", "punk", "pop", "country"),
        ("eighths", "kick", "eighths"),
        0.05,
        (0.2, 0.4, 0.4),
    ),
    "pop": Style(
        (
            ("piano", PIANO + ELECTRIC_PIANO, 0.8),
            ("pad", STRINGS + PAD, 0.6),
            ("strum", ACOUSTIC_GUITAR + CLEAN_GUITAR, 0.6),
            ("stabs", BRASS + PLUCK, 0.2),
        ),
        ("pop", "rock", "soul", "gospel", "dance"),
        ("kick", "roots", "eighths"),
        0.25,
        (0.35, 0.25, 0.4),
    ),
    "electronic": Style(
        (
            ("arpeggio", PLUCK + LEAD, 0.85),
            ("pad", PAD + STRINGS, 0.85),
            ("stabs", LEAD + BRASS, 0.5),
            ("piano", ELECTRIC_PIANO + PIANO, 0.25),
        ),
        ("dance", "hiphop", "pop", "funk"),
        ("offbeat", "octaves", "kick"),
        0.85,
        (0.5, 0.0, 0.5),
    ),
    "funk": Style(
        (
            ("comp", CLAVINET + ELECTRIC_PIANO + ORGAN, 0.8),
            ("scratch", MUTED_GUITAR + CLEAN_GUITAR, 0.7),
            ("stabs", BRASS, 0.6),
        ),
        ("funk", "soul", "hiphop", "afrobeat", "neworleans", "latin", "reggae"),
        ("funk", "octaves", "kick"),
        0.15,
        (0.3, 0.3, 0.4),
    ),
    "ballad": Style(
        (
            ("piano", PIANO + ELECTRIC_PIANO, 0.85),
            ("pad", STRINGS, 0.7),
            ("picking", ACOUSTIC_GUITAR + CLEAN_GUITAR, 0.6),
        ),
        ("soul", "pop", "rock", "gospel", "blues"),
        ("roots", "kick"),
        0.1,
        (0.3, 0.35, 0.35),
    ),
    "acoustic": Style(
        (
            ("strum", ACOUSTIC_GUITAR, 0.9),
            ("picking", ACOUSTIC_GUITAR + MALLETS, 0.5),
            ("piano", PIANO + ACCORDION + MALLETS, 0.5),
        ),
        ("country", "jazz", "latin", "blues", "highlife", "reggae"),
        ("walking", "roots", "eighths"),
        0.0,
        (0.3, 0.4, 0.3),
    ),
}


@dataclass
class Part:
    """One instrument: notes in seconds, a General MIDI program, and how it is treated."""

    stem: str
    role: str
    program: int
    notes: list[Note]
    gain_db: float = 0.0
    pan: float = 0.0


@dataclass
class Arrangement:
    """A song to be played: parts, drum hits in seconds, and what was chosen."""

    style: Style
    parts: list[Part]
    hits: list[Note]
    electronic: bool
    seconds_per_beat: float
    facts: dict[str, Any] = field(default_factory=dict)


def arrange(
    song: PopSong, grooves: list[Groove], seconds: float, transpose: int, solo_chance: float, rng: np.random.Generator
) -> Arrangement:
    """Arrange ``seconds`` of a song, moved by ``transpose`` semitones; ``solo_chance`` of an instrument on the tune."""
    kind = str(rng.choice(list(STYLES)))
    style = STYLES[kind]
    wanted = song.tempo * rng.uniform(0.85, 1.15)
    while wanted < 66:
        wanted *= 2 if rng.random() < 0.4 else 1.2
    groove, feel, tempo = _pick_groove(grooves, style, wanted, rng)
    beat = 60 / tempo
    bars = int(np.ceil(seconds / beat / BEATS_PER_BAR)) + 1
    beats = float(bars * BEATS_PER_BAR)

    last = int(max(note.start for note in song.tracks["PIANO"]) // BEATS_PER_BAR)
    start = float(int(rng.integers(0, max(1, last - bars + 1))) * BEATS_PER_BAR)
    piece = {name: _moved(score.cut(notes, start, beats), transpose) for name, notes in song.tracks.items()}
    harmony = score.chords(piece["PIANO"], bars * 2)

    hits, groove_bars = score.read_groove(groove)
    hits = _loop(hits, groove_bars, beats / feel, rng)
    hits = [hit._replace(start=hit.start * feel, length=hit.length * feel) for hit in hits]
    kicks = [hit.start for hit in hits if hit.pitch in (35, 36)]

    parts = _other(style, piece, harmony, solo_chance, rng)
    bass_kind = str(rng.choice(style.bass))
    low_programs = SYNTH_BASS if rng.random() < style.synth_bass else FINGERED_BASS
    bass = Part("bass", bass_kind, int(rng.choice(low_programs)), _bass(bass_kind, harmony, kicks, rng))
    parts.append(bass)

    # Bands do not all play all the time: now and then a player rests for some bars.
    for part in parts:
        if rng.random() < 0.22:
            part.notes = _rest(part.notes, bars, rng)
    if rng.random() < 0.2:
        hits = _rest(hits, bars, rng)
    for part in parts:
        tight = 0.004 if part.role in ("arpeggio", "pad") else 0.010
        part.notes = [_humanized(note, beat, tight, rng) for note in part.notes]
    hits = [hit._replace(start=max(0.0, hit.start * beat), length=hit.length * beat) for hit in hits]
    facts = {
        "pop909": song.name,
        "groove": groove.path.stem,
        "style": kind,
        "tempo": round(tempo, 2),
        "transpose": transpose,
        "parts": [[part.stem, part.role, part.program] for part in parts],
    }
    electronic = kind == "electronic" or (kind == "pop" and rng.random() < 0.25)
    return Arrangement(style, parts, hits, electronic, beat, facts)


def _pick_groove(
    grooves: list[Groove], style: Style, wanted: float, rng: np.random.Generator
) -> tuple[Groove, float, float]:
    """A performance that fits, how many of the song's beats one of its beats lasts, and the tempo both agree on."""
    fitting = []
    for groove in grooves:
        for feel in (1.0, 2.0, 0.5):
            ratio = wanted / (groove.tempo * feel)
            if abs(np.log(ratio)) < np.log(1.15):
                weight = (4.0 if groove.style in style.grooves else 1.0) * (1.0 if feel == 1.0 else 0.4)
                fitting.append((groove, feel, weight))
    if not fitting:  # an unusual tempo: the song follows the nearest drummer
        groove = min(grooves, key=lambda each: abs(np.log(each.tempo / wanted)))
        return groove, 1.0, float(groove.tempo)
    weights = np.array([weight for _, _, weight in fitting])
    groove, feel, _ = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    return groove, feel, float(wanted)


def _loop(hits: list[Note], bars: int, beats: float, rng: np.random.Generator) -> list[Note]:
    """A stretch of ``beats`` from a performance, repeated where it is shorter."""
    bars = max(1, bars)
    first = int(rng.integers(bars)) if bars * BEATS_PER_BAR > beats else 0
    looped: list[Note] = []
    position, at = 0.0, first
    while position < beats:
        take = float((bars - at) * BEATS_PER_BAR)
        for hit in hits:
            start = hit.start - at * BEATS_PER_BAR
            if -0.1 <= start < take - 0.1 and position + start < beats:
                looped.append(hit._replace(start=max(0.0, position + start)))
        position, at = position + take, 0
    return sorted(looped)


def _moved(notes: list[Note], semitones: int) -> list[Note]:
    return [note._replace(pitch=int(np.clip(note.pitch + semitones, 21, 108))) for note in notes]


def _humanized(note: Note, beat: float, tight: float, rng: np.random.Generator) -> Note:
    start = max(0.0, note.start * beat + float(rng.normal(0, tight)))
    velocity = int(np.clip(note.velocity + rng.normal(0, 5), 20, 127))
    return Note(start, max(0.03, note.length * beat), note.pitch, velocity)


def _rest(notes: list[Note], bars: int, rng: np.random.Generator) -> list[Note]:
    """Leave out two to six bars, more often at the beginning."""
    length = float(rng.integers(2, 7) * BEATS_PER_BAR)
    start = 0.0 if rng.random() < 0.5 else float(rng.integers(0, max(1, bars - 2)) * BEATS_PER_BAR)
    return [note for note in notes if not start <= note.start < start + length]


def _near(pitch_class: int, center: float) -> int:
    """The pitch of a class that is nearest to ``center``."""
    return int(pitch_class + 12 * round((center - pitch_class) / 12))


def _bass(kind: str, harmony: list[Chord], kicks: list[float], rng: np.random.Generator) -> list[Note]:
    """A bass line over the harmony: E1 to about A2, in a pattern that is kept for the song."""
    center = rng.uniform(31, 38)
    lively = rng.uniform(0, 0.35)
    notes: list[Note] = []
    for i, chord in enumerate(harmony):
        start = 2.0 * i
        root = max(28, _near(chord.root, center))
        fifth = root + 7 if (chord.root + 7) % 12 in chord.tones or rng.random() < 0.5 else root
        after = harmony[i + 1].root if i + 1 < len(harmony) else chord.root
        changes = i == 0 or harmony[i - 1].root != chord.root
        line: list[tuple[float, float, int]]
        if kind == "roots":
            line = [(0.0, 1.95, root)] if changes or rng.random() < 0.6 else [(0.0, 0.95, root), (1.0, 0.95, fifth)]
        elif kind == "eighths":
            line = [(0.5 * k, 0.46, root + 12 * int(rng.random() < lively * 0.3)) for k in range(4)]
            if after != chord.root and rng.random() < lively:
                line[3] = (1.5, 0.46, _near((after + int(rng.choice((-1, -2, 2)))) % 12, root))
        elif kind == "octaves":
            line = [(0.5 * k, 0.4, root + 12 * (k % 2)) for k in range(4)]
        elif kind == "offbeat":
            line = [(0.5, 0.4, root), (1.5, 0.4, root)] + ([(0.0, 0.3, root)] if rng.random() < 0.3 else [])
        elif kind == "walking":
            approach = _near((after + int(rng.choice((-1, 1)))) % 12, root)
            third = _near(chord.tones[int(rng.integers(len(chord.tones)))], root + 4)
            line = [(0.0, 0.9, root), (1.0, 0.9, approach if after != chord.root else int(rng.choice((third, fifth))))]
        else:  # with the kick; funk adds short notes between
            on = sorted({round((kick - start) * 4) / 4 for kick in kicks if -0.1 < kick - start < 1.9} | {0.0})
            line = []
            for k, at in enumerate(on):
                room = (on[k + 1] if k + 1 < len(on) else 2.0) - at
                short = kind == "funk"
                pitch = root if k == 0 or rng.random() > lively else int(rng.choice((root + 12, fifth)))
                line.append((at, min(room, 0.3 if short else 1.5) * 0.95, pitch))
                if short and room >= 0.5 and rng.random() < 0.5:
                    line.append((at + 0.25, 0.2, root + 12 * int(rng.random() < 0.5)))
        for at, length, pitch in line:
            velocity = int(92 + 12 * (at == 0) + rng.normal(0, 6))
            notes.append(Note(start + at, length, int(np.clip(pitch, 26, 55)), velocity))
    return notes


def _voicing(chord: Chord, low: int, count: int) -> list[int]:
    """``count`` chord tones from ``low`` upwards, the root first."""
    wanted = [chord.root, *(tone for tone in chord.tones if tone != chord.root)]
    pitches = sorted({low + (tone - low) % 12 for tone in wanted[:4]} | {low + (chord.root - low) % 12 + 12})
    while len(pitches) < count:
        pitches.append(pitches[len(pitches) - len(wanted[:4])] + 12)
    return pitches[:count]


def _chordal(role: str, harmony: list[Chord], rng: np.random.Generator) -> list[Note]:
    """A layer made from the harmony alone: pads, strums, power chords, arpeggios, stabs, picking, scratches."""
    low = int(rng.integers(45, 56))
    eighths = rng.random(8) < (0.55 if role == "strum" else 0.4)
    eighths[0] = True
    sixteenths = rng.random(16) < 0.5
    order = rng.permutation(4)
    step = 0.25 if rng.random() < 0.7 else 0.5
    notes: list[Note] = []
    for i, chord in enumerate(harmony):
        start = 2.0 * i
        if role == "pad":
            held = i > 0 and harmony[i - 1] == chord
            if not held:
                run = next((k for k, other in enumerate(harmony[i:]) if other != chord), len(harmony) - i)
                notes += [Note(start, 2.0 * run, pitch, 70) for pitch in _voicing(chord, low + 7, 4)]
        elif role == "power":
            root = 40 + (chord.root - 40) % 12
            hits = [k / 2 for k in range(4) if eighths[k + 4 * (i % 2)]] or [0.0]
            ends = [*hits[1:], 2.0]
            for at, end in zip(hits, ends, strict=True):
                length = (end - at) * (0.95 if eighths[1] else 0.55)
                notes += [Note(start + at, length, root + up, 100) for up in (0, 7, 12)]
        elif role == "strum":
            pitches = _voicing(chord, 40 + low % 8, 5)
            for k in range(4):
                if eighths[k + 4 * (i % 2)]:
                    strings = pitches if k % 2 == 0 else pitches[:1:-1]
                    accent = 95 if k == 0 else 75
                    notes += [Note(start + k / 2 + 0.02 * n, 0.7, pitch, accent) for n, pitch in enumerate(strings)]
        elif role == "arpeggio":
            pitches = _voicing(chord, low + 10, 4)
            count = round(2 / step)
            notes += [Note(start + k * step, step * 0.9, pitches[order[k % 4]], 80) for k in range(count)]
        elif role == "picking":
            pitches = _voicing(chord, low, 4)
            notes += [Note(start + k * 0.5, 1.0, pitches[order[k % 4]], 78) for k in range(4)]
        elif role == "stabs":
            pitches = _voicing(chord, low + 10, 3)
            for k in range(8):
                if sixteenths[k] and sixteenths[8 + (i % 4) * 2]:
                    notes += [Note(start + k / 4, 0.3, pitch, 95) for pitch in pitches]
        else:  # scratch, comp: short chords on sixteenths
            pitches = _voicing(chord, low + 5, 3)
            for k in range(8):
                if sixteenths[k + 8 * (i % 2)]:
                    notes += [Note(start + k / 4, 0.2, pitch, 95 - 20 * (k % 2)) for pitch in pitches]
    return notes


def _ringing(notes: list[Note]) -> list[Note]:
    """Hold notes to the end of their half bar, as the pedal does."""
    return [note._replace(length=max(note.length, 2.0 - note.start % 2.0)) for note in notes]


def _other(
    style: Style,
    piece: dict[str, list[Note]],
    harmony: list[Chord],
    solo_chance: float,
    rng: np.random.Generator,
) -> list[Part]:
    parts: list[Part] = []
    layers = list(style.layers)
    if rng.random() < 0.3:  # a guest from another band
        guest = STYLES[str(rng.choice(list(STYLES)))]
        layers.append(guest.layers[int(rng.integers(len(guest.layers)))])
    for role, programs, chance in layers:
        if len(parts) >= 4 or (parts and rng.random() > chance):
            continue
        program = int(rng.choice(programs))
        if role == "piano":
            notes = _ringing(piece["PIANO"]) if rng.random() < 0.6 else piece["PIANO"]
        elif role == "block":
            notes = _chordal("pad", harmony, rng)
        else:
            notes = _chordal(role, harmony, rng)
        pan = float(rng.uniform(-0.7, 0.7)) if role not in ("piano", "pad") else float(rng.uniform(-0.2, 0.2))
        gain = float(rng.normal(-6.0 if role in ("pad", "scratch", "stabs") else 0.0, 3.0))
        if role == "power":  # recorded twice, left and right
            for side in (-1, 1):
                parts.append(Part("other", role, program, notes, gain - 2, side * float(rng.uniform(0.6, 1.0))))
        else:
            parts.append(Part("other", role, program, notes, gain, pan))
    if piece["BRIDGE"] and rng.random() < 0.7:
        program = int(rng.choice(PIANO + MALLETS + CLEAN_GUITAR + STRINGS + SOLO))
        parts.append(
            Part("other", "second", program, piece["BRIDGE"], float(rng.normal(-3, 2)), rng.uniform(-0.5, 0.5))
        )
    if piece["MELODY"] and rng.random() < solo_chance:
        rocks = any(part.role == "power" for part in parts)
        program = int(rng.choice(DRIVEN_GUITAR if rocks and rng.random() < 0.6 else SOLO))
        octave = 12 * int(rng.choice((-1, 0, 0, 0)))
        tune = _moved(piece["MELODY"], octave)
        gain, pan = float(rng.normal(1, 2)), float(rng.uniform(-0.2, 0.2))
        parts.append(Part("other", "solo", program, tune, gain, pan))
    return parts
