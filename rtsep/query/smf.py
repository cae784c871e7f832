"""Standard MIDI Files as notes in seconds, and notes as Standard MIDI Files."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtsep.errors import MidiFileError
from rtsep.query.notes import Bend, Note
from rtsep.query.queries import write_whole

TICKS_PER_BEAT, BEATS_PER_SECOND = 480, 2
"""Of written files: 120 beats a minute, so that a tick is about a millisecond."""

_DEFAULT_TEMPO = 500_000  # microseconds a beat, where a file names none
_PERCUSSION = 9
_LARGEST_FILE, _LONGEST_S = 32 << 20, 24 * 3600.0
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
# General MIDI programs, from 0, of what people enroll.
_PROGRAMS = {
    "violin": 40, "viola": 41, "cello": 42, "double bass": 43, "contrabass": 43, "harp": 46, "trumpet": 56,
    "trombone": 57, "tuba": 58, "horn": 60, "soprano sax": 64, "alto sax": 65, "tenor sax": 66, "baritone sax": 67,
    "sax": 65, "oboe": 68, "english horn": 69, "cor anglais": 69, "bassoon": 70, "clarinet": 71, "piccolo": 72,
    "flute": 73, "recorder": 74, "guitar": 24, "bass": 33, "organ": 19, "voice": 53, "vocals": 53,
}  # fmt: skip


@dataclass(frozen=True)
class MidiNotes:
    """Notes of a file, or of one of its tracks.

    Parameters
    ----------
    notes : list of Note
        By start; none of percussion (channel 10).
    remarks : list of str
        What was left out, a sentence each.
    """

    notes: list[Note]
    remarks: list[str] = field(default_factory=list)


def pitch_name(pitch: int) -> str:
    """``C4`` for 60."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def program_for(name: str) -> int:
    """General MIDI program, from 0, of the instrument whose name is in `name`; the piano's when none is."""
    words = name.casefold().replace("-", " ").replace("_", " ")
    found = [instrument for instrument in _PROGRAMS if instrument in words]
    return _PROGRAMS[max(found, key=len)] if found else 0


def read_midi(path: str | os.PathLike[str], track: int | None = None) -> MidiNotes:
    """Read the notes of a MIDI file in seconds, with all its tempo changes.

    Parameters
    ----------
    path : path
    track : int, optional
        Track of the file, from 1; all of them when left out.

    Raises
    ------
    MidiFileError
        The file is missing, broken, of a kind that cannot be read, or holds no notes; there is no such track.
    """
    where = os.fspath(path)
    file = _parse(Path(path))
    tempos = _tempo_map(file.tracks, file.ticks_per_beat)
    numbered = {number: _notes_of(events, tempos) for number, events in enumerate(file.tracks, start=1)}
    having = {number: found for number, found in numbered.items() if found[0]}
    listing = "; ".join(
        f"{number} {_name_of(file.tracks[number - 1])}({len(found[0])} notes)" for number, found in having.items()
    )
    percussion = sum(found[1] for found in numbered.values())
    if not having:
        only = f" It has {percussion} notes of percussion (channel 10), which have no pitch." if percussion else ""
        raise MidiFileError(f"{where} holds no notes.{only}")
    if track is not None and track not in having:
        raise MidiFileError(f"{where} has no notes in track {track}; tracks with notes: {listing}.")
    chosen = having if track is None else {track: having[track]}
    notes = sorted(note for found, _, _ in chosen.values() for note in found)
    if notes[-1].start_s > _LONGEST_S:
        raise MidiFileError(f"{where} is broken: a note begins after {notes[-1].start_s / 3600:.0f} hours.")
    remarks = []
    if left_out := sum(found[1] for found in chosen.values()):
        remarks.append(f"{left_out} notes of percussion (channel 10) were left out.")
    if hanging := sum(found[2] for found in chosen.values()):
        remarks.append(f"{hanging} notes never end in the file; they end with their track.")
    return MidiNotes(notes, remarks)


