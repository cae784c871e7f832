"""One hop in, one hop out: model, delayed dry signal and mixer as one object, the same live and offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.delay import DryDelay
from rtsep.errors import UsageError
from rtsep.mixer.mixer import Mixer

if TYPE_CHECKING:
    from rtsep.inference.session import StreamingSession
    from rtsep.plugins.rack import Racks

Audio = NDArray[np.float32]


class HopChain:
    """A model and a mixer, a hop at a time.

    Parameters
    ----------
    session : StreamingSession
        Stays the caller's: closing it is the caller's task.
    mixer : Mixer
        For the stems and channels of the model.
    racks : Racks, optional
        Chains of plugins on stems and on the master; none when left out.

    Attributes
    ----------
    latency_samples : int
        ``stems`` belong to the audio this many samples earlier, at the model's rate.
    plugin_samples : int
        ``dry``, ``out`` and ``changed`` are later by so much, at the model's rate; the master's chain, whose delay is
        `master_samples` at the output's rate, comes on top of that in ``out``.
    dry, out : arrays [C, hop]
    stems : array [S, C, hop]
        As the model gave them, of the hop just processed; valid until the next one.

    Raises
    ------
    UsageError
        The mixer is for other stems or channels than the model.
    """

    def __init__(self, session: StreamingSession, mixer: Mixer, racks: Racks | None = None) -> None:
        info = session.info
        if mixer.stems != tuple(info.stems) or mixer.channels != info.channels:
            raise UsageError(
                f"The mixer is for {', '.join(mixer.stems)} in {mixer.channels} channels, "
                f"the model {info.name} gives {', '.join(info.stems)} in {info.channels}."
            )
        self.session, self.mixer, self.racks = session, mixer, racks
        if racks is not None:
            mixer.insert = racks.master.insert
        self.hop_samples = info.hop_samples
        self.latency_samples = info.latency_samples
        self._shape = (info.channels, info.hop_samples)
        self._delay = DryDelay(info.channels, info.latency_samples, info.hop_samples)
        self._finite = np.zeros(self._shape, np.bool_)
        self._clean = np.zeros(self._shape, np.float32)
        self._dry: Audio = np.zeros(self._shape, np.float32)
        self.dry: Audio = self._dry
        self.out: Audio = np.zeros(self._shape, np.float32)
        self.stems: Audio = np.zeros((len(info.stems), *self._shape), np.float32)

    @property
    def plugin_samples(self) -> int:
        """See the class."""
        return 0 if self.racks is None else self.racks.stems.latency_samples

    @property
    def master_samples(self) -> int:
        """See the class."""
        return 0 if self.racks is None else self.racks.master.latency_samples

    def aligned(self, stem: int) -> Audio:
        """Return a stem [C, hop] before its plugins, as late as they are."""
        audio: Audio = (self.stems if self.racks is None else self.racks.stems.stems)[stem]
        return audio

    def changed(self, stem: int) -> Audio | None:
        """Return a stem [C, hop] after its plugins; None when they left it alone."""
        return None if self.racks is None else self.racks.stems.processed[stem]

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
        if self.racks is None:
            self.mixer.process_wet(self.stems, wet, factors, residual)
            return
        rack = self.racks.stems
        rack.process(None, self.stems)
        self.mixer.process_wet(rack.stems, wet, factors, residual, rack.processed)

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
        self._delay.process(audio, self._dry)
        if self.racks is None:
            return self.mixer.process(self._dry, self.stems, self.out)
        rack = self.racks.stems
        rack.process(self._dry, self.stems)
        assert rack.dry is not None
        self.dry = rack.dry
        return self.mixer.process(rack.dry, rack.stems, self.out, rack.processed)

    def reset(self) -> None:
        """Forget all past audio: model state, delay, ramps and meters. Settings stay.

        Real-time safe as far as the plugins' own reset is.
        """
        self.session.reset()
        self._delay.reset()
        self.mixer.reset()
        if self.racks is not None:
            self.racks.reset()
        self.dry.fill(0.0)
        self.out.fill(0.0)
