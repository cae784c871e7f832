"""What the notes process is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rtsep.contract import ModelInfo
from rtsep.notes.messages import StripMidi


@dataclass(frozen=True)
class NotesConfig:
    """Configuration of a notes process.

    Parameters
    ----------
    tap : str
        File of the engine's tap.
    info : ModelInfo
        Of the model that the engine runs.
    rate, samplerate : int
        Of model and device, in hertz.
    stem_delay : int
        Of the stems behind the captured sound, in samples of the model.
    strips : tuple of StripMidi
        One for every stem of the model.
    port : str or None
        As `rtsep.notes.output.MidiOutput`; None plays nothing.
    client_name : str
    latency : {"tight", "normal", "quality"}
    stems : tuple of str or None
        Which to write down.
    transcribers : mapping or None
        Files by kind; those in the wheel when None.
    muted_too : bool
        Stems that are not heard give notes as well.
    take : str or None
        Folder for the stems and the notes as files.
    """

    tap: str
    info: ModelInfo
    rate: int
    samplerate: int
    stem_delay: int
    strips: tuple[StripMidi, ...]
    port: str | None = None
    client_name: str = "rtsep-midi"
    latency: str = "normal"
    stems: tuple[str, ...] | None = None
    transcribers: Mapping[str, str] | None = None
    muted_too: bool = False
    take: str | None = None
