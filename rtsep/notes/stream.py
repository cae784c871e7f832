"""Stems in, notes out: resampling, transcribers and trackers of one model's stems, hop by hop."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.resampler import StreamResampler
from rtsep.contract import ModelInfo
from rtsep.errors import ModelNotFoundError, UsageError
from rtsep.notes.decimate import Decimator
from rtsep.notes.tracker import StemTracker, StemTrackerSettings, TrackedEvent
from rtsep.notes.transcriber import Transcriber
from rtsep.notes.transcriber_info import Kind, read_transcriber_info, shipped_transcribers
from rtsep.notes.voice import VoiceSettings, VoiceTracker
from rtsep.query.notes import Bend, Note, NoteEvent, NoteTracker, TrackerSettings, add_bend
from rtsep.query.queries import takes_query

Audio = NDArray[np.float32]

_KIND_OF: dict[str, Kind] = {"drums": "drums", "percussion": "drums", "vocals": "monophonic", "voice": "monophonic"}
_KIND_OF |= {"bass": "monophonic", "lead": "monophonic", "melody": "monophonic", "query": "monophonic"}
_GATE_DB, _GATE_HOLD_S = -60.0, 0.3
# Worst case of computing and handing over, for the delay that is declared.
_COMPUTE_S = 0.005
_WIDEST_BEND = 3.0  # semitones: a pitch further from its note is another note's, or an octave mistaken
_STEADY_BEND = 0.02  # semitones: two cents are not heard, and a held note sends nothing


@dataclass(frozen=True)
class StemEvent:
    """The beginning or end of a note of a stem, or how far its sound is from its pitch now.

    Attributes
    ----------
    stem : int
        Of the model.
    kind : {"on", "off", "bend"}
        ``bend`` only where bends were asked for.
    pitch, velocity : int
        MIDI; velocity 0 for an end and a bend.
    time_s : float
        When it happened, in seconds of the stems' own time (sample over rate).
    bend : float
        Semitones from `pitch`, of a bend and of a beginning.
    """

    stem: int
    kind: Literal["on", "off", "bend"]
    pitch: int
    velocity: int
    time_s: float
    bend: float = 0.0


def notes_of(events: Iterable[StemEvent], offset_s: float, end_s: float) -> dict[int, list[Note]]:
    """Return whole notes by stem, in time with the audio.

    Parameters
    ----------
    events : iterable of StemEvent
        In the order they were given out, the ends of all included.
    offset_s : float
        What to add to their times.
    end_s : float
        Notes are cut to 0 .. `end_s`; what lies outside is left out.
    """
    began: dict[tuple[int, int], StemEvent] = {}
    notes: dict[int, list[Note]] = {}
    for event in events:
        if event.kind == "on":
            began[event.stem, event.pitch] = event
        if event.kind != "off":
            continue
        on = began.pop((event.stem, event.pitch))
        start, end = max(0.0, on.time_s + offset_s), min(end_s, event.time_s + offset_s)
        if end > start:
            notes.setdefault(event.stem, []).append(Note(start, end, event.pitch, on.velocity))
    return {stem: sorted(found) for stem, found in notes.items()}


def bends_of(events: Iterable[StemEvent], offset_s: float, end_s: float) -> dict[int, list[Bend]]:
    """Return by stem how far its sound is from its note's pitch, and when; as `notes_of`, for the same events."""
    bends: dict[int, list[Bend]] = {}
    for event in events:
        if event.kind != "off":
            add_bend(bends.setdefault(event.stem, []), event.time_s + offset_s, event.bend, event.kind == "on")
    return {stem: [bend for bend in found if 0 <= bend.time_s < end_s] for stem, found in bends.items()}


def unbegun(given: Iterable[TrackedEvent]) -> list[TrackedEvent]:
    """Leave out the notes that begin in these events, after which nothing sounds; what began earlier still ends."""
    left, kept = set(), []
    for event in given:
        if event.kind == "on":
            left.add(event.pitch)
        elif event.pitch in left:
            left.remove(event.pitch)
        else:
            kept.append(event)
    return kept


