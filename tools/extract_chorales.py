"""Write the voices of Bach's chorales as note lists: ``python tools/extract_chorales.py [-o FILE]``.

Run once, to make ``models/data/chorales.json``; training needs neither this nor music21 (``pip install music21``,
whose package brings the scores along). Bach's works are in the public domain; of the edition only pitches and
durations are taken, no text and no layout.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

VOICES = 4
TICKS_PER_QUARTER = 4


def voice_of(part: Any) -> list[int] | None:
    """Return pitch and duration in ticks in turn, pitch 0 for rests; None where the rhythm is off the grid."""
    flat: list[int] = []
    for element in part.flatten().stripTies().notesAndRests:
        ticks = float(element.duration.quarterLength) * TICKS_PER_QUARTER
        if element.duration.isGrace:
            continue
        if ticks != round(ticks) or element.isChord:
            return None
        pitch = element.pitch.midi if element.isNote else 0
        if not pitch and flat and not flat[-2]:
            flat[-1] += int(ticks)
        else:
            flat += [pitch, int(ticks)]
    return flat


def main() -> None:
    from music21 import corpus

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("models/data/chorales.json"))
    parser.add_argument("--limit", type=int, default=200, help="chorales to take, in the order of their numbers")
    arguments = parser.parse_args()
    chorales: dict[str, list[list[int]]] = {}
    for path in sorted(corpus.getComposer("bach"), key=str):
        if len(chorales) == arguments.limit or path.suffix not in (".mxl", ".xml", ".musicxml"):
            continue
        score = corpus.parse(str(path))
        if len(score.parts) != VOICES:
            continue
        voices = [voice_of(part) for part in score.parts]
        if all(voices):
            chorales[path.stem] = voices  # type: ignore[assignment]
    document = {"ticks_per_quarter": TICKS_PER_QUARTER, "chorales": chorales}
    arguments.output.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{len(chorales)} chorales, {arguments.output.stat().st_size} bytes: {arguments.output}")


if __name__ == "__main__":
    main()
