"""A WAV writer whose file can be read at any moment."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import AudioFileError, UsageError

Audio = NDArray[np.float32]
SampleFormat = Literal["float", "pcm16", "pcm24"]
FORMATS: tuple[SampleFormat, ...] = get_args(SampleFormat)
_BYTES = {"float": 4, "pcm16": 2, "pcm24": 3}
# RIFF counts bytes in 32 bits; from here on the header is RF64 (EBU Tech 3306), for which room is kept.
_RIFF_LIMIT = 0xFFFFFFFF - 4096
_HEADER = 94


class WavWriter:
    """Write float32 blocks to a WAV file that stays valid all the time; context manager.

    The header is brought up to date every `header_every_s` seconds of audio and on `close`, so a killed process loses
    at most that much. Beyond 4 GiB the header turns into RF64.

    Parameters
    ----------
    path : path
        Ends in ``.wav``. An existing file is replaced.
    samplerate : int
        In hertz.
    channels : int
        1 or more.
    sample_format : {"float", "pcm16", "pcm24"}
        ``"float"`` keeps every bit; the integer formats clip at full scale.
    header_every_s : float
        Seconds of audio between two header updates.
    atomic : bool
        Write to ``<name>.part`` and rename on `close`: for offline results, which should be whole or absent. A live
        recording must not wait for its end.

    Raises
    ------
    AudioFileError
        The file cannot be created.
    UsageError
        The name does not end in ``.wav``, or the format is unknown.

    Notes
    -----
    Does file access: never call it on the worker thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        samplerate: int,
        channels: int,
        *,
        sample_format: SampleFormat = "float",
        header_every_s: float = 1.0,
        atomic: bool = False,
        riff_limit: int = _RIFF_LIMIT,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".wav":
            raise UsageError(
                f"{self.path}: audio is written as .wav; choose a name like {self.path.stem or 'out'}.wav."
            )
        if sample_format not in FORMATS:
            raise UsageError(f"sample format must be one of {', '.join(FORMATS)}, got {sample_format!r}.")
        self.samplerate, self.channels, self.sample_format = samplerate, channels, sample_format
        self.frames = 0
        self._frame_bytes = _BYTES[sample_format] * channels
        self._header_every = max(1, int(header_every_s * samplerate))
        self._header_frames = 0
        self._riff_limit = riff_limit
        self._target = self.path.with_name(self.path.name + ".part") if atomic else self.path
        self._failed = False
        born = self._target
        if os.name != "nt" and not os.path.lexists(born):  # a new file is not seen before it has its header
            born = born.with_name(f".{born.name}.{os.getpid()}")
        try:
            self._file: int | None = os.open(
                born, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError as error:
            raise AudioFileError(f"{self.path} cannot be written: {error.strerror}.") from error
        try:
            self._write_all(self._header())
            if born != self._target:
                os.replace(born, self._target)
        except OSError as error:
            with contextlib.suppress(OSError):
                born.unlink()
            self._abandon()
            raise AudioFileError(f"{self.path} cannot be written: {error.strerror}.") from error

    def write(self, frames: Audio) -> None:
        """Append ``frames`` [T, channels].

        Raises
        ------
        AudioFileError
            Disk full or another failure. What was written before stays readable and the file is closed.
        """
        if self._file is None:
            raise AudioFileError(f"{self.path} is closed.")
        if frames.ndim != 2 or frames.shape[1] != self.channels:
            raise UsageError(f"frames must be [T, {self.channels}], got shape {frames.shape}.")
        try:
            self._write_all(self._encode(frames))
        except OSError as error:
            self._fail()
            kept = f"The first {self.frames / self.samplerate:.1f} s are in it."
            if self._target != self.path:
                kept = "No half file is kept: make room and run it again."
            raise AudioFileError(f"{self.path} cannot be written any further: {error.strerror}. {kept}") from error
        self.frames += len(frames)
        if self.frames - self._header_frames >= self._header_every:
            self._update_header()

    def close(self) -> None:
        """Bring the header up to date, close, and rename when atomic; more than once does no harm."""
        if self._file is None:
            return
        try:
            if self.frames * self._frame_bytes % 2:
                self._write_all(b"\0")  # RIFF chunks end on even bytes
            self._update_header()
        except OSError as error:
            raise AudioFileError(f"{self.path} cannot be finished: {error.strerror}.") from error
        finally:
            os.close(self._file)
            self._file = None
        if self._target != self.path:
            os.replace(self._target, self.path)

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._target != self.path:
            self._abandon()
        else:
            self.close()

    def _abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        with contextlib.suppress(OSError):
            self._target.unlink()

    def _fail(self) -> None:
        """Keep whole frames only, and let the header say so."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            size = os.fstat(self._file).st_size
            self.frames = max(0, (size - _HEADER) // self._frame_bytes)
            os.ftruncate(self._file, _HEADER + self.frames * self._frame_bytes)
            self._update_header()
        os.close(self._file)
        self._file = None

    def _encode(self, frames: Audio) -> bytes:
        if self.sample_format == "float":
            return np.ascontiguousarray(frames, "<f4").tobytes()
        bits = 8 * _BYTES[self.sample_format]
        top = float(1 << (bits - 1))
        scaled = np.clip(np.rint(frames.astype(np.float64) * top), -top, top - 1).astype("<i4")
        if bits == 16:
            return scaled.astype("<i2").tobytes()
        return np.ascontiguousarray(scaled).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()

    def _write_all(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _update_header(self) -> None:
        assert self._file is not None
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._write_all(self._header())
        os.lseek(self._file, end, os.SEEK_SET)
        self._header_frames = self.frames

    def _header(self) -> bytes:
        size = self.frames * self._frame_bytes
        riff = size + _HEADER - 8
        big = riff > self._riff_limit
        sample = _BYTES[self.sample_format]
        # 28 bytes are kept for RF64's 64-bit sizes; until they are needed they are a chunk every reader skips.
        sizes = struct.pack("<QQQI", riff, size, self.frames, 0) if big else bytes(28)
        fmt = struct.pack(
            "<HHIIHHH",
            3 if self.sample_format == "float" else 1,
            self.channels,
            self.samplerate,
            self.samplerate * self._frame_bytes,
            self._frame_bytes,
            8 * sample,
            0,  # no extension follows; readers want to be told so for float
        )
        parts = (
            b"RF64" if big else b"RIFF",
            struct.pack("<I", 0xFFFFFFFF if big else riff),
            b"WAVE",
            (b"ds64" if big else b"JUNK") + struct.pack("<I", 28) + sizes,
            b"fmt " + struct.pack("<I", 18) + fmt,
            b"fact" + struct.pack("<II", 4, 0xFFFFFFFF if big else self.frames),
            b"data" + struct.pack("<I", 0xFFFFFFFF if big else size),
        )
        header = b"".join(parts)
        assert len(header) == _HEADER, len(header)
        return header
