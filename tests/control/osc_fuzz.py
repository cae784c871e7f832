"""Bytes that an OSC port must survive: noise, wrong messages, broken bundles, and true messages with flipped bits.

``python -m tests.control.osc_fuzz PORT --seconds 60`` sends them to a running ``rtsep run --osc PORT``.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from pythonosc.osc_message_builder import OscMessageBuilder

Address = tuple[str, int]


def message(address: str, *arguments: tuple[object, str]) -> bytes:
    """A message with arguments of given types."""
    builder = OscMessageBuilder(address)
    for value, tag in arguments:
        builder.add_arg(value, tag)  # type: ignore[arg-type]
    return bytes(builder.build().dgram)


def bundle(*elements: bytes, sizes: Sequence[int] | None = None) -> bytes:
    """A bundle, with sizes that lie if they are given."""
    data = b"#bundle\x00" + struct.pack(">Q", 1)
    for i, element in enumerate(elements):
        data += struct.pack(">i", len(element) if sizes is None else sizes[i]) + element
    return data


def harmless(rng: random.Random, paths: Sequence[str]) -> bytes:
    """One datagram that must change nothing, whatever `paths` there are."""
    path = rng.choice(paths)
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(0, 600))
    if kind == 1:  # no such address
        wrong = rng.choice(
            [path + "x", path[:-1], "unit", "unit/" + path + "/", "//" + path, path.upper(), "../" + path]
        )
        return message(f"/rtsep/{wrong}", (rng.random(), "f"))
    if kind == 2:  # no such value
        value = rng.choice([float("nan"), float("inf"), 1e30, -1e30, 25.0, -121.0])
        return message(f"/rtsep/{rng.choice(('', 'unit/'))}{path}", (value, rng.choice("fd")))
    if kind == 3:  # wrong types, or too many
        return message(f"/rtsep/{path}", *[(rng.random(), "f")] * rng.randrange(2, 30))
    if kind == 4:
        return message(f"/rtsep/{path}", (rng.choice([b"\x00", b"1" * 100]), "b"))
    if kind == 5:
        words = ["", "nan", "1e999", "-6 parsec", "\u2212six", "on off", "x" * 500, "__import__('os')", "%s%n"]
        return message(f"/rtsep/{path}", (rng.choice(words), "s"))
    true = message(f"/rtsep/{path}", (0.5, "f"))
    if rng.random() < 0.1:  # cut off
        return true[: -rng.randrange(1, len(true))]
    if kind == 6:  # a bundle with a good message and a bad end
        return bundle(true, true, sizes=[len(true), rng.choice([-4, 0, 1, 3, 2**31 - 1, -(2**31), len(true) + 4])])
    deep = true
    for _ in range(rng.randrange(5, 200)):
        deep = bundle(deep)
    return deep


def mutated(rng: random.Random, paths: Sequence[str]) -> bytes:
    """A true message with a few bits flipped or its end cut off; it may mean something."""
    true = message(f"/rtsep/{rng.choice(('', 'unit/', 'toggle/'))}{rng.choice(paths)}", (rng.random(), "f"))
    data = bytearray(bundle(true, true) if rng.random() < 0.3 else true)
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


def fuzz(
    to: Address,
    make: Callable[[random.Random, Sequence[str]], bytes],
    paths: Sequence[str],
    seconds: float,
    per_s: float,
    seed: int = 1,
) -> Iterator[int]:
    """Send for some seconds at a rate; yield how many went out so far, about ten times a second."""
    rng = random.Random(seed)
    sent, began = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while (passed := time.monotonic() - began) < seconds:
            while sent < per_s * passed:
                sender.sendto(make(rng, paths), to)
                sent += 1
            yield sent
            time.sleep(min(0.1, 20 / per_s))
    yield sent


def main() -> None:
    """Flood a port with what must change nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="datagrams a second")
    parser.add_argument("--paths", nargs="+", default=["stem/vocals/gain_db", "stem/drums/mute", "master/gain_db"])
    options = parser.parse_args()
    *_, sent = fuzz((options.host, options.port), harmless, options.paths, options.seconds, options.rate)
    print(f"{sent} datagrams sent")


if __name__ == "__main__":
    main()
