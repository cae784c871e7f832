"""Memory both processes see: settings, meters, counters, the histogram of hop times and the last late hops.

A file mapped by both (`rtsep.mapped`). Single elements of 8 bytes, each written by one side only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtsep.engine.late import FIELDS, KEPT
from rtsep.engine.stats import BINS, COUNTERS
from rtsep.errors import GraphError
from rtsep.mapped import make_mapped_file, map_file
from rtsep.mixer.meters import Meters
from rtsep.mixer.settings import MixerSettings

MAX_STEMS = 64
_SETTINGS = MixerSettings.size(MAX_STEMS)
_METERS = Meters.size(MAX_STEMS)
_LATE = KEPT * len(FIELDS)
_BYTES = 8 * (_SETTINGS + _METERS + len(COUNTERS) + BINS + _LATE)


class SharedBlock:
    """The mapped block.

    Parameters
    ----------
    path : path, optional
        Of an existing block to attach to; a new one is made when left out.
    readonly : bool
        Whoever only looks cannot write, either.
    """

    def __init__(self, path: str | Path | None = None, readonly: bool = False) -> None:
        self.path = make_mapped_file("rtsep-", _BYTES) if path is None else Path(path)
        self._map = map_file(self.path, readonly)
        self._floats: NDArray[np.float64] = np.frombuffer(self._map, np.float64, _SETTINGS + _METERS)
        self.counters: NDArray[np.int64] = np.frombuffer(self._map, np.int64, len(COUNTERS), 8 * (_SETTINGS + _METERS))
        self.histogram: NDArray[np.int64] = np.frombuffer(
            self._map, np.int64, BINS, 8 * (_SETTINGS + _METERS + len(COUNTERS))
        )
        self.late: NDArray[np.int64] = np.frombuffer(self._map, np.int64, _LATE, _BYTES - 8 * _LATE).reshape(
            KEPT, len(FIELDS)
        )

    def mixer(self, stems: Sequence[str]) -> tuple[MixerSettings, Meters]:
        """Return settings and meters that live in the block; GraphError beyond 64 stems."""
        if len(stems) > MAX_STEMS:
            raise GraphError(f"The model has {len(stems)} stems; the live engine mixes up to {MAX_STEMS}.")
        settings = self._floats[: MixerSettings.size(len(stems))]
        meters = self._floats[_SETTINGS : _SETTINGS + Meters.size(len(stems))]
        return MixerSettings(stems, settings), Meters(stems, meters)

    def unlink(self) -> None:
        """Remove the name; mappings stay usable."""
        with contextlib.suppress(OSError):
            self.path.unlink()
