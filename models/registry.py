"""The systems that can be trained and exported, by name; their code is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class System:
    """Where a system's parts are, each as ``"module:name"``.

    Attributes
    ----------
    name, title : str
        On the command line, and in tables.
    config, model : str
        The streaming form and its dataclass of sizes.
    task : str
        What :mod:`models.train` needs of it (:class:`models.training.task.Task`).
    """

    name: str
    title: str
    config: str
    model: str
    task: str

    def build(self, values: dict[str, Any]) -> Any:
        """Return the streaming model for plain configuration values; unknown keys raise ``TypeError``."""
        return load(self.model)(load(self.config).from_dict(values))


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(
            "openunmix",
            "Open-Unmix",
            "models.openunmix.streaming:StreamingOpenUnmixConfig",
            "models.openunmix.streaming:StreamingOpenUnmix",
            "models.openunmix.task:OpenUnmixTask",
        ),
        System(
            "cunet",
            "Conditioned U-Net",
            "models.cunet.streaming:CUNetConfig",
            "models.cunet.streaming:StreamingCUNet",
            "models.cunet.task:CUNetTask",
        ),
        System(
            "metatasnet",
            "Meta-TasNet",
            "models.metatasnet.streaming:MetaTasNetConfig",
            "models.metatasnet.streaming:StreamingMetaTasNet",
            "models.metatasnet.task:MetaTasNetTask",
        ),
        System(
            "msi",
            "MSI / MSI-DIS",
            "models.msi.streaming:MSIConfig",
            "models.msi.streaming:StreamingMSI",
            "models.msi.task:MSITask",
        ),
        System(
            "bandsplit",
            "Band-split network",
            "models.bandsplit.config:BandSplitConfig",
            "models.bandsplit.streaming:StreamingBandSplit",
            "models.bandsplit.task:BandSplitTask",
        ),
        System(
            "transcriber",
            "Live transcriber",
            "models.transcriber.model:TranscriberConfig",
            "models.transcriber.model:StreamingTranscriber",
            "models.transcriber.task:TranscriberTask",
        ),
    )
}


def find(name: str) -> System:
    """Return a system.

    Raises
    ------
    ValueError
        There is none of that name; the message lists those there are.
    """
    if name not in SYSTEMS:
        close = difflib.get_close_matches(name, SYSTEMS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"there is no system {name!r}; there are {', '.join(SYSTEMS)}.{hint}")
    return SYSTEMS[name]


def load(place: str) -> Any:
    """Return what ``"module:name"`` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
