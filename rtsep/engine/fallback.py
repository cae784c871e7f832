"""What is heard while the model is late: the ladder.

Rung 1, *hold*: the delayed input times the gain the last model hops had over the whole band (output over dry, at
most 1), so that muted vocals do not jump back at full level. Four hops.
Rung 2, *dry*: when nothing is muted, soloed or turned down, the gain glides to the plain delayed input. Otherwise it
stays held for as long as it takes: quieter is a smaller fault than what somebody removed coming back.
Rung 3, *reset*: after a long gap the worker leaves the missed hops out and starts the model anew (`Timeline.restart`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

HOLD_HOPS = 4
_GLIDE_S = 0.05
_MAX = 4096


class Fallback:
    """Turns delayed input into what is played instead of the model's output.

    Parameters
    ----------
    channels, samplerate, hop, fade : int
        `hop` and `fade` in device samples; `fade` is the length of the transition at the start.

    Attributes
    ----------
    hold : array [C]
        Gain of rung 1, set by the worker after each hop.
    intact_gain : float or None
        Gain of rung 2; None while something is muted, soloed or turned down, which keeps rung 1.
    hop : int
        As given; another chain has another.
    hop_begun : int
        Hops begun in the last `shape`, for the statistics.

    Notes
    -----
    Real-time safe after construction.
    """

    def __init__(self, channels: int, samplerate: int, hop: int, fade: int) -> None:
        self.hold: Audio = np.ones(channels, np.float32)
        self.intact_gain: float | None = 1.0
        self.hop_begun = 0
        self.hop = hop
        self._step = 1.0 / (_GLIDE_S * samplerate)
        self._gain: Audio = np.ones(channels, np.float32)
        self._offset: Audio = np.zeros(channels, np.float32)
        self._run = 0
        self._decay: Audio = (1.0 - np.arange(1, fade + 1) / (fade + 1)).astype(np.float32)
        self._steps: Audio = np.arange(1, _MAX + 1, dtype=np.float32)
        self._line: Audio = np.zeros(_MAX, np.float32)

    def begin(self, dry_before: Audio, played_before: Audio) -> None:
        """Start a gap right after the sample `played_before`, where the delayed input was `dry_before` (both [C]).

        There is no model output past the edge to fade from, so the step between the two signals is added and decays:
        nothing jumps, and where they are equal nothing is added at all.
        """
        np.copyto(self._gain, self.hold)
        np.multiply(dry_before, self._gain, out=self._offset)
        np.subtract(played_before, self._offset, out=self._offset)
        self._run = 0

    def begin_from_silence(self) -> None:
        """Start a gap after the device had run dry; the caller fades in."""
        np.copyto(self._gain, self.hold)
        self._offset[:] = 0.0
        self._run = 0

    def shape(self, dry: Audio) -> bool:
        """Apply the ladder to ``dry`` [C, n] in place, n <= 4096; return whether this is rung 2 already."""
        count = dry.shape[1]
        rung_two = self._run >= HOLD_HOPS * self.hop and self.intact_gain is not None
        for c in range(len(dry)):
            gain = float(self._gain[c])
            target = gain
            if rung_two and self.intact_gain is not None:
                target = self.intact_gain
            if gain == target:
                if gain != 1.0:
                    dry[c] *= self._gain[c]
            else:
                line = self._line[:count]
                step = self._step if target > gain else -self._step
                np.multiply(self._steps[:count], np.float32(step), out=line)
                line += np.float32(gain)
                (np.minimum if step > 0 else np.maximum)(line, np.float32(target), out=line)
                dry[c] *= line
                self._gain[c] = line[-1]
        fading = min(count, len(self._decay) - self._run)
        if fading > 0:
            decay = self._decay[self._run : self._run + fading]
            for c in range(len(dry)):
                if self._offset[c] != 0.0:
                    line = self._line[:fading]
                    np.multiply(decay, self._offset[c], out=line)
                    dry[c, :fading] += line
        self.hop_begun = -(-(self._run + count) // self.hop) - -(-self._run // self.hop)
        self._run += count
        return rung_two
