"""One hop in, one hop out: model, delayed dry signal and mixer as one object, the same live and offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError
from rtsep.mixer.mixer import Mixer

if TYPE_CHECKING:
    from rtsep.inference.session import StreamingSession

Audio = NDArray[np.float32]


class DryDelay:
    """Delays ``[C, T]`` blocks of a fixed size by a fixed number of samples.

    Parameters
    ----------
    channels, samples, block : int
        `samples` is the delay, 0 or more.

    Notes
    -----
    `process` is real-time safe.
    """

    def __init__(self, channels: int, samples: int, block: int) -> None:
        self.samples = samples
        self._line = np.zeros((channels, samples + block), np.float32)
        self._at = 0

    def reset(self) -> None:
        """Back to silence."""
        self._line.fill(0.0)
        self._at = 0

    def process(self, audio: Audio, out: Audio) -> None:
        """Write ``audio`` [C, block] into the line and what is `samples` older into ``out`` [C, block]."""
        size, n = self._line.shape[1], audio.shape[1]
        at = self._at
        first = min(n, size - at)
        self._line[:, at : at + first] = audio[:, :first]
        self._line[:, : n - first] = audio[:, first:]
        read = (at + size - self.samples) % size
        first = min(n, size - read)
        out[:, :first] = self._line[:, read : read + first]
        out[:, first:] = self._line[:, : n - first]
        self._at = (at + n) % size


class HopChain:
    """A model and a mixer, a hop at a time.

    Parameters
    ----------
    session : StreamingSession
        Stays the caller's: closing it is the caller's task.
    mixer : Mixer
        For the stems and channels of the model.

    Attributes
    ----------
    latency_samples : int
        ``out``, ``dry`` and ``stems`` belong to the audio this many samples earlier, at the model's rate.
    dry, out : arrays [C, hop]
    stems : array [S, C, hop]
        Of the hop just processed; valid until the next one.

    Raises
    ------
    UsageError
        The mixer is for other stems or channels than the model.
    """

    def __init__(self, session: StreamingSession, mixer: Mixer) -> None:
        info = session.info
        if mixer.stems != tuple(info.stems) or mixer.channels != info.channels:
            raise UsageError(
                f"The mixer is for {', '.join(mixer.stems)} in {mixer.channels} channels, "
                f"the model {info.name} gives {', '.join(info.stems)} in {info.channels}."
            )
        self.session, self.mixer = session, mixer
        self.hop_samples = info.hop_samples
        self.latency_samples = info.latency_samples
        self._shape = (info.channels, info.hop_samples)
        self._delay = DryDelay(info.channels, info.latency_samples, info.hop_samples)
        self._finite = np.zeros(self._shape, np.bool_)
        self._clean = np.zeros(self._shape, np.float32)
        self.dry: Audio = np.zeros(self._shape, np.float32)
        self.out: Audio = np.zeros(self._shape, np.float32)
        self.stems: Audio = np.zeros((len(info.stems), *self._shape), np.float32)

    def process_wet(self, audio: Audio, wet: Audio, factors: Audio) -> None:
        """As `process_hop`, for a dry signal that is elsewhere; see `rtsep.wideband` and `Mixer.process_wet`.

        Parameters
        ----------
        audio : array [C, hop]
        wet, factors : arrays [C, hop]
            Receive what is to be added to the dry signal, and what that is to be multiplied by.
        """
        if audio.shape != self._shape:
            raise ValueError(f"audio is {audio.shape}; the model takes {self._shape}.")
        info = self.session.info
        self.stems = self.session.step(audio)
        residual = None if info.residual_stem is None else info.stems.index(info.residual_stem)
        self.mixer.process_wet(self.stems, wet, factors, residual)

    def process_hop(self, audio: Audio) -> Audio:
        """Process one hop and return `out`. Real-time safe.

        Parameters
        ----------
        audio : array [C, hop]
            float32, C-contiguous; NaN and infinity count as 0.

        Raises
        ------
        ValueError
            Another shape.
        """
        if audio.shape != self._shape:
            raise ValueError(f"audio is {audio.shape}; the model takes {self._shape}.")
        bad = self.session.nonfinite_samples
        self.stems = self.session.step(audio)
        if self.session.nonfinite_samples != bad:  # the session took them as 0, so the dry signal does too
            np.isfinite(audio, out=self._finite)
            self._clean.fill(0.0)
            np.copyto(self._clean, audio, where=self._finite)
            audio = self._clean
        self._delay.process(audio, self.dry)
        return self.mixer.process(self.dry, self.stems, self.out)

    def reset(self) -> None:
        """Forget all past audio: model state, delay, ramps and meters. Settings stay. Real-time safe."""
        self.session.reset()
        self._delay.reset()
        self.mixer.reset()
        self.dry.fill(0.0)
        self.out.fill(0.0)
