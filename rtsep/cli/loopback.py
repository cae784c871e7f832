"""Measuring the round trip of a sound card through a cable from its output to its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtsep.errors import DeviceBusyError, DeviceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtsep.audio.backends import PortAudioConfig

_BURSTS = 4
_ENOUGH = 3  # a busy machine may lose a block under one of them
_BURST_SAMPLES = 1024
_SPACING_S = 0.4
_LEVEL = 0.25
_LEAST_CORRELATION = 0.5


@dataclass(frozen=True)
class RoundTrip:
    """What came back: samples between a frame given to the device and the same frame captured, each time."""

    samples: list[int]
    samplerate: int

    @property
    def median(self) -> int:
        """The middle one."""
        return sorted(self.samples)[len(self.samples) // 2]


def measure_round_trip(config: PortAudioConfig) -> RoundTrip:
    """Play noise bursts and find them in the recording.

    Parameters
    ----------
    config : PortAudioConfig
        Devices, rate, blocksize and latency as the engine would open them; the first channel of each is used.

    Raises
    ------
    DeviceError
        The device does not open, or nothing of the bursts came back.
    """
    import numpy as np

    from rtsep.audio.devices import find_device, load_sounddevice

    sd = load_sounddevice()
    source, target = find_device(config.input_device, "input"), find_device(config.output_device, "output")
    rate = config.samplerate or source.samplerate
    burst = (_LEVEL * np.random.default_rng(1).uniform(-1, 1, _BURST_SAMPLES)).astype(np.float32)
    spacing = round(_SPACING_S * rate)
    signal = np.zeros(((_BURSTS + 1) * spacing, 2), np.float32)
    for k in range(_BURSTS):
        at = spacing // 2 + k * spacing
        signal[at : at + _BURST_SAMPLES] = burst[:, None]
    outputs = config.output_channels or (1, 2)
    inputs = config.input_channels or (1, 2)
    try:
        recording = sd.playrec(
            signal[:, : len(outputs[:2])],
            rate,
            device=(source.index, target.index),
            input_mapping=list(inputs[:2]) if source.input_channels > 1 else [1],
            output_mapping=list(outputs[:2]),
            blocksize=config.blocksize,
            latency=config.latency,
            blocking=True,
        )
    except sd.PortAudioError as error:
        raise DeviceBusyError(
            f"{source} to {target} does not open at {rate} Hz: {error}. See: rtsep devices"
        ) from error
    return RoundTrip(_find(recording[:, 0], burst, spacing), rate)


def _find(recording: NDArray[np.float32], burst: NDArray[np.float32], spacing: int) -> list[int]:
    """Lag of every burst, by normalised cross-correlation."""
    import numpy as np

    lags: list[int] = []
    strongest = 0.0
    for k in range(_BURSTS):
        at = spacing // 2 + k * spacing
        window = recording[at : at + spacing].astype(np.float64)
        product: Any = np.correlate(window, burst.astype(np.float64), "valid")
        lag = int(np.argmax(np.abs(product)))
        there = window[lag : lag + len(burst)]
        scale = float(np.linalg.norm(burst) * np.linalg.norm(there)) or 1.0
        strongest = max(strongest, abs(float(product[lag])) / scale)
        if abs(float(product[lag])) / scale >= _LEAST_CORRELATION:
            lags.append(lag)
    if len(lags) < _ENOUGH:
        raise DeviceError(
            f"{len(lags)} of {_BURSTS} test sounds came back (correlation {strongest:.2f}). Connect the output to the "
            "input with a cable, turn the levels up, and choose the devices with -i and -o; see: rtsep devices"
        )
    return lags
