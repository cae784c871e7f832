"""Which model this machine can hold: measured once, kept, and taken by ``rtsep run`` when no model is named.

Standard library only; the measuring is that of ``rtsep bench --choose``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtsep.errors import ModelNotFoundError, RtsepError, UsageError
from rtsep.zoo.registry import ZooEntry, list_models, resolve

FILE = "choice.json"
HELD_RTF = 0.6
"""Largest 99th percentile of the hop time, over the hop's duration, of a model that is chosen."""
HELD_LATE = 0.01
"""Largest part of late hops."""


@dataclass(frozen=True)
class Timing:
    """A model as it ran on this machine.

    Parameters
    ----------
    model : str
        Name of a shipped model.
    sdr_db : float
        Mean over stems of its figures (museval).
    latency_ms : float
        Of the whole engine behind a device with blocks of 128, as planned.
    rtf : float
        99th percentile of the hop time over the hop's duration.
    late : float
        Part of the hops that were late, 0 to 1.
    """

    model: str
    sdr_db: float
    latency_ms: float
    rtf: float
    late: float

    @property
    def held(self) -> bool:
        """The machine keeps up with it, with reserve."""
        return self.rtf <= HELD_RTF and self.late <= HELD_LATE


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Parameters
    ----------
    model : str
    why : str
        A sentence for the person.
    cpu : str
        Of the machine that was measured.
    timings : tuple of Timing
        Of all candidates, the best-sounding first.
    """

    model: str
    why: str
    cpu: str
    timings: tuple[Timing, ...]

    def ladder(self) -> list[str]:
        """The chosen model, and those below it that cost less and less: where to go when the machine gets busy."""
        names: list[str] = []
        cost = float("inf")
        for timing in self.timings:
            if (names or timing.model == self.model) and timing.rtf < cost:
                names.append(timing.model)
                cost = timing.rtf
        return names


def candidates(folder: Path | None = None) -> list[tuple[ZooEntry, float]]:
    """Return the shipped models that separate into the four stems, with their mean SDR in dB, the best first."""
    found = []
    for entry in list_models(folder):
        info = entry.info
        sdr = info.evaluation.get("mean_sdr") if info.evaluation else None
        if sdr is not None and set(info.stems) == {"drums", "bass", "other", "vocals"}:
            found.append((entry, float(sdr)))
    return sorted(found, key=lambda item: -item[1])


def choose(timings: Sequence[Timing], cpu: str, latency_limit_ms: float | None = None) -> Choice:
    """Return the best-sounding model that is held, within a latency where one is given; else the cheapest one.

    Raises
    ------
    UsageError
        Nothing was measured, or nothing is within the limit.
    """
    within = [t for t in timings if latency_limit_ms is None or t.latency_ms <= latency_limit_ms]
    if not within:
        least = min((t.latency_ms for t in timings), default=0.0)
        raise UsageError(f"No model has {latency_limit_ms:g} ms or less; the quickest has {least:.1f} ms.")
    held = [t for t in within if t.held]
    limit = "" if latency_limit_ms is None else f" within {latency_limit_ms:g} ms"
    if held:
        best = max(held, key=lambda t: t.sdr_db)
        why = f"the best-sounding of {len(held)} models{limit} that this machine holds: {_figures(best)}"
    else:
        best = min(within, key=lambda t: t.rtf)
        why = f"this machine holds none{limit} with reserve; this is the cheapest: {_figures(best)}"
    return Choice(best.model, why, cpu, tuple(sorted(timings, key=lambda t: -t.sdr_db)))


def _figures(timing: Timing) -> str:
    return f"{timing.sdr_db:.2f} dB, {100 * timing.rtf:.0f} % of a hop, {timing.latency_ms:.1f} ms"


def place() -> Path:
    """Where the choice is kept: the settings folder of the person's system."""
    import click

    return Path(os.environ.get("RTSEP_CONFIG_DIR") or click.get_app_dir("rtsep")) / FILE


def store(choice: Choice) -> Path:
    """Write the choice down, whole or not at all, and return where. RtsepError when that is not possible."""
    path = place()
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(choice), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RtsepError(f"The choice cannot be kept in {path}: {error.strerror}. Set RTSEP_CONFIG_DIR.") from error
    return path


def load(cpu: str) -> Choice | None:
    """Return the choice made on this machine, or None: none was made, it is damaged, or its model is not there."""
    try:
        document: dict[str, Any] = json.loads(place().read_text(encoding="utf-8"))
        timings = tuple(Timing(**timing) for timing in document.pop("timings"))
        choice = Choice(**document, timings=timings)
        resolve(choice.model)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelNotFoundError):
        return None
    return choice if choice.cpu == cpu else None
