"""Configuration of an engine; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rtsep.audio.backends import BackendConfig, DummyConfig, FileConfig, PortAudioConfig, backend_config
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.audio.song_config import SongConfig
    from rtsep.controls import Values
    from rtsep.plugins.spec import PluginSpec


@dataclass(frozen=True)
class EngineConfig:
    """Everything the engine process is told at its start.

    Parameters
    ----------
    model : str
        Name of a shipped model, ``"default"``, or the path of an ``.onnx`` file.
    backend : PortAudioConfig, DummyConfig or FileConfig
    slack_hops : int
        Hops the worker may be late; each adds a hop of latency. 0 to 64, default 1.
    provider : {"auto", "cpu", "cuda"}
    threads : int
        Intra-op threads of ONNX Runtime, 1 or more.
    mute, solo : tuple of str
        Stems.
    gain, pan : mapping
        Stem to dB (-120 to 24) and to -1 (left) to 1 (right).
    master_db : float
    controls : mapping
        Name of a control to its values at the start; the others start at their defaults.
    chains : mapping
        Stem, or ``"master"``, to the plugins it goes through.
    bypass, limiter : bool
    record : str, optional
        WAV file for what is heard; its frame 0 is frame 0 of the device's clock.
    record_captured : bool
        The file's frame 0 is instead what was captured as frame 0: the latency is taken out.
    tap : bool
        Give out the stems of every hop through shared memory, see `rtsep.notes.tap`.
    song : SongConfig, optional
        A file that plays in the place of what the device captures.
    resampler : {"QQ", "LQ", "MQ", "HQ", "VHQ"}
        Quality where the device's rate is not native to the model; LQ keeps the latency low.
    realtime : bool
        Ask for real-time scheduling. What was obtained is in `EngineStats.realtime`.
    reset_after_s : float
        A worker that is this far behind leaves hops out and starts the model anew. At least 0.05 s.
    device_timeout_s : float
        A device that delivers nothing for this long is lost. 0.3 s or more.
    start_timeout_s : float
        For loading the model and opening the device.
    """

    model: str = "default"
    backend: BackendConfig = field(default_factory=DummyConfig)
    slack_hops: int = 1
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    mute: tuple[str, ...] = ()
    solo: tuple[str, ...] = ()
    gain: Mapping[str, float] = field(default_factory=dict)
    pan: Mapping[str, float] = field(default_factory=dict)
    master_db: float = 0.0
    controls: Mapping[str, Values] = field(default_factory=dict)
    chains: Mapping[str, tuple[PluginSpec, ...]] = field(default_factory=dict)
    bypass: bool = False
    limiter: bool = False
    record: str | None = None
    record_captured: bool = False
    tap: bool = False
    song: SongConfig | None = None
    resampler: Literal["QQ", "LQ", "MQ", "HQ", "VHQ"] = "LQ"
    realtime: bool = True
    reset_after_s: float = 0.5
    device_timeout_s: float = 1.2
    start_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.slack_hops <= 64:
            raise UsageError(f"slack_hops must be 0 to 64, got {self.slack_hops}.")
        if self.song is not None and isinstance(self.backend, FileConfig):
            raise UsageError("The file backend has its file as input already; a song needs a device to play on.")
        if self.threads < 1:
            raise UsageError(f"threads must be 1 or more, got {self.threads}.")
        if self.provider not in ("auto", "cpu", "cuda"):
            raise UsageError(f"provider must be auto, cpu or cuda, got {self.provider!r}.")
        if self.reset_after_s < 0.05:
            raise UsageError(f"reset_after_s must be 0.05 or more, got {self.reset_after_s}.")
        if self.device_timeout_s < 0.3:
            raise UsageError(f"device_timeout_s must be 0.3 or more, got {self.device_timeout_s}.")


def choose_backend(backend: str | BackendConfig, device: dict[str, Any]) -> BackendConfig:
    """Return the configuration that the arguments of `Engine` ask for; UsageError when they do not go together."""
    if isinstance(backend, PortAudioConfig | FileConfig | DummyConfig):
        if device:
            raise UsageError(f"backend is a configuration; put {', '.join(device)} into it.")
        return backend
    if backend == "portaudio":
        device["input_channels"] = device.pop("channels", None)
    elif backend == "dummy" and "channels" in device:
        device["channels"] = len(device["channels"])
    elif backend == "file":
        for here, there in (("input_device", "input"), ("output_device", "output")):
            if here in device:
                device[there] = str(device.pop(here))
    return backend_config(backend, **device)
