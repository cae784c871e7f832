#!/usr/bin/env python3
"""Render songs with exact stems from free MIDI files: ``<out>/<name>/{drums,bass,other,vocals}.flac``.

Each song is half a minute of a POP909 song (harmony, accompaniment and tune), arranged for a band of one of six kinds,
with a drum performance of the Groove MIDI data set, at a new tempo and key, through varied sounds and effects. In half
of the songs a recorded voice sings a tune of its own in the song's key; in the others ``vocals`` is silent and often an
instrument has the tune, for a melody is not always a voice. The same seed gives the same song, as long as the same
soundfonts are installed. A finished folder is skipped, and a folder appears only when it is complete, so the tool can
be stopped and started again::

    apt install fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont-small \\
        avldrums.lv2-soundfont hydrogen-drumkits
    python tools/render_multitracks.py --out data/rendered-midi --songs 200 --seconds 30 --first-seed 5000

``song.json`` in each folder names what was used. Terms of the sources: POP909 MIT, Groove MIDI CC BY 4.0, SSVD v2.0
(voices) research use; soundfonts FluidR3 and MuseScore General MIT, TimGM6mb GPL-2, AVL drums CC BY-SA 3.0; Hydrogen's
drum kits GPL-2, CC BY, CC BY-SA 3.0 and CC0, each as its ``drumkit.xml`` says. One soundfont is enough; drum kits are
optional.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import soundfile

from models.data.readers import STEMS, DataError, Source, find_songs
from tools.multitracks import mix, score, synth
from tools.multitracks.arrange import arrange
from tools.multitracks.effects import SAMPLERATE

ROOT = Path(__file__).resolve().parents[1]
VOICE_CHANCE = 0.5
CONFIG_WITH_HELD_OUT = ROOT / "models/configs/openunmix-low.toml"


@dataclass(frozen=True)
class Material:
    """What songs are made of, in a fixed order."""

    songs: list[Path]
    grooves: list[score.Groove]
    voices: list[Path]


def find_material(pop909: Path, groove: Path, voices: Path | None) -> Material:
    """List the material; recordings that validate other models (as the config's ``exclude`` says) are left out.

    Raises
    ------
    SynthError, ScoreError, DataError
        A program, a soundfont, or a folder of material is missing.
    """
    synth.check()
    singing: list[Path] = []
    if voices is not None:
        sources = tomllib.loads(CONFIG_WITH_HELD_OUT.read_text())["source"]
        held_out = tuple(next(source["exclude"] for source in sources if source["name"] == "ssvd"))
        found = find_songs(Source("voices", str(voices), "solo", "", exclude=held_out))
        singing = [song.stems["vocals"] for song in found if song.stems["vocals"].with_suffix(".txt").is_file()]
    return Material(score.list_pop_songs(pop909), score.list_grooves(groove), singing)


def compose(material: Material, seed: int, seconds: float) -> tuple[dict[str, np.ndarray], dict]:
    """Return the stems ``[2, T]`` at 44.1 kHz of the song that a seed gives, and what it was made of."""
    rng = np.random.default_rng((seed, 909))
    song = None
    while song is None:
        song = score.read_pop_song(material.songs[int(rng.integers(len(material.songs)))])
    transpose, voice, singer = int(rng.integers(-5, 7)), None, None
    sings = bool(material.voices) and rng.random() < VOICE_CHANCE
    if sings:
        singer = material.voices[int(rng.integers(len(material.voices)))]
        audio, notes, first = mix.read_voice(singer)
        sung, played = mix.pitch_classes(notes), mix.pitch_classes(song.tracks["PIANO"])
        transpose = max(range(-5, 7), key=lambda by: float(sung @ np.roll(played, by)))
    arrangement = arrange(song, material.grooves, seconds, transpose, 0.1 if sings else 0.65, rng)
    if sings:
        bar = score.BEATS_PER_BAR * arrangement.seconds_per_beat
        voice = mix.lay_voice(audio, first, bar, seconds, rng)
    stems = mix.render(arrangement, voice, seconds, rng)
    return stems, {"seed": seed, "voice": singer.stem if singer else None, **arrangement.facts}


def render_one(material: Material, out: Path, seconds: float, seed: int) -> str:
    """Write one song; return what was done as a word: ``rendered``, ``skipped`` or ``raced``."""
    folder = out / f"midi-{seed:05d}"
    if folder.is_dir():
        return "skipped"
    stems, facts = compose(material, seed, seconds)
    unfinished = Path(tempfile.mkdtemp(prefix=f".midi-{seed:05d}-", dir=out))
    try:
        for stem in STEMS:
            soundfile.write(unfinished / f"{stem}.flac", stems[stem].T, SAMPLERATE, subtype="PCM_16")
        (unfinished / "song.json").write_text(json.dumps(facts, indent=1) + "\n")
        unfinished.chmod(0o755)
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not folder.is_dir():
                raise
            return "raced"  # another process finished the same song first
        return "rendered"
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder the song folders go into")
    parser.add_argument("--songs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--first-seed", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=1, help="songs rendered at once")
    data = ROOT.parent / "shared/data"
    parser.add_argument("--pop909", type=Path, default=data / "midi/pop909", help="folder of POP909's *.mid")
    parser.add_argument("--groove", type=Path, default=data / "midi/groove", help="folder of the Groove MIDI data set")
    voices = parser.add_mutually_exclusive_group()
    voices.add_argument(
        "--voices", type=Path, default=data / "notes/ssvd-train", help="solo voices with notes (*.txt beside them)"
    )
    voices.add_argument("--no-voices", dest="voices", action="store_const", const=None, help="vocals stay silent")
    options = parser.parse_args(argv)
    if options.songs < 1 or options.jobs < 1 or options.first_seed < 0 or not 4 <= options.seconds <= 120:
        parser.error("--songs and --jobs must be at least 1, --first-seed at least 0, --seconds from 4 to 120")
    try:
        material = find_material(options.pop909, options.groove, options.voices)
    except (synth.SynthError, score.ScoreError, DataError) as error:
        parser.exit(1, f"error: {error}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.songs)
    work = partial(render_one, material, options.out, options.seconds)
    started = time.monotonic()
    pool = ProcessPoolExecutor(options.jobs) if options.jobs > 1 else None
    for i, done in enumerate((pool.map if pool else map)(work, seeds)):
        print(f"{i + 1}/{len(seeds)} seed {seeds[i]} {done} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
    if pool:
        pool.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
