"""What is played: form, chords, drum patterns, bass lines, accompaniment and a tune with words.

Pure music, no sound: everything is decided from one random generator and returned as `Score`. Steps are sixteenths,
sixteen to a bar of 4/4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rtsep.demo.synth import Rng
from rtsep.demo.voice import Syllable, range_of, words

KEYS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MODES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10),
         "mixolydian": (0, 2, 4, 5, 7, 9, 10)}  # fmt: skip
PROGRESSIONS = {
    "major": ((1, 5, 6, 4), (6, 4, 1, 5), (1, 6, 4, 5), (1, 4, 5, 4), (2, 5, 1, 6), (1, 3, 4, 5), (4, 5, 3, 6),
              (1, 4, 6, 5), (1, 2, 4, 5), (6, 5, 4, 5)),
    "minor": ((1, 6, 3, 7), (1, 7, 6, 7), (1, 4, 6, 5), (6, 7, 1, 1), (1, 3, 7, 6), (1, 4, 7, 3), (4, 1, 6, 5)),
    "dorian": ((1, 4, 1, 4), (1, 7, 4, 1), (1, 3, 4, 7), (1, 2, 3, 4)),
    "mixolydian": ((1, 7, 4, 1), (1, 5, 7, 4), (1, 4, 7, 1), (4, 7, 1, 1)),
}  # fmt: skip
KICKS = ("x...x...x...x...", "x.......x.......", "x.....x.x.......", "x..x....x.x.....", "x......xx.....x.",
         "x.....x...x.....", "x..x..x...x..x..", "x.x.....x..x....", "x.........x.....")  # fmt: skip
SNARES = ("....x.......x...", "....x.......x...", "........x.......", "....x..x.x..x...", "....x.......x..x")
HATS = ("x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx", "x...x...x...x...", "..x...x...x...x.", "x.xxx.xxx.xxx.xx")
BASSES = ("x.......x.......", "x.x.x.x.x.x.x.x.", "x..x..x.x..x..x.", "x.....x.x.......", "..x...x...x...x.",
          "x...x...x...x...", "x..xx.x...x.x.x.", "x...............")  # fmt: skip
STRUMS = ("x...x.x.x...x.x.", "x.x.x.x.x.x.x.x.", "x..x..x.x..x..x.", "x...x.xx..x.x.xx", "..x...x...x...x.")
RHYTHMS = ((4, 4, 4, 4), (2, 2, 4, 2, 2, 4), (3, 3, 2, 3, 3, 2), (2, 2, 2, 2, 4, 4), (6, 2, 4, 4), (4, 2, 2, 8),
           (2, 2, 2, 2, 2, 2, 4), (3, 3, 4, 2, 4), (4, 4, 8), (2, 4, 2, 4, 4), (6, 2, 8),
           (3, 1, 2, 2, 4, 4))  # fmt: skip
SLOW = ((2, 2, 2, 2, 2, 2, 2, 2), (1, 1, 2, 2, 2, 4, 2, 2), (2, 1, 1, 4, 2, 2, 4), (3, 3, 2, 2, 2, 4))
CALM = ((4, 4, 8), (8, 8), (4, 4, 4, 4), (6, 2, 8), (12, 4), (8, 4, 4))


@dataclass(frozen=True)
class Style:
    """Which tempos, kits and timbres belong together."""

    tempo: tuple[int, int]
    electronic: float
    basses: tuple[str, ...]
    chordal: tuple[str, ...]
    leads: tuple[str, ...]
    swing: float = 0.0


STYLES = {
    "pop": Style((88, 128), 0.5, ("finger", "sawbass", "sub"),
                 ("piano", "epiano", "acoustic", "pad", "pluck"), ("bell", "sawlead")),
    "rock": Style((95, 150), 0.0, ("pick", "finger"),
                  ("distorted", "clean", "organ", "distorted"), ("sawlead", "violin")),
    "ballad": Style((70, 90), 0.1, ("finger",),
                    ("piano", "strings", "acoustic", "epiano"), ("violin", "flute")),
    "funk": Style((92, 118), 0.1, ("finger", "pick"),
                  ("clean", "epiano", "organ"), ("clarinet", "sawlead"), 0.3),
    "electronic": Style((105, 135), 1.0, ("sawbass", "sub"),
                        ("pad", "pluck", "strings", "epiano"), ("sawlead", "bell")),
    "folk": Style((76, 124), 0.0, ("finger",),
                  ("acoustic", "acoustic", "strings", "piano"), ("flute", "violin", "clarinet")),
    "soul": Style((70, 105), 0.2, ("finger", "sub"),
                  ("epiano", "organ", "clean", "strings"), ("clarinet", "flute"), 0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A part of the form; ``energy`` 0..1 says how much plays."""

    name: str
    start_bar: int
    bars: int
    energy: float
    sung: bool