def kind_of_stem(name: str) -> Kind:
    """What transcribes a stem of this name: drums, one voice, or many."""
    return _KIND_OF.get(name.casefold(), "polyphonic")


class StemListener:
    """Stems that one transcriber serves: resampler, graph, and a tracker for each.

    Parameters
    ----------
    transcriber : Transcriber
        Loaded for as many stems.
    stems : sequence of int
        Numbers that the events carry.
    rate : int
        Of the stems, in hertz.

    Attributes
    ----------
    delay_s : float
        From an onset until its note is given out, without the time to compute, at most. So much silence brings out
        what the last samples held.
    bends : collection of int
        Stems whose notes come with pitch bends, for transcribers that hear the momentary pitch.
    """

    def __init__(self, transcriber: Transcriber, stems: Sequence[int], rate: int) -> None:
        self.stems, self.transcriber = list(stems), transcriber
        info = transcriber.info
        self.hop = info.hop_samples
        self.resampler: Decimator | StreamResampler
        if rate >= info.samplerate:
            self.resampler = Decimator(rate, info.samplerate, len(self.stems))
            delay_s = self.resampler.delay / info.samplerate
        else:
            self.resampler = StreamResampler(rate, info.samplerate, len(self.stems), "LQ")
            delay_s = self.resampler.delay_samples / info.samplerate
        self._waiting: Audio = np.zeros((len(self.stems), 0), np.float32)
        self.trackers = [self._new_tracker() for _ in self.stems]
        self._quiet = np.full(len(self.stems), math.inf)  # seconds below the gate
        self.bends: Collection[int] = ()
        self._bent = np.zeros(len(self.stems))  # the last bend that was given out, in semitones
        self._zero_s = -delay_s
        self._frames_late = transcriber.position.latency_samples / self.hop * info.frames_per_hop
        # A frame is whole when its hop is, which the trackers count as the first of their frames.
        part_s = info.hop_samples / info.samplerate - info.frame_s
        look_s = transcriber.position.latency_samples / info.samplerate
        self.delay_s = delay_s + part_s + look_s + max(t.delay_frames for t in self.trackers) * info.frame_s

    def _new_tracker(self) -> StemTracker | VoiceTracker:
        info, position = self.transcriber.info, self.transcriber.position
        if info.kind == "monophonic":
            settings = VoiceSettings.for_position(position.name)
            return VoiceTracker(info.midi_notes, info.lookaheads, info.dial.index(position), settings)
        return StemTracker(info.midi_notes, StemTrackerSettings.for_kind(info.kind, position))

    def reset(self) -> list[StemEvent]:
        """Forget all past sound; returns the ends of what sounds."""
        events = [e for index in range(len(self.stems)) for e in self.release(index)]
        self.resampler.reset()
        self.transcriber.reset()
        self._waiting = self._waiting[:, :0]
        self.trackers = [self._new_tracker() for _ in self.stems]
        return events

    def release(self, index: int) -> list[StemEvent]:
        """End what sounds of a stem, by its index."""
        return [self._event(index, e) for e in self.trackers[index].release()]

    def push(self, mono: Audio, heard: int = -1) -> list[StemEvent]:
        """Take ``mono`` [B, n] at the stems' rate; bit `s` of `heard` says whether stem `s` gives notes."""
        events: list[StemEvent] = []
        self._waiting = np.concatenate([self._waiting, self.resampler.process(mono)], axis=1)
        while self._waiting.shape[1] >= self.hop:
            hop = np.ascontiguousarray(self._waiting[:, : self.hop])
            self._waiting = self._waiting[:, self.hop :]
            found = self.transcriber.push(hop)
            level_db = 10 * np.log10(np.square(hop).mean(axis=1) + 1e-12)
            frames = self.transcriber.info.frames_per_hop
            self._quiet = np.where(level_db > _GATE_DB, 0.0, self._quiet + frames * self.transcriber.info.frame_s)
            for index, tracker in enumerate(self.trackers):
                open_ = heard >> self.stems[index] & 1 and self._quiet[index] < _GATE_HOLD_S
                for frame in range(frames):
                    if isinstance(tracker, VoiceTracker):
                        given = tracker.push(self.transcriber.positions(index, frame), float(level_db[index]))
                    else:
                        given = tracker.push(*(found[name][index, frame] for name in ("onset", "frame", "velocity")))
                    if not open_:
                        given = unbegun([*given, *tracker.release()])
                    if self.stems[index] in self.bends and "pitch" in found:
                        events += self._bend(index, given, float(found["pitch"][index, frame]))
                    else:
                        events += [self._event(index, e) for e in given]
        return events

    def _event(self, index: int, event: TrackedEvent, bend: float = 0.0) -> StemEvent:
        stem, time_s = self.stems[index], self._time_s(event.moment)
        return StemEvent(stem, event.kind, event.pitch, event.velocity, time_s, bend if event.kind == "on" else 0.0)

    def _time_s(self, moment: float) -> float:
        time_s: float = (moment - self._frames_late) * self.transcriber.info.frame_s + self._zero_s
        return time_s

    def _bend(self, index: int, given: Iterable[TrackedEvent], pitch: float) -> list[StemEvent]:
        """Return the events of a frame with the bends its pitch (MIDI with fractions, 0 unknown) makes."""
        events, tracker = [], self.trackers[index]

        def away(note: int) -> float | None:
            return pitch - note if math.isfinite(pitch) and pitch > 0 and abs(pitch - note) <= _WIDEST_BEND else None

        for event in given:
            if event.kind == "on":
                self._bent[index] = away(event.pitch) or 0.0
            events.append(self._event(index, event, float(self._bent[index])))
        for note in tracker.sounding:  # one at most
            bend = away(note)
            if bend is not None and abs(bend - self._bent[index]) >= _STEADY_BEND:
                self._bent[index] = bend
                time_s = self._time_s(tracker.frame - 0.5)
                events.append(StemEvent(self.stems[index], "bend", note, 0, time_s, bend))
        return events


