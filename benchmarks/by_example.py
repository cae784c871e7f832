"""Enroll three instruments, take each out of a trio, write down its notes, and play a scale with its sound; JSON.

    python benchmarks/by_example.py --model msi-low > by_example.json

The trio plays chorales and lines that training never saw, on recorded notes that training never saw (all notes of
the oboe among them, an instrument that it never heard). Every instrument is enrolled from a recording of other music.
All through the commands a person uses: ``rtsep enroll``, ``separate``, ``transcribe``, ``synth``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.data.ensembles import Orchestra, read_scores
from models.data.instruments import load_instruments
from models.evaluate import rtsep
from models.msi.evaluation import judge
from models.msi.reference import SAMPLERATE
from models.msi.task import HELD_OUT_EVERY
from models.train import read_config
from tests.support.pitch import cents, pitch_of

ROOT = Path(__file__).resolve().parents[1]
SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
NOTE_SECONDS = 0.6
Audio = NDArray[np.float32]


def orchestra(config: Path) -> Orchestra:
    """Return players of what training left out."""
    _, document = read_config(config)
    unseen = document["validation"]["unseen"]
    source = next(s for s in document["source"] if s["kind"] == "recorded-notes")
    library = load_instruments(
        Path(source["path"]),
        SAMPLERATE,
        ROOT / "data" / "cache",
        lambda name, midi: name in unseen or midi % HELD_OUT_EVERY == 0,
    )
    return Orchestra(library, read_scores(held_out=True))


def trio(players: Orchestra, names: list[str], seconds: float, seed: int) -> list[dict[str, NDArray[Any]]]:
    """Return what :func:`models.msi.evaluation.judge` takes, once per instrument of one and the same trio."""
    rng = np.random.default_rng(seed)
    parts = [part(0) for part in players.ensemble(rng, names, seconds, [0] * len(names))]
    stems = [0.08 * audio / max(float(np.sqrt(np.mean(audio**2))), 1e-6) for audio, _ in parts]
    mixture = np.sum(stems, axis=0).astype(np.float32)
    return [
        {
            "mixture": mixture,
            "target": stem.astype(np.float32),
            "roll": roll,
            "queries": alone(players, name, rng)[None, None],
        }
        for name, stem, (_, roll) in zip(names, stems, parts, strict=True)
    ]


def alone(players: Orchestra, name: str, rng: np.random.Generator) -> Audio:
    """A recording to enroll from: other music, the instrument by itself."""
    audio = players.solo(rng, name, 8.0, 0)
    return (0.1 * audio / max(float(np.sqrt(np.mean(audio**2))), 1e-6)).clip(-0.99, 0.99).astype(np.float32)


def scale(model: Path, recording: Audio, lowest: int) -> dict[str, Any]:
    """Play a major scale with an enrolled sound; return how far its pitches are from what they should be, in cents."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        soundfile.write(folder / "alone.wav", recording, SAMPLERATE, subtype="FLOAT")
        rtsep("enroll", folder / "alone.wav", "-o", folder / "a.query", "--model", model)
        track = mido.MidiTrack()
        ticks = round(mido.second2tick(NOTE_SECONDS, 480, 500000))
        for step in SCALE:
            track.append(mido.Message("note_on", note=lowest + step, velocity=90, time=0))
            track.append(mido.Message("note_off", note=lowest + step, time=ticks))
        mido.MidiFile(tracks=[track], ticks_per_beat=480).save(folder / "scale.mid")
        options = ("--query", folder / "a.query", "--model", model, "-o", folder / "scale.wav")
        rtsep("synth", folder / "scale.mid", *options)
        audio, samplerate = soundfile.read(folder / "scale.wav", dtype="float32", always_2d=True)
    off = []
    for index, step in enumerate(SCALE):
        start = round((index + 0.35) * NOTE_SECONDS * samplerate)
        piece = audio[start : start + round(0.5 * NOTE_SECONDS * samplerate), 0]
        wanted = 440.0 * 2 ** ((lowest + step - 69) / 12)
        off.append(round(float(cents(pitch_of(piece, samplerate), wanted)), 1))
    level = 20 * np.log10(max(float(np.sqrt(np.mean(audio**2))), 1e-9))
    return {"lowest_midi": lowest, "cents_off": off, "level_dbfs": round(float(level), 1)}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("msi-low"), help="name or path")
    parser.add_argument("--config", type=Path, default=ROOT / "models" / "configs" / "msi-low.toml")
    parser.add_argument("--instruments", default="oboe,cello,flute", help="three, comma-separated")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    players = orchestra(arguments.config)
    names = arguments.instruments.split(",")
    if unknown := set(names) - set(players.instruments):
        parser.error(f"no recordings of {', '.join(sorted(unknown))}; there are: {', '.join(players.instruments)}")
    document: dict[str, Any] = {"model": str(arguments.model), "instruments": {}}
    rng = np.random.default_rng(arguments.seed + 1)
    for name, example in zip(names, trio(players, names, arguments.seconds, arguments.seed), strict=True):
        figures = {key: round(value, 2) for key, value in judge(arguments.model, example).items()}
        low = max(players.library[name].lowest, 45)
        document["instruments"][name] = {**figures, "scale": scale(arguments.model, alone(players, name, rng), low)}
    json.dump(document, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
