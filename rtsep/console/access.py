"""Who may use the console: addresses, names, origins, the token and the link. Standard library only."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from rtsep.errors import DeviceBusyError, UsageError

PORT = 7373
"""Where the console is when nobody says otherwise; any free port when that one is taken."""
SUBPROTOCOL = "rtsep.console.1"
_TOKEN = "token."


def new_token() -> str:
    """Return a token of 128 random bits, of letters that a link may hold."""
    return secrets.token_urlsafe(16)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def host_allowed(header: str | None, bound: str) -> bool:
    """Whether a ``Host`` header names this console.

    A page of another site can point its own name at our address (DNS rebinding); its requests then carry that name. So
    names are only the ones we know; a bare address cannot be rebound.

    Parameters
    ----------
    header : str or None
    bound : str
        Address or name that the console listens at.
    """
    name = _host_of(header)
    if name is None:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        known = {"localhost"}
        if not is_loopback(bound):
            own = socket.gethostname().casefold()
            known |= {bound.casefold(), own, f"{own}.local"}
        return name in known
    return address.is_loopback or not is_loopback(bound)


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Whether a websocket comes from our own page: its origin is the host it asks for. One without an origin is not."""
    return origin is not None and host is not None and origin.casefold() == f"http://{host.casefold()}"


def token_of(protocols: Iterable[str]) -> str | None:
    """Return the token among the subprotocols that a client offers: there it comes into no log and no history."""
    for protocol in protocols:
        if protocol.startswith(_TOKEN):
            return protocol.removeprefix(_TOKEN)
    return None


def token_allowed(given: str | None, wanted: str | None) -> bool:
    """Compare in a time that tells nothing; everything is allowed where no token is wanted."""
    return wanted is None or (given is not None and hmac.compare_digest(given.encode(), wanted.encode()))


def listen_at(host: str, port: int | None) -> socket.socket:
    """Return a listening socket.

    Parameters
    ----------
    host : str
    port : int or None
        None takes `PORT`, or any free one when that is taken.

    Raises
    ------
    UsageError
        The machine has no such address.
    DeviceBusyError
        The port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--console-host {host}: there is no such address here ({error}). Try 0.0.0.0 for all of this machine."
        ) from None
    tries = (port,) if port is not None else (PORT, 0)
    for number in tries:
        found = socket.socket(family, socket.SOCK_STREAM)
        # After a restart the old port is there again at once; on Windows the option would share it with anybody.
        if hasattr(socket, "SO_REUSEPORT"):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((address[0], number, *address[2:]))
            found.listen(32)
        except OSError as error:
            found.close()
            if number == tries[-1]:
                raise DeviceBusyError(
                    f"The console cannot listen at {host} port {number}: {error.strerror}. Try another --console-port, "
                    "or leave it out."
                ) from None
            continue
        return found
    raise AssertionError("unreachable")


def link(host: str, port: int, token: str | None) -> str:
    """Return the address of the page, for a person.

    The token stands behind ``#``: browsers do not send that part to anybody.
    """
    shown = host
    if host in ("0.0.0.0", "::", ""):
        shown = _own_address(host)
    if ":" in shown:
        shown = f"[{shown}]"
    return f"http://{shown}:{port}/" + (f"#token={token}" if token else "")


def qr_code(text: str) -> str:
    """Return a QR code in half blocks for a terminal; empty without the package segno."""
    try:
        import segno
    except ImportError:
        return ""
    rows = [[bool(cell) for cell in row] for row in segno.make(text, error="l").matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    # Dark modules stay the terminal's background where that is dark: readers want dark on light.
    blocks = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    return "\n".join(
        "".join(blocks[above, below] for above, below in zip(rows[y], rows[y + 1], strict=True))
        for y in range(0, len(rows), 2)
    )


def _host_of(header: str | None) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname if header else None
    except ValueError:
        return None


def _own_address(host: str) -> str:
    """The address that a phone in the same network would use; nothing is sent to find it."""
    family, there = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return "::1" if host == "::" else "127.0.0.1"
