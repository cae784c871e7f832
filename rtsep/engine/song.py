"""The file that plays as input, from the engine's control side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rtsep.audio.song_config import check_loop, check_speed
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.engine.config import EngineConfig
    from rtsep.engine.shared import SharedBlock


class SongControls:
    """What `rtsep.engine.Engine` can do with a file as input (the setting ``song``); not for use by itself.

    Any thread of the control process may call; nothing waits for the audio. All raise UsageError before `start` and
    without a song, and EngineError after the end.
    """

    config: EngineConfig
    _shared: SharedBlock | None
    _ready: dict[str, Any] | None
    _song: dict[str, Any] | None = None

    def _command(self, kind: str, **values: Any) -> None:
        raise NotImplementedError

    @property
    def has_song(self) -> bool:
        """Whether a file is the input."""
        return self.config.song is not None

    @property
    def song_duration_s(self) -> float:
        """Seconds of the file, at its own speed."""
        return float(self._state()["duration_s"])

    @property
    def song_channels(self) -> int:
        """Channels of the file."""
        return int(self._state()["channels"])

    @property
    def song_position_s(self) -> float:
        """Where the file is being read; heard a latency later. After a seek, where it will be."""
        from rtsep.engine.stats import INDEX

        state = self._state()
        assert self._shared is not None
        if state["seeks"] > int(self._shared.counters[INDEX["song_seeks"]]):
            return float(state["sought_s"])
        return min(float(state["duration_s"]), int(self._shared.counters[INDEX["song_us"]]) / 1e6)

    def seek_song(self, position_s: float) -> None:
        """Go on at another place; UsageError when it is not in the file."""
        state = self._state()
        if not 0.0 <= position_s <= state["duration_s"]:
            raise UsageError(
                f"The position {position_s:g} s is not in the file; allowed is 0 to {state['duration_s']:.2f} s."
            )
        self._command("song", what="seek", value=float(position_s))
        state["sought_s"] = float(position_s)
        state["seeks"] += 1

    @property
    def song_playing(self) -> bool:
        """False while it waits."""
        return bool(self._state()["playing"])

    def play_song(self, on: bool = True) -> None:
        """Play, or wait where it is."""
        state = self._state()
        self._command("song", what="playing", value=bool(on))
        state["playing"] = bool(on)

    @property
    def song_loop(self) -> tuple[bool, float, float]:
        """Whether it goes round, and from where to where in seconds."""
        on, from_s, to_s = self._state()["loop"]
        return bool(on), float(from_s), float(to_s)

    def loop_song(self, on: bool | None = None, from_s: float | None = None, to_s: float | None = None) -> None:
        """Change the loop, what is left out stays; UsageError when it would be backwards, too short, or not there."""
        state = self._state()
        now = state["loop"]
        wanted = tuple(old if new is None else new for old, new in zip(now, (on, from_s, to_s), strict=True))
        check_loop(wanted[1], wanted[2], state["duration_s"])
        self._command("song", what="loop", value=wanted)
        state["loop"] = wanted

    @property
    def song_speed(self) -> float:
        """1 is the file's own."""
        return float(self._state()["speed"])

    def set_song_speed(self, speed: float) -> None:
        """Change speed and pitch together, 0.5 to 1.5; UsageError for others."""
        state = self._state()
        check_speed(speed)
        self._command("song", what="speed", value=float(speed))
        state["speed"] = float(speed)

    def _state(self) -> dict[str, Any]:
        if self._song is None:
            song = self.config.song
            if self._ready is None or song is None:
                raise UsageError(
                    "No file is the input of this engine, or it is not started; start with: rtsep run --input-file FILE"
                )
            duration_s, channels = self._ready["song"]
            duration_s = max(math.floor(1e6 * duration_s) / 1e6, 1e-6)
            to_s = duration_s if song.loop_to_s is None else song.loop_to_s
            self._song = {
                "duration_s": duration_s,
                "channels": channels,
                "playing": True,
                "loop": (song.loop, song.loop_from_s or 0.0, to_s),
                "speed": song.speed,
                "seeks": 0,
                "sought_s": 0.0,
            }
        return self._song
