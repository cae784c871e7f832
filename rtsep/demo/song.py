"""Renders a whole song from a seed: drums, bass, other, vocals, and the mixture that is exactly their sum.

`render_song` is deterministic for a seed, samplerate and length. Seeds 1000..1999 are what `tools/render_supplement.py`
makes training material from; `DEMO_SEED` lies outside, so that the demonstration is a song no model has heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtsep.demo.compose import Composer, Event, Part, Score
from rtsep.demo.synth import Audio, Instrument, Kit, Rng, Track, bandpass, delay, highpass, reverb, shape
from rtsep.demo.voice import Singer, Syllable

STEMS = ("drums", "bass", "other", "vocals")
TRAINING_SEEDS = range(1000, 2000)
# One of the songs that the demonstration's model does well on: docs/models/openunmix-low.md has figures of 21 others.
DEMO_SEED = 15
DEMO_SECONDS = 20.0


@dataclass(frozen=True)
class Note:
    """One note that was played: stem, onset and length in seconds, MIDI number, velocity 0..1."""

    stem: str
    onset_s: float
    duration_s: float
    midi: int
    velocity: float


@dataclass(frozen=True)
class Song:
    """A rendered song.

    Attributes
    ----------
    stems : ``{"drums" | "bass" | "other" | "vocals": [2, T] float32}``
    mixture : ``[2, T]`` float32, ``((drums + bass) + other) + vocals``, peak at most 0.9
    samplerate : Hz
    seed : what it was rendered from
    tempo : beats a minute
    key : for example ``"D minor"``
    style : for example ``"soul"``
    sections : ``(name, start in seconds, end in seconds)``
    notes : every note of every stem, by onset
    """

    stems: dict[str, Audio]
    mixture: Audio
    samplerate: int
    seed: int
    tempo: float
    key: str
    style: str
    sections: tuple[tuple[str, float, float], ...]
    notes: tuple[Note, ...]


def render_song(seed: int = DEMO_SEED, samplerate: int = 44100, seconds: float = DEMO_SECONDS) -> Song:
    """Compose and render a song.

    Parameters
    ----------
    seed : 0 or more; decides everything: style, tempo 70..150, key, chords, tune, words, timbres, mix
    samplerate : Hz, 22050 or more
    seconds : length, 2 or more; the song is cut there with a short fade

    Returns
    -------
    Song

    Raises
    ------
    ValueError
        A parameter is out of range.

    Notes
    -----
    Allocates a few hundred megabytes for a song of minutes; never call it on the audio thread.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; allowed are 0 and more")
    if samplerate < 22050:
        raise ValueError(f"samplerate is {samplerate} Hz; the voice needs 22050 or more")
    if not seconds >= 2.0:
        raise ValueError(f"seconds is {seconds}; allowed are 2 and more")
    rng = np.random.default_rng([seed, 0x5EED])
    n = round(seconds * samplerate)
    score = Composer(rng, seconds, full=seed not in TRAINING_SEEDS).write()
    stems = {
        "drums": _drums(score, rng, samplerate, n),
        "bass": _bass(score, rng, samplerate, n),
        "other": _other(score, rng, samplerate, n),
        "vocals": _vocals(score, rng, samplerate, n),
    }
    stems = _mix(stems, rng, samplerate)
    mixture = ((stems["drums"] + stems["bass"]) + stems["other"]) + stems["vocals"]
    bar_s = 240.0 / score.tempo
    sections = tuple(
        (s.name, s.start_bar * bar_s, min((s.start_bar + s.bars) * bar_s, seconds))
        for s in score.sections
        if s.start_bar * bar_s < seconds
    )
    return Song(stems, mixture, samplerate, seed, score.tempo, score.key, score.style, sections, _notes(score, seconds))


def _notes(score: Score, seconds: float) -> tuple[Note, ...]:
    notes = [Note("drums", e.start_s, e.duration_s, e.midi, e.velocity) for e in score.drums]
    notes += [Note("bass", e.start_s, e.duration_s, e.midi, e.velocity) for e in score.bass.events]
    notes += [Note("other", e.start_s, e.duration_s, e.midi, e.velocity) for p in score.parts for e in p.events]
    notes += [Note("vocals", s.start_s, s.duration_s, s.midi, s.velocity) for s in score.melody + score.harmony]
    return tuple(sorted((x for x in notes if x.onset_s < seconds), key=lambda x: (x.onset_s, x.stem, x.midi)))


