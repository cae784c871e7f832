"""What a person sets on the mixer, in one flat array that may lie in shared memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import StemNotFoundError, UsageError, suggest

GAIN_MIN_DB, GAIN_MAX_DB = -120.0, 24.0
"""Range of gains and of the master; -120 dB and ``-inf`` are silence."""


class MixerSettings:
    """Faders, pans and switches of one mixer.

    Every setting is one element of one float64 array, so a control process can write it while the audio process reads
    it: a single element is never seen half written, and the mixer ramps whatever it finds.

    Parameters
    ----------
    stems : sequence of str
        Names, in the order of the model.
    values : array [MixerSettings.size(len(stems))] of float64, optional
        Memory to live in, taken as it is (for example on a shared block that another process has set up). A new array
        with everything at 0 dB, centred and off when left out.

    Attributes
    ----------
    gain_db : array [S]
        -120 to 24; -120 is silence.
    pan : array [S]
        -1 (left) to 1 (right); a balance, unity at 0. Acts on channels 1 and 2, and on nothing in mono.
    mute, solo : arrays [S]
        0 or 1.
    values : array [4 S + 3]
        All of it.

    Notes
    -----
    Real-time safe apart from errors. The arrays may be written directly, without checks.
    """

    def __init__(self, stems: Sequence[str], values: NDArray[np.float64] | None = None) -> None:
        self.stems = tuple(stems)
        count = len(self.stems)
        if values is None:
            values = np.zeros(self.size(count), np.float64)
        if values.shape != (self.size(count),) or values.dtype != np.float64:
            raise UsageError(
                f"The settings of {count} stems need {self.size(count)} float64 values, "
                f"got shape {values.shape} of {values.dtype}."
            )
        self.values = values
        self.gain_db = values[:count]
        self.pan = values[count : 2 * count]
        self.mute = values[2 * count : 3 * count]
        self.solo = values[3 * count : 4 * count]

    @staticmethod
    def size(stem_count: int) -> int:
        """Number of float64 values the settings of so many stems take."""
        return 4 * stem_count + 3

    @property
    def master_db(self) -> float:
        """Gain after the sum, -120 to 24 dB; does not act on bypass."""
        return float(self.values[-3])

    @master_db.setter
    def master_db(self, db: float) -> None:
        self.values[-3] = check_gain_db("master", db)

    def audible(self) -> int:
        """Bit `s` is set while stem `s` is heard: not muted, and soloed if any stem is. Real-time safe."""
        soloed = bool(self.solo.any())
        bits = 0
        for s in range(len(self.stems)):
            if not self.mute[s] and (self.solo[s] or not soloed):
                bits |= 1 << s
        return bits

    @property
    def bypass(self) -> bool:
        """Delayed dry signal instead of the mix."""
        return bool(self.values[-2])

    @bypass.setter
    def bypass(self, on: bool) -> None:
        self.values[-2] = float(bool(on))

    @property
    def limiter(self) -> bool:
        """Keep the output below full scale."""
        return bool(self.values[-1])

    @limiter.setter
    def limiter(self, on: bool) -> None:
        self.values[-1] = float(bool(on))

    def index(self, stem: str) -> int:
        """Return the place of a stem.

        Raises
        ------
        StemNotFoundError
            With the names there are, and the closest one.
        """
        try:
            return self.stems.index(stem)
        except ValueError:
            raise StemNotFoundError(
                f"No stem {stem!r}; this model has {', '.join(self.stems)}.{suggest(stem, self.stems)}"
            ) from None

    def set_gain(self, stem: str, db: float) -> None:
        """Set a fader, -120 to 24 dB or ``-inf``; UsageError beyond."""
        self.gain_db[self.index(stem)] = check_gain_db(stem, db)

    def set_pan(self, stem: str, pan: float) -> None:
        """Set a balance, -1 to 1; UsageError beyond."""
        index = self.index(stem)
        if not -1.0 <= pan <= 1.0:
            raise UsageError(f"Pan of {stem} is {pan}; allowed is -1 (left) to 1 (right), 0 is the centre.")
        self.pan[index] = pan

    def set_mute(self, stem: str, on: bool) -> None:
        """Mute a stem or bring it back."""
        self.mute[self.index(stem)] = float(bool(on))

    def set_solo(self, stem: str, on: bool) -> None:
        """Solo a stem or end it; while any stem is soloed only soloed stems are heard."""
        self.solo[self.index(stem)] = float(bool(on))

    def apply(
        self,
        *,
        mute: Iterable[str] = (),
        solo: Iterable[str] = (),
        gain: Mapping[str, float] | None = None,
        pan: Mapping[str, float] | None = None,
        master_db: float = 0.0,
    ) -> None:
        """Set several at once, as the keywords of `rtsep.separate` and `rtsep.Engine` say.

        Raises
        ------
        StemNotFoundError, UsageError
            As the single setters; what came before the wrong value is then already set.
        """
        for stem in mute:
            self.set_mute(stem, True)
        for stem in solo:
            self.set_solo(stem, True)
        for stem, db in (gain or {}).items():
            self.set_gain(stem, db)
        for stem, x in (pan or {}).items():
            self.set_pan(stem, x)
        self.master_db = master_db


def check_gain_db(what: str, db: float) -> float:
    """Return `db` with ``-inf`` as -120; UsageError outside -120 to 24 dB and for NaN."""
    if db == -math.inf:
        return GAIN_MIN_DB
    if not GAIN_MIN_DB <= db <= GAIN_MAX_DB:
        raise UsageError(f"Gain of {what} is {db:g} dB; allowed is {GAIN_MIN_DB:g} to {GAIN_MAX_DB:g} dB (-inf mutes).")
    return float(db)
