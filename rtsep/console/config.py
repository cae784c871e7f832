"""What the console process is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ConsoleConfig:
    """Configuration of a console process.

    Parameters
    ----------
    shared : str
        File of the engine's `rtsep.engine.shared.SharedBlock`.
    tap : str or None
        File of its tap; without one there are no spectra.
    stems : tuple of str
        Of the model: what the meters and the tap count.
    samplerate, rate : int
        Of the device and of the model, in hertz.
    stem_delay : int
        Of the stems behind the captured sound, in samples of the model.
    host : str
    port : int or None
        As `rtsep.console.access.listen_at`.
    token : str or None
        What a client must know; None lets everybody in who gets past the check of host and origin.
    about : mapping
        Words for the page: model, device, what is heard.
    """

    shared: str
    tap: str | None
    stems: tuple[str, ...]
    samplerate: int
    rate: int
    stem_delay: int
    host: str
    port: int | None
    token: str | None
    about: Mapping[str, Any]
