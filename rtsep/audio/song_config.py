"""A file as live input: what is asked for; imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rtsep.errors import UsageError

SHORTEST_LOOP_S = 0.05
SLOWEST, FASTEST = 0.5, 1.5


@dataclass(frozen=True)
class SongConfig:
    """A file that plays in the place of what a device captures.

    Parameters
    ----------
    path : str
        WAV, FLAC, OGG, MP3 and whatever else libsndfile reads.
    loop : bool
        Go back to `loop_from_s` at `loop_to_s`.
    loop_from_s, loop_to_s : float, optional
        Seconds of the file; its beginning and its end when None. 50 ms apart or more.
    speed : float
        Speed and pitch together, 0.5 to 1.5.
    channels : tuple of int, optional
        1-based channels of the file to use; the first two when None.

    Raises
    ------
    UsageError
        A value out of range.
    """

    path: str
    loop: bool = False
    loop_from_s: float | None = None
    loop_to_s: float | None = None
    speed: float = 1.0
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_speed(self.speed)
        check_loop(self.loop_from_s or 0.0, math.inf if self.loop_to_s is None else self.loop_to_s)


def check_speed(speed: float) -> None:
    """UsageError for a speed out of range."""
    if not SLOWEST <= speed <= FASTEST:
        raise UsageError(
            f"The speed {speed:g} is out of range; allowed is {SLOWEST:g} to {FASTEST:g} (--varispeed 0.8)."
        )


def check_loop(from_s: float, to_s: float, duration_s: float = math.inf) -> None:
    """UsageError for a loop that is backwards, shorter than 50 ms, or not in the file."""
    if not 0.0 <= from_s < math.inf or math.isnan(to_s):
        raise UsageError(f"A loop cannot begin at {from_s:g} s; it begins at 0 or later.")
    if from_s >= duration_s or (to_s > duration_s and math.isfinite(to_s)):
        raise UsageError(f"The loop {from_s:g} to {to_s:g} s is not in the file, which has {duration_s:.2f} s.")
    if to_s <= from_s:
        raise UsageError(f"The loop ends at {to_s:g} s, before it begins at {from_s:g} s: A has to come before B.")
    if min(to_s, duration_s) - from_s < SHORTEST_LOOP_S - 1e-9:
        raise UsageError(
            f"The loop of {1000 * (min(to_s, duration_s) - from_s):.0f} ms is too short; allowed is "
            f"{1000 * SHORTEST_LOOP_S:.0f} ms or more."
        )
