"""The goals the project set itself, and by how much each is met or missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.model_cards import table
from rtsep.zoo.registry import read_info, resolve

if TYPE_CHECKING:
    from benchmarks.report import Book

CHEAPER, ROUND_TRIP_MS, MINUTES = 10.0, 14.0, 30.0


def goals(book: Book) -> list[str]:
    """Return a table: goal, measured, met or by how much it is missed and what bounds it."""
    rows: list[list[object]] = [
        [
            "`low` takes at least 10 times fewer CPU seconds than streaming HS-TasNet, at no more latency",
            *cheaper(book),
        ],
        ["round trip of at most 14 ms at JACK 48 kHz/128, device and engine buffers included", *round_trip(book)],
        ["no late hop in 30 minutes with both cores loaded, where real-time priority is allowed", *late(book)],
    ]
    return [*table(["goal", "measured", ""], rows), ""]


def cheaper(book: Book) -> list[str]:
    """Cost beside HS-TasNet."""
    name = read_info(resolve("low")).name
    figure = book.one("peers", "times the cost", peer="HS-TasNet, PyTorch", model=name)
    if figure is None or figure.value is None:
        return ["not measured", ""]
    ours, theirs = figure.facts["latency_ms"], figure.facts["peer_latency_ms"]
    said = f"{figure.value:.1f} times, {min(figure.rounds):.1f} to {max(figure.rounds):.1f}; {ours:.1f} against "
    met = min(figure.rounds) >= CHEAPER and ours <= theirs + 0.1
    why = "met" if met else f"missed by a factor of {CHEAPER / min(figure.rounds):.2f} in the worst round"
    return [f"{said}{theirs:.1f} ms", why]


def round_trip(book: Book) -> list[str]:
    """The shortest way from input to output."""
    found = book.find("round_trip", "total", period=128, signal="noise")
    if not found:
        return ["not measured", ""]
    best = min(found, key=lambda f: f.value or 0.0)
    info = read_info(resolve(best.parameters["model"]))
    said = f"{best.value:.1f} ms with {best.parameters['model']}"
    if "hops" in best.facts:
        said += f", {best.facts['late_hops']} of {best.facts['hops']} hops late meanwhile"
    if (best.value or 0.0) <= ROUND_TRIP_MS:
        return [said, "met"]
    hop, own = (1000 * n / best.facts["samplerate"] for n in (info.hop_samples, info.latency_samples))
    missed = (best.value or 0.0) - ROUND_TRIP_MS
    return [
        said,
        f"missed by {missed:.1f} ms: model {own:.1f} ms, hop {hop:.1f} ms, worker slack of one hop {hop:.1f} ms",
    ]


def late(book: Book) -> list[str]:
    """Late hops under load."""
    found = [f for f in book.find("deadlines", "late hops", load="cpu hogs") if f.parameters["minutes"] >= MINUTES]
    if not found:
        return ["not measured for 30 minutes", "`make bench-long`"]
    figure = found[0]
    said = f"{figure.value:.0f} late of {(figure.percentiles or {}).get('count')} hops"
    if not figure.facts["realtime"]:
        return [said, "real-time priority was not allowed"]
    if not figure.value:
        return [said, "met"]
    stalls, longest = figure.facts.get("stalls"), figure.facts.get("longest_stall_ms")
    return [said, f"missed; the machine itself stopped {stalls} times, for {longest} ms at most"]
