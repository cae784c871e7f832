"""Builds the VST3 bundles of the tests."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "plugins" / "faulty.c"


def build_bundle(folder: Path, name: str, *flags: str) -> Path:
    """Compile tests/plugins/faulty.c into ``folder/name.vst3`` and return its path."""
    library = folder / f"{name}.vst3" / "Contents" / f"{platform.machine()}-linux" / f"{name}.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    words = ["gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", *flags]
    subprocess.run([*words, str(SOURCE), "-o", str(library), "-lm"], check=True)
    return folder / f"{name}.vst3"
