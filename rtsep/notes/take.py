"""A take: every stem as a WAV file and the notes as MIDI, all in time with what was captured."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from rtsep.errors import AudioFileError, MidiFileError, RtsepError
from rtsep.notes.config import NotesConfig
from rtsep.notes.log import EventLog, recover
from rtsep.notes.messages import StripMidi
from rtsep.notes.stream import StemEvent
from rtsep.notes.tap import TapHop
from rtsep.takes.files import TakeFiles

LOG_NAME, MIDI_NAME = "notes.jsonl", "notes.mid"
_GIVE_UP_S = 2.0
"""An engine that gives no more stems leaves the rest of the notes unknown."""


class Take:
    """Writes the files of a take into a folder.

    Sample 0 of every stem and second 0 of the notes are frame 0 of the device's clock: the separation's delay is taken
    out.
    The notes are logged as they come and become a MIDI file at the end; for a take that was cut off
    ``rtsep midi recover`` does that.

    Parameters
    ----------
    config : NotesConfig
        With its `take`, made when missing.

    Raises
    ------
    AudioFileError, MidiFileError
        A file cannot be written, or a take is already there.
    """

    def __init__(self, config: NotesConfig) -> None:
        assert config.take is not None
        self.folder = Path(config.take)
        names = config.info.stems
        taken = [path for path in (self.folder / LOG_NAME, self.folder / MIDI_NAME) if path.exists()]
        taken += [path for name in names if (path := self.folder / f"{name}.wav").exists()]
        if taken:
            raise AudioFileError(f"{taken[0]} is there already; give --record a new folder.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioFileError(f"The folder {self.folder} cannot be made: {error.strerror}.") from error
        self._files = TakeFiles(self.folder, config.info, config.rate, config.samplerate, config.stem_delay)
        try:
            self._log = EventLog(self.folder / LOG_NAME, config.strips, config.samplerate)
        except RtsepError:
            self._files.close()
            raise

    @property
    def lost(self) -> int:
        """Samples of stems that the disk was too slow for; they are silent in the files."""
        return self._files.lost

    def put_stems(self, hop: TapHop) -> None:
        """Write the stems of a hop where they belong; gaps become silence. Does not wait for the disk."""
        self._files.put(hop)

    def put_note(self, event: StemEvent, position_s: float, emit_s: float) -> None:
        """Log an event: when it sounded and when it was given out, on the device's clock."""
        if event.kind == "on":
            self._log.on(event.stem, event.pitch, event.velocity, position_s, emit_s, event.bend)
        elif event.kind == "bend":
            self._log.bend(event.stem, event.pitch, event.bend, position_s, emit_s)
        else:
            self._log.off(event.stem, event.pitch, position_s, emit_s)

    def close(self) -> None:
        """Close all files and make the MIDI file; MidiFileError or AudioFileError when the disk is full, say."""
        self._log.close()
        self._files.close()
        errors: list[RtsepError] = [self._files.error] if self._files.error is not None else []
        try:
            recover(self._log.path, self.folder / MIDI_NAME)
        except MidiFileError as error:
            errors.append(error)
        if self._log.error is not None:
            errors.append(self._log.error)
        if errors:
            raise errors[0]


class NotesLog:
    """The notes of a take that begins and ends while others go on.

    Parameters
    ----------
    folder : path
        Of the take.
    strips : sequence of StripMidi
    samplerate : int
        Of the device, in hertz.
    start_s : float
        Second 0 of the log, on the device's clock. What began before is not in it.

    Raises
    ------
    MidiFileError
        The log cannot be written.
    """

    def __init__(self, folder: str | Path, strips: Sequence[StripMidi], samplerate: int, start_s: float) -> None:
        self._start_s = start_s
        self._length_s = math.inf
        self._give_up_at = math.inf
        self._open: set[tuple[int, int]] = set()
        self._log = EventLog(Path(folder) / LOG_NAME, strips, samplerate)

    def put_note(self, event: StemEvent, position_s: float, emit_s: float) -> None:
        """Log an event; as `Take.put_note`."""
        key, log = (event.stem, event.pitch), self._log
        at, emit_s = position_s - self._start_s, emit_s - self._start_s
        if event.kind == "on":
            if 0.0 <= at < self._length_s:
                self._open.add(key)
                log.on(event.stem, event.pitch, event.velocity, at, emit_s, event.bend)
        elif key in self._open and event.kind == "off":
            self._open.discard(key)
            log.off(event.stem, event.pitch, min(at, self._length_s), emit_s)
        elif key in self._open and at < self._length_s:
            log.bend(event.stem, event.pitch, event.bend, at, emit_s)

    def end_at(self, end_s: float) -> None:
        """Let the take end at a second of the device's clock; notes that sound on end there."""
        self._length_s = max(0.0, end_s - self._start_s)
        self._give_up_at = time.monotonic() + _GIVE_UP_S

    def over(self, known_s: float, silent: bool = False) -> bool:
        """Whether all notes are there, if those before `known_s` on the device's clock are; or no more will come.

        `silent` says that the engine gives no sign of life.
        """
        if silent and self._give_up_at < math.inf:
            return True
        return known_s >= self._start_s + self._length_s or time.monotonic() > self._give_up_at

    def close(self) -> MidiFileError | None:
        """End what sounds and close the file; return why it is not whole, if it is not."""
        end_s = self._length_s if math.isfinite(self._length_s) else 0.0
        for stem, pitch in sorted(self._open):
            # Without an end `rtsep midi recover` takes the last event's.
            if end_s:
                self._log.off(stem, pitch, end_s, end_s)
        self._open.clear()
        self._log.close()
        return self._log.error
