"""Notes to sound: the magnitudes of the synth step with phases that run on from frame to frame.

A bin belongs to the harmonic of its note that is nearest. What the analysis of a steady tone would show in the bins of
a harmonic is the analysis window's transform there; its amplitude is what fits their magnitudes best (least squares),
its phase runs on from frame to frame. So the inverse transform of a tone's magnitudes is that tone, frames overlap in
step, what lies between the harmonics cannot bend the pitch, and nothing is iterated or looked ahead to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import MidiFileError, UsageError
from rtsep.query.graphs import LOWEST_MIDI, PITCHES, State, SynthGraph
from rtsep.query.notes import Note
from rtsep.query.queries import FloatArray

HIGHEST_MIDI = LOWEST_MIDI + PITCHES - 1
MAX_VOICES = 16
RELEASE_S = 0.05
"""Fade after the end of a note. The overlap of frames fades every beginning in, over one hop."""

_DoubleArray = NDArray[np.float64]


def asymmetric_windows(window: int, hop: int) -> tuple[_DoubleArray, _DoubleArray]:
    """Return the analysis window ``[window]``, scaled so that a sine of amplitude 1 has magnitude 1 in its bin, and
    the synthesis window ``[2 * hop]`` that goes with it.

    The analysis window rises as a quarter sine and falls over the last hop as a quarter cosine; the product of both is
    a Hann window, and so overlapping frames add up to one (Mauler and Martin, EUSIPCO 2007).
    """
    rise = np.sin(np.pi / 2 * (np.arange(window - hop) + 0.5) / (window - hop))
    fall = np.cos(np.pi / 2 * (np.arange(hop) + 0.5) / hop)
    analysis = np.concatenate([rise, fall]) * (2.0 / (rise.sum() + fall.sum()))
    hann = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)) ** 2
    return analysis, hann / analysis[-2 * hop :]


def frequency(pitch: int) -> float:
    """Hertz of a MIDI note in equal temperament, A4 = 440."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


@dataclass(frozen=True)
class _Harmonics:
    """What depends on a pitch alone.

    Parameters
    ----------
    advance : float
        Phase that the fundamental gains in a hop.
    number : array [F] of int
        The harmonic each bin belongs to.
    offset : array [F]
        Phase of each bin at the start of a note.
    shape : array [F]
        Magnitude that a harmonic of amplitude 1 has in its bins.
    power : array [H + 1]
        Sum of its squares by harmonic.
    """

    advance: float
    number: NDArray[np.int64]
    offset: _DoubleArray
    shape: _DoubleArray
    power: _DoubleArray

    def fitted(self, magnitude: FloatArray) -> _DoubleArray:
        """Magnitudes [F] of the tone whose harmonics fit ``magnitude`` [F] best."""
        amplitude = np.bincount(self.number, magnitude * self.shape, len(self.power)) / self.power
        return np.asarray(amplitude[self.number] * self.shape)


