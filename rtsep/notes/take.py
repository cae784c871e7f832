"""A take: every stem as a WAV file and the notes as MIDI, all in time with what was captured."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsep.engine.recorder import Recorder
from rtsep.errors import AudioFileError, MidiFileError, RtsepError
from rtsep.notes.config import NotesConfig
from rtsep.notes.log import EventLog, recover
from rtsep.notes.stream import StemEvent
from rtsep.notes.tap import TapHop

LOG_NAME, MIDI_NAME = "notes.jsonl", "notes.mid"


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
        self._delay, self._rate = config.stem_delay, config.rate
        self._per_device = config.rate / config.samplerate
        self._hop = config.info.hop_samples
        names = config.info.stems
        taken = [path for path in (self.folder / LOG_NAME, self.folder / MIDI_NAME) if path.exists()]
        taken += [path for name in names if (path := self.folder / f"{name}.wav").exists()]
        if taken:
            raise AudioFileError(f"{taken[0]} is there already; give --record a new folder.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioFileError(f"The folder {self.folder} cannot be made: {error.strerror}.") from error
        self._recorders: list[Recorder] = []
        self._written = 0
        try:
            self._log = EventLog(self.folder / LOG_NAME, config.strips, config.samplerate)
            for name in names:
                self._recorders.append(Recorder(self.folder / f"{name}.wav", config.rate, config.info.channels))
        except RtsepError:
            self._close_recorders()
            raise
        self._silence: NDArray[np.float32] = np.zeros((self._hop, config.info.channels), np.float32)

    @property
    def lost(self) -> int:
        """Samples of stems that the disk was too slow for; they are silent in the files."""
        return max(recorder.lost for recorder in self._recorders)

    def put_stems(self, hop: TapHop) -> None:
        """Write the stems of a hop where they belong; gaps become silence. Does not wait for the disk."""
        start = round(hop.base * self._per_device) + hop.hop * self._hop - self._delay
        while self._written < start:
            self._put([self._silence[: start - self._written]] * len(self._recorders))
        skip = self._written - start
        if skip < self._hop:
            self._put([np.ascontiguousarray(stem[:, max(0, skip) :].T) for stem in hop.stems])

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
        self._close_recorders()
        errors: list[RtsepError] = [recorder.error for recorder in self._recorders if recorder.error is not None]
        try:
            recover(self._log.path, self.folder / MIDI_NAME)
        except MidiFileError as error:
            errors.append(error)
        if self._log.error is not None:
            errors.append(self._log.error)
        if errors:
            raise errors[0]

    def _put(self, parts: list[NDArray[np.float32]]) -> None:
        for recorder, part in zip(self._recorders, parts, strict=True):
            recorder.put(part)
            recorder.heard += len(part)
        self._written += len(parts[0])

    def _close_recorders(self) -> None:
        for recorder in self._recorders:
            with contextlib.suppress(AudioFileError):
                recorder.close()
