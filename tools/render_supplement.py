#!/usr/bin/env python3
"""Render songs as plain stem folders for training: ``<out>/<name>/{vocals,drums,bass,other}.flac``.

44.1 kHz, stereo, 16 bit. A finished folder is skipped, and a folder appears only when it is complete, so the tool can
be stopped, started again, and run several times at once on different seeds or on the same ones::

    python tools/render_supplement.py --out data/rendered --songs 60 --seconds 40 --first-seed 1000
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import soundfile

from rtsep.demo.song import DEMO_SEED, STEMS, TRAINING_SEEDS, render_song

SAMPLERATE = 44100


def render_one(out: Path, seed: int, seconds: float) -> str:
    """Write one song; return what was done as a word: ``rendered``, ``skipped`` or ``raced``."""
    name = f"rendered-{seed:04d}"
    folder = out / name
    if all((folder / f"{stem}.flac").is_file() for stem in STEMS):
        return "skipped"
    song = render_song(seed, SAMPLERATE, seconds)
    part = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
    try:
        for stem in STEMS:
            soundfile.write(part / f"{stem}.flac", song.stems[stem].T, SAMPLERATE, subtype="PCM_16")
        part.chmod(0o755)
        if folder.exists() and not all((folder / f"{stem}.flac").is_file() for stem in STEMS):
            shutil.rmtree(folder)
        try:
            os.rename(part, folder)
        except OSError:
            if not folder.is_dir():
                raise
            return "raced"  # another process finished the same song first
        return "rendered"
    finally:
        shutil.rmtree(part, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder the song folders go into")
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--first-seed", type=int, default=TRAINING_SEEDS.start)
    options = parser.parse_args(argv)
    seeds = range(options.first_seed, options.first_seed + options.songs)
    if options.songs < 1 or seeds[0] not in TRAINING_SEEDS or seeds[-1] not in TRAINING_SEEDS or DEMO_SEED in seeds:
        parser.error(
            f"seeds {options.first_seed}..{options.first_seed + options.songs - 1}: training seeds are "
            f"{TRAINING_SEEDS.start}..{TRAINING_SEEDS.stop - 1}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for i, seed in enumerate(seeds):
        done = render_one(options.out, seed, options.seconds)
        print(f"{i + 1}/{len(seeds)} seed {seed} {done} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