@lru_cache(maxsize=2 * PITCHES)
def _harmonics(pitch: int, samplerate: int, window: int, hop: int) -> _Harmonics:
    fundamental = frequency(pitch)
    analysis, _ = asymmetric_windows(window, hop)
    bins = np.arange(window // 2 + 1) * samplerate / window
    highest = max(1, int(samplerate / 2 / fundamental))
    number = np.clip(np.rint(bins / fundamental), 1, highest).astype(np.int64)
    offset, shape = np.empty_like(bins), np.empty_like(bins)
    for harmonic in range(1, highest + 1):
        own = number == harmonic
        tone = np.exp(2j * np.pi * harmonic * fundamental / samplerate * np.arange(window))
        # Starting all harmonics in phase would make a pulse of them (Schroeder 1970, for a flat spectrum).
        start = -np.pi * harmonic * (harmonic - 1) / highest
        transform = np.fft.fft(analysis * tone)[: len(bins)][own]
        offset[own], shape[own] = np.angle(transform) + start, np.abs(transform)
    power = np.maximum(np.bincount(number, shape**2, highest + 1), 1e-12)
    return _Harmonics(2 * np.pi * fundamental * hop / samplerate, number, offset, shape, power)


@dataclass
class _Voice:
    pitch: int
    gain: float
    state: State
    harmonics: _Harmonics
    phase: float = 0.0
    released: int = 0
    """Hops since its note ended; 0 while it sounds."""


class Synthesizer:
    """Plays notes with the timbre of a query, hop by hop.

    Parameters
    ----------
    graph : SynthGraph

    Attributes
    ----------
    hop_samples, samplerate : int
        Of what `step` returns.

    Notes
    -----
    A note sounds from the hop after `note_on`. At most `MAX_VOICES` sound at once, those fading out included; one more
    takes the place of the one that ended first, or began first where none has ended. Velocity 127 is full level and
    each halving of it 12 dB less. One thread at a time; a hop costs one run of the graph per voice.
    """

    def __init__(self, graph: SynthGraph) -> None:
        info = graph.info
        self.graph = graph
        self.hop_samples, self.samplerate = info.hop, info.samplerate
        _, self._synthesis = asymmetric_windows(info.window, info.hop)
        self._release = max(1, round(RELEASE_S * info.samplerate / info.hop))
        self._voices: list[_Voice] = []
        self._tail: _DoubleArray = np.zeros(info.hop)

    @property
    def voices(self) -> int:
        """How many voices sound or fade out."""
        return len(self._voices)

    def note_on(self, pitch: int, velocity: int = 100) -> None:
        """Begin a note; one of the same pitch that sounds ends.

        Raises
        ------
        UsageError
            The pitch is outside 21 to 108, or the velocity outside 1 to 127.
        """
        if not LOWEST_MIDI <= pitch <= HIGHEST_MIDI or not 1 <= velocity <= 127:
            raise UsageError(
                f"Note {pitch} with velocity {velocity} cannot be played; pitches are {LOWEST_MIDI} to {HIGHEST_MIDI}, "
                "velocities 1 to 127."
            )
        self.note_off(pitch)
        if len(self._voices) == MAX_VOICES:
            # max() gives the first of equals, and voices stand in the order they began.
            self._voices.remove(max(self._voices, key=lambda voice: voice.released))
        info = self.graph.info
        harmonics = _harmonics(pitch, info.samplerate, info.window, info.hop)
        self._voices.append(_Voice(pitch, (velocity / 127) ** 2, self.graph.new_state(), harmonics))

    def note_off(self, pitch: int) -> None:
        """End a note; does nothing when it does not sound."""
        for voice in self._voices:
            if voice.pitch == pitch and not voice.released:
                voice.released = 1

    def step(self) -> FloatArray:
        """Return the next hop ``[hop]``, float32, full scale 1.0.

        Raises
        ------
        ModelError
            The graph failed.
        """
        spectrum = np.zeros(self.graph.bins, np.complex128)
        for voice in self._voices:
            magnitude, voice.state = self.graph.magnitudes(voice.pitch, voice.state)
            gain = voice.gain * (1 - voice.released / (self._release + 1))
            tone = voice.harmonics
            spectrum += gain * tone.fitted(magnitude) * np.exp(1j * (tone.number * voice.phase + tone.offset))
            voice.phase = (voice.phase + voice.harmonics.advance) % (2 * np.pi)
            voice.released += voice.released > 0
        self._voices = [voice for voice in self._voices if voice.released <= self._release]
        hop = self.hop_samples
        frame = np.fft.irfft(spectrum, self.graph.info.window)[-2 * hop :] * self._synthesis
        out = (frame[:hop] + self._tail).astype(np.float32)
        self._tail = frame[hop:]
        return out


def render(notes: Sequence[Note], graph: SynthGraph, progress: Callable[[int, int], None] | None = None) -> FloatArray:
    """Render notes from time 0 to the end of the last one and its fade; returns ``[T]``.

    Beginnings and ends fall on hops, half a hop from where they should be at most.

    Parameters
    ----------
    notes : sequence of Note
        Within 21 to 108.
    graph : SynthGraph
    progress : callable, optional
        Called with hops done and hops in all.

    Raises
    ------
    MidiFileError
        More than `MAX_VOICES` notes sound at once.
    ModelError
        The graph failed.
    """
    synth = Synthesizer(graph)
    per_second = synth.samplerate / synth.hop_samples
    events = []
    for number, note in enumerate(notes):
        start = round(note.start_s * per_second)
        events.append((max(start + 1, round(note.end_s * per_second)), 0, number))
        events.append((start, 1, number))
    events.sort()
    _check_voices(notes, events, per_second)
    owner: dict[int, int] = {}
    out: list[FloatArray] = []
    last = events[-1][0] if events else 0
    upcoming = iter(events)
    event = next(upcoming, None)
    while event is not None or synth.voices:
        while event is not None and event[0] <= len(out):
            _, on, number = event
            pitch = notes[number].pitch
            if on:
                synth.note_on(pitch, notes[number].velocity)
                owner[pitch] = number
            elif owner.get(pitch) == number:  # where notes of a pitch overlap, the later one goes on
                synth.note_off(pitch)
            event = next(upcoming, None)
        out.append(synth.step())
        if progress:
            progress(min(len(out), last), last)
    out.append(synth.step())  # the fall of the last frame
    return np.concatenate(out)


def _check_voices(notes: Sequence[Note], events: Sequence[tuple[int, int, int]], per_second: float) -> None:
    sounding: set[int] = set()
    for hop, on, number in events:
        if not on:
            sounding.discard(number)
            continue
        sounding.add(number)
        pitches = {notes[n].pitch for n in sounding}
        if len(pitches) > MAX_VOICES:
            raise MidiFileError(
                f"{len(pitches)} notes sound at once at {hop / per_second:.1f} s; {MAX_VOICES} can be rendered. "
                "Choose a track: --track N"
            )


def level_db(audio: FloatArray) -> float:
    """Peak in dBFS; minus infinity for silence."""
    peak = float(np.abs(audio).max(initial=0.0))
    return 20 * math.log10(peak) if peak else -math.inf
