#!/usr/bin/env python3
"""Clips with notes as a separator leaves them: ``<out>/<kind>/<seed>.flac`` beside ``<seed>.json``.

A polyphonic clip, a bass line, drums (all of ``tools/render_notes.py``) and a sung recording are mixed at random
levels and taken apart again by one of rtsep's own models; each stem keeps the notes of what went in, moved by nothing:
the model's latency is taken off. Recordings that are held out for validation take no part::

    python tools/separate_notes.py --clips data/notes --out data/notes/separated --mixtures 150

The mixtures end at 8 kHz, as the clips do, which no separator meets in records. Finished clips are skipped.
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

from models.data.clips import SAMPLERATE, Bank, Clip, open_bank, read_rendered, read_ssvd
from models.data.degrade import rms
from models.data.readers import Audio, DataError
from rtsep.errors import RtsepError
from rtsep.inference import StreamingSession

ROOT = Path(__file__).resolve().parents[1]
STEM_KINDS = {"other": "polyphonic", "bass": "monophonic", "vocals": "monophonic", "drums": "drums"}
SAMPLES = 20 * SAMPLERATE
HIGHEST_BASS = 52  # mean MIDI pitch: what is higher is a tune
LEVELS_DB = (-6.0, 6.0)


def draw(banks: dict[str, Bank], rng: np.random.Generator) -> dict[str, tuple[Clip, Audio, float]]:
    """A clip for each stem: clip, audio ``[T]`` at equal loudness times a random gain, seconds where it begins."""
    chosen = {}
    for stem, bank in banks.items():
        clips = bank.clips
        if stem == "bass":
            clips = [clip for clip in clips if len(clip.notes) and clip.notes[:, 2].mean() <= HIGHEST_BASS]
        clip = clips[int(rng.integers(len(clips)))]
        first = int(rng.integers(0, max(1, clip.stop - clip.start - SAMPLES)))
        audio = bank.read(clip, first, SAMPLES)
        gain = 0.06 * 10 ** (rng.uniform(*LEVELS_DB) / 20) / max(rms(audio), 1e-4)
        chosen[stem] = (clip, audio * np.float32(gain), first / SAMPLERATE)
    if rng.random() < 0.3:  # not every song is sung
        del chosen["vocals"]
    return chosen


def separated(session: StreamingSession, mixture: Audio) -> dict[str, Audio]:
    """Stems ``[T]`` at 16 kHz of mono audio ``[T]``, the model's latency taken off."""
    info = session.info
    rate = info.samplerates[0]
    audio = soxr.resample(mixture, SAMPLERATE, rate).astype(np.float32)
    hops = -(-(len(audio) + info.latency_samples) // info.hop_samples)
    padded = np.zeros((info.channels, hops * info.hop_samples), np.float32)
    padded[:, : len(audio)] = audio
    session.reset()
    blocks = [
        session.step(np.ascontiguousarray(padded[:, i * info.hop_samples : (i + 1) * info.hop_samples])).copy()
        for i in range(hops)
    ]
    stems = np.concatenate(blocks, axis=2)[:, :, info.latency_samples : info.latency_samples + len(audio)]
    return {
        name: soxr.resample(stem.mean(0), rate, SAMPLERATE).astype(np.float32)[: len(mixture)]
        for name, stem in zip(info.stems, stems, strict=True)
    }


def write(folder: Path, name: str, clip: Clip, start: float, audio: Audio, facts: dict[str, object]) -> None:
    """Write a stem with the notes of its clip from ``start`` seconds on."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = len(audio) / SAMPLERATE
    notes = clip.notes.copy()
    notes[:, :2] -= start
    notes = notes[(notes[:, 0] > 0.0) & (notes[:, 0] < seconds)]
    document: dict[str, object] = {
        "seconds": round(seconds, 4),
        "notes": [[round(float(value), 4) for value in row] for row in notes],
        "cents": 0.0,
        "facts": facts,
    }
    if clip.pitch is not None:
        first = round(start * 100)
        document["pitch"] = [round(float(p), 2) for p in clip.pitch[first : first + round(seconds * 100)]]
    audio = audio * np.float32(0.5 / max(float(np.abs(audio).max()), 1e-4))
    partial = folder / f".{name}.part"
    soundfile.write(partial, audio, SAMPLERATE, subtype="PCM_16", format="FLAC")
    (folder / f"{name}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    os.replace(partial, folder / f"{name}.flac")


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=Path("data/notes"), help="folder of rendered clips")
    parser.add_argument("--voices", type=Path, default=ROOT.parent / "shared/data/notes/ssvd-train")
    parser.add_argument("--out", type=Path, default=Path("data/notes/separated"))
    parser.add_argument("--model", type=Path, default=ROOT / "rtsep/zoo/openunmix-low.onnx")
    parser.add_argument("--mixtures", type=int, default=150)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    options = parser.parse_args(argv)
    if options.mixtures < 1 or options.first_seed < 0:
        parser.error("--mixtures must be at least 1, --first-seed at least 0")
    try:
        kinds = {"other": "polyphonic", "bass": "monophonic", "drums": "drums"}
        banks = {
            stem: open_bank(f"rendered-{kind}", options.clips / kind, read_rendered, options.cache)
            for stem, kind in kinds.items()
        }
        banks["vocals"] = open_bank("ssvd", options.voices, read_ssvd, options.cache)
        session = StreamingSession(options.model, provider="cpu")
    except (DataError, RtsepError) as error:
        parser.exit(1, f"error: {error}\n")
    started = time.monotonic()
    for seed in range(options.first_seed, options.first_seed + options.mixtures):
        if (options.out / "drums" / f"{seed:06d}-drums.flac").exists():
            continue
        chosen = draw(banks, np.random.default_rng((seed, 44)))
        mixture = np.sum([audio for _, audio, _ in chosen.values()], axis=0)
        mixture = mixture * np.float32(min(1.0, 0.9 / max(float(np.abs(mixture).max()), 1e-4)))
        stems = separated(session, mixture)
        facts = {"seed": seed, "model": session.info.name, "clips": {s: c.name for s, (c, _, _) in chosen.items()}}
        for stem in sorted(chosen, key=lambda name: name == "drums"):  # drums last: they tell that it is finished
            clip, _, start = chosen[stem]
            write(options.out / STEM_KINDS[stem], f"{seed:06d}-{stem}", clip, start, stems[stem], facts)
        print(
            f"{seed - options.first_seed + 1}/{options.mixtures} ({time.monotonic() - started:.0f} s)", file=sys.stderr
        )
    session.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
