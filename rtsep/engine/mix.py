"""The engine's faders and switches, from its control side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.mixer.settings import MixerSettings


class MixerControls:
    """What `rtsep.engine.Engine` can do with its mixer; not for use by itself.

    The settings lie in memory that the audio process reads every hop: nothing waits, any thread may call.
    """

    _settings: MixerSettings | None = None

    @property
    def settings(self) -> MixerSettings:
        """The live mixer settings; what is written takes effect within a hop. UsageError before `start`."""
        if self._settings is None:
            raise UsageError("The engine is not started: call start(), or use it in a with statement.")
        return self._settings

    def set_gain(self, stem: str, db: float) -> None:
        """Set a fader, -120 to 24 dB. StemNotFoundError, UsageError."""
        self.settings.set_gain(stem, db)

    def set_pan(self, stem: str, pan: float) -> None:
        """Set a balance, -1 (left) to 1 (right). StemNotFoundError, UsageError."""
        self.settings.set_pan(stem, pan)

    def set_mute(self, stem: str, on: bool = True) -> None:
        """Mute a stem or bring it back. StemNotFoundError."""
        self.settings.set_mute(stem, on)

    def set_solo(self, stem: str, on: bool = True) -> None:
        """Solo a stem or end it. StemNotFoundError."""
        self.settings.set_solo(stem, on)

    def set_master(self, db: float) -> None:
        """Set the master fader, -120 to 24 dB. UsageError."""
        self.settings.master_db = db

    def set_bypass(self, on: bool = True) -> None:
        """Play the delayed input instead of the mix, without a jump in time."""
        self.settings.bypass = on

    def set_limiter(self, on: bool = True) -> None:
        """Keep the output below full scale."""
        self.settings.limiter = on