def within(found: MidiNotes, lowest: int, highest: int, what: str) -> MidiNotes:
    """Leave out notes outside `lowest` to `highest`, and say so in the remarks.

    Raises
    ------
    MidiFileError
        None is left.
    """
    outside = Counter(note.pitch for note in found.notes if not lowest <= note.pitch <= highest)
    if not outside:
        return found
    names = ", ".join(f"{count} x {pitch_name(pitch)} ({pitch})" for pitch, count in sorted(outside.items()))
    limits = f"{pitch_name(lowest)} ({lowest}) to {pitch_name(highest)} ({highest})"
    if outside.total() == len(found.notes):
        raise MidiFileError(f"{what}: no note is within {limits}; it has {names}. Transpose it.")
    kept = [note for note in found.notes if lowest <= note.pitch <= highest]
    return MidiNotes(kept, [*found.remarks, f"{outside.total()} notes outside {limits} were left out: {names}."])


@dataclass(frozen=True)
class Part:
    """How a track of a written file is played.

    Parameters
    ----------
    channel : int
        1 to 16; 10 is percussion.
    program : int, optional
        General MIDI program from 0; None writes none.
    bend_range : int
        Semitones a full pitch bend means; 0: the track has none.
    """

    channel: int
    program: int | None = None
    bend_range: int = 0


def write_midi(
    path: str | os.PathLike[str],
    tracks: Mapping[str, Sequence[Note]],
    parts: Mapping[str, Part] | None = None,
    *,
    bends: Mapping[str, Sequence[Bend]] | None = None,
    beats_per_minute: float = 60.0 * BEATS_PER_SECOND,
) -> None:
    """Write a MIDI file of type 1, whole or not at all.

    Parameters
    ----------
    path : path
    tracks : mapping of str to sequence of Note
        By name; each gets a track of its own.
    parts : mapping of str to Part, optional
        Channel and program of each track. Left out, up to 15 tracks get a channel each, other than percussion's, and
        the program their name suggests.
    bends : mapping of str to sequence of Bend, optional
        By track, for those whose part has a bend range. Each lasts until the next.
    beats_per_minute : float
        Tempo, 4 to 1000. Times are in seconds and stay what they are; it says where the bars fall.

    Raises
    ------
    MidiFileError
        The file cannot be written.
    """
    import mido

    tempo = round(60e6 / beats_per_minute)
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, charset="utf-8")
    head = file.add_track()
    head.append(mido.MetaMessage("set_tempo", tempo=tempo))
    if parts is None:
        channels = [channel for channel in range(1, 17) if channel != _PERCUSSION + 1]
        parts = {name: Part(channel, program_for(name)) for name, channel in zip(tracks, channels, strict=False)}
    for name, part in parts.items():
        channel = part.channel - 1
        track = file.add_track(name)
        if part.program is not None:
            track.append(mido.Message("program_change", channel=channel, program=part.program))
        events = []
        for note in tracks[name]:
            start = _ticks(note.start_s, tempo)
            # At the same tick ends come first, then bends, then beginnings.
            on = {"note": note.pitch, "velocity": note.velocity}
            events.append((start, 2, note.pitch, mido.Message("note_on", channel=channel, **on)))
            end = mido.Message("note_off", channel=channel, note=note.pitch, velocity=0)
            events.append((max(start + 1, _ticks(note.end_s, tempo)), 0, note.pitch, end))
        if part.bend_range:
            for number, value in ((101, 0), (100, 0), (6, part.bend_range), (101, 127), (100, 127)):
                track.append(mido.Message("control_change", channel=channel, control=number, value=value))
            for tick, value in _wheel((bends or {}).get(name, ()), part.bend_range, tempo):
                events.append((tick, 1, 0, mido.Message("pitchwheel", channel=channel, pitch=value)))
        last = 0
        for tick, _, _, message in sorted(events, key=lambda event: event[:3]):
            message.time, last = tick - last, tick
            track.append(message)
    buffer = io.BytesIO()
    file.save(file=buffer)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise MidiFileError(f"{os.fspath(path)} cannot be written: {error.strerror}.") from error


