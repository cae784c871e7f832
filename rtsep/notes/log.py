"""The event log: every note of a take, on disk while it is played, and a MIDI file made of it afterwards.

JSON lines. The first says what was played::

    {"rtsep": "notes", "version": 1, "samplerate": 48000, "tempo": 120.0,
     "strips": [{"name": "bass", "channel": 1, "program": 33}, ...]}

then one line for each beginning and each end, in seconds of the recording, with the stem's index, and with the time
at which it was given out (0 is the beginning of the recording here, too)::

    {"on": 12.34, "stem": 0, "pitch": 40, "velocity": 90, "emit": 12.41}
    {"off": 12.84, "stem": 0, "pitch": 40, "emit": 12.93}

A strip that plays pitch bends says so by its ``"bend_range"`` in semitones; beginnings may then have a ``"bend"`` in
semitones from their pitch, and lines of changes stand between::

    {"bend": 12.41, "stem": 0, "pitch": 40, "semitones": -0.12, "emit": 12.48}

A line is handed to the system as it is written: what was logged outlives the process.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rtsep.errors import MidiFileError, UsageError
from rtsep.notes.messages import MPE_BEND_RANGE, StripMidi

VERSION = 1
_LARGEST = 1 << 30
_LONGEST_S = 1e6


class EventLog:
    """Writes the log; context manager.

    Parameters
    ----------
    path : path
        A file there is replaced.
    strips : sequence of StripMidi
        By stem index.
    samplerate : int
        Of the recording beside it, in hertz.
    tempo : float
        Beats a minute for the MIDI file, 4 to 1000; it moves no note.

    Attributes
    ----------
    error : MidiFileError or None
        Why writing stopped (a full disk); nothing is raised while notes are played.

    Raises
    ------
    MidiFileError
        The file cannot be written.
    UsageError
        The tempo is out of range, or two strips have the same name.

    Notes
    -----
    Not thread-safe; `on` and `off` write to the disk and do not belong into an audio callback.
    """

    def __init__(
        self, path: str | os.PathLike[str], strips: Sequence[StripMidi], samplerate: int, tempo: float = 120.0
    ) -> None:
        if not 4 <= tempo <= 1000:
            raise UsageError(f"The tempo must be 4 to 1000 beats a minute; got {tempo}.")
        names = [strip.name for strip in strips]
        if len(set(names)) < len(names):
            raise UsageError(f"Two strips of the log have the same name; there are {', '.join(names)}.")
        self.path = Path(path)
        self.error: MidiFileError | None = None
        header = {
            "rtsep": "notes",
            "version": VERSION,
            "samplerate": samplerate,
            "tempo": tempo,
            "strips": [_strip(strip) for strip in strips],
        }
        try:
            # Unbuffered: nothing is left to be written when the process dies or the disk is full.
            self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115  # it stays open
        except OSError as error:
            raise MidiFileError(f"{self.path} cannot be written: {error.strerror}.") from error
        try:
            self._put(header)
        except OSError as error:
            self._file.close()
            raise MidiFileError(f"{self.path} cannot be written: {error.strerror}.") from error

    def on(self, stem: int, pitch: int, velocity: int, onset_s: float, emit_s: float, bend: float = 0.0) -> None:
        """Log the beginning of a note: where it is in the recording, when it was given out, its bend in semitones."""
        line = {"on": _round(onset_s), "stem": stem, "pitch": pitch, "velocity": velocity, "emit": _round(emit_s)}
        self._write({**line, "bend": round(bend, 3)} if bend else line)

    def bend(self, stem: int, pitch: int, semitones: float, at_s: float, emit_s: float) -> None:
        """Log how far a sound is from its note's pitch from now on."""
        bent = {"stem": stem, "pitch": pitch, "semitones": round(semitones, 3), "emit": _round(emit_s)}
        self._write({"bend": _round(at_s), **bent})

    def off(self, stem: int, pitch: int, off_s: float, emit_s: float) -> None:
        """Log the end of a note."""
        self._write({"off": _round(off_s), "stem": stem, "pitch": pitch, "emit": _round(emit_s)})

    def close(self) -> None:
        """Close the file; what comes later is not written. More than once is fine."""
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, document: dict[str, Any]) -> None:
        if self.error is not None or self._file.closed:
            return
        try:
            self._put(document)
        except OSError as error:
            self._fail(error)

    def _put(self, document: dict[str, Any]) -> None:
        rest = memoryview((json.dumps(document, ensure_ascii=False) + "\n").encode())
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def _fail(self, error: OSError) -> None:
        self.error = self.error or MidiFileError(f"{self.path} cannot be written any more: {error.strerror}.")


@dataclass(frozen=True)
class Recovered:
    """What `recover` made.

    Parameters
    ----------
    path : Path
        Of the MIDI file.
    notes : dict of str to int
        Notes by stem.
    closed : int
        Notes that never ended in the log; they end with its last event.
    remarks : list of str
        What else was wrong with the log, a sentence each.
    """

    path: Path
    notes: dict[str, int]
    closed: int
    remarks: list[str]