class StemNotes:
    """Notes of all stems of a model.

    Stems that the model itself writes down (``notes/*`` outputs) are tracked from its posteriors, the others by the
    transcribers: drums by the one for drums, voices and basses by the monophonic one, the rest by the polyphonic one.

    Parameters
    ----------
    info : ModelInfo
    rate : int
        Of the stems, in hertz.
    latency : {"tight", "normal", "quality"}
        Position of the dial.
    transcribers : mapping of str to path, optional
        By kind; those in the wheel when left out.
    stems : sequence of str, optional
        Stems to write down; all that are possible when left out, but none that only takes what is left over beside
        others that the model writes down itself.
    settings : TrackerSettings, optional
        For the model's own posteriors.
    bends : collection of str
        Stems whose notes come with pitch bends; of those that the monophonic transcriber writes down.

    Attributes
    ----------
    delays_s : dict of int to float
        By stem that is written down: after the last sample of an onset's stem at most this much time passes until the
        note is given out, computing included. Constant, declared; voices take longer than what is struck.
    tail_s : float
        Silence that brings out what the last samples held.

    Raises
    ------
    ModelNotFoundError
        There is no transcriber of a kind that is needed.
    ModelError
        A transcriber is damaged.
    StemNotFoundError, UsageError
        No such stem, or no such latency.

    Notes
    -----
    For the notes process and for files: `push` allocates.
    """

    def __init__(
        self,
        info: ModelInfo,
        rate: int,
        latency: str = "normal",
        *,
        transcribers: Mapping[str, str | Path] | None = None,
        stems: Sequence[str] | None = None,
        settings: TrackerSettings | None = None,
        bends: Collection[str] = (),
    ) -> None:
        from rtsep.mixer.settings import MixerSettings

        self.info, self.rate = info, rate
        own = list(info.notes.stems) if info.notes else []
        names = list(stems) if stems is not None else (own or list(info.stems))
        index = MixerSettings(info.stems).index
        self._own = [(position, index(name)) for position, name in enumerate(own) if name in names]
        self._settings = settings
        self._own_trackers = self._new_own_trackers()
        by_kind: dict[str, list[int]] = {}
        for name in names:
            if name not in own:
                by_kind.setdefault(kind_of_stem(name), []).append(index(name))
        files = dict(transcribers) if transcribers is not None else dict(shipped_transcribers())
        self._groups = []
        for kind, members in by_kind.items():
            if kind not in files:
                missing = ", ".join(info.stems[s] for s in members)
                raise ModelNotFoundError(
                    f"There is no {kind} transcriber for {missing}; there are: {', '.join(files) or 'none'}."
                )
            if (found := read_transcriber_info(files[kind]).kind) != kind:
                raise UsageError(f"{files[kind]} is a {found} transcriber; a {kind} one is needed.")
            self._groups.append(StemListener(Transcriber(files[kind], len(members), latency), members, rate))
        self.set_bends(bends)
        self.delays_s = {stem: group.delay_s + _COMPUTE_S for group in self._groups for stem in group.stems}
        own_extra_s = 0.0
        if self._own:
            assert info.notes is not None
            s = self._settings or TrackerSettings()
            own_extra_s = info.notes.extra_latency_samples / rate
            own_s = own_extra_s + (s.minimum_frames + 1) * self._own_frame_s
            self.delays_s |= {stem: own_s + _COMPUTE_S for _, stem in self._own}
        self.tail_s = max([own_extra_s, *(group.delay_s for group in self._groups)])

    def set_bends(self, names: Collection[str]) -> None:
        """Say which stems' notes come with pitch bends from now on; names that cannot have any are ignored."""
        for group in self._groups:
            group.bends = {stem for stem in group.stems if self.info.stems[stem] in names}

    @property
    def _own_frame_s(self) -> float:
        assert self.info.notes is not None
        return self.info.hop_samples / self.info.notes.frames_per_hop / self.rate

    def _new_own_trackers(self) -> list[NoteTracker]:
        if self.info.notes is None:
            return []
        lowest, monophonic = self.info.notes.lowest_midi, takes_query(self.info)
        return [NoteTracker(lowest, self._settings, monophonic=monophonic) for _ in self._own]

    def push(self, stems: Audio, notes: Audio | None = None, heard: int = -1) -> list[StemEvent]:
        """Take a stretch of stems; return what is now known, in no particular order.

        Parameters
        ----------
        stems : array [S, C, n]
        notes : array [3, S', N, P], optional
            The model's own onset, frame and velocity of these hops.
        heard : int
            Bit `s` clear: stem `s` gives no notes and what sounds of it ends.
        """
        events: list[StemEvent] = []
        for group in self._groups:
            mono = stems[group.stems].mean(axis=1, dtype=np.float32)  # [B, n]
            events += group.push(mono, heard)
        if notes is not None:
            events += self._push_own(notes, heard)
        return events

    def _push_own(self, notes: Audio, heard: int) -> list[StemEvent]:
        events: list[StemEvent] = []
        for tracker, (position, stem) in zip(self._own_trackers, self._own, strict=True):
            silent = not heard >> stem & 1
            for frame in range(notes.shape[2]):
                onset, level, velocity = notes[:, position, frame]
                if silent:
                    onset = level = velocity = np.zeros_like(level)
                events += self._own_events(stem, tracker.push(onset, level, velocity))
        return events

    def _own_events(self, stem: int, given: Iterable[NoteEvent]) -> list[StemEvent]:
        assert self.info.notes is not None
        late = self.info.notes.extra_latency_samples / self.rate
        return [StemEvent(stem, e.kind, e.pitch, e.velocity, e.frame * self._own_frame_s - late) for e in given]

    def reset(self) -> list[StemEvent]:
        """Forget all past sound: the next sample is sample 0. Returns the ends of what sounds."""
        events = [e for group in self._groups for e in group.reset()]
        for tracker, (_, stem) in zip(self._own_trackers, self._own, strict=True):
            events += self._own_events(stem, tracker.finish())
        self._own_trackers = self._new_own_trackers()
        return events
