"""Reading audio files, whole or block by block."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtsep.audio.resampler import HIGHEST_RATE, LOWEST_RATE
from rtsep.errors import AudioFileError, UsageError

Audio = NDArray[np.float32]


class NonFiniteWarning(UserWarning):
    """NaN or infinite samples were read and replaced by zero."""


@dataclass(frozen=True)
class AudioData:
    """A file in memory.

    Parameters
    ----------
    audio : array [C, T]
        float32, full scale at -1 and 1, finite.
    samplerate : int
        In hertz.
    replaced : int
        NaN and infinite samples that became zero.
    """

    audio: Audio
    samplerate: int
    replaced: int


class AudioReader:
    """An open audio file that hands out blocks; context manager.

    Parameters
    ----------
    path : path
        WAV, FLAC, OGG, MP3, AIFF and whatever else libsndfile reads.

    Raises
    ------
    AudioFileError
        Missing, unreadable, not audio, empty, without samples, or with a rate outside 8000 to 192000 Hz.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.replaced = 0
        self._file = _open(self.path)
        self.samplerate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames
        try:
            if self.frames == 0:
                raise AudioFileError(f"{self.path} holds no samples (a header and nothing behind it).")
            if not LOWEST_RATE <= self.samplerate <= HIGHEST_RATE:
                raise AudioFileError(
                    f"{self.path} has {self.samplerate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} Hz can be read. "
                    f"Convert it first, for example: sox {self.path.name} -r 48000 converted.wav"
                )
        except AudioFileError:
            self._file.close()
            raise

    def read(self, frames: int) -> Audio:
        """Return the next ``[T, C]`` frames, fewer at the end, none after it. NaN and infinities come as zero.

        Raises
        ------
        AudioFileError
            When the data are damaged or cannot be read.
        """
        try:
            block: Audio = self._file.read(frames, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioFileError(f"{self.path} is damaged after frame {self._file.tell()}: {error}") from error
        finite = np.isfinite(block)
        if not finite.all():
            self.replaced += int(block.size - np.count_nonzero(finite))
            block[~finite] = 0.0
        return block

    def blocks(self, frames: int) -> Iterator[Audio]:
        """Yield all blocks ``[T, C]`` from here to the end."""
        while len(block := self.read(frames)):
            yield block

    def rewind(self) -> None:
        """Go back to the first frame. AudioFileError when the file cannot be sought in."""
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Go to a frame. AudioFileError when the file cannot be sought in."""
        try:
            self._file.seek(frame)
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioFileError(f"{self.path} cannot be sought in, to frame {frame}: {error}") from error

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._file.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_audio(path: str | os.PathLike[str]) -> AudioData:
    """Read a whole file.

    Parameters
    ----------
    path : path

    Returns
    -------
    AudioData
        ``audio`` is [C, T], C-contiguous.

    Raises
    ------
    AudioFileError
        As `AudioReader`; also when the data end before the header says.

    Warns
    -----
    NonFiniteWarning
        With the count, when NaN or infinite samples were replaced by zero.
    """
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(1 << 16))
        frames = sum(len(block) for block in blocks)
        if frames == 0:
            raise AudioFileError(
                f"{reader.path} is damaged: its header promises {reader.frames} frames, none are there."
            )
        audio = np.empty((reader.channels, frames), np.float32)
        start = 0
        for block in blocks:
            audio[:, start : start + len(block)] = block.T
            start += len(block)
    if reader.replaced:
        warnings.warn(
            f"{reader.path}: {reader.replaced} samples were NaN or infinite and became zero.",
            NonFiniteWarning,
            stacklevel=2,
        )
    return AudioData(audio, reader.samplerate, reader.replaced)


def check_mapping(mapping: Sequence[int], available: int, what: str) -> tuple[int, ...]:
    """Return `mapping` (1-based channel numbers) as a tuple when all exist among `available`; UsageError otherwise."""
    numbers = tuple(int(number) for number in mapping)
    if not numbers or min(numbers) < 1 or max(numbers) > available:
        raise UsageError(f"channels {numbers} do not fit {what}: it has channels 1 to {available}.")
    return numbers


def map_channels(audio: Audio, count: int, mapping: Sequence[int] | None = None) -> Audio:
    """Return ``audio`` [C, T] with `count` channels.

    Parameters
    ----------
    audio : array [C, T]
    count : int
        Channels wanted, 1 or more.
    mapping : sequence of int, optional
        1-based channels to take first. Without it files with more than `count` channels give their first ones (front
        left and right in every common order).

    Returns
    -------
    array [count, T]
        One channel is duplicated; several become one as their mean.

    Raises
    ------
    UsageError
        A channel of `mapping` does not exist, or the number cannot be matched (3 to 2 by mapping, say).
    """
    if mapping is not None:
        audio = audio[[number - 1 for number in check_mapping(mapping, len(audio), "the audio")]]
    elif len(audio) > count > 1:
        audio = audio[:count]
    if len(audio) == count:
        return np.ascontiguousarray(audio, np.float32)
    if len(audio) == 1:
        return np.repeat(audio, count, axis=0).astype(np.float32, copy=False)
    if count == 1:
        return np.asarray(audio.mean(axis=0, keepdims=True), np.float32)
    raise UsageError(f"{len(audio)} channels were chosen, {count} are needed; name {count} channels, or one.")


def _open(path: Path) -> Any:
    if not path.exists():
        raise AudioFileError(f"{path}: no such file.")
    if path.is_dir():
        raise AudioFileError(f"{path} is a folder, not an audio file.")
    try:
        if path.stat().st_size == 0:
            raise AudioFileError(f"{path} is empty (0 bytes).")
        return soundfile.SoundFile(path)
    except PermissionError as error:
        raise AudioFileError(f"{path} cannot be read: {error.strerror}.") from error
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise AudioFileError(
            f"{path} cannot be read as audio: {error} "
            f"Known formats: {', '.join(sorted(soundfile.available_formats()))}."
        ) from error
