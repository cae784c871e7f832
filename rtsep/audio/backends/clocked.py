"""Backends without hardware: a thread that moves blocks, paced by absolute time or by the engine."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends import DummyConfig, FileConfig
from rtsep.audio.backends.base import XrunCounts
from rtsep.audio.files import AudioReader, check_mapping
from rtsep.audio.ring import FrameRing
from rtsep.audio.wav import WavWriter
from rtsep.errors import RtsepError, UsageError

Audio = NDArray[np.float32]
Source = Callable[[Audio], int]
"""Fills ``[T, C]`` and returns how many frames were real; fewer than asked means the end."""

_RING_SECONDS = 4.0
_LATE_S = 0.05
# A device never delivers a burst of blocks: a late thread catches up at this part of the usual distance.
_CATCH_UP = 0.75
_PRIORITY = 65


class ClockedBackend:
    """The device thread behind the `dummy` and the `file` backend; see `rtsep.audio.backends.base.Backend`.

    Keeps rtmixer's rules: input and output move in one callback, and either stops at its first shortage. A thread that
    comes more than 50 ms late loses the blocks in between, as a sound server does, and counts an xrun; otherwise blocks
    keep to ``start + k * block / samplerate`` without drift; a thread that is a little late catches up without a burst.
    """

    def __init__(
        self,
        source: Source,
        samplerate: int,
        input_channels: int,
        output_channels: int,
        block: int,
        *,
        paced: bool = True,
        loopback: bool = False,
        frames: int | None = None,
        writer: WavWriter | None = None,
        close: Callable[[], None] | None = None,
    ) -> None:
        if block < 1:
            raise UsageError(f"blocksize must be 1 or more for this backend, got {block}.")
        self.samplerate, self.paced = samplerate, paced
        self.input_channels, self.output_channels = input_channels, output_channels
        self.device_in = block if loopback else 0
        self.device_out = 0
        self.error: RtsepError | None = None
        self._block = block
        self._source, self._loopback, self._writer, self._close = source, loopback, writer, close
        ring = max(int(_RING_SECONDS * samplerate), 8 * block)
        self._input = FrameRing(ring, input_channels)
        self._output = FrameRing(ring, output_channels)
        self._heard = np.zeros((block, output_channels), np.float32)
        self._captured_block = np.zeros((block, input_channels), np.float32)
        self._recording, self._playing = True, False
        self._remaining: int | None = frames
        self._tail = 0
        self._lost = 0
        self._stall_s = 0.0
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    block_varies = False
    preset_clock = True
    seam: int | None = None

    @property
    def block(self) -> int:
        return self._block

    @property
    def captured(self) -> int:
        return self._input.written

    @property
    def readable(self) -> int:
        return self._input.fill

    @property
    def input_active(self) -> bool:
        return self._recording

    @property
    def output_active(self) -> bool:
        return self._playing

    @property
    def consumed(self) -> int:
        return self._output.consumed

    @property
    def output_fill(self) -> int:
        return self._output.fill

    @property
    def output_space(self) -> int:
        return self._output.space

    @property
    def finished(self) -> bool:
        return self._ended

    def start(self) -> None:
        self._thread.start()

    def read(self, frames: Audio) -> int:
        count = self._input.read(frames)
        if not self.paced:
            self._notify()
        return count

    def write(self, frames: Audio) -> int:
        count = self._output.write(frames)
        if not self.paced:
            self._notify()
        return count

    def arm_output(self, prefill: int) -> None:
        self._output.clear()
        if prefill:
            self._output.write(np.zeros((prefill, self.output_channels), np.float32))
        self._playing = True

    def rearm_input(self) -> None:
        self._input.consumed = self._input.written
        self._recording = True

    def expect_tail(self, frames: int) -> None:
        self._tail = frames

    def begin_at(self, position: int) -> None:
        pass

    def xruns(self) -> XrunCounts:
        return XrunCounts(input_overflow=self._lost, output_underflow=self._lost)

    def inject(self, what: str, seconds: float) -> None:
        if what == "stall":
            self._stall_s = seconds
        elif what == "vanish":
            self._stall_s = 1e9

    def wait(self, frames: int, seconds: float) -> None:
        if self.paced:
            time.sleep(seconds)
            return
        with self._changed:
            self._changed.wait_for(lambda: self._input.fill >= frames or self._ended, 0.05)

    def stop(self, timeout: float) -> bool:
        self._stopping.set()
        self._notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        alive = self._thread.is_alive()
        if not alive:
            self._finish()
        return not alive

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._close is not None:
            self._close()
            self._close = None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        if self.paced:
            # As a sound server's thread: it must not wait for Python threads of the same process.
            with contextlib.suppress(OSError, AttributeError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        try:
            if self.paced:
                self._run_paced()
            else:
                self._run_free()
        except RtsepError as error:
            self.error = error
            self._ended = True

    def _run_paced(self) -> None:
        period = self._block / self.samplerate
        due = time.monotonic() + period
        last = due - period
        while not self._stopping.is_set() and not self._ended:
            wait = max(due, last + _CATCH_UP * period) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if self._stall_s:
                self._stopping.wait(self._stall_s)
                self._stall_s = 0.0
            if self._stopping.is_set():
                return
            last = time.monotonic()
            if last - due > _LATE_S:
                due = last
                self._lost += 1
            self._callback()
            due += period

    def _run_free(self) -> None:
        while not self._stopping.is_set() and not self._ended:
            if self._may_run():
                self._callback()
                self._notify()
            else:
                with self._changed:
                    self._changed.wait_for(self._may_run, 0.05)

    def _may_run(self) -> bool:
        room = self._input.space >= self._block
        return room and self._playing and self._output.fill >= self._block and not self._stall_s

    def _callback(self) -> None:
        block = self._captured_block
        if self._remaining is None or self._remaining > 0:
            real = self._source(block)
            if self._remaining is not None:
                real = min(real, self._remaining)
                self._remaining -= real
            if real < self._block:
                block[real:] = 0.0
                self._remaining = 0
                self._tail -= self._block - real
        else:
            block[:] = 0.0
            self._tail -= self._block
        if self._loopback:
            block += self._heard
        if self._recording and self._input.write(block) < self._block:
            self._recording = False
        heard = self._heard
        heard[:] = 0.0
        if self._playing and self._output.read(heard) < self._block:
            self._playing = False
        ending = self._remaining == 0 and self._tail <= 0
        if self._writer is not None:
            # The last block may reach past the end of the tail: write what belongs to it.
            self._writer.write(heard[: self._block + min(0, self._tail)] if ending else heard)
        if ending:
            self._ended = True


def open_dummy_backend(config: DummyConfig) -> ClockedBackend:
    """Open the clocked dummy; UsageError for impossible sizes."""
    if config.channels < 1:
        raise UsageError(f"channels must be 1 or more, got {config.channels}.")
    source = _source(config)
    frames = None if config.duration_s is None else _duration_frames(config)
    return ClockedBackend(
        source,
        config.samplerate,
        config.channels,
        config.channels,
        config.blocksize,
        loopback=config.loopback,
        frames=frames,
    )


def open_file_backend(config: FileConfig) -> ClockedBackend:
    """Open the file backend; AudioFileError when a file cannot be read or created."""
    if not config.input:
        raise UsageError("The file backend needs an input file: FileConfig(input='song.wav').")
    reader = AudioReader(config.input)
    try:
        mapping = check_mapping(config.channels or range(1, min(reader.channels, 2) + 1), reader.channels, config.input)
        columns = [number - 1 for number in mapping]
        writer = WavWriter(config.output, reader.samplerate, max(2, len(columns))) if config.output else None
    except RtsepError:
        reader.close()
        raise

    def source(block: Audio) -> int:
        filled = 0
        while filled < len(block):
            frames = reader.read(len(block) - filled)
            if not len(frames):
                if not config.loop:
                    break
                reader.rewind()
                continue
            block[filled : filled + len(frames)] = frames[:, columns]
            filled += len(frames)
        return filled

    try:
        return ClockedBackend(
            source,
            reader.samplerate,
            len(columns),
            max(2, len(columns)),
            config.blocksize,
            paced=config.realtime,
            frames=None if config.loop else reader.frames,
            writer=writer,
            close=reader.close,
        )
    except UsageError:
        reader.close()
        raise


def dummy_source_samples(config: DummyConfig, frames: int) -> Audio:
    """Return the first ``[T, C]`` frames that the dummy's input hears; what tests compare against."""
    source = _source(config)
    blocks = -(-frames // config.blocksize)
    out = np.zeros((blocks * config.blocksize, config.channels), np.float32)
    for index in range(blocks):
        source(out[index * config.blocksize : (index + 1) * config.blocksize])
    if config.duration_s is not None:
        out[_duration_frames(config) :] = 0.0
    return out[:frames]


def _duration_frames(config: DummyConfig) -> int:
    return max(1, round((config.duration_s or 0.0) * config.samplerate))


def _source(config: DummyConfig) -> Source:
    position = 0
    generator = np.random.default_rng(config.seed)

    def fill(block: Audio) -> int:
        nonlocal position
        count = len(block)
        if config.source == "noise":
            block[:] = 0.1 * generator.standard_normal(block.shape, np.float32)
        elif config.source == "sine":
            times = np.arange(position, position + count) / config.samplerate
            block[:] = (0.25 * np.sin(2 * np.pi * 440.0 * times))[:, None]
        else:
            block[:] = 0.0
            if config.source == "impulse" and position <= config.impulse_at < position + count:
                block[config.impulse_at - position] = 0.5
        position += count
        return count

    if config.source not in ("silence", "noise", "sine", "impulse"):
        raise UsageError(f"dummy source must be silence, noise, sine or impulse, got {config.source!r}.")
    return fill


__all__ = ["ClockedBackend", "dummy_source_samples", "open_dummy_backend", "open_file_backend"]
