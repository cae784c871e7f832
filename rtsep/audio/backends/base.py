"""What the engine asks of a device, whichever it is.

The clock is the number of frames captured so far. In the callback that captures frame `n`, the device takes one frame
from the output ring; while output runs, ``captured - consumed`` is therefore constant, and the frame number at which a
ring sample will be played is known for ever. Output stops at the first shortage (as rtmixer's does) and must be armed
again; a new constant follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class XrunCounts:
    """Times the device itself lost audio, by kind."""

    input_underflow: int = 0
    input_overflow: int = 0
    output_underflow: int = 0
    output_overflow: int = 0

    @property
    def total(self) -> int:
        """Sum of all kinds."""
        return self.input_underflow + self.input_overflow + self.output_underflow + self.output_overflow


class Backend(Protocol):
    """One device, or something that behaves as one.

    All methods but `open`, `start` and `stop` are real-time safe. Callers serialise them (the engine holds one lock);
    the device's own thread needs no lock.
    """

    samplerate: int
    input_channels: int
    output_channels: int
    paced: bool
    """False when the device waits for the engine instead of the clock."""
    device_in: int
    device_out: int
    """Frames of latency outside the stream; valid after `start`."""
    seam: int | None
    """Position from which the input has nothing to do with what was before it; whoever has seen it sets it to None."""

    @property
    def block(self) -> int:
        """Frames per callback, the largest seen; 0 as long as it is not known."""
        ...

    @property
    def block_varies(self) -> bool:
        """Callbacks of different sizes were seen."""
        ...

    @property
    def preset_clock(self) -> bool:
        """Output armed before `start` begins together with the input: captured - consumed is then 0."""
        ...

    @property
    def captured(self) -> int:
        """Frames captured since `start`: the clock."""
        ...

    @property
    def readable(self) -> int:
        """Captured frames not read yet."""
        ...

    @property
    def input_active(self) -> bool:
        """False after the input ring overflowed: frames are being lost."""
        ...

    @property
    def output_active(self) -> bool:
        """Output is armed and has not run dry."""
        ...

    @property
    def consumed(self) -> int:
        """Frames the device took since output was last armed."""
        ...

    @property
    def output_fill(self) -> int:
        """Frames written and not taken yet."""
        ...

    @property
    def output_space(self) -> int:
        """Frames that can be written now."""
        ...

    @property
    def finished(self) -> bool:
        """The input has ended and everything that follows from it was played."""
        ...

    def start(self) -> None:
        """Run the device and begin capturing. Raises DeviceError."""
        ...

    def read(self, frames: Audio) -> int:
        """Read captured frames into ``frames`` [T, input_channels]; return how many."""
        ...

    def write(self, frames: Audio) -> int:
        """Queue ``frames`` [T, output_channels]; return how many fitted."""
        ...

    def arm_output(self, prefill: int) -> None:
        """Throw away what is queued, queue `prefill` frames of silence, and let the device take frames from it."""
        ...

    def rearm_input(self) -> None:
        """Throw away what was captured and not read, and capture again. `captured` goes on counting."""
        ...

    def expect_tail(self, frames: int) -> None:
        """Go on with silence for this many frames after the end of a file."""
        ...

    def begin_at(self, position: int) -> None:
        """What is captured from this position on will be heard: the clock has been found."""
        ...

    def xruns(self) -> XrunCounts:
        """Return the device's own losses since `start`."""
        ...

    def wait(self, frames: int, seconds: float) -> None:
        """Return after about `seconds`, or, when not paced, as soon as `frames` can be read."""
        ...

    def inject(self, what: str, seconds: float) -> None:
        """For tests: ``"stall"`` or ``"vanish"`` the device. Devices with a wire to the world ignore it."""
        ...

    def stop(self, timeout: float) -> bool:
        """Stop and close within `timeout` seconds; False when the device hangs and was abandoned."""
        ...
