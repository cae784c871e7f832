"""MIDI ports: what there is, and opening one by what a person says.

``virtual``    a port of our own that others connect to (JACK, else ALSA, CoreMIDI)
``null``       nowhere
``log:PATH``   a file, one JSON line a message: ``{"t": seconds of time.monotonic(), "bytes": "90 3c 40"}``
anything else  part of the name of a port that exists

Calls into python-rtmidi may hang with the interpreter locked when a JACK server dies: nothing here belongs into a
process that plays audio. `probe` asks from a process of its own with a time limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from rtsep.engine.wire import child_environment
from rtsep.errors import (
    DeviceAmbiguousError,
    DeviceBusyError,
    DeviceError,
    DeviceNotFoundError,
    MidiSystemError,
    UsageError,
    suggest,
)
from rtsep.notes.jack import quiet_stderr

Direction = Literal["out", "in"]
PORT_NAME = "notes"
_PROBE_S = 8.0


@dataclass(frozen=True)
class PortInfo:
    """A port that exists.

    Parameters
    ----------
    name : str
        As the system calls it.
    api : str
        ``"JACK"``, ``"ALSA"``, ``"CoreMIDI"`` or ``"Windows MM"``.
    direction : {"out", "in"}
        What it is to us: ``out`` is one we can send to.
    """

    name: str
    api: str
    direction: Direction


class OutputPort(Protocol):
    """Where messages go."""

    name: str
    api: str

    def send(self, message: bytes) -> None:
        """Hand one message of 2 or 3 bytes to the driver."""

    def close(self) -> None:
        """Close it; what was sent may need some milliseconds before that to get through."""


class NullPort:
    """Nowhere."""

    name, api = "null", ""

    def send(self, message: bytes) -> None:
        """Forget the message."""

    def close(self) -> None:
        """Nothing to close."""


class LogPort:
    """A file of JSON lines, flushed after each message.

    Raises
    ------
    UsageError
        The file cannot be written.
    """

    api = ""

    def __init__(self, path: str) -> None:
        self.name = f"log:{path}"
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  # it stays open
        except OSError as error:
            raise UsageError(f"MIDI cannot be logged to {path}: {error.strerror}. Choose another path.") from error

    def send(self, message: bytes) -> None:
        """Write a line; a full disk is silent here."""
        with contextlib.suppress(OSError):
            self._file.write(json.dumps({"t": round(time.monotonic(), 6), "bytes": message.hex(" ")}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()


class RtMidiPort:
    """A port of python-rtmidi."""

    def __init__(self, handle: Any, name: str, api: str) -> None:
        self._handle, self.name, self.api = handle, name, api

    def send(self, message: bytes) -> None:
        """Hand one message to the driver. Hangs when a JACK server is dead and its buffer full."""
        self._handle.send_message(message)

    def close(self) -> None:
        """Close the port; a virtual one disappears."""
        self._handle.close_port()
        self._handle.delete()


def list_ports(direction: Direction = "out") -> list[PortInfo]:
    """Return the ports of every MIDI system that answers; in this process.

    Raises
    ------
    MidiSystemError
        None answers.
    """
    found: list[PortInfo] = []
    failures = []
    for api, name in _apis():
        try:
            with _client(direction, api, "rtsep-list") as client:
                found += [PortInfo(port, name, direction) for port in client.get_ports()]
        except MidiSystemError as error:
            failures.append(str(error))
    if len(failures) == len(_apis()):
        raise MidiSystemError(_no_system(failures))
    return found


def probe(timeout_s: float = _PROBE_S) -> list[PortInfo]:
    """Return the ports of both directions, asked by a process that may hang instead of this one.

    Raises
    ------
    MidiSystemError
        No MIDI system answers, or one hangs.
    """
    command = [sys.executable, "-m", "rtsep.notes.ports"]
    try:
        result = subprocess.run(command, capture_output=True, timeout=timeout_s, env=child_environment(), check=False)
        answer = json.loads(result.stdout)
    except subprocess.TimeoutExpired:
        raise MidiSystemError(
            f"The MIDI system did not answer within {timeout_s:.0f} s. Restart the JACK server, or unset "
            "JACK_DEFAULT_SERVER."
        ) from None
    except ValueError:
        raise MidiSystemError("The MIDI system could not be asked. See: rtsep doctor") from None
    if "error" in answer:
        raise MidiSystemError(answer["error"])
    return [PortInfo(**port) for port in answer["ports"]]


def check_name(spec: str) -> None:
    """Raise UsageError for what can be no port at all: an empty name, ``log:`` without a path."""
    if not spec.strip():
        raise UsageError("The MIDI port is empty; give virtual, null, log:PATH or part of a name. See: rtsep midi list")
    if spec == "log:":
        raise UsageError("log: needs a path; for example log:midi.jsonl")


def open_output(spec: str, client_name: str = "rtsep") -> OutputPort:
    """Open a port to send to.

    Parameters
    ----------
    spec : str
        As in the head of this module.
    client_name : str
        What others see.

    Raises
    ------
    MidiSystemError
        There is no MIDI system, or it has no virtual ports (Windows).
    DeviceNotFoundError, DeviceAmbiguousError
        No port, or several, match the name.
    DeviceBusyError
        The port refused to open.
    UsageError
        The log cannot be written, or `spec` says nothing.
    """
    check_name(spec)
    if spec == "null":
        return NullPort()
    if spec.startswith("log:"):
        return LogPort(spec.removeprefix("log:"))
    handle, name, api = _open("out", spec, client_name)
    return RtMidiPort(handle, name, api)


def open_input(spec: str, client_name: str = "rtsep", port_name: str = PORT_NAME) -> tuple[Any, str, str]:
    """Open a port to listen to: ``virtual`` or part of a name. Return handle, name, api; errors as above."""
    check_name(spec)
    return _open("in", spec, client_name, port_name)


def find_port(spec: str, ports: list[PortInfo]) -> PortInfo:
    """Return the one port of that name, or with it in its name; DeviceNotFoundError, DeviceAmbiguousError."""
    wanted = spec.casefold()
    exact = [port for port in ports if port.name.casefold() == wanted]
    matches = exact or [port for port in ports if wanted in port.name.casefold()]
    names = [port.name for port in ports]
    if not matches:
        there = f"There are: {', '.join(names)}." if names else "There is none."
        raise DeviceNotFoundError(f"No MIDI port has {spec!r} in its name. {there}{suggest(spec, names)}{_elsewhere()}")
    if len(matches) > 1 and not exact:
        raise DeviceAmbiguousError(
            f"{len(matches)} MIDI ports have {spec!r} in their names: {', '.join(port.name for port in matches)}. "
            "Give more of the name."
        )
    return matches[0]


# --- rtmidi -----------------------------------------------------------------------------------------------------------


def _rtmidi() -> Any:
    try:
        import rtmidi
    except ImportError as error:
        raise MidiSystemError("python-rtmidi is not installed here. Run: pip install python-rtmidi") from error
    return rtmidi


def _apis() -> list[tuple[int, str]]:
    """The systems compiled in, the one to try first first: where there is JACK, the DAW is on it too."""
    rtmidi = _rtmidi()
    order = [
        (rtmidi.API_UNIX_JACK, "JACK"),
        (rtmidi.API_LINUX_ALSA, "ALSA"),
        (rtmidi.API_MACOSX_CORE, "CoreMIDI"),
        (rtmidi.API_WINDOWS_MM, "Windows MM"),
    ]
    compiled = rtmidi.get_compiled_api()
    return [pair for pair in order if pair[0] in compiled]


@contextlib.contextmanager
def _client(direction: Direction, api: int, client_name: str) -> Iterator[Any]:
    handle = _new(direction, api, client_name)
    try:
        yield handle
    finally:
        handle.delete()


def _new(direction: Direction, api: int, client_name: str) -> Any:
    rtmidi = _rtmidi()
    os.environ.setdefault("JACK_NO_START_SERVER", "1")
    make = rtmidi.MidiOut if direction == "out" else rtmidi.MidiIn
    try:
        with quiet_stderr():
            return make(api, name=client_name)
    except (rtmidi.RtMidiError, OSError, RuntimeError) as error:
        raise MidiSystemError(str(error).strip().rstrip(".")) from error


def _open(direction: Direction, spec: str, client_name: str, port_name: str = PORT_NAME) -> tuple[Any, str, str]:
    rtmidi = _rtmidi()
    if spec == "virtual":
        return _open_virtual(direction, client_name, port_name)
    info = find_port(spec, list_ports(direction))
    api = next(number for number, name in _apis() if name == info.api)
    handle = _new(direction, api, client_name)
    try:
        names = handle.get_ports()
        if info.name not in names:
            raise DeviceNotFoundError(f"The MIDI port {info.name} has gone. See: rtsep midi list")
        with quiet_stderr():
            handle.open_port(names.index(info.name), port_name)
    except (rtmidi.RtMidiError, OSError, RuntimeError) as error:
        handle.delete()
        raise DeviceBusyError(
            f"The MIDI port {info.name} did not open: {str(error).strip()} Another program may hold it; close that or "
            "choose another: rtsep midi list"
        ) from error
    except DeviceNotFoundError:
        handle.delete()
        raise
    return handle, info.name, info.api


def _open_virtual(direction: Direction, client_name: str, port_name: str) -> tuple[Any, str, str]:
    if sys.platform == "win32":
        raise MidiSystemError(
            "Windows has no virtual MIDI ports of its own. Install loopMIDI, make a port in it, and give part of its "
            "name; rtsep midi list shows it."
        )
    rtmidi = _rtmidi()
    failures = []
    for api, name in _apis():
        try:
            handle = _new(direction, api, client_name)
        except MidiSystemError as error:
            failures.append(str(error))
            continue
        try:
            with quiet_stderr():
                handle.open_virtual_port(port_name)
        except (rtmidi.RtMidiError, NotImplementedError, OSError, RuntimeError) as error:
            handle.delete()
            failures.append(str(error).strip())
            continue
        return handle, f"{client_name}:{port_name}", name
    raise MidiSystemError(_no_system(failures))


def _no_system(failures: list[str]) -> str:
    said = "; ".join(failures) or "python-rtmidi was built without any"
    if sys.platform.startswith("linux"):
        what = "Start a JACK server, or load the ALSA sequencer (modprobe snd-seq)"
    else:
        what = "Check the MIDI set-up of the system"
    return f"No MIDI system answers here ({said}). {what}. Without one these work: null, log:PATH."


def _elsewhere() -> str:
    if sys.platform == "win32":
        return " For a port between programs install loopMIDI."
    return " For a port of its own: virtual."


def main() -> None:
    """Print the ports as JSON; what `probe` runs."""
    answer: dict[str, Any]
    try:
        answer = {"ports": [asdict(port) for direction in ("out", "in") for port in list_ports(direction)]}
    except DeviceError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # a client of a dead server hangs on its way out


if __name__ == "__main__":
    main()
