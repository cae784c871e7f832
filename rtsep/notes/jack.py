"""What python-rtmidi does not say about JACK: that the server has gone, and who is connected.

RtMidi takes messages for minutes after the server died and then hangs for ever with the interpreter locked; a second
client in the same process learns of it in milliseconds. It also knows where our port is connected, so that the next
process can connect there again. The library is the one rtmidi itself has loaded; Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

_NO_START_SERVER = 1
_SHUTDOWN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_XRUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class JackWatch:
    """A client without ports, beside rtmidi's.

    Parameters
    ----------
    client_name : str
        What JACK shows; it appends a number when the name is taken.

    Raises
    ------
    OSError
        There is no JACK library, or the server does not answer.

    Notes
    -----
    Use it from one thread; calls may block when the server hangs, but let other threads run.
    """

    def __init__(self, client_name: str) -> None:
        self.server_gone = False
        """Set from a thread of JACK's when the server ends or throws us out."""
        self.xruns = 0
        """Cycles that JACK had to cut short: what a client sent in one may never have been read."""
        self._lib = _library()
        status = ctypes.c_int(0)
        with quiet_stderr():
            self._client = self._lib.jack_client_open(client_name.encode(), _NO_START_SERVER, ctypes.byref(status))
        if not self._client:
            raise OSError(f"the JACK server does not answer (status {status.value})")
        self._callbacks = (_SHUTDOWN(self._on_shutdown), _XRUN(self._on_xrun))
        self._lib.jack_on_shutdown(self._client, self._callbacks[0], None)
        self._lib.jack_set_xrun_callback(self._client, self._callbacks[1], None)
        self._lib.jack_activate(self._client)  # without a process callback it stays out of the audio cycle

    def _on_shutdown(self, _argument: int | None) -> None:
        self.server_gone = True

    def _on_xrun(self, _argument: int | None) -> int:
        self.xruns += 1
        return 0

    @property
    def period_s(self) -> float:
        """Length of a JACK period in seconds."""
        frames, rate = self._lib.jack_get_buffer_size(self._client), self._lib.jack_get_sample_rate(self._client)
        return int(frames) / max(1, int(rate))

    def ports(self, pattern: str) -> list[str]:
        """Return the full names of the ports that match a regular expression."""
        return self._names(self._lib.jack_get_ports(self._client, pattern.encode(), None, 0))

    def exists(self, port: str) -> bool:
        """Whether there is a port of that full name."""
        return bool(self._lib.jack_port_by_name(self._client, port.encode()))

    def connections(self, port: str) -> list[str]:
        """Return the full names of the ports that a port is connected to; none when there is no such port."""
        found = self._lib.jack_port_by_name(self._client, port.encode())
        return self._names(self._lib.jack_port_get_all_connections(self._client, found)) if found else []

    def connect(self, source: str, destination: str) -> bool:
        """Connect two ports by full name; whether they are connected now."""
        with quiet_stderr():
            code = int(self._lib.jack_connect(self._client, source.encode(), destination.encode()))
        return code == 0 or destination in self.connections(source)

    def wait_until_gone(self, port: str, seconds: float) -> bool:
        """Wait until JACK has noticed that the owner of a port is dead; whether it has."""
        deadline = time.monotonic() + seconds
        while self.exists(port):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """Leave the server."""
        if not self.server_gone:
            self._lib.jack_client_close(self._client)

    def _names(self, found: Any) -> list[str]:
        names: list[str] = []
        if found:
            while found[len(names)]:
                names.append(found[len(names)].decode(errors="replace"))
            self._lib.jack_free(found)
        return names


class Reconnector:
    """Keeps the connections of our port: given by the process before us, or made by the person since.

    What vanished together with its destination is connected again when the destination is back; what was disconnected
    while the destination lives was disconnected on purpose.

    Parameters
    ----------
    watch : JackWatch
    port : str
        Full name of our port.
    wanted : sequence of str
        Full names of the destinations to begin with.
    listens : bool
        Our port is an input, and the destinations are sources.
    """

    def __init__(self, watch: JackWatch, port: str, wanted: Sequence[str] = (), listens: bool = False) -> None:
        self._watch, self._port, self._listens = watch, port, listens
        self.wanted: dict[str, bool] = dict.fromkeys(wanted, True)
        """Destinations, with whether each is missing at the moment."""

    def look(self) -> list[str]:
        """Connect what is back; return the present connections."""
        present = self._watch.connections(self._port)
        for name in list(self.wanted):
            if name in present:
                self.wanted[name] = False
            elif not self._watch.exists(name):
                self.wanted[name] = True
            elif self.wanted[name]:
                if self._watch.connect(*((name, self._port) if self._listens else (self._port, name))):
                    self.wanted[name] = False
                    present.append(name)
            else:
                del self.wanted[name]
        for name in present:
            self.wanted.setdefault(name, False)
        return sorted(present)

    @property
    def missing(self) -> list[str]:
        """Destinations that are not there."""
        return sorted(name for name, missing in self.wanted.items() if missing)


def _library() -> Any:
    """Load the library that rtmidi uses: another build might talk to another kind of server."""
    path = None
    with contextlib.suppress(ImportError):
        import rtmidi  # noqa: F401  # brings its library along
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            path = next((line.split(maxsplit=5)[5].strip() for line in maps if "libjack" in line), None)
    path = path or ctypes.util.find_library("jack")
    if not path:
        raise OSError("there is no JACK library")
    lib = ctypes.CDLL(path)
    names = ctypes.POINTER(ctypes.c_char_p)
    handle, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("jack_client_open", handle, [text, ctypes.c_int, ctypes.POINTER(ctypes.c_int)]),
        ("jack_client_close", ctypes.c_int, [handle]),
        ("jack_on_shutdown", None, [handle, _SHUTDOWN, handle]),
        ("jack_set_xrun_callback", ctypes.c_int, [handle, _XRUN, handle]),
        ("jack_activate", ctypes.c_int, [handle]),
        ("jack_get_buffer_size", ctypes.c_uint32, [handle]),
        ("jack_get_sample_rate", ctypes.c_uint32, [handle]),
        ("jack_get_ports", names, [handle, text, text, ctypes.c_ulong]),
        ("jack_port_by_name", handle, [handle, text]),
        ("jack_port_get_all_connections", names, [handle, handle]),
        ("jack_connect", ctypes.c_int, [handle, text, text]),
        ("jack_free", None, [handle]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what C libraries print about absent servers off the terminal."""
    sys.stderr.flush()
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
