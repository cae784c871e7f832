"""Backends: the devices the engine can drive, all behind one interface (`rtsep.audio.backends.base`).

Configurations live here and import nothing heavy; `open_backend` loads the one that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rtsep.errors import UsageError, suggest

if TYPE_CHECKING:
    from rtsep.audio.backends.base import Backend

DummySource = Literal["silence", "noise", "sine", "impulse"]


@dataclass(frozen=True)
class PortAudioConfig:
    """A sound card, JACK, PipeWire: whatever PortAudio reaches.

    Parameters
    ----------
    input_device, output_device : int, str or None
        Index or part of a name; the system's default when None. Give both the same device where possible: two devices
        have two clocks.
    samplerate : int, optional
        In hertz; the device's own when None (on JACK the server decides).
    blocksize : int
        Frames per callback; 0 lets the device choose and costs the least latency (JACK adds a block for any other).
    input_channels, output_channels : tuple of int, optional
        1-based channels to use; the first two (one where the device has one) when None.
    latency : "low", "high" or float
        Suggested to PortAudio, in seconds when a number.
    client_name : str
        How JACK shows the ports: ``<client_name>:in_0``.
    """

    input_device: int | str | None = None
    output_device: int | str | None = None
    samplerate: int | None = None
    blocksize: int = 0
    input_channels: tuple[int, ...] | None = None
    output_channels: tuple[int, ...] | None = None
    latency: Literal["low", "high"] | float = "low"
    client_name: str = "rtsep"


@dataclass(frozen=True)
class DummyConfig:
    """A device without hardware: a thread that moves blocks at the right times.

    Parameters
    ----------
    samplerate, blocksize : int
        In hertz and frames.
    channels : int
        In and out.
    source : {"silence", "noise", "sine", "impulse"}
        What the input hears: seeded noise at -20 dBFS, 440 Hz at -12 dBFS, an impulse of 0.5 after `impulse_at` frames.
    seed, impulse_at : int
    loopback : bool
        Feed the output back to the input, one block later, as a cable between the sockets of a real device does. The
        impulse then comes round once every total latency.
    duration_s : float, optional
        Ends by itself after this time.
    """

    samplerate: int = 48_000
    blocksize: int = 128
    channels: int = 2
    source: DummySource = "silence"
    seed: int = 0
    impulse_at: int = 4800
    loopback: bool = False
    duration_s: float | None = None


@dataclass(frozen=True)
class FileConfig:
    """A file as the input device, and possibly one as the output device.

    Parameters
    ----------
    input : str
        Path of the audio file to play into the engine.
    output : str, optional
        WAV file that gets what the output device hears: as long as the input plus the total latency.
    blocksize : int
        Frames per block.
    realtime : bool
        Paced by the clock; otherwise as fast as the engine goes, and no hop is ever late.
    channels : tuple of int, optional
        1-based channels of the file to use.
    loop : bool
        Start over at the end, for ever.
    """

    input: str = ""
    output: str | None = None
    blocksize: int = 256
    realtime: bool = True
    channels: tuple[int, ...] | None = None
    loop: bool = False


BackendConfig = PortAudioConfig | DummyConfig | FileConfig
NAMES: dict[str, type[Any]] = {"portaudio": PortAudioConfig, "file": FileConfig, "dummy": DummyConfig}


def backend_config(name: str, **settings: Any) -> BackendConfig:
    """Return the configuration of the backend called `name`.

    Raises
    ------
    UsageError
        No backend of that name, or it has no such setting.
    """
    if name not in NAMES:
        raise UsageError(f"No backend named {name!r}; there are {', '.join(NAMES)}.{suggest(name, NAMES)}")
    allowed = NAMES[name].__dataclass_fields__
    for key in settings:
        if key not in allowed:
            raise UsageError(
                f"Backend {name} has no setting {key!r}; it has {', '.join(allowed)}.{suggest(key, allowed)}"
            )
    config: BackendConfig = NAMES[name](**settings)
    return config


def open_backend(config: BackendConfig) -> Backend:
    """Open the backend of `config`; it does not run yet.

    Raises
    ------
    DeviceError
        The device cannot be found or opened.
    AudioFileError
        A file cannot be read or created.
    """
    if isinstance(config, PortAudioConfig):
        from rtsep.audio.backends.portaudio import PortAudioBackend

        return PortAudioBackend(config)
    from rtsep.audio.backends import clocked

    if isinstance(config, FileConfig):
        return clocked.open_file_backend(config)
    return clocked.open_dummy_backend(config)


__all__ = [
    "NAMES",
    "BackendConfig",
    "DummyConfig",
    "DummySource",
    "FileConfig",
    "PortAudioConfig",
    "backend_config",
    "open_backend",
]
