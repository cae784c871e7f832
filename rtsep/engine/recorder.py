"""Writing down what is heard, away from the real-time threads."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.ring import FrameRing
from rtsep.audio.wav import WavWriter
from rtsep.engine.realtime import SERVICE_PRIORITY, make_thread_realtime
from rtsep.errors import AudioFileError

Audio = NDArray[np.float32]

_SECONDS = 8.0
_POLL_S = 0.1


class Recorder:
    """A ring and a thread that empties it into a WAV file.

    Frame 0 of the file is frame 0 of the device's clock, so the file is aligned with what was captured.

    Parameters
    ----------
    path : path
        Ends in ``.wav``.
    samplerate, channels : int
    realtime : bool
        Give the thread a low real-time priority, see `rtsep.engine.realtime`.
    drop : bool
        When the disk is too slow: True loses frames and counts them, False makes `put` wait (only without a clock).

    Raises
    ------
    AudioFileError
        The file cannot be created.

    Attributes
    ----------
    path : Path
    heard : int
        Frames of the device's clock so far: what may be written.
    skip : int
        Frames to leave out at the beginning; to be set before the first `put`.

    Notes
    -----
    `put` and setting `heard` are real-time safe with ``drop=True``; all else is not.
    """

    def __init__(
        self, path: str | Path, samplerate: int, channels: int, *, drop: bool = True, realtime: bool = False
    ) -> None:
        self.path = Path(path)
        self.heard = self.skip = 0
        self.lost = 0
        self.error: AudioFileError | None = None
        self.frames = 0
        self._drop, self._realtime = drop, realtime
        self._made_up = self._skipped = 0
        self._writer = WavWriter(path, samplerate, channels)
        self._ring = FrameRing(int(_SECONDS * samplerate), channels)
        self._chunk = np.zeros((8192, channels), np.float32)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, frames: Audio) -> None:
        """Append ``frames`` [T, channels]; never blocks when dropping."""
        if self.error is not None:
            return
        if self._skipped < self.skip:
            count = min(self.skip - self._skipped, len(frames))
            self._skipped += count
            frames = frames[count:]
        if self.lost > self._made_up:
            # The thread writes silence for what is missing first, so that the rest stays in its place.
            self.lost += len(frames)
            return
        done = self._ring.write(frames)
        while done < len(frames):
            if self._drop:
                self.lost += len(frames) - done
                return
            if self.error is not None or self._closing.is_set():
                return
            time.sleep(0.001)
            done += self._ring.write(frames[done:])

    def close(self, timeout: float = 5.0) -> None:
        """Write the rest of what was heard and close the file."""
        self._closing.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        if self._realtime:
            make_thread_realtime(SERVICE_PRIORITY)
        try:
            while not self._closing.wait(_POLL_S if self._drop else 0.005):
                self._drain()
            self._drain()
        except AudioFileError as error:
            self.error = error
        finally:
            with contextlib.suppress(AudioFileError):
                self._writer.close()

    def _drain(self) -> None:
        # Frames are queued before they are played; those never played must not be in the file.
        heard = self.heard - self.skip
        while (count := min(heard - self.frames, self._ring.fill, len(self._chunk))) > 0:
            part = self._chunk[:count]
            self._ring.read(part)
            self._writer.write(part)
            self.frames += count
        if self._ring.fill:
            return
        while (count := min(heard - self.frames, self.lost - self._made_up, len(self._chunk))) > 0:
            part = self._chunk[:count]
            part[:] = 0.0
            self._writer.write(part)
            self.frames += count
            self._made_up += count