def _wheel(bends: Iterable[Bend], whole: int, tempo: int) -> list[tuple[int, int]]:
    """Ticks and values, -8192 to 8191, of a pitch wheel: one a tick, the last, and only where it turns."""
    by_tick = {_ticks(b.time_s, tempo): max(-8192, min(8191, round(8192 * b.semitones / whole))) for b in sorted(bends)}
    turned, last = [], 0
    for tick, value in by_tick.items():
        if value != last:
            turned.append((tick, value))
            last = value
    return turned


def _ticks(seconds: float, tempo: int) -> int:
    return max(0, round(seconds * 1e6 * TICKS_PER_BEAT / tempo))


def _parse(path: Path) -> Any:
    import mido
    from mido.midifiles.meta import KeySignatureError

    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise MidiFileError(f"{path} cannot be read: {error.strerror}.") from error
    if not data:
        raise MidiFileError(f"{path} is empty (0 bytes).")
    if not data.startswith(b"MThd"):
        raise MidiFileError(f"{path} is no MIDI file: it does not begin with MThd.")
    try:
        if len(data) > _LARGEST_FILE:
            raise ValueError(f"it is larger than {_LARGEST_FILE >> 20} MiB")
        file = mido.MidiFile(file=io.BytesIO(data))
    except (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, KeySignatureError) as error:
        reason = str(error) or "it ends in the middle of a track"
        raise MidiFileError(f"{path} is broken: {reason}. Export it again from the program that made it.") from error
    if file.type not in (0, 1):
        raise MidiFileError(f"{path} is of type {file.type}; types 0 and 1 can be read. Export it as type 1.")
    if file.ticks_per_beat <= 0:
        raise MidiFileError(f"{path} counts time in film frames (SMPTE), not in beats; export it with beats.")
    return file


class _TempoMap:
    """From ticks to seconds."""

    def __init__(self, changes: Sequence[tuple[int, int]], ticks_per_beat: int) -> None:
        self._ticks, self._seconds, self._rates = [0], [0.0], [_DEFAULT_TEMPO / 1e6 / ticks_per_beat]
        for tick, tempo in changes:
            self._seconds.append(self.seconds(tick))
            self._ticks.append(tick)
            self._rates.append(tempo / 1e6 / ticks_per_beat)

    def seconds(self, tick: int) -> float:
        part = bisect_right(self._ticks, tick) - 1
        return self._seconds[part] + (tick - self._ticks[part]) * self._rates[part]


def _tempo_map(tracks: Iterable[Any], ticks_per_beat: int) -> _TempoMap:
    changes = []
    for track in tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                changes.append((tick, message.tempo))
    return _TempoMap(sorted(changes, key=lambda change: change[0]), ticks_per_beat)


def _notes_of(track: Iterable[Any], tempos: _TempoMap) -> tuple[list[Note], int, int]:
    """Return the notes of a track, and how many there were of percussion and without an end."""
    sounding: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    notes: list[Note] = []
    percussion = tick = 0

    def end(key: tuple[int, int]) -> None:
        start, velocity = sounding[key].pop(0)
        if tick > start:
            notes.append(Note(tempos.seconds(start), tempos.seconds(tick), key[1], velocity))

    for message in track:
        tick += message.time
        if message.type not in ("note_on", "note_off"):
            continue
        on = message.type == "note_on" and message.velocity > 0
        key = (message.channel, message.note)
        if message.channel == _PERCUSSION:
            percussion += on
        elif on:
            sounding[key].append((tick, message.velocity))
        elif sounding[key]:
            end(key)
    hanging = [key for key, starts in sounding.items() for _ in starts]
    for key in hanging:
        end(key)
    return notes, percussion, len(hanging)


def _name_of(track: Any) -> str:
    name = " ".join(str(track.name).split())
    return f"{name!r} " if name else ""