@dataclass(frozen=True)
class Event:
    """One note for an instrument; ``midi`` of a drum is its General MIDI note, ``drum`` its name."""

    start_s: float
    duration_s: float
    midi: int
    velocity: float
    drum: str = ""


@dataclass
class Part:
    """One accompanying instrument and what it plays."""

    kind: str
    pan: float
    gain_db: float
    wide: bool = False
    events: list[Event] = field(default_factory=list)


@dataclass
class Score:
    """A whole song as notes."""

    seconds: float
    tempo: float
    key: str
    style: str
    electronic: bool
    sections: list[Section]
    drums: list[Event] = field(default_factory=list)
    bass: Part = field(default_factory=lambda: Part("finger", 0.0, 0.0))
    parts: list[Part] = field(default_factory=list)
    melody: list[Syllable] = field(default_factory=list)
    harmony: list[Syllable] = field(default_factory=list)
    chorus_lines: list[Syllable] = field(default_factory=list)
    high_voice: bool = True


class Composer:
    """Writes one `Score`; ``full`` keeps the band complete and the voice singing nearly throughout."""

    def __init__(self, rng: Rng, seconds: float, full: bool = False) -> None:
        self.rng, self.full = rng, full
        style_name = str(rng.choice(list(STYLES)))
        self.style = STYLES[style_name]
        self.tempo = float(rng.integers(self.style.tempo[0], self.style.tempo[1] + 1))
        self.step_s = 60.0 / self.tempo / 4
        self.bars = int(np.ceil(seconds / (16 * self.step_s))) + 1
        self.tonic = int(rng.integers(12))
        mode = str(rng.choice(list(MODES), p=[0.45, 0.35, 0.1, 0.1]))
        self.mode, self.scale = mode, MODES[mode]
        self.swing = self.style.swing * rng.uniform(0.1, 0.5) if rng.uniform() < 0.6 else 0.0
        self.sevenths = rng.uniform() < (0.8 if style_name in ("soul", "funk") else 0.25)
        self.score = Score(seconds, self.tempo, f"{KEYS[self.tonic]} {mode}", style_name,
                           bool(rng.uniform() < self.style.electronic), self._form())  # fmt: skip
        self.chords = self._chords()

    def write(self) -> Score:
        """Compose everything and return it."""
        rng = self.rng
        self.score.high_voice = bool(rng.uniform() < 0.5)
        self._melody()
        if self.full or rng.uniform() > 0.06:
            self._drums()
        if self.full or rng.uniform() > 0.04:
            self._bass()
        self._accompany()
        return self.score

    def time(self, bar: int, step: float, loose: float = 0.0) -> float:
        """Seconds of a step, swung and humanised by ``loose`` seconds."""
        late = self.swing * self.step_s if round(step) % 2 == 1 else 0.0
        return max(0.0, (bar * 16 + step) * self.step_s + late + (self.rng.normal(0, loose) if loose else 0.0))

    def _form(self) -> list[Section]:
        rng = self.rng
        sections: list[Section] = []
        at = 0

        def add(name: str, bars: int, energy: float, sung: bool) -> None:
            nonlocal at
            bars = min(bars, self.bars - at)
            if bars > 0:
                sections.append(Section(name, at, bars, energy, sung))
                at += bars

        add("intro", 1 if self.full else int(rng.choice([0, 1, 1, 2, 2, 4])), rng.uniform(0.2, 0.7), False)
        block = 4 if self.full or rng.uniform() < 0.7 else 8
        order = ["verse", "chorus"] if self.full or rng.uniform() < 0.75 else ["chorus", "verse"]
        while at < self.bars:
            for name in order:
                add(name, block, 0.6 + 0.15 * rng.uniform() if name == "verse" else 0.95, True)
            if not self.full and rng.uniform() < 0.5:
                add(*(("solo", 4, 0.8, False) if rng.uniform() < 0.35 else ("bridge", 4, 0.4, True)))
        return sections

    def _chords(self) -> list[tuple[int, tuple[int, ...]]]:
        """For each half bar: degree (0-based) and pitch classes, root first."""
        rng = self.rng
        bank = PROGRESSIONS[self.mode]
        by_name = {name: bank[rng.integers(len(bank))] for name in ("intro", "verse", "chorus", "solo", "bridge")}
        by_name["intro"] = by_name["solo"] = by_name["verse"]
        quick = rng.uniform() < 0.2
        out: list[tuple[int, tuple[int, ...]]] = []
        for section in self.score.sections:
            progression = by_name[section.name]
            for half in range(section.bars * 2):
                degree = progression[(half if quick else half // 2) % len(progression)] - 1
                thirds = (0, 2, 4, 6) if self.sevenths else (0, 2, 4)
                tones = [(self.tonic + self.scale[(degree + k) % 7]) % 12 for k in thirds]
                if self.mode == "minor" and degree == 4 and rng.uniform() < 0.7:
                    tones[1] = (self.tonic + 11) % 12  # the leading note
                out.append((degree, tuple(tones)))
        return out

    def chord(self, bar: int, step: float) -> tuple[int, tuple[int, ...]]:
        """Chord sounding at a step."""
        return self.chords[min(bar * 2 + int(step >= 8), len(self.chords) - 1)]

    # --- the tune -------------------------------------------------------------------------------------------------

    def _melody(self) -> None:
        rng, score = self.rng, self.score
        low, high = range_of(rng, score.high_voice)
        ladder = [m for m in range(low - 2, high + 3) if (m - self.tonic) % 12 in self.scale]
        bank = SLOW + RHYTHMS if self.tempo < 88 else (RHYTHMS + CALM if self.tempo > 125 else RHYTHMS)
        motifs: dict[str, list[tuple[tuple[int, ...], tuple[int, ...], list[int]]]] = {}
        texts: dict[str, list[tuple[str, str, str]]] = {"chorus": words(rng, 160)}
        double = rng.uniform() < 0.45
        sing_harmony = rng.uniform() < 0.4
        for section in score.sections:
            if not section.sung:
                continue
            if section.name not in motifs:
                motifs[section.name] = [
                    (bank[rng.integers(len(bank))], bank[rng.integers(len(bank))], [int(v) for v in rng.choice(
                        [-2, -1, -1, 0, 1, 1, 2, 3, -3], 24, p=[.1, .2, .1, .15, .15, .1, .1, .05, .05])])
                    for _ in range(2)
                ]  # fmt: skip
            text = texts.get(section.name) or words(rng, 160)
            middle = len(ladder) // 2 + (2 if section.name == "chorus" else -1)
            said = 0
            for phrase in range(0, section.bars, 2):
                motif = motifs[section.name][(phrase // 2) % 4 == 2]
                if not self.full and rng.uniform() < 0.06:
                    continue  # the voice leaves a phrase to the band
                said = self._phrase(section, phrase, motif, ladder, middle, text, said, double, sing_harmony)

    def _phrase(self, section: Section, phrase: int, motif: tuple[tuple[int, ...], tuple[int, ...], list[int]],
                ladder: list[int], middle: int, text: list[tuple[str, str, str]], said: int,
                double: bool, sing_harmony: bool) -> int:  # fmt: skip
        rng, score = self.rng, self.score
        bars = min(2, section.bars - phrase)
        rest = int(rng.choice([2, 3, 4] if self.full else [2, 3, 4, 6]))
        steps: list[tuple[int, int]] = []
        for k in range(bars):
            at = 16 * k
            for length in motif[k]:
                steps.append((at, length))
                at += length
        end = 16 * bars - rest
        steps = [(a, min(d, end - a)) for a, d in steps if a < end - 1]
        at_rung = int(np.clip(middle + rng.integers(-1, 2), 0, len(ladder) - 1))
        force = (0.72 if section.name == "verse" else 0.9) * rng.uniform(0.92, 1.05)
        for i, (step, length) in enumerate(steps):
            bar = section.start_bar + phrase + step // 16
            if i:
                at_rung += motif[2][i % 24]
                if abs(at_rung - middle) > 4:
                    at_rung -= int(np.sign(at_rung - middle)) * 2
            at_rung = int(np.clip(at_rung, 0, len(ladder) - 1))
            tones = self.chord(bar, step % 16)[1]
            if (step % 4 == 0 and length >= 3) or i == len(steps) - 1:
                near = [r for r, m in enumerate(ladder) if m % 12 in tones]
                if near:
                    at_rung = min(near, key=lambda r: (abs(r - at_rung), r))
            a = self.time(bar, step % 16, 0.012)
            span = length * self.step_s
            sung = span * (rng.uniform(0.75, 0.92) if rng.uniform() < 0.15 else 0.985)
            if i == len(steps) - 1:
                sung = min(span, max(0.35, span * 0.85))
            onset, vowel, coda = text[said % len(text)]
            said += 1
            split = span > 0.5 and rng.uniform() < 0.18  # melisma: one syllable over two notes
            velocity = float(np.clip(force * (1.06 if step % 8 == 0 else 0.97) * rng.uniform(0.94, 1.04), 0.3, 1.0))
            rung = at_rung
            pieces = [(0.0, 0.55, rung, onset, ""), (0.55, 0.45, min(rung + 1, len(ladder) - 1), "-", coda)]
            for start, share, r, first, last in pieces if split else [(0.0, 1.0, rung, onset, coda)]:
                note = Syllable(a + start * sung, share * sung, ladder[r], velocity, first, vowel, last)
                score.melody.append(note)
                if section.name == "chorus":
                    if double:
                        score.chorus_lines.append(note)
                    if sing_harmony:
                        h = ladder[r + 2] if r + 2 < len(ladder) else ladder[r - 5]
                        score.harmony.append(
                            Syllable(note.start_s, note.duration_s, h, 0.8 * velocity, first, vowel, last)
                        )
        return said

    # --- the band -------------------------------------------------------------------------------------------------

    def _drums(self) -> None:
        rng, events = self.rng, self.score.drums
        from rtsep.demo.synth import Kit

        kicks = {n: KICKS[rng.integers(len(KICKS))] for n in ("verse", "chorus")}
        snare, hats = SNARES[rng.integers(len(SNARES))], [HATS[rng.integers(len(HATS))] for _ in range(2)]
        back = str(
            rng.choice(["snare", "clap", "rim"], p=[0.55, 0.3, 0.15] if self.score.electronic else [0.8, 0.0, 0.2])
        )
        loose = 0.001 if self.score.electronic else rng.uniform(0.003, 0.009)
        shaker, ride = rng.uniform() < 0.25, rng.uniform() < 0.3

        def hit(name: str, bar: int, step: float, velocity: float) -> None:
            v = float(np.clip(velocity * rng.uniform(0.85, 1.1), 0.05, 1.0))
            events.append(Event(self.time(bar, step, loose), 0.1, Kit.GM[name], v, name))

        for section in self.score.sections:
            name = "chorus" if section.name in ("chorus", "solo") else "verse"
            for k in range(section.bars):
                bar = section.start_bar + k
                fill = k == section.bars - 1 and section.bars > 1 and rng.uniform() < 0.8
                thin = section.energy < 0.45
                for step in range(16):
                    if fill and step >= 8 and (step >= 12 or rng.uniform() < 0.5):
                        if rng.uniform() < 0.75:
                            drum = ("snare", "tom1", "tom2", "tom3")[min(3, (step - 8) // 2)]
                            hit(drum, bar, step, 0.55 + 0.04 * (step - 8))
                        if step % 4 == 0:
                            hit("kick", bar, step, 0.8)
                        continue
                    if kicks[name][step] == "x" and not (thin and step % 8):
                        hit("kick", bar, step, 0.95 if step == 0 else 0.85)
                    if snare[step] == "x" and not thin:
                        strong = step % 8 == 4
                        hit(back if strong else "snare", bar, step, 0.9 if strong else 0.3)
                        if strong and name == "chorus" and back == "rim":
                            hit("snare", bar, step, 0.8)
                    if hats[name == "chorus"][step] == "x":
                        drum = (
                            "ride"
                            if ride and name == "chorus"
                            else "open"
                            if step == 14 and rng.uniform() < 0.3
                            else "closed"
                        )
                        hit(drum, bar, step, (0.75 if step % 4 == 0 else 0.5 if step % 2 == 0 else 0.33))
                    if shaker and name == "chorus":
                        hit("shaker", bar, step, 0.5 if step % 4 == 2 else 0.3)
                if k == 0 and section.energy > 0.55:
                    hit("crash", bar, 0, 0.9)

    def _bass(self) -> None:
        rng, score = self.rng, self.score
        part = Part(str(rng.choice(self.style.basses)), 0.0, 0.0)
        patterns = {n: BASSES[rng.integers(len(BASSES))] for n in ("verse", "chorus")}
        low = int(rng.integers(28, 34))
        short = rng.uniform(0.55, 0.98)
        for section in score.sections:
            if section.energy < 0.35 and not self.full:
                continue
            pattern = patterns["chorus" if section.energy > 0.75 else "verse"]
            for bar in range(section.start_bar, section.start_bar + section.bars):
                hits = [i for i, c in enumerate(pattern) if c == "x"]
                for i, step in enumerate(hits):
                    stop = hits[i + 1] if i + 1 < len(hits) else 16
                    tones = self.chord(bar, step)[1]
                    midi = low + (tones[0] - low) % 12
                    if step not in (0, 8) and rng.uniform() < 0.25:
                        midi = low + (tones[int(rng.choice([0, 2]))] - low) % 12 + (12 if rng.uniform() < 0.3 else 0)
                    if stop == 16 and i and rng.uniform() < 0.25:  # approach the next root by a step
                        following = self.chord(min(bar + 1, self.bars - 1), 0)[1][0]
                        midi = low + (following - low) % 12 + int(rng.choice([-2, -1, 2]))
                    part.events.append(Event(self.time(bar, step, 0.004), (stop - step) * self.step_s * short, midi,
                                             float(rng.uniform(0.75, 1.0)) * (1.0 if step == 0 else 0.9)))  # fmt: skip
        score.bass = part

    def _voicing(self, tones: tuple[int, ...], centre: float, before: list[int]) -> list[int]:
        """Chord tones near ``centre``, moving as little as possible from the chord before."""
        options = []
        for turn in range(len(tones)):
            order = tones[turn:] + tones[:turn]
            m = round(centre) - 6 + (order[0] - round(centre) + 6) % 12
            chord = [m]
            for tone in order[1:]:
                chord.append(chord[-1] + (tone - chord[-1]) % 12)
            options.append(chord)
        if not before:
            return min(options, key=lambda c: abs(float(np.mean(c)) - centre))
        return min(
            options,
            key=lambda c: sum(abs(a - b) for a, b in zip(c, before, strict=False)) + abs(float(np.mean(c)) - centre),
        )

    def _accompany(self) -> None:
        rng, score = self.rng, self.score
        count = int(rng.choice([1, 2, 3], p=[0.2, 0.5, 0.3]))
        kinds = [str(k) for k in rng.choice(self.style.chordal, count, replace=False)]
        wide = count == 1 or rng.uniform() < 0.5
        for i, kind in enumerate(kinds):
            pan = 0.0 if count == 1 else float((-1) ** i * rng.uniform(0.1, 0.75))
            part = Part(kind, pan, rng.uniform(-4, 0) - 2.5 * i,
                        wide or kind in ("pad", "strings"))  # fmt: skip
            sustained = kind in ("pad", "strings", "organ")
            manner = "hold" if sustained and rng.uniform() < 0.8 else str(rng.choice(["strum", "arp", "hold", "stab"]))
            if kind == "distorted":
                manner = str(rng.choice(["chug", "hold"]))
            pattern = STRUMS[rng.integers(len(STRUMS))]
            centre = rng.uniform(52, 60) if i == 0 else rng.uniform(57, 68)
            before: list[int] = []
            for section in score.sections:
                if i and section.energy < 0.5 and not (sustained and i == 1):
                    continue
                for bar in range(section.start_bar, section.start_bar + section.bars):
                    before = self._bar(part, manner, pattern, bar, centre, before)
            score.parts.append(part)
        if rng.uniform() < 0.55:
            self._lead()

    def _bar(self, part: Part, manner: str, pattern: str, bar: int, centre: float, before: list[int]) -> list[int]:
        rng, step_s = self.rng, self.step_s

        def play(step: float, steps: float, midi: int, velocity: float, late: float = 0.0) -> None:
            v = float(np.clip(velocity * rng.uniform(0.9, 1.1), 0.1, 1.0))
            part.events.append(Event(self.time(bar, step, 0.005) + late, steps * step_s, midi, v))

        for half in (0, 8):
            degree, tones = self.chord(bar, half)
            same = half == 8 and self.chord(bar, 0) == (degree, tones)
            chord = before if same and before else self._voicing(tones, centre, before)
            before = chord
            if part.kind == "distorted":
                root = 40 + (tones[0] - 40) % 12
                if manner == "hold":
                    if not same:
                        play(half, 15.5, root, 0.9)
                else:
                    for step in range(half, half + 8, 2):
                        play(step, 1.7, root, 0.9 if step % 4 == 0 else 0.7)
            elif manner == "hold":
                if not same:
                    whole = self.chord(bar, 8) == (degree, tones)
                    for k, midi in enumerate(chord):
                        play(half, 15.8 if whole else 7.8, midi, 0.7, 0.008 * k)
            elif manner == "arp":
                size = 2 if self.tempo > 85 else 1
                line = chord + chord[-2:0:-1]
                for k, step in enumerate(range(half, half + 8, size)):
                    play(step, size * 2.5, line[k % len(line)] + (12 if k % 7 == 5 else 0), 0.75 if k % 4 == 0 else 0.6)
            else:
                for step in range(half, half + 8):
                    if (manner == "stab" and step % 4 != 2) or (manner == "strum" and pattern[step] != "x"):
                        continue
                    down = step % 4 == 0
                    for k, midi in enumerate(chord if down else chord[::-1]):
                        play(step, 1.2 if manner == "stab" else 3.0, midi, 0.75 if down else 0.55, 0.011 * k)
        return before

    def _lead(self) -> None:
        """A melodic instrument that answers the voice in its pauses, plays the solo, and now and then doubles it."""
        rng, score = self.rng, self.score
        part = Part(str(rng.choice(self.style.leads)), float(rng.uniform(-0.5, 0.5)), rng.uniform(-6, -2))
        busy = np.zeros(self.bars * 16 + 32, bool)
        for note in score.melody:
            a = int(note.start_s / self.step_s)
            busy[max(a - 1, 0) : a + int(note.duration_s / self.step_s) + 1] = True
        ladder = [m for m in range(62, 86) if (m - self.tonic) % 12 in self.scale]
        rung = len(ladder) // 2
        always = rng.uniform() < 0.2
        for section in score.sections:
            lively = section.name in ("solo", "intro") or always
            for bar in range(section.start_bar, section.start_bar + section.bars):
                step = 0
                while step < 16:
                    length = int(rng.choice([2, 2, 4, 4, 6, 8]))
                    free = not busy[bar * 16 + step : bar * 16 + step + length].any()
                    if (free or lively) and rng.uniform() < (0.8 if lively else 0.6):
                        tones = self.chord(bar, step)[1]
                        rung = int(np.clip(rung + rng.integers(-2, 3), 0, len(ladder) - 1))
                        near = [r for r, m in enumerate(ladder) if m % 12 in tones]
                        if step % 4 == 0 and near:
                            rung = min(near, key=lambda r: abs(r - rung))
                        part.events.append(Event(self.time(bar, step, 0.008), length * self.step_s * 0.95, ladder[rung],
                                                 float(rng.uniform(0.6, 0.95))))  # fmt: skip
                    step += length
        score.parts.append(part)