def _drums(score: Score, rng: Rng, samplerate: int, n: int) -> Audio:
    kit = Kit(rng, samplerate, score.electronic)
    levels = {"kick": 0.95, "snare": 0.75, "clap": 0.6, "rim": 0.45, "closed": 0.22, "open": 0.24, "crash": 0.30,
              "ride": 0.22, "tom1": 0.6, "tom2": 0.6, "tom3": 0.65, "shaker": 0.14}  # fmt: skip
    levels = {name: level * 10 ** (rng.normal(0, 1.5) / 20) for name, level in levels.items()}
    side = float(rng.choice([-1.0, 1.0]))
    dry = Track(n)
    for i, hit in enumerate(score.drums):
        dry.add(int(hit.start_s * samplerate), kit.take(hit.drum, i), levels[hit.drum] * hit.velocity**1.3,
                side * Kit.PANS.get(hit.drum, 0.0))  # fmt: skip
    room = reverb(shape(dry.audio, samplerate, highpass(160)), samplerate, rng, rng.uniform(0.25, 0.9))
    out = dry.audio + np.float32(rng.uniform(0.03, 0.16)) * room
    drive = np.float32(rng.uniform(0.4, 1.3))
    return np.asarray(np.tanh(drive * out) / drive, np.float32)


def _place(part: Part, rng: Rng, samplerate: int, n: int) -> Audio:
    """All notes of one instrument on a stereo track; a wide part is heard from both sides a little apart."""
    track = Track(n)
    if not part.events:
        return track.audio
    longest = min(6.0, max(e.duration_s for e in part.events))
    makers = [Instrument(part.kind, rng, samplerate, longest)]
    for event in part.events:
        sound = makers[0].note(event.midi, event.duration_s, event.velocity)
        track.add(int(event.start_s * samplerate), sound, 1.0, 0.0 if part.wide else part.pan)
    if part.wide:
        shift = int(rng.uniform(0.009, 0.02) * samplerate)
        other_side = np.roll(track.audio[0], shift)
        other_side[:shift] = 0
        other_side = shape(other_side, samplerate, lambda f: 1 + 0.25 * np.cos(f / 700.0))
        track.audio[int(rng.integers(2))] = other_side
    return track.audio


def _bass(score: Score, rng: Rng, samplerate: int, n: int) -> Audio:
    dry = _place(score.bass, rng, samplerate, n)
    drive = np.float32(rng.uniform(0.6, 1.6))
    return np.asarray(np.tanh(drive * shape(dry, samplerate, bandpass(32, rng.uniform(2500, 7000), 1))) / drive)


def _unit(x: Audio) -> Audio:
    """Scale to -20 dBFS while it plays."""
    level = _loudness(x)
    return x * np.float32(0.1 / level) if level > 1e-6 else x


