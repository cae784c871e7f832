"""Finding audio devices by index or part of a name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rtsep.errors import DeviceAmbiguousError, DeviceError, DeviceNotFoundError

Kind = Literal["input", "output"]

_NO_PORTAUDIO = (
    "PortAudio is not installed, so no sound card can be used. Install it with: apt-get install libportaudio2 "
    "(Debian, Ubuntu), dnf install portaudio (Fedora), brew install portaudio (macOS). "
    "Files need none: rtsep demo, rtsep separate, and --backend file or dummy."
)


@dataclass(frozen=True)
class Device:
    """One device as PortAudio sees it.

    Parameters
    ----------
    index : int
    name, hostapi : str
    input_channels, output_channels : int
        The most it has; 0 when it has none.
    samplerate : int
        Its default, in hertz.
    low_latency_ms : tuple of float
        Input and output, as the driver claims.
    default_input, default_output : bool
    """

    index: int
    name: str
    hostapi: str
    input_channels: int
    output_channels: int
    samplerate: int
    low_latency_ms: tuple[float, float]
    default_input: bool
    default_output: bool

    def __str__(self) -> str:
        return f"[{self.index}] {self.name}, {self.hostapi} ({self.input_channels} in, {self.output_channels} out)"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


def load_sounddevice() -> Any:
    """Import and return sounddevice.

    Raises
    ------
    DeviceError
        PortAudio's library is missing or cannot start; the text says how to install it and what works without.
    """
    try:
        import sounddevice
    except (OSError, ImportError) as error:
        raise DeviceError(f"{_NO_PORTAUDIO} ({error})") from error
    except Exception as error:  # sounddevice.PortAudioError, whose class cannot be named before the import
        raise DeviceError(f"PortAudio does not start: {error}") from error
    return sounddevice


def list_devices() -> list[Device]:
    """Return all devices; an empty list when there are none. DeviceError when PortAudio is missing."""
    sd = load_sounddevice()
    try:
        apis = sd.query_hostapis()
        found = sd.query_devices()
    except sd.PortAudioError as error:
        raise DeviceError(f"PortAudio cannot list devices: {error}. See: rtsep doctor") from error
    default_in, default_out = _defaults(apis, sd.default.device)
    devices = []
    for index, info in enumerate(found):
        devices.append(
            Device(
                index,
                info["name"],
                apis[info["hostapi"]]["name"],
                info["max_input_channels"],
                info["max_output_channels"],
                int(info["default_samplerate"]),
                (1e3 * info["default_low_input_latency"], 1e3 * info["default_low_output_latency"]),
                index == default_in,
                index == default_out,
            )
        )
    return devices


def _defaults(apis: Sequence[dict[str, Any]], preferred: Sequence[int]) -> tuple[int, int]:
    """Return the indices of the default input and output; -1 where there is none."""
    # A JACK server comes first where one runs: whoever starts it wants it. PortAudio would take ALSA, whose `jack`
    # plugin leads to the same server but stays silent at periods of 256 and 512 frames.
    for api in apis:
        if api["name"].startswith("JACK") and api["default_input_device"] >= 0 and api["default_output_device"] >= 0:
            return api["default_input_device"], api["default_output_device"]
    source, target = preferred
    first = apis[0]
    return (
        source if source >= 0 else first["default_input_device"],
        target if target >= 0 else first["default_output_device"],
    )


def find_device(wanted: int | str | None, kind: Kind, devices: Sequence[Device] | None = None) -> Device:
    """Return the one device meant by `wanted`.

    Parameters
    ----------
    wanted : int, str or None
        Index, digits, or part of the name and host API (case does not matter; several words must all occur). An exact
        name wins over longer ones. None: a running JACK server, else the default device, else the first that has
        channels of this kind.
    kind : {"input", "output"}
    devices : sequence of Device, optional
        `list_devices` when left out.

    Raises
    ------
    DeviceNotFoundError
        Nothing matches; close matches are named.
    DeviceAmbiguousError
        More than one matches; all are listed.
    DeviceError
        PortAudio is missing.
    """
    everything = list_devices() if devices is None else list(devices)
    able = [device for device in everything if _channels(device, kind)]
    if not able:
        raise DeviceNotFoundError(
            f"There is no {kind} device at all. Is the sound server running? Without one: --backend file or dummy."
        )
    if wanted is None:
        chosen = [device for device in able if (device.default_input if kind == "input" else device.default_output)]
        return (chosen or able)[0]
    if isinstance(wanted, int) or wanted.strip().isdecimal():
        return _by_index(int(wanted), kind, everything, able)
    return _by_name(wanted, kind, able)


def _by_index(index: int, kind: Kind, everything: Sequence[Device], able: Sequence[Device]) -> Device:
    for device in able:
        if device.index == index:
            return device
    for device in everything:
        if device.index == index:
            raise DeviceNotFoundError(f"Device {device} has no {kind} channels. {_listing(able, kind)}")
    raise DeviceNotFoundError(f"No {kind} device has index {index}. {_listing(able, kind)}")


def _by_name(wanted: str, kind: Kind, able: Sequence[Device]) -> Device:
    words = wanted.casefold().split()
    matching = [d for d in able if all(word in f"{d.name}, {d.hostapi}".casefold() for word in words)]
    exact = [d for d in matching if wanted.casefold() in (d.name.casefold(), f"{d.name}, {d.hostapi}".casefold())]
    if len(exact) == 1:
        return exact[0]
    if len(matching) == 1:
        return matching[0]
    if matching:
        lines = "\n  ".join(str(device) for device in matching)
        raise DeviceAmbiguousError(
            f"{len(matching)} {kind} devices match {wanted!r}:\n  {lines}\n"
            f"Give an index or a longer name, for example: {matching[0].index}"
        )
    close = difflib.get_close_matches(wanted, [device.name for device in able], n=3, cutoff=0.4)
    hint = f" Close: {', '.join(repr(name) for name in close)}." if close else ""
    raise DeviceNotFoundError(f"No {kind} device matches {wanted!r}.{hint} {_listing(able, kind)}")


def _channels(device: Device, kind: Kind) -> int:
    return device.input_channels if kind == "input" else device.output_channels


def _listing(able: Sequence[Device], kind: Kind) -> str:
    lines = "\n  ".join(str(device) for device in able)
    return f"{kind.capitalize()} devices:\n  {lines}\nSee: rtsep devices"
