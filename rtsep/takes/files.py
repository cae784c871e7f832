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
from rtsep.plugins.rack import LIVE_LIMIT_S

Audio = NDArray[np.float32]

MIX_NAME = "mix.wav"
_SILENCE = 4096
_FADE_S = 0.02


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
            self._mix: _Mix | None = None
            if mix_channels:
                self._mix = _Mix(self._track([folder / MIX_NAME], samplerate, mix_channels), start)
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
            self._mix.put(hop, hop.mix)

    def end_at(self, end: int) -> None:
        """Let the files end with what was captured before device frame `end`."""
        self._stems.limit = max(0, round(end * self._per_device) - self._first)
        if self._mix is not None:
            self._mix.track.limit = max(0, end - self._start)

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


class _Mix:
    """The mix in its place. Where plugins make it later or less late, it fades over to its new place.

    Parameters
    ----------
    track : _Track
    start : int
        Device frame of the track's sample 0.
    """

    def __init__(self, track: _Track, start: int) -> None:
        self.track, self._start = track, start
        self._rise = np.linspace(0.0, 1.0, round(_FADE_S * track.rate), endpoint=False, dtype=np.float32)
        self._room = round(2 * LIVE_LIMIT_S * track.rate)  # of the stems and of the master
        self._recent: Audio | None = None  # the last that came, for what becomes less late
        self._next = (-1, -1)
        self._end = 0
        self._waiting: Audio | None = None
        """What came since the change, and before it what is to be heard again: until there is enough to fade."""
        self._lead = self._shift = self._fade_at = 0

    def put(self, hop: TapHop, mix: Audio) -> None:
        """Write the mix of a hop, or keep it for the fade that it is part of."""
        at = hop.mix_at - self._start
        if self._next != (hop.epoch, hop.hop):
            self._flush()
        elif at != self._end and self._recent is not None:
            self._flush()
            self._shift, self._fade_at = self._end - at, self._end
            self._lead = min(max(0, -self._shift), self._recent.shape[1])
            self._waiting = self._recent[:, self._recent.shape[1] - self._lead :]
        self._next, self._end = (hop.epoch, hop.hop + 1), at + mix.shape[1]
        if self._waiting is None:
            self.track.put(at, [mix])
        else:
            self._waiting = np.concatenate([self._waiting, mix], axis=1)
            self._fade()
        recent = mix if self._recent is None else np.concatenate([self._recent, mix], axis=1)
        self._recent = recent[:, -self._room :]

    def _fade(self) -> None:
        assert self._waiting is not None
        before = self._waiting[:, self._lead :]
        after = self._waiting[:, max(0, self._lead + self._shift) :]
        count = len(self._rise)
        if min(before.shape[1], after.shape[1]) < count:
            return
        out = after.copy()
        out[:, :count] += (before[:, :count] - out[:, :count]) * (1.0 - self._rise)
        self._waiting = None
        self.track.put(self._fade_at, [out])

    def _flush(self) -> None:
        """Something came between: without a fade."""
        if self._waiting is not None:
            self.track.put(self._fade_at, [self._waiting[:, self._lead :]])
            self._waiting = None
