"""What live transcribers hear, on recordings: ``benchmarks/transcription_peers.py`` as figures.

Needs the recordings under ``../shared/data/notes`` and takes long; runs only when asked for by name.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.peers import FOLDER, install
from benchmarks.record import ROOT, Recorder

DATA = ROOT.parent / "shared" / "data"


def measure(recorder: Recorder, depth: str) -> None:
    """F1 within 50 ms of every system and kind; quick: one recording of each source."""
    if not (DATA / "notes").is_dir():
        recorder.missing("note_quality", "F1", f"no recordings in {DATA.name}/notes beside the checkout")
        return
    install()
    sys.path.insert(0, str(FOLDER))
    from benchmarks.transcription_peers import compare

    began = time.monotonic()
    result: dict[str, Any] = compare(DATA, ROOT / "data" / "cache", 1 if depth == "quick" else 0)
    for kind, table in result["tables"].items():
        for system, row in table["systems"].items():
            facts = {key: value for key, value in row.items() if key not in ("f1_50ms", "false_notes_per_minute")}
            facts |= {"recordings": table["recordings"], "notes": table["notes"]}
            recorder.put(
                "note_quality", "F1", row["f1_50ms"], "F1 at 50 ms", better="higher",
                parameters={"kind": kind, "system": system}, facts=facts, began=began,
            )  # fmt: skip
    for dial, share in result["four_stems_core"].items():
        recorder.put("note_quality", "four stems", share, "CPU s/s", parameters={"dial": dial})
