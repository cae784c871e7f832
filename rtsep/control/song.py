"""The file that plays as input, as parameters: ``input/playing``, ``input/position_s``, the loop and the speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtsep.audio.song_config import FASTEST, SHORTEST_LOOP_S, SLOWEST
from rtsep.control.parameter import Parameter

if TYPE_CHECKING:
    from rtsep.control.registry import Registry
    from rtsep.engine.engine import Engine

GROUP = "input/"
"""What the paths begin with; a setup does not keep them, they belong to one file."""
PLAYING, POSITION, LOOP, LOOP_FROM, LOOP_TO, SPEED = (
    f"{GROUP}{name}" for name in ("playing", "position_s", "loop", "loop_from_s", "loop_to_s", "speed")
)
SEEK_S = 5.0


def add_song(registry: Registry, engine: Engine) -> None:
    """Add the parameters of a file as input; nothing without one."""
    if not engine.has_song:
        return
    end = engine.song_duration_s

    def seconds(path: str, label: str, default: float) -> Parameter:
        return Parameter(path, "float", 0.0, end, default, "s", label=label)

    registry.add(
        Parameter(PLAYING, "bool", default=True, label="play"),
        lambda: engine.song_playing,
        lambda value: engine.play_song(bool(value)),
    )
    registry.add(
        seconds(POSITION, "position", 0.0),
        # Tenths: everybody who listens is told of each.
        lambda: min(end, round(engine.song_position_s, 1)),
        lambda value: engine.seek_song(float(value)),
    )
    registry.add(
        Parameter(LOOP, "bool", default=False, label="loop"),
        lambda: engine.song_loop[0],
        lambda value: engine.loop_song(on=bool(value)),
    )
    registry.add(
        seconds(LOOP_FROM, "loop from", 0.0),
        lambda: engine.song_loop[1],
        lambda value: engine.loop_song(from_s=float(value)),
    )
    registry.add(
        seconds(LOOP_TO, "loop to", end),
        lambda: engine.song_loop[2],
        lambda value: engine.loop_song(to_s=float(value)),
    )
    registry.add(
        Parameter(SPEED, "float", SLOWEST, FASTEST, 1.0, label="speed"),
        lambda: engine.song_speed,
        lambda value: engine.set_song_speed(float(value)),
    )


def press(registry: Registry, key: str, source: str) -> str:
    """Do what a key means for the file, and return what there is to say about it. UsageError."""
    if PLAYING not in registry:
        return "There is no file as input; start with --input-file FILE." if key in (" ", "o") else ""
    position, end = float(registry.get(POSITION)), registry.parameter(POSITION).highest
    if key == " ":
        return "Playing." if registry.toggle(PLAYING, source) else "Paused."
    if key == "o":
        return f"Loop {'on' if registry.toggle(LOOP, source) else 'off'}."
    if key in (",", "."):
        wanted = position + (SEEK_S if key == "." else -SEEK_S)
        return f"At {registry.set(POSITION, min(max(0.0, wanted), end), source):.1f} s."
    if key == "[":
        if position > float(registry.get(LOOP_TO)) - SHORTEST_LOOP_S:
            registry.set(LOOP_TO, end, source)
        return f"The loop begins at {registry.set(LOOP_FROM, position, source):.1f} s."
    registry.set(LOOP_TO, position, source)
    registry.set(LOOP, True, source)
    return f"The loop ends at {position:.1f} s."
