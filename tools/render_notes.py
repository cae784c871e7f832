#!/usr/bin/env python3
"""Render clips with exact notes for training transcribers: ``<out>/<kind>/<seed>.flac`` beside ``<seed>.json``.

Three kinds. ``polyphonic``: parts of arranged POP909 songs, their piano, Bach chorales and random textures, on
keyboard, guitar, mallet, string, brass and synthesiser sounds, one or two instruments a clip, and chorales on recorded
orchestral notes. ``monophonic``: tunes, bass and random lines, with vibrato, scoops and legato glides by pitch bend,
and lines on recorded orchestral notes. ``drums``: Groove MIDI performances and random patterns on General MIDI and
recorded kits.

Clips are mono at 16 kHz. The JSON holds ``notes`` (onset s, offset s, MIDI pitch, velocity 1..127), for the monophonic
kind ``pitch`` (MIDI pitch per frame of 10 ms with bends, 0 where nothing sounds), and ``facts``. The same seed gives
the same clip, as long as the same soundfonts are installed; finished clips are skipped, so the tool can be started
again::

    apt install fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont-small \\
        avldrums.lv2-soundfont hydrogen-drumkits
    python tools/render_notes.py --out data/notes --kind polyphonic --clips 300

Terms of the sources: POP909 MIT, Groove MIDI CC BY 4.0, chorales public domain, Philharmonia notes free use; soundfonts
FluidR3 and MuseScore General MIT, TimGM6mb GPL-2, AVL drums CC BY-SA 3.0, Hydrogen's kits as each ``drumkit.xml`` says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import soundfile
import soxr

from models.data.readers import DataError
from tools.multitracks import score, synth
from tools.notes import compose
from tools.notes.play import Line, play_lines

ROOT = Path(__file__).resolve().parents[1]
SAMPLERATE = 16000
CLIPS_PER_RUN = 6  # one FluidSynth run plays so many clips: unpacking a soundfont costs more than playing it
HYDROGEN_CHANCE, RECORDED_KIT_CHANCE, ORCHESTRA_CHANCE = 0.35, 0.25, 0.2
COMPOSERS = {
    "polyphonic": compose.polyphonic,
    "monophonic": compose.monophonic,
    "drums": compose.drums,
}


def render_batch(kind: str, seeds: list[int], seconds: float, material: compose.Material, out: Path) -> None:
    """Write the clips of some seeds; seeds of one batch share a soundfont run by run."""
    jobs: dict[Path, list[tuple[int, Line]]] = {}
    pieces: dict[int, compose.Piece] = {}
    audio: dict[int, np.ndarray] = {}
    kits = synth.hydrogen_kits() if kind == "drums" else []
    fonts, recorded = synth.check(), synth.recorded_kits()
    for seed in seeds:
        rng = np.random.default_rng((seed, list(COMPOSERS).index(kind), 16))
        if kind != "drums" and material.orchestra is not None and rng.random() < ORCHESTRA_CHANCE:
            pieces[seed], audio[seed] = compose.orchestral(kind, material.orchestra, seconds, rng)
            continue
        piece = COMPOSERS[kind](material, seconds, rng)
        pieces[seed] = piece
        chance = rng.random()
        if kind == "drums" and kits and chance < HYDROGEN_CHANCE:
            hits = [score.Note(n.start, n.length, n.pitch, n.velocity) for n in piece.lines[0].notes]
            stereo = synth.strike(hits, kits, rng, seconds)
            piece.facts["font"] = "hydrogen"
            audio[seed] = _to_mono(stereo, 0.0)
            continue
        font = fonts[int(rng.integers(len(fonts)))]
        if kind == "drums" and recorded and chance > 1 - RECORDED_KIT_CHANCE:
            font = recorded[int(rng.integers(len(recorded)))]
            piece.lines[0] = piece.lines[0]._replace(program=0, drums=False)  # their kit is on an ordinary channel
        piece.facts["font"] = font.name
        for line in piece.lines:
            jobs.setdefault(font, []).append((seed, line))
    for font, lines in jobs.items():
        for (seed, _), stereo in zip(lines, play_lines([line for _, line in lines], font, seconds), strict=True):
            mono = _to_mono(stereo, pieces[seed].cents)
            before = audio.get(seed)
            audio[seed] = mono if before is None else before + mono
    for seed in seeds:
        _write(out / kind, seed, pieces[seed], audio[seed], seconds)


def _to_mono(stereo: np.ndarray, cents: float) -> np.ndarray:
    """16 kHz mono, out of tune by ``cents``: played faster, as the times in :func:`_write` are."""
    rate = 2.0 ** (cents / 1200)
    return soxr.resample(stereo.mean(0), synth.SAMPLERATE * rate, SAMPLERATE).astype(np.float32)


def _write(folder: Path, seed: int, piece: compose.Piece, audio: np.ndarray, seconds: float) -> None:
    peak = float(np.abs(audio).max())
    audio = audio * (0.5 / max(peak, 1e-4))
    rate = 2.0 ** (piece.cents / 1200)  # playing sharp is playing fast
    document: dict[str, object] = {
        "seconds": round(len(audio) / SAMPLERATE, 4),
        "notes": [
            [round(n.start / rate, 4), round((n.start + n.length) / rate, 4), n.pitch, n.velocity]
            for n in sorted(piece.notes)
            if n.start < seconds
        ],
        "cents": round(piece.cents, 1),
        "facts": {"seed": seed, **piece.facts},
    }
    if piece.pitch is not None:
        frames = np.minimum(np.round(np.arange(int(len(audio) / 160)) * rate).astype(int), len(piece.pitch) - 1)
        track = piece.pitch[frames]
        document["pitch"] = [round(float(p + piece.cents / 100), 2) if p else 0 for p in track]
    partial = folder / f".{seed:06d}.flac.part"
    soundfile.write(partial, audio, SAMPLERATE, subtype="PCM_16", format="FLAC")
    (folder / f"{seed:06d}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    os.replace(partial, folder / f"{seed:06d}.flac")  # the audio last: a clip counts when it is there


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that <kind>/ goes into")
    parser.add_argument("--kind", choices=list(COMPOSERS), required=True)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--first-seed", type=int, default=0)
    data = ROOT.parent / "shared/data"
    parser.add_argument("--pop909", type=Path, default=data / "midi/pop909", help="folder of POP909's *.mid")
    parser.add_argument("--groove", type=Path, default=data / "midi/groove", help="folder of the Groove MIDI data set")
    parser.add_argument("--orchestra", type=Path, default=data / "orchestra-notes", help="folder of recorded notes")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    options = parser.parse_args(argv)
    if options.clips < 1 or options.first_seed < 0 or not 4 <= options.seconds <= 60:
        parser.error("--clips must be at least 1, --first-seed at least 0, --seconds from 4 to 60")
    try:
        material = compose.find_material(options.pop909, options.groove, options.orchestra, options.cache, SAMPLERATE)
        synth.check()
    except (synth.SynthError, score.ScoreError, DataError) as error:
        parser.exit(1, f"error: {error}\n")
    folder = options.out / options.kind
    folder.mkdir(parents=True, exist_ok=True)
    first, started = options.first_seed, time.monotonic()
    seeds = [s for s in range(first, first + options.clips) if not (folder / f"{s:06d}.flac").exists()]
    for i in range(0, len(seeds), CLIPS_PER_RUN):
        render_batch(options.kind, seeds[i : i + CLIPS_PER_RUN], options.seconds, material, options.out)
        done = min(i + CLIPS_PER_RUN, len(seeds))
        print(f"{options.kind} {done}/{len(seeds)} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
