"""What a transcriber's file says about itself. Standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rtsep.errors import MetadataError, UsageError, suggest
from rtsep.inference.onnx_file import read_properties
from rtsep.strict_json import (
    each,
    load_object,
    metadata_error,
    read_fields,
    read_integer,
    read_object,
    read_string,
)

Kind = Literal["polyphonic", "monophonic", "drums"]

METADATA_KEY = "rtsep-transcriber"
FORMAT = 1
KINDS: tuple[Kind, ...] = ("polyphonic", "monophonic", "drums")
DIAL = ("tight", "normal", "quality")
"""Positions of the latency dial, from the fastest to the surest."""

_FOLDER = Path(__file__).resolve().parent.parent / "zoo" / "transcribers"


@dataclass(frozen=True)
class DialPosition:
    """One position of the latency dial.

    Parameters
    ----------
    name : str
        Of `DIAL`.
    latency_samples : int
        Frame f, which covers the samples from ``f * hop`` to ``(f + 1) * hop``, is given out by the step whose input
        ends at ``(f + 1) * hop + latency_samples``.
    on, off, onset : float
        Thresholds of the tracker, 0 to 1.
    """

    name: str
    latency_samples: int
    on: float
    off: float
    onset: float


@dataclass(frozen=True)
class TranscriberInfo:
    """Metadata of a transcriber, key ``rtsep-transcriber``; there ``thresholds`` stand apart, by name.

    Parameters
    ----------
    format : int
    name, version : str
    kind : {"polyphonic", "monophonic", "drums"}
    samplerate, hop_samples, frames_per_hop : int
        Hertz; samples a step takes; frames it gives.
    midi_notes : tuple of int
        MIDI number of each posterior, 0 to 127.
    dial : tuple of DialPosition
    parameters, macs_per_second : int
        The latter for one stem.
    licence : str
    training_data : tuple of str
    git_commit, weights_sha256 : str
    evaluation : dict
    """

    format: int
    name: str
    version: str
    kind: str
    samplerate: int
    hop_samples: int
    frames_per_hop: int
    midi_notes: tuple[int, ...]
    dial: tuple[DialPosition, ...]
    parameters: int
    macs_per_second: int
    licence: str
    training_data: tuple[str, ...]
    git_commit: str
    weights_sha256: str
    evaluation: dict[str, Any]

    def position(self, name: str) -> int:
        """Index of a position of the dial; UsageError when there is none of that name."""
        names = [position.name for position in self.dial]
        if name not in names:
            raise UsageError(f"{self.name} has no latency {name!r}.{suggest(name, names)} It has {', '.join(names)}.")
        return names.index(name)

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """Frames that each position of the dial hears of what follows, rounded up."""
        return tuple(-(-entry.latency_samples * self.frames_per_hop // self.hop_samples) for entry in self.dial)

    @property
    def frame_s(self) -> float:
        """Seconds of a frame."""
        return self.hop_samples / self.frames_per_hop / self.samplerate


def read_transcriber_info(path: str | os.PathLike[str]) -> TranscriberInfo:
    """Read the metadata of a transcriber without loading the graph.

    Raises
    ------
    ModelNotFoundError, ModelFileError
        There is no such file, or it is no ONNX file.
    MetadataError
        The metadata is missing or malformed.
    """
    what = f"The metadata of {os.fspath(path)}"
    properties = read_properties(path)
    if METADATA_KEY not in properties:
        raise MetadataError(
            f"{os.fspath(path)} is no transcriber: it has no {METADATA_KEY!r} metadata. "
            "Export one with: python -m export. See docs/transcribers.md."
        )

    def position(key: str, value: Any) -> DialPosition:
        return read_fields(DialPosition, read_object(key, value), what, prefix=f"{key}.", special={})

    special = {
        "tuple[int, ...]": each(read_integer),
        "tuple[str, ...]": each(read_string),
        "tuple[DialPosition, ...]": each(position),
        "dict[str, Any]": read_object,
    }
    document = load_object(properties[METADATA_KEY], what)
    if "thresholds" not in document:
        raise metadata_error(f"{what} has no key 'thresholds'.")
    thresholds = read_object("thresholds", document.pop("thresholds"))
    for name, values in thresholds.items():
        for entry in document.get("dial", ()):
            if isinstance(entry, dict) and entry.get("name") == name:
                entry.update(read_object(f"thresholds.{name}", values))
    info = read_fields(TranscriberInfo, document, what, special=special)
    if info.format != FORMAT:
        raise metadata_error(f"{what} is of format {info.format}; this version of rtsep reads {FORMAT}.")
    if info.kind not in KINDS:
        raise metadata_error(f"{what}: kind is {info.kind!r}; allowed are {', '.join(KINDS)}.")
    sizes = (info.samplerate, info.hop_samples, info.frames_per_hop, len(info.midi_notes), len(info.dial))
    if min(sizes) < 1 or not all(0 <= note <= 127 for note in info.midi_notes):
        raise metadata_error(f"{what} has an empty or negative size, or a note outside 0 to 127.")
    for entry in info.dial:
        if entry.latency_samples < 0 or not (0 < entry.off <= entry.on <= 1 and 0 < entry.onset <= 1):
            raise metadata_error(f"{what}: the latency {entry.name!r} has values out of range: {entry}.")
    return info


def shipped_transcribers(folder: Path | None = None) -> dict[str, Path]:
    """Transcribers in the wheel, by kind."""
    found = {}
    for path in sorted((folder or _FOLDER).glob("*.onnx")):
        found[read_transcriber_info(path).kind] = path
    return found
