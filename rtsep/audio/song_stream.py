"""A file as a stream at a device's rate, from any place on, with its loop: read ahead by a thread, taken by another."""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from rtsep.audio.files import AudioReader, map_channels
from rtsep.errors import AudioFileError

Audio = NDArray[np.float32]

FADE_S = 0.005
_PIECE = 2048
# What a filter of soxr's HQ needs before the first sample that counts, with plenty to spare.
_RUN_UP = 2048


@dataclass(frozen=True)
class Place:
    """Where a stream begins and how it goes on.

    Parameters
    ----------
    start : float
        Frame of the file.
    speed : float
    loop : tuple of int, optional
        Frames of the file: from, to.
    """

    start: float
    speed: float = 1.0
    loop: tuple[int, int] | None = None


class SongStream:
    """Frames of a file at a device's rate, continuous from `place` to the end of the file, or for ever in a loop.

    At the end of a loop the sound fades over 5 ms into what comes before the loop's beginning, so that the loop keeps
    its length. At equal rates and a speed of 1 the frames are the file's, bit for bit; else soxr makes them.

    Parameters
    ----------
    reader : AudioReader
        Used by the newest stream alone.
    channels : int
        Of what is taken.
    mapping : tuple of int, optional
        1-based channels of the file.
    samplerate : int
        Of the device.
    place : Place

    Attributes
    ----------
    step : float
        Frames of the file per frame of the device.
    buffered : int
        Frames that can be taken.
    ended : bool
        Nothing follows what is buffered.
    error : AudioFileError or None
        Why it ended, when the file is damaged.

    Notes
    -----
    One thread calls `produce`, another one `take` and `skip`, which wait for nothing.
    """

    def __init__(
        self, reader: AudioReader, channels: int, mapping: tuple[int, ...] | None, samplerate: int, place: Place
    ) -> None:
        self._reader, self._channels, self._mapping = reader, channels, mapping
        self.place = place
        self.step = reader.samplerate * place.speed / samplerate
        self.ended = False
        self.error: AudioFileError | None = None
        self._blocks: collections.deque[tuple[Audio, float]] = collections.deque()
        self._offset = 0  # frames of the first block that were taken
        self._made = self._taken = 0
        fade = round(FADE_S * reader.samplerate)
        self._ramp: Audio = (np.arange(fade, 0, -1, dtype=np.float32) / np.float32(fade + 1))[:, None]
        self._lead = np.zeros((0, channels), np.float32)
        if place.loop is not None:
            count = min(fade, place.loop[0])
            reader.seek(place.loop[0] - count)
            self._lead = self._read(count)
        self._resampler: soxr.ResampleStream | None = None
        self._at = math.floor(place.start)
        self.position = float(place.start)
        """Frame of the file that is taken next."""
        if self.step != 1.0:
            self._at = max(0, self._at - _RUN_UP)
            rates = (reader.samplerate * place.speed, samplerate)
            self._resampler = soxr.ResampleStream(*rates, channels, "float32", "HQ")
            self._read_frames = self._out = 0
            self._left_out = math.ceil((place.start - self._at) / self.step)
            self._anchors: list[tuple[int, int, float]] = [(0, 0, float(self._at))]  # output, input, place in the file
        reader.seek(self._at)

    @property
    def buffered(self) -> int:
        """See the class."""
        return self._made - self._taken

    # --- reading thread -----------------------------------------------------------------------------------------------

    def produce(self) -> None:
        """Read one more piece of the file."""
        if self.ended:
            return
        try:
            piece, at = self._next_piece()
        except AudioFileError as error:
            self.error, self.ended = error, True
            return
        if self._resampler is None:
            self._put(piece, float(at))
        else:
            self._resample(self._resampler, piece, at)
        if not len(piece):
            self.ended = True

    def _next_piece(self) -> tuple[Audio, int]:
        """Return frames that follow one another in the file, none at its end, and where they begin."""
        at, loop = self._at, self.place.loop
        frames = self._reader.frames
        end = loop[1] if loop is not None and at < loop[1] else frames
        if at >= end and loop is None:
            return self._lead[:0], at
        if at >= end and loop is not None:  # it was begun behind the loop
            self._reader.seek(loop[0])
            at, end = loop
        piece = self._read(min(_PIECE, end - at))
        self._at = at + len(piece)
        if not len(piece):
            path, rate = self._reader.path, self._reader.samplerate
            raise AudioFileError(
                f"{path} is damaged: it ends at {at / rate:.2f} s of the {frames / rate:.2f} s it promises."
            )
        if loop is not None:
            self._fade(piece, at, end)
            if self._at == end:
                self._reader.seek(loop[0])
                self._at = loop[0]
        return piece, at

    def _fade(self, piece: Audio, at: int, end: int) -> None:
        """Let what lies before `end` fade into what comes before the loop's beginning."""
        first = max(at, end - len(self._ramp))
        if first >= at + len(piece):
            return
        part = piece[first - at :]
        place = first - (end - len(self._ramp))
        part *= self._ramp[place : place + len(part)]
        lead = end - len(self._lead)
        first = max(at, lead)
        if first < at + len(piece):
            part = piece[first - at :]
            added = self._lead[first - lead : first - lead + len(part)]
            rising = 1.0 - self._ramp[len(self._ramp) - len(self._lead) + first - lead :][: len(part)]
            part += added * rising

    def _read(self, count: int) -> Audio:
        frames = self._reader.read(count) if count else np.zeros((0, self._reader.channels), np.float32)
        return np.ascontiguousarray(map_channels(frames.T, self._channels, self._mapping).T)

    def _put(self, frames: Audio, position: float) -> None:
        if len(frames):
            self._blocks.append((frames, position))
            self._made += len(frames)

    def _resample(self, resampler: soxr.ResampleStream, piece: Audio, at: int) -> None:
        if len(piece) and at != self._anchors[-1][2] + self._read_frames - self._anchors[-1][1]:
            # The file jumped: from this output sample on, places are counted from here.
            self._anchors.append((math.ceil(self._read_frames / self.step), self._read_frames, float(at)))
        self._read_frames += len(piece)
        out = resampler.resample_chunk(piece, last=not len(piece))
        while len(out):
            while len(self._anchors) > 1 and self._anchors[1][0] <= self._out:
                self._anchors.pop(0)
            _, fed, place = self._anchors[0]
            count = len(out)
            if len(self._anchors) > 1:
                count = min(count, self._anchors[1][0] - self._out)
            skipped = min(count, self._left_out)
            self._left_out -= skipped
            position = place + (self._out + skipped) * self.step - fed
            self._put(np.ascontiguousarray(out[skipped:count]), position)
            self._out += count
            out = out[count:]

    # --- taking thread ------------------------------------------------------------------------------------------------

    def take(self, out: Audio) -> int:
        """Fill ``out`` [n, C] with what comes next; return how many frames there were."""
        done = 0
        while done < len(out) and self._blocks:
            block, position = self._blocks[0]
            count = min(len(out) - done, len(block) - self._offset)
            out[done : done + count] = block[self._offset : self._offset + count]
            self._advance(block, position, count)
            done += count
        return done

    def skip(self, count: int) -> None:
        """Leave frames out, as many as are buffered at most."""
        while count > 0 and self._blocks:
            block, position = self._blocks[0]
            part = min(count, len(block) - self._offset)
            self._advance(block, position, part)
            count -= part

    def _advance(self, block: Audio, position: float, count: int) -> None:
        self._offset += count
        self._taken += count
        self.position = position + self._offset * self.step
        if self._offset == len(block):
            self._blocks.popleft()
            self._offset = 0
            if self._blocks:
                self.position = self._blocks[0][1]
