"""PortAudio through rtmixer: a C callback between the device and two rings, no Python in it."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends import PortAudioConfig
from rtsep.audio.backends.base import XrunCounts
from rtsep.audio.devices import Device, find_device, load_sounddevice
from rtsep.audio.files import check_mapping
from rtsep.errors import DeviceBusyError, DeviceError, DeviceLostError

Audio = NDArray[np.float32]

_RING_SECONDS = 4.0
_FIRST_BLOCK_TIMEOUT_S = 3.0
# Some servers report nonsense (PipeWire's JACK library: 89478482 ms); anything beyond this is not believed.
_LATENCY_BELIEVED_S = 1.0
# PortAudio keeps the pointer it is given, so the name must outlive it.
_client_name: bytes = b""


class PortAudioBackend:
    """See `rtsep.audio.backends.base.Backend`.

    Parameters
    ----------
    config : PortAudioConfig

    Raises
    ------
    DeviceError
        PortAudio is missing, no or several devices match, or the device does not open with these settings.
    UsageError
        A channel that the device does not have.

    Notes
    -----
    rtmixer drops a ring action for ever at its first shortage (``remove_action`` in its callback), after having moved
    what there was; `output_active` and `input_active` tell, `arm_output` and `rearm_input` start a new one.
    """

    paced = True
    preset_clock = False
    seam: int | None = None

    def __init__(self, config: PortAudioConfig) -> None:
        sd = load_sounddevice()
        _name_jack_client(sd, config.client_name)
        import rtmixer

        source = find_device(config.input_device, "input")
        target = find_device(config.output_device, "output")
        self._in_map = _mapping(config.input_channels, source.input_channels, f"input device {source}")
        self._out_map = _mapping(config.output_channels, target.output_channels, f"output device {target}")
        opened = (
            _stream_channels(self._in_map, source.input_channels, source),
            _stream_channels(self._out_map, target.output_channels, target),
        )
        rate = config.samplerate or source.samplerate
        try:
            self._mixer = rtmixer.MixerAndRecorder(
                device=(source.index, target.index),
                channels=opened,
                samplerate=rate,
                blocksize=config.blocksize,
                latency=config.latency,
            )
        except sd.PortAudioError as error:
            raise DeviceBusyError(_why_not(error, source, target, rate, config)) from error
        self.samplerate = int(self._mixer.samplerate)
        self.input_channels, self.output_channels = len(self._in_map), len(self._out_map)
        self.device_in = self.device_out = 0
        size = 1 << int(np.ceil(np.log2(_RING_SECONDS * self.samplerate)))
        self._in_ring = rtmixer.RingBuffer(4 * self.input_channels, size)
        self._out_ring = rtmixer.RingBuffer(4 * self.output_channels, size)
        self._silence = np.zeros((size // 4, self.output_channels), np.float32)
        self._in_action: Any = None
        self._out_action: Any = None
        self._in_taken = 0
        self._out_given = 0
        self._past_xruns = [0, 0, 0, 0]
        self._largest = 0
        self._smallest = 1 << 30

    @property
    def block(self) -> int:
        self._look_at_blocks()
        return self._largest

    @property
    def block_varies(self) -> bool:
        self._look_at_blocks()
        return self._smallest < self._largest

    @property
    def captured(self) -> int:
        return self._in_taken + int(self._in_ring.read_available)

    @property
    def readable(self) -> int:
        return int(self._in_ring.read_available)

    @property
    def input_active(self) -> bool:
        return self._in_action in self._mixer.actions

    @property
    def output_active(self) -> bool:
        return self._out_action is not None and self._out_action in self._mixer.actions

    @property
    def consumed(self) -> int:
        return self._out_given - int(self._out_ring.read_available)

    @property
    def output_fill(self) -> int:
        return int(self._out_ring.read_available)

    @property
    def output_space(self) -> int:
        return int(self._out_ring.write_available)

    finished = False

    def start(self) -> None:
        sd = load_sounddevice()
        self._in_action = self._mixer.record_ringbuffer(self._in_ring, channels=self._in_map)
        try:
            self._mixer.start()
        except sd.PortAudioError as error:
            raise DeviceBusyError(
                f"The device opened but does not start: {error}. Is another program using it?"
            ) from error
        # The block size is the device's choice and shows in the callbacks; a few of them tell whether it is constant.
        deadline = time.monotonic() + _FIRST_BLOCK_TIMEOUT_S
        while self._in_action.stats.blocks < 8:
            if time.monotonic() > deadline:
                raise DeviceLostError(
                    f"The device delivered {self._in_action.stats.blocks} blocks in {_FIRST_BLOCK_TIMEOUT_S:.0f} s. "
                    "Is the sound server alive? See: rtsep doctor"
                )
            time.sleep(0.002)
        self._set_device_latency()

    def read(self, frames: Audio) -> int:
        count = int(self._in_ring.readinto(frames))
        self._in_taken += count
        return count

    def write(self, frames: Audio) -> int:
        count = int(self._out_ring.write(frames))
        self._out_given += count
        return count

    def arm_output(self, prefill: int) -> None:
        # Only called while no action plays, so nobody reads the ring that is flushed here.
        self._out_ring.flush()
        self._out_given = 0
        if prefill:
            self.write(self._silence[:prefill])
        self._out_action = self._mixer.play_ringbuffer(self._out_ring, channels=self._out_map)

    def rearm_input(self) -> None:
        self._keep_xruns()
        self._in_taken += int(self._in_ring.read_available)
        self._in_ring.flush()
        self._in_action = self._mixer.record_ringbuffer(self._in_ring, channels=self._in_map)

    def expect_tail(self, frames: int) -> None:
        pass

    def begin_at(self, position: int) -> None:
        pass

    def xruns(self) -> XrunCounts:
        stats = self._in_action.stats if self._in_action is not None else None
        now = (
            (stats.input_underflows, stats.input_overflows, stats.output_underflows, stats.output_overflows)
            if stats is not None
            else (0, 0, 0, 0)
        )
        return XrunCounts(*(int(a + b) for a, b in zip(self._past_xruns, now, strict=True)))

    def inject(self, what: str, seconds: float) -> None:
        pass

    def wait(self, frames: int, seconds: float) -> None:
        time.sleep(seconds)  # the C callback wakes nobody

    def stop(self, timeout: float) -> bool:
        # With a killed JACK server Pa_StopStream never returns, so it gets a thread that can be left behind.
        def close() -> None:
            self._mixer.abort(ignore_errors=True)
            self._mixer.close(ignore_errors=True)

        closing = threading.Thread(target=close, name="close-device", daemon=True)
        closing.start()
        closing.join(timeout)
        return not closing.is_alive()

    def _keep_xruns(self) -> None:
        counts = self.xruns()
        self._past_xruns = [
            counts.input_underflow,
            counts.input_overflow,
            counts.output_underflow,
            counts.output_overflow,
        ]

    def _look_at_blocks(self) -> None:
        if self._in_action is not None and self._in_action.stats.blocks:
            self._largest = max(self._largest, int(self._in_action.stats.max_blocksize))
            self._smallest = min(self._smallest, int(self._in_action.stats.min_blocksize))

    def _set_device_latency(self) -> None:
        """Split what PortAudio reports; see docs/latency.md for what the numbers mean on which host API."""
        reported = [
            round(seconds * self.samplerate) if 0.0 <= seconds < _LATENCY_BELIEVED_S else 0
            for seconds in self._mixer.latency
        ]
        block = self.block
        # A frame cannot reach the callback before its block is full, whatever is reported.
        self.device_in = max(reported[0], block)
        self.device_out = max(sum(reported) - self.device_in, 0)


def _mapping(wanted: tuple[int, ...] | None, available: int, what: str) -> tuple[int, ...]:
    return check_mapping(wanted or range(1, min(available, 2) + 1), available, what)


def _stream_channels(mapping: tuple[int, ...], available: int, device: Device) -> int:
    """Open two channels or more: one-channel streams corrupt the heap in PortAudio's JACK code (19.6)."""
    if available < 2 and "JACK" in device.hostapi:
        raise DeviceError(
            f"{device} has one channel, and PortAudio's JACK support is unsafe with one-channel streams. "
            "Choose a device with two or more."
        )
    return max(*mapping, min(2, available), 1)


def _why_not(error: Exception, source: Device, target: Device, rate: int, config: PortAudioConfig) -> str:
    text = f"{source} to {target} does not open at {rate} Hz, blocksize {config.blocksize}: {error}."
    if "sample rate" in str(error).lower():
        text += f" Try --samplerate {source.samplerate}"
        text += "; JACK's rate is the server's." if "JACK" in source.hostapi else "."
    else:
        text += " Is another program using it? See: rtsep devices"
    return text


def _name_jack_client(sd: Any, name: str) -> None:
    """Set the name of our JACK ports; it must be known before PortAudio starts, so PortAudio starts once more."""
    global _client_name
    wanted = name.encode()
    if wanted == _client_name or sys.platform == "win32":
        return
    try:
        set_name = ctypes.CDLL(sd._libname).PaJack_SetClientName
    except (OSError, AttributeError):
        return  # a PortAudio built without JACK
    _client_name = wanted
    sd._terminate()
    set_name(ctypes.c_char_p(_client_name))
    try:
        sd._initialize()
    except sd.PortAudioError as error:
        raise DeviceError(f"PortAudio does not start: {error}. See: rtsep doctor") from error
