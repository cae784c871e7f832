"""From an arrangement to four stems: sounds, a channel strip for each part, levels as records have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from models.data.library import loud_rms
from models.data.readers import STEMS
from tools.multitracks import effects, synth
from tools.multitracks.arrange import CLEAN_GUITAR, DRIVEN_GUITAR, MUTED_GUITAR, Arrangement, Part
from tools.multitracks.effects import SAMPLERATE, Audio
from tools.multitracks.score import Note

# Level of each stem against the mixture in dB, mean and spread, as measured on the 76 songs of MUSDB18's
# 7-second training excerpts that have all four stems (medians -7, -7, -6, -5; a tenth lies 3 to 6 dB below).
LEVELS = {"drums": (-6.5, 2.5), "bass": (-7.0, 2.5), "other": (-6.0, 2.0), "vocals": (-5.0, 1.5)}
PEAK = 0.97
GM_KITS, ELECTRONIC_KITS = (0, 8, 16, 32), (24, 25)


def render(arrangement: Arrangement, voice: Audio | None, seconds: float, rng: np.random.Generator) -> dict[str, Audio]:
    """Render an arrangement into stems ``[2, T]`` at 44.1 kHz whose sum is the song.

    Parameters
    ----------
    arrangement : Arrangement
        Its ``facts`` gain what is chosen here.
    voice : array ``[2, T]``, optional
        A dry voice for ``vocals``; without one that stem is silent.
    seconds : float
        Length of the stems.

    Raises
    ------
    SynthError
        Rendering failed.
    """
    samples = round(seconds * SAMPLERATE)
    room = (float(rng.uniform(0.3, 2.2)), float(rng.uniform(2500, 9000)))  # one room for the whole song
    stems = {stem: np.zeros((2, samples), np.float32) for stem in STEMS}
    kit, drum_line = _choose_kit(arrangement, rng)
    fonts = synth.check()
    chosen = [fonts[int(rng.integers(len(fonts)))] for _ in arrangement.parts]
    jobs = [(font, synth.Line(part.notes, part.program)) for font, part in zip(chosen, arrangement.parts, strict=True)]
    dry = _play([*jobs, (kit, drum_line)] if kit else jobs, seconds)
    for part, audio in zip(arrangement.parts, dry, strict=False):
        wet = _channel(part, _even(audio), room, arrangement.seconds_per_beat, rng)
        stems[part.stem] += np.float32(10 ** (part.gain_db / 20)) * wet
    stems["other"] = _glue(stems["other"], rng)
    drums = dry[-1] if kit else synth.strike(arrangement.hits, synth.hydrogen_kits(), rng, seconds)
    stems["drums"] = _drums(drums, room, rng)
    if voice is not None:
        stems["vocals"] = _voice(_even(voice), room, arrangement.seconds_per_beat, rng)
    arrangement.facts["soundfonts"] = [font.name for font in chosen]
    arrangement.facts["drums"] = [kit.name, drum_line.program] if kit else "recorded drums"

    levels = {stem: float(rng.normal(mean, spread)) for stem, (mean, spread) in LEVELS.items()}
    for stem in STEMS:
        stems[stem] = _even(stems[stem]) * np.float32(10 ** (levels[stem] / 20))
    loudest = max(float(np.abs(audio).max()) for audio in [*stems.values(), sum(stems.values())])
    gain = min(1.2 * 10 ** (rng.uniform(-3, 1) / 20), PEAK / max(loudest, 1e-6))
    return {stem: audio * np.float32(gain) for stem, audio in stems.items()}


def _even(audio: Audio) -> Audio:
    """Bring to a common level; silence stays silent."""
    rms = loud_rms(audio, SAMPLERATE)
    return audio * np.float32(0.15 / rms) if rms > 1e-5 else audio


def _channel(part: Part, audio: Audio, room: tuple[float, float], beat: float, rng: np.random.Generator) -> Audio:
    """The channel strip of one instrument."""
    seconds, bright = room
    if part.stem == "bass":
        audio = effects.place(audio, 0.0, 0.0)
        if rng.random() < 0.35:
            audio = effects.saturate(audio, rng.uniform(0.8, 2.5))
        audio = effects.peak_filter(audio, rng.uniform(50, 100), rng.uniform(-3, 4), 0.7)
        audio = effects.peak_filter(audio, rng.uniform(500, 2500), rng.uniform(-8, 5), 0.6)
        audio = effects.cut_above(audio, float(np.exp(rng.uniform(np.log(700), np.log(8000)))), 1)
        audio = effects.compress(audio, rng.uniform(-14, -6), rng.uniform(2, 6))
        if rng.random() < 0.15:
            audio = effects.chorus(audio, rng.uniform(0.3, 1), 0.002, 0.3)
        return effects.cut_below(audio, 30.0)
    if part.program in DRIVEN_GUITAR and part.role in ("power", "solo", "second"):
        audio = effects.amplifier(audio, rng.uniform(1.5, 8.0), rng.uniform(3500, 6500))
    elif part.program in CLEAN_GUITAR + MUTED_GUITAR and rng.random() < 0.4:
        audio = effects.amplifier(audio, rng.uniform(0.5, 1.5), rng.uniform(4000, 8000))
    elif rng.random() < 0.25:
        audio = effects.saturate(audio, rng.uniform(0.5, 1.5))
    audio = effects.cut_below(audio, float(rng.uniform(60, 250)) if part.role != "piano" else 50.0)
    audio = effects.tone(audio, rng)
    if rng.random() < 0.4:
        audio = effects.compress(audio, rng.uniform(-12, -4), rng.uniform(1.5, 4))
    if rng.random() < 0.25:
        audio = effects.chorus(audio, rng.uniform(0.2, 1.2), rng.uniform(0.001, 0.003), rng.uniform(0.2, 0.5))
    if part.role in ("solo", "arpeggio", "second", "stabs") and rng.random() < 0.4:
        audio = effects.echo(audio, beat * float(rng.choice((0.5, 0.75, 1.0))), 0.4, rng.uniform(0.1, 0.4))
    audio = effects.place(audio, part.pan, rng.uniform(0.3, 1.2))
    if rng.random() < 0.75:
        audio = effects.reverb(audio, rng, seconds, 10 ** (rng.uniform(-22, -7) / 20), bright)
    return _even(audio)


def _play(jobs: list[tuple[Path, synth.Line]], seconds: float) -> list[Audio]:
    """Render lines, those of one soundfont together; in the order of ``jobs``."""
    out: list[Audio] = [np.zeros((2, 0), np.float32)] * len(jobs)
    for font in sorted({font for font, _ in jobs}):
        mine = [i for i, (other, _) in enumerate(jobs) if other == font]
        for i, audio in zip(mine, synth.play([jobs[i][1] for i in mine], font, seconds), strict=True):
            out[i] = audio
    return out


def _choose_kit(arrangement: Arrangement, rng: np.random.Generator) -> tuple[Path | None, synth.Line]:
    """A General MIDI kit or a recorded kit in a soundfont; without a soundfont, recorded drums are put together."""
    fonts, recorded = synth.check(), synth.recorded_kits()
    chances = np.array(arrangement.style.kits) * [1, bool(recorded), bool(synth.hydrogen_kits())]
    kind = int(rng.choice(3, p=chances / chances.sum()))
    if kind == 0:
        program = int(rng.choice(ELECTRONIC_KITS if arrangement.electronic else GM_KITS))
        return fonts[int(rng.integers(len(fonts)))], synth.Line(arrangement.hits, program, drums=True)
    line = synth.Line(arrangement.hits, 0)
    return (recorded[int(rng.integers(len(recorded)))] if kind == 1 else None), line


def _glue(audio: Audio, rng: np.random.Generator) -> Audio:
    """Make one bus of many instruments."""
    if rng.random() < 0.6:
        audio = effects.compress(_even(audio), rng.uniform(-10, -4), rng.uniform(1.5, 4), 0.01)
    if rng.random() < 0.3:
        audio = effects.saturate(audio, rng.uniform(0.3, 1.0))
    return audio


def _drums(audio: Audio, room: tuple[float, float], rng: np.random.Generator) -> Audio:
    """The bus of the drum set."""
    audio = effects.tone(_even(audio), rng, 4.0)
    audio = effects.peak_filter(audio, rng.uniform(55, 90), rng.uniform(0, 7), 0.7)
    audio = effects.peak_filter(audio, rng.uniform(6000, 11000), rng.uniform(-9, 1), 0.4)
    if rng.random() < 0.7:
        attack = rng.uniform(0.003, 0.02)
        audio = effects.compress(audio, rng.uniform(-10, -3), rng.uniform(1.5, 5), attack, rng.uniform(0.05, 0.2))
    if rng.random() < 0.35:
        audio = effects.saturate(audio, rng.uniform(0.3, 1.2))
    audio = effects.place(audio, 0.0, rng.uniform(0.3, 1.3))
    if rng.random() < 0.6:
        size = rng.uniform(0.2, 0.4) if rng.random() < 0.7 else min(room[0], 1.2)
        audio = effects.reverb(audio, rng, size, 10 ** (rng.uniform(-22, -9) / 20), room[1])
    return audio


def _voice(audio: Audio, room: tuple[float, float], beat: float, rng: np.random.Generator) -> Audio:
    """The channel strip of a voice."""
    audio = effects.cut_below(audio, rng.uniform(80, 160))
    audio = effects.tone(audio, rng, 4.0)
    audio = effects.peak_filter(audio, rng.uniform(3000, 9000), rng.uniform(-1, 6), 0.5)
    audio = effects.compress(audio, rng.uniform(-14, -6), rng.uniform(2, 5))
    if rng.random() < 0.25:
        audio = effects.saturate(audio, rng.uniform(0.4, 1.2))
    if rng.random() < 0.3:
        audio = effects.chorus(audio, rng.uniform(0.2, 0.8), 0.004, rng.uniform(0.2, 0.5))
    if rng.random() < 0.3:
        audio = effects.echo(audio, beat * float(rng.choice((0.5, 1.0))), 0.4, rng.uniform(0.08, 0.3))
    return effects.reverb(audio, rng, max(0.4, room[0]), 10 ** (rng.uniform(-20, -8) / 20), room[1])


def pitch_classes(notes: list[Note]) -> np.ndarray:
    """How long each pitch class sounds, ``[12]``, normalized."""
    weights = np.bincount([n.pitch % 12 for n in notes], [min(n.length, 4.0) for n in notes], minlength=12)
    return weights / max(float(np.linalg.norm(weights)), 1e-9)


def read_voice(path: Path) -> tuple[Audio, list[Note], float]:
    """Read a recording of one voice and its notes (``.txt``: onset and offset in seconds, MIDI pitch with fractions).

    Returns
    -------
    audio ``[2, T]`` at 44.1 kHz brought into tune, notes in seconds, and the onset of the first note in seconds
    """
    rows = np.loadtxt(path.with_suffix(".txt"), ndmin=2)
    # Circular mean of how far the notes lie from whole semitones; resampling by less than half of one tunes the voice.
    off = float(np.angle(np.exp(2j * np.pi * rows[:, 2]).mean()) / (2 * np.pi))
    speed = 2 ** (-off / 12)
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(audio.mean(1), rate * speed, SAMPLERATE)
    notes = [Note(on / speed, (end - on) / speed, round(pitch - off), 90) for on, end, pitch in rows.tolist()]
    return np.stack([mono, mono]).astype(np.float32), notes, notes[0].start


def lay_voice(audio: Audio, first: float, bar: float, seconds: float, rng: np.random.Generator) -> Audio:
    """Let the voice enter on a bar line among the first four, and again, a bar after it ended, to the end."""
    out = np.zeros((2, round(seconds * SAMPLERATE)), np.float32)
    start = float(rng.integers(0, 4)) * bar
    while start < seconds - bar:
        skip = max(0, round((first - start) * SAMPLERATE))
        at = max(0, round((start - first) * SAMPLERATE))
        piece = audio[:, skip : skip + out.shape[1] - at]
        out[:, at : at + piece.shape[1]] += piece
        sung = start + audio.shape[1] / SAMPLERATE - first
        start = (np.ceil(sung / bar) + 1) * bar
    return out
