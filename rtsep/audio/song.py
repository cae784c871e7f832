"""A device whose input is a file: its clock and its output are the device's, what it captures is the file."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends.base import Backend
from rtsep.audio.files import AudioReader, check_mapping
from rtsep.audio.song_config import SongConfig, check_loop, check_speed
from rtsep.audio.song_stream import FADE_S, Place, SongStream
from rtsep.errors import AudioFileError, EngineError, RtsepError

Audio = NDArray[np.float32]

_AHEAD_S = 1.0
_READY_S = 0.25
_START_S = 10.0
_IDLE_S = 0.02
_CHUNK = 1024


@dataclass
class _Wish:
    """What the next stream is for: another place, or other settings from the present place on."""

    place: Place
    seek: bool
    number: int


class SongBackend:
    """Wraps a device; see `rtsep.audio.backends.base.Backend`, whose every other part is the device's.

    What the device captures at a frame is thrown away, and the file's next frame is captured in its place: before
    `begin_at` silence, after it the file without a gap. A thread reads ahead; nothing here waits for a disk.

    A seek fades out, is silent for as long as the latency, and fades in. `seam` then is the position, in the silence,
    from which the sound has nothing to do with what came before: there the worker starts the model anew. Other loop
    points and another speed take over where the file just plays, without a seam.

    Parameters
    ----------
    device : Backend
        Opened, not started; paced.
    config : SongConfig
    counters : array of int64
        Shared statistics; gets ``song_us`` and its neighbours.
    index : dict
        Places in it.

    Raises
    ------
    AudioFileError
        The file is missing, damaged, or without samples.
    UsageError
        A channel it does not have, or a loop that is not in it.
    """

    def __init__(self, device: Backend, config: SongConfig, counters: NDArray[np.int64], index: dict[str, int]) -> None:
        self._device, self._counters, self._index = device, counters, index
        self._reader = AudioReader(config.path)
        try:
            rate = self._reader.samplerate
            self.duration_s = self._reader.frames / rate
            self.file_channels = self._reader.channels
            if config.channels is not None:
                check_mapping(config.channels, self._reader.channels, config.path)
            from_s, to_s = config.loop_from_s or 0.0, config.loop_to_s
            if config.loop:
                check_loop(from_s, self.duration_s if to_s is None else to_s, self.duration_s)
            self._mapping = config.channels
            self.input_channels = min(2, device.output_channels)
            loop = (round(from_s * rate), self._reader.frames if to_s is None else round(to_s * rate))
            self._loop, self._looping = loop, config.loop
            place = Place(loop[0] if config.loop else 0, config.speed, loop if config.loop else None)
            self._stream = self._filling = self._new_stream(place)
        except RtsepError:
            self._reader.close()
            raise
        fade = max(1, round(FADE_S * device.samplerate))
        rising = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / (fade + 1))
        self._ramp: Audio = rising.astype(np.float32)[:, None]
        self._level, self._aim = fade, fade  # of the ramp: 0 is silence
        self._other: Audio = np.zeros((_CHUNK, self.input_channels), np.float32)
        self._thrown: Audio = np.zeros((_CHUNK, device.input_channels), np.float32)
        self.playing = True
        self.seam: int | None = None
        self._position = 0  # frames captured and read: the device's clock
        self._begun = False
        self._tail = 0
        self._gap = 0
        self._ended_at: int | None = None
        self._wish: _Wish | None = None  # what was asked for, what is being read, what is ready: the last one counts
        self._making: _Wish | None = None
        self._again: _Wish | None = None
        self._coming: tuple[SongStream, _Wish] | None = None
        self._joining: SongStream | None = None
        self._joined = 0
        self._asked = self._done = 0
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._read_ahead, name="song", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._ready(self._stream):
            if time.monotonic() > deadline:
                self._close()
                raise EngineError(f"{config.path} could not be read within {_START_S:.0f} s.")
            time.sleep(0.002)
        if self._stream.error is not None and not self._stream.buffered:
            self._close()
            raise self._stream.error
        self._tell()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    # --- commands, from any thread but the audio's --------------------------------------------------------------------

    def command(self, what: str, value: Any) -> None:
        """Do what a person asks for: ``playing``, ``seek``, ``loop`` (on, from_s, to_s) or ``speed``; checked."""
        rate = self._reader.samplerate
        if what == "playing":
            self.playing = bool(value)
            return
        with self._lock:
            before = self._newest()
            place = before.place if before is not None else (self._joining or self._stream).place
            seek = before is not None and before.seek
            if what == "seek":
                start, seek = min(max(0.0, value * rate), self._reader.frames - 1.0), True
                place = replace(place, start=float(math.floor(start)))
            elif what == "loop":
                self._looping, from_s, to_s = value
                check_loop(from_s, to_s, self.duration_s)
                self._loop = (round(from_s * rate), min(round(to_s * rate), self._reader.frames))
                place = replace(place, loop=self._loop if self._looping else None)
                now = self._stream.position
                if self._looping and now >= self._loop[1] and not seek:
                    place, seek = replace(place, start=float(self._loop[0])), True
            elif what == "speed":
                check_speed(value)
                place = replace(place, speed=float(value))
            self._asked += what == "seek"
            self._wish = _Wish(place, seek, self._asked)
        self._work.set()

    def _newest(self) -> _Wish | None:
        coming = self._coming
        return self._wish or self._making or self._again or (coming[1] if coming is not None else None)

    # --- reading thread -----------------------------------------------------------------------------------------------

    def _new_stream(self, place: Place) -> SongStream:
        return SongStream(self._reader, self.input_channels, self._mapping, self._device.samplerate, place)

    def _ready(self, stream: SongStream) -> bool:
        return stream.ended or stream.buffered >= _READY_S * self._device.samplerate

    def _read_ahead(self) -> None:
        while not self._stopping:
            with self._lock:
                wish = self._wish
                if wish is None and self._making is None:
                    wish = self._again
                if wish is not None:
                    self._making, self._wish, self._again = wish, None, None
            if wish is not None:
                place = wish.place if wish.seek else replace(wish.place, start=self._stream.position)
                try:
                    self._filling = self._new_stream(place)
                except AudioFileError as error:
                    self._filling.error, self._filling.ended = error, True
            # One at a time: only the audio side takes away what is ready.
            if self._making is not None and self._coming is None and self._ready(self._filling):
                self._coming, self._making = (self._filling, self._making), None
            stream = self._filling
            if stream.ended or stream.buffered >= _AHEAD_S * self._device.samplerate:
                self._work.wait(0.002 if self._making is not None else _IDLE_S)
                self._work.clear()
            else:
                stream.produce()

    # --- the device ---------------------------------------------------------------------------------------------------

    def begin_at(self, position: int) -> None:
        """The file begins with the next frame; what is captured before `position` would not be heard."""
        self._begun = True

    def read(self, frames: Audio) -> int:
        thrown = self._thrown[: len(frames)]
        count = self._device.read(thrown)
        if count:
            self._fill(frames[:count])
            self._tell()
        return count

    def rearm_input(self) -> None:
        self._device.rearm_input()
        self._position = self._device.captured

    def expect_tail(self, frames: int) -> None:
        self._tail = frames
        self._device.expect_tail(frames)

    @property
    def _over(self) -> bool:
        return self._ended_at is not None and self._device.captured >= self._ended_at + self._tail

    @property
    def finished(self) -> bool:
        """The file was heard to its end, or the device has ended."""
        return self._device.finished or (self._over and self._stream.error is None)

    @property
    def error(self) -> RtsepError | None:
        """A damaged file tells when what is whole of it was heard."""
        if self._over and self._stream.error is not None:
            return self._stream.error
        return getattr(self._device, "error", None)

    def stop(self, timeout: float) -> bool:
        stopped = self._device.stop(timeout)
        self._close()
        return stopped

    def _close(self) -> None:
        self._stopping = True
        self._work.set()
        self._thread.join(1.0)
        if not self._thread.is_alive():
            with contextlib.suppress(RtsepError):
                self._reader.close()

    def _tell(self) -> None:
        rate = self._reader.samplerate
        self._counters[self._index["song_us"]] = round(1e6 * self._stream.position / rate)
        self._counters[self._index["song_seeks"]] = self._done

    # --- audio threads ------------------------------------------------------------------------------------------------

    def _fill(self, out: Audio) -> None:
        if not self._begun:
            out[:] = 0.0
            self._position += len(out)
            return
        while len(out):
            count = self._part(out)
            self._position += count
            out = out[count:]

    def _part(self, out: Audio) -> int:
        """Fill the beginning of `out`, and return how much that was."""
        self._look_for_news()
        if self._level == 0:
            return self._silence(out)
        if self._level != self._aim:
            room = self._level if self._aim == 0 else len(self._ramp) - self._level
            out = out[:room]
        count = self._take(out)
        if count == 0:
            return self._shortage(out)
        if self._level != self._aim:
            if self._aim == 0:
                out[:count] *= self._ramp[self._level - count : self._level][::-1]
                self._level -= count
            else:
                out[:count] *= self._ramp[self._level : self._level + count]
                self._level += count
        return count

    def _look_for_news(self) -> None:
        coming, full = self._coming, len(self._ramp)
        if coming is None or self._gap or self._joining is not None:
            if coming is None:
                self._aim = full if self.playing else 0
            return
        stream, wish = coming
        if wish.seek:
            # The fade out, the silence, and the seam a little before its end.
            self._aim = 0
            self._gap = self._tail + 2 * full
            self.seam = self._position + self._level + self._gap - full
            return
        self._coming, self._ended_at = None, None
        behind = round((self._stream.position - stream.position) / stream.step)
        if behind < 0 or behind > stream.buffered - full:
            # It went round a loop meanwhile: once more, from where it is now.
            self._again = wish
            return
        stream.skip(behind)
        if self._level == 0 or self._stream.buffered < full:
            self._stream = stream
        else:
            self._joining, self._joined = stream, 0

    def _silence(self, out: Audio) -> int:
        count = len(out)
        if self._gap:
            count = min(count, self._gap)
            self._gap -= count
            if self._gap == 0 and self._coming is not None:
                self._stream, wish = self._coming
                self._coming, self._done, self._ended_at = None, wish.number, None
                self._aim = len(self._ramp) if self.playing else 0
                self._level = min(1, self._aim)
        elif self.playing:
            self._aim, self._level = len(self._ramp), 1
            count = 0
        out[:count] = 0.0
        return count

    def _take(self, out: Audio) -> int:
        """Take frames of the stream, and of the one that takes over, into the beginning of `out`."""
        other = self._joining
        if other is None:
            return self._stream.take(out)
        full = len(self._ramp)
        count = min(len(out), full - self._joined, self._stream.buffered, other.buffered, len(self._other))
        part = out[:count]
        self._stream.take(part)
        fresh = self._other[:count]
        other.take(fresh)
        fresh -= part
        fresh *= self._ramp[self._joined : self._joined + count]
        part += fresh
        self._joined += count
        if count == 0 or self._joined == full:
            self._stream, self._joining = other, None
            if count == 0:
                return self._stream.take(out)
        return count

    def _shortage(self, out: Audio) -> int:
        """Nothing can be taken: the end, or a disk that is too slow."""
        out[:] = 0.0
        if not self._stream.ended:
            self._counters[self._index["song_late_samples"]] += len(out)
            self._level = min(self._level, 1)  # what comes then fades in
        elif self._ended_at is None:
            self._ended_at = self._position
        if self._aim == 0:
            self._level = max(0, self._level - len(out))
        return len(out)
