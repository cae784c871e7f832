"""OSC datagrams to messages and back, strict enough for bytes from anywhere.

python-osc reads and writes the values. Lengths are checked and bundles taken apart here: python-osc 1.10 reads a number
that was cut off as 0, runs for ever on a bundle whose element has a negative size, and logs
what it does not understand.
"""

from __future__ import annotations

import struct
from typing import Any

from rtsep.errors import ControlError

LONGEST = 8192
"""Bytes of a datagram; longer ones are not looked at."""
MOST_MESSAGES, DEEPEST = 64, 4
"""Messages in a datagram; bundles within bundles."""
_BUNDLE = b"#bundle\x00"
_SIZES = {"i": 4, "f": 4, "h": 8, "d": 8, "T": 0, "F": 0}
_MOST_ARGUMENTS = 16


class NoOscError(ValueError):
    """These bytes are no OSC that we take."""


def load_osc() -> Any:
    """Return the package `pythonosc`; ControlError says how to install it."""
    try:
        import pythonosc.osc_message
        import pythonosc.osc_message_builder
    except ImportError as error:
        raise ControlError("OSC needs python-osc. Run: pip install 'rtsep[console]'") from error
    return pythonosc


def decode(datagram: bytes) -> list[tuple[str, list[Any]]]:
    """Return the addresses and arguments in a datagram, all or none; times of bundles do not count.

    Arguments are of the types ``i h f d s T F``.

    Raises
    ------
    NoOscError
        Anything else than well-formed OSC within the limits above.
    """
    if len(datagram) > LONGEST:
        raise NoOscError("too long")
    found: list[tuple[str, list[Any]]] = []
    _decode(datagram, found, 0)
    return found


def _decode(data: bytes, found: list[tuple[str, list[Any]]], depth: int) -> None:
    if not data.startswith(_BUNDLE):
        found.append(_message(data))
        if len(found) > MOST_MESSAGES:
            raise NoOscError("too many messages")
        return
    if depth >= DEEPEST or len(data) < 16:
        raise NoOscError("too deep, or cut short")
    at = 16
    while at < len(data):
        if len(data) - at < 4:
            raise NoOscError("cut short")
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if size <= 0 or size % 4 or size > len(data) - at:
            raise NoOscError("an element of no such size")
        _decode(data[at : at + size], found, depth + 1)
        at += size


def _message(data: bytes) -> tuple[str, list[Any]]:
    if not data.startswith(b"/") or len(data) % 4:
        raise NoOscError("no message")
    at, _ = _string(data, 0)
    if at < len(data):  # older senders leave the type tags out when there is nothing to tag
        at, tags = _string(data, at)
        if tags[:1] != b"," or len(tags) > 1 + _MOST_ARGUMENTS:
            raise NoOscError("no type tags, or too many")
        for tag in tags[1:].decode("latin-1"):
            if tag == "s":
                at, _ = _string(data, at)
            elif tag in _SIZES:
                at += _SIZES[tag]
            else:
                raise NoOscError("a type we do not take")
        if at != len(data):
            raise NoOscError("another length than the types say")
    try:
        message = load_osc().osc_message.OscMessage(data)
        return str(message.address), list(message.params)
    except ControlError:
        raise
    except Exception as error:  # ParseError, UnicodeDecodeError, whatever the next version thinks of
        raise NoOscError(str(error)) from error


def _string(data: bytes, at: int) -> tuple[int, bytes]:
    """Where the string at `at` is over, with its padding, and what it says."""
    end = data.find(b"\x00", at)
    if end < 0:
        raise NoOscError("a string without end")
    return at + ((end - at) // 4 + 1) * 4, data[at:end]


def encode(address: str, *values: float | int | str) -> bytes:
    """Return a message as a datagram: floats as ``f``, switches and whole numbers as ``i``, text as ``s``."""
    builder = load_osc().osc_message_builder.OscMessageBuilder(address)
    for value in values:
        if isinstance(value, str):
            builder.add_arg(value, "s")
        elif isinstance(value, bool | int):
            builder.add_arg(int(value), "i")
        else:
            builder.add_arg(float(value), "f")
    datagram: bytes = builder.build().dgram
    return datagram
