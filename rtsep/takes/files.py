"""The sound of a take: every stem and the mix as WAV files, each sample in its place."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import ModelInfo
from rtsep.engine.recorder import Recorder
from rtsep.errors import AudioFileError
from rtsep.notes.tap import TapHop

Audio = NDArray[np.float32]

MIX_NAME = "mix.wav"
_SILENCE = 4096


class TakeFiles:
    """WAV files of what a tap gives.

    Sample 0 of every file was captured as frame `start`: the separation's delay is taken out. Gaps (the model began
    anew, hops were missed) are silence, so that what follows is in its place.

    Parameters
    ----------
    folder : path
        Is there. The files are ``<stem>.wav`` at the model's rate and, with a mix, ``mix.wav`` at the device's.
    info : ModelInfo
    rate, samplerate : int
        Of model and device, in hertz.
    stem_delay : int
        Of the stems behind the captured sound, in samples of the model.
    mix_channels : int
        Of the mix; 0 for none.
    start : int
        Device frame.

    Raises
    ------
    AudioFileError
        A file cannot be written; none is left then.

    Notes
    -----
    `put` never waits for the disk: a thread each writes the files, from rings of 8 s. What a disk was too slow for is
    silent and counted in `lost`.
    """

    def __init__(
        self,
        folder: Path,
        info: ModelInfo,
        rate: int,
        samplerate: int,
        stem_delay: int,
        *,
        mix_channels: int = 0,
        start: int = 0,
    ) -> None:
        self._start, self._delay, self._hop = start, stem_delay, info.hop_samples
        self._per_device = rate / samplerate
        self._first = round(start * self._per_device)
        self._tracks: list[_Track] = []
        try:
            self._stems = self._track([folder / f"{name}.wav" for name in info.stems], rate, info.channels)
            self._mix = self._track([folder / MIX_NAME], samplerate, mix_channels) if mix_channels else None
        except AudioFileError:
            self.close()
            for path in [recorder.path for track in self._tracks for recorder in track.recorders]:
                path.unlink(missing_ok=True)
            raise

    def put(self, hop: TapHop) -> None:
        """Write a hop where it belongs. Does not wait for the disk."""
        at = round(hop.base * self._per_device) + hop.hop * self._hop - self._delay - self._first
        self._stems.put(at, list(hop.stems))
        if self._mix is not None and hop.mix is not None:
            self._mix.put(hop.mix_at - self._start, [hop.mix])

    def end_at(self, end: int) -> None:
        """Let the files end with what was captured before device frame `end`."""
        self._stems.limit = max(0, round(end * self._per_device) - self._first)
        if self._mix is not None:
            self._mix.limit = max(0, end - self._start)

    @property
    def complete(self) -> bool:
        """Whether everything up to the end is there."""
        return all(track.limit is not None and track.written >= track.limit for track in self._tracks)

    @property
    def seconds(self) -> float:
        """Length of what was put so far."""
        return max(track.written / track.rate for track in self._tracks)

    @property
    def error(self) -> AudioFileError | None:
        """Why a file ended early, when one did."""
        errors = (recorder.error for track in self._tracks for recorder in track.recorders)
        return next((error for error in errors if error is not None), None)

    @property
    def lost(self) -> int:
        """Samples that the disk was too slow for."""
        return max((recorder.lost for track in self._tracks for recorder in track.recorders), default=0)

    def close(self) -> None:
        """Fill up what is not there with silence, so that all are of one length, and close the files."""
        if len(self._tracks) > 1:
            seconds = self.seconds
            for track in self._tracks:
                track.fill(round(seconds * track.rate))
        for track in self._tracks:
            track.close()

    def _track(self, paths: list[Path], rate: int, channels: int) -> _Track:
        track = _Track(rate, channels)
        self._tracks.append(track)
        for path in paths:
            track.recorders.append(Recorder(path, rate, channels))
        return track


class _Track:
    """Files of one rate that get their samples together."""

    def __init__(self, rate: int, channels: int) -> None:
        self.rate = rate
        self.recorders: list[Recorder] = []
        self.written = 0
        self.limit: int | None = None
        self._silence: Audio = np.zeros((_SILENCE, channels), np.float32)

    def put(self, at: int, parts: list[Audio]) -> None:
        """Write parts [C, T] from sample `at` on, short of what is there already."""
        self.fill(at)
        skip = max(0, self.written - at)
        count = parts[0].shape[1] - skip
        if self.limit is not None:
            count = min(count, self.limit - self.written)
        if count > 0:
            self._append([np.ascontiguousarray(part[:, skip : skip + count].T) for part in parts])

    def fill(self, to: int) -> None:
        """Write silence up to sample `to`."""
        to = to if self.limit is None else min(to, self.limit)
        while self.written < to:
            self._append([self._silence[: to - self.written]] * len(self.recorders))

    def close(self) -> None:
        for recorder in self.recorders:
            with contextlib.suppress(AudioFileError):
                recorder.close()

    def _append(self, parts: list[Audio]) -> None:
        for recorder, part in zip(self.recorders, parts, strict=True):
            recorder.put(part)
            recorder.heard += len(part)
        self.written += len(parts[0])