def recover(log: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Recovered:
    """Write the notes of a log as a MIDI file of type 1, one track a stem, at the times of the recording.

    Parameters
    ----------
    log : path
        As `EventLog` wrote it. A last line cut short is left out.
    output : path, optional
        The log's name with ``.mid`` when left out.

    Raises
    ------
    MidiFileError
        The log is missing or broken, or the MIDI file cannot be written.
    """
    from rtsep.query.notes import Bend, Note, add_bend
    from rtsep.query.smf import Part, write_midi

    source = Path(log)
    target = Path(output) if output is not None else source.with_suffix(".mid")
    if target == source:
        raise MidiFileError(f"{source} is the log itself; give the MIDI file another name with -o.")
    lines, remarks = _lines(source)
    names, parts, tempo = _header(source, lines[0])
    tracks: list[list[Note]] = [[] for _ in names]
    bends: list[list[Bend]] = [[] for _ in names]
    sounding: dict[tuple[int, int], tuple[float, int]] = {}
    last_s = 0.0

    def end(key: tuple[int, int], at: float) -> None:
        onset, velocity = sounding.pop(key)
        if at > onset:
            tracks[key[0]].append(Note(onset, at, key[1], velocity))

    for number, text in enumerate(lines[1:], start=2):
        kind, time_s, stem, pitch, velocity, bend = _event(source, number, text, len(names))
        last_s = max(last_s, time_s)
        if kind != "off" and parts[stem][2]:
            add_bend(bends[stem], time_s, bend, kind == "on")
        if kind == "bend":
            continue
        if (stem, pitch) in sounding:
            end((stem, pitch), time_s)
        if kind == "on":
            sounding[stem, pitch] = (time_s, velocity)
    closed = len(sounding)
    for key in list(sounding):
        end(key, max(last_s, sounding[key][0] + 0.001))
    write_midi(
        target,
        {name: sorted(notes) for name, notes in zip(names, tracks, strict=True)},
        {name: Part(*part) for name, part in zip(names, parts, strict=True)},
        bends=dict(zip(names, bends, strict=True)),
        beats_per_minute=tempo,
    )
    return Recovered(target, {name: len(t) for name, t in zip(names, tracks, strict=True)}, closed, remarks)


def _lines(source: Path) -> tuple[list[str], list[str]]:
    try:
        with source.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise MidiFileError(f"{source} cannot be read: {error.strerror}.") from error
    if len(data) > _LARGEST:
        raise MidiFileError(f"{source} is no log of notes: it is larger than {_LARGEST >> 30} GiB.")
    *whole, rest = data.split(b"\n")
    if not whole:
        what = "is empty" if not data.strip() else "has not one whole line"
        raise MidiFileError(f"{source} {what}; it should be a log that rtsep run --record wrote.")
    remarks = ["The last line is cut short and was left out."] if rest else []
    try:
        return [line.decode() for line in whole], remarks
    except UnicodeDecodeError as error:
        raise MidiFileError(f"{source} is no log of notes: it is not text.") from error


def _header(source: Path, text: str) -> tuple[list[str], list[tuple[int, int | None, int]], float]:
    try:
        found = json.loads(text)
        if found["rtsep"] != "notes":
            raise ValueError
        version = found["version"]
        strips = [(s["name"], s["channel"], s["program"], s.get("bend_range", 0)) for s in found["strips"]]
        tempo = float(found["tempo"])
        if not (
            all(isinstance(name, str) and name for name, *_ in strips)
            and len({name for name, *_ in strips}) == len(strips)
            and all(_whole(channel, 1, 16) and _whole(whole, 0, 96) for _, channel, _, whole in strips)
            and all(program is None or _whole(program, 0, 127) for _, _, program, _ in strips)
            and 4 <= tempo <= 1000
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MidiFileError(
            f"{source} is no log of notes: its first line does not say what was played. Give the log that rtsep run "
            "--record wrote."
        ) from error
    if version != VERSION:
        raise MidiFileError(f"{source} is a log of version {version}; this rtsep reads version {VERSION}.")
    return [name for name, *_ in strips], [(channel, program, whole) for _, channel, program, whole in strips], tempo


def _event(source: Path, number: int, text: str, stems: int) -> tuple[str, float, int, int, int, float]:
    try:
        found = json.loads(text)
        kind = "on" if "on" in found else "off" if "off" in found else "bend"
        time_s, stem, pitch = float(found[kind]), found["stem"], found["pitch"]
        velocity = found["velocity"] if kind == "on" else 64
        bend = float(found["semitones"]) if kind == "bend" else float(found.get("bend", 0.0))
        right = _whole(stem, 0, stems - 1) and _whole(pitch, 0, 127) and _whole(velocity, 1, 127)
        if not right or not (abs(time_s) <= _LONGEST_S and abs(bend) <= 96):
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise MidiFileError(
            f"{source} is broken in line {number}: {text[:80]!r} is no event. Remove the line, then run it again."
        ) from error
    return kind, max(0.0, time_s), stem, pitch, velocity, bend


def _strip(strip: StripMidi) -> dict[str, Any]:
    """What the header says of a strip; in a file the one voice of an MPE zone has a channel of its own anyway."""
    said: dict[str, Any] = {"name": strip.name, "channel": strip.channel, "program": strip.program}
    if strip.bends:
        said["bend_range"] = MPE_BEND_RANGE if strip.mpe_channels else strip.bend_range
    return said


def _whole(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _round(seconds: float) -> float:
    return round(seconds, 6) if math.isfinite(seconds) else 0.0