def _loudness(x: Audio, where: Audio | None = None) -> float:
    """RMS over the tenths of a second in which ``where`` (or ``x``) sounds, as a factor of full scale."""
    size = 4410

    def power(y: Audio) -> Audio:
        cut = y[:, : y.shape[1] // size * size]
        return np.asarray((cut.reshape(2, -1, size) ** 2).mean(axis=(0, 2)), np.float32)

    p, gate = power(x), power(x if where is None else where)
    on = gate > 0.02 * gate.max(initial=0.0)
    return float(np.sqrt(p[on].mean())) if on.any() and gate.max() > 0 else 0.0


def _other(score: Score, rng: Rng, samplerate: int, n: int) -> Audio:
    out: Audio = np.zeros((2, n), np.float32)
    for part in score.parts:
        out += np.float32(10 ** (part.gain_db / 20)) * _unit(_place(part, rng, samplerate, n))
    out = shape(out, samplerate, highpass(90, 1))
    if rng.uniform() < 0.85:
        out += np.float32(rng.uniform(0.05, 0.35)) * reverb(out, samplerate, rng, rng.uniform(0.6, 2.2))
    if rng.uniform() < 0.25:
        out += delay(out, samplerate, 60.0 / score.tempo * 0.75, rng.uniform(0.2, 0.4), 3)
    knee = np.float32(1.0 / (4.5 * max(_loudness(out), 1e-6)))  # plucked strings start far above their own level
    return np.asarray(np.tanh(knee * out) / knee, np.float32)


def _vocals(score: Score, rng: Rng, samplerate: int, n: int) -> Audio:
    singer = Singer(rng, samplerate, score.high_voice)
    lead = _comp(singer.sing(score.melody, n))
    out = np.stack([lead, lead])
    if score.chorus_lines:
        wide = rng.uniform(-13, -7)
        for pan in (-0.7, 0.7):
            moved = [_loose(s, rng) for s in score.chorus_lines]
            track = Track(n)
            track.add(0, singer.sing(moved, n), 10 ** (wide / 20), pan)
            out += track.audio
    if score.harmony:
        track = Track(n)
        second = Singer(rng, samplerate, score.high_voice)
        track.add(0, second.sing([_loose(s, rng) for s in score.harmony], n), 10 ** (rng.uniform(-11, -6) / 20),
                  float(rng.uniform(-0.5, 0.5)))  # fmt: skip
        out += track.audio
    presence = rng.uniform(0.0, 1.2)
    out = shape(out, samplerate, lambda f: 1 + presence * np.exp(-(((f - 4500) / 2500) ** 2)))
    dry = out.copy()
    if rng.uniform() < 0.9:
        wet = reverb(shape(dry, samplerate, highpass(250)), samplerate, rng, rng.uniform(0.5, 2.4))
        out += np.float32(rng.uniform(0.05, 0.30)) * wet
    if rng.uniform() < 0.3:
        beats = float(rng.choice([0.25, 0.5, 0.75, 1.0]))
        out += np.float32(0.8) * delay(dry, samplerate, 60.0 / score.tempo * beats, rng.uniform(0.12, 0.35))
    return out


def _comp(x: Audio) -> Audio:
    """Catch the peaks of a vocal softly."""
    return np.asarray(np.tanh(2.0 * x) / np.float32(2.0))


def _loose(s: Syllable, rng: Rng) -> Syllable:
    return Syllable(
        max(0.0, s.start_s + rng.normal(0, 0.018)), s.duration_s, s.midi, s.velocity * 0.9, s.onset, s.vowel, s.coda
    )


def _mix(stems: dict[str, Audio], rng: Rng, samplerate: int) -> dict[str, Audio]:
    """Bring the stems to the levels of a record; the last 30 ms fade out."""
    targets = {"drums": rng.uniform(-2.0, 2.5), "bass": rng.uniform(-4.5, -0.5), "other": rng.uniform(-3.0, 1.0)}
    out: dict[str, Audio] = {}
    for name, db in targets.items():
        out[name] = _unit(stems[name]) * np.float32(10 ** (db / 20))
    band = out["drums"] + out["bass"] + out["other"]
    voice = stems["vocals"]
    against = _loudness(band, where=voice) or 0.1
    level = _loudness(voice)
    wanted = against * 10 ** (rng.uniform(-5.0, 0.5) / 20)
    out["vocals"] = voice * np.float32(wanted / level) if level > 1e-6 else voice
    n = voice.shape[1]
    tail = np.ones(n, np.float32)
    k = min(n, int(0.03 * samplerate))
    tail[n - k :] = np.linspace(1, 0, k, dtype=np.float32)
    whole = out["drums"] + out["bass"] + out["other"] + out["vocals"]
    rms = _loudness(whole)
    # As loud as a record's -15 dBFS where the peaks allow; nothing clips, because every stem gets the same factor.
    gain = min(0.89 / max(float(np.max(np.abs(whole))), 1e-9), 10 ** (-15 / 20) / max(rms, 1e-9))
    return {name: np.ascontiguousarray(out[name] * (tail * np.float32(gain))) for name in STEMS}


__all__ = ["DEMO_SECONDS", "DEMO_SEED", "STEMS", "TRAINING_SEEDS", "Event", "Note", "Song", "render_song"]
