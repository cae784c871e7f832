"""Move one instrument's fader of a conditioned model while a real song plays; JSON on stdout.

    python benchmarks/fader.py --model cunet-low > fader.json

levels   what a fader position does: the level of the true vocals and of the other true stems in what is heard
moving   the engine plays the song at the clock's pace while the fader goes from 0 to 1 in steps of a twentieth. With d,
         what the fader adds to the song between its ends, what is heard is ``down + v(t) d``: v is found by least
         squares in frames of 2.9 ms. A click is what a smooth v does not explain: the energy above 8 kHz of
         ``heard - down - smooth(v) d`` against that of ``d``, in the loudest frame of each step. Beside it the same
         for faders that jump within one sample, which is what the check must find.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rtsep
from models.data.readers import STEMS
from models.evaluate import validation_songs
from rtsep.audio.backends import FileConfig
from rtsep.demo.measure import attenuation

Audio = NDArray[np.float32]
POSITIONS = tuple(round(0.1 * k, 1) for k in range(11))
STEPS, FRAME, SMOOTH = 20, 128, 15  # samples; frames
CONFIG = Path(__file__).resolve().parents[1] / "models" / "configs" / "cunet-low.toml"


def song_stems(name: str) -> tuple[dict[str, Audio], int]:
    """Return the true stems ``[C, T]`` of a validation song and their rate."""
    songs, samplerate = validation_songs(CONFIG)
    song = next((song for song in songs if song.name == name), None)
    if song is None:
        raise SystemExit(f"there is no validation song {name!r}; there are: {', '.join(s.name for s in songs)}")
    return {stem: song.read(stem, 0, song.length) for stem in STEMS}, samplerate


def levels(model: str | Path, stems: dict[str, Audio], samplerate: int, fader: str) -> list[dict[str, float]]:
    """Level in dB of each true stem in what is selected, by position of one fader, the others up."""
    mixture = np.sum(list(stems.values()), axis=0)
    rows = []
    for position in POSITIONS:
        condition = [position if stem == fader else 1.0 for stem in STEMS]
        result = rtsep.separate(
            mixture, samplerate=samplerate, model=model, stems=["selected"], controls={"condition": condition}
        )
        left = attenuation(result.stems["selected"], stems).db
        rows.append({"position": position, **{stem: round(-db, 2) for stem, db in left.items()}})
    return rows


def moving(model: str | Path, stems: dict[str, Audio], samplerate: int, fader: str) -> dict[str, Any]:
    """Play, move the fader up in steps, and look for clicks."""
    mixture = np.sum(list(stems.values()), axis=0).astype(np.float32)
    seconds = mixture.shape[1] / samplerate
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        soundfile.write(folder / "song.wav", mixture.T, samplerate, subtype="FLOAT")
        backend = FileConfig(input=str(folder / "song.wav"), output=str(folder / "heard.wav"))
        condition = [0.0 if stem == fader else 1.0 for stem in STEMS]
        engine = rtsep.Engine(model, backend=backend, controls={"condition": condition}, solo=["selected"])
        moved = []
        with engine:
            for step in range(1, STEPS + 1):
                while engine.position_samples < step * seconds * samplerate / (STEPS + 2) and engine.running:
                    time.sleep(0.001)
                condition[STEMS.index(fader)] = step / STEPS
                engine.set_control("condition", condition)
                moved.append(engine.position_samples)
            engine.wait()
            delay, late = engine.latency().total_samples, engine.stats().late_hops
        heard = soundfile.read(folder / "heard.wav", dtype="float32")[0].T
    heard = heard[:, delay:]
    length = min(heard.shape[1], mixture.shape[1])
    heard, dry = heard[:, :length], mixture[:, :length]
    down = rtsep.separate(
        mixture,
        samplerate=samplerate,
        model=model,
        stems=["selected"],
        controls={"condition": [0.0 if stem == fader else 1.0 for stem in STEMS]},
    ).stems["selected"][:, :length]
    added = dry - down
    jumping = np.searchsorted(moved, np.arange(length), side="right") / STEPS
    found, of_jumps = (explain(audio, down, added) for audio in (heard, down + jumping * added))
    return {
        "steps": len(moved),
        "late_hops": late,
        "fader_at_the_end": round(found["end"], 3),
        "largest_change_in_3_ms": round(found["change"], 4),
        "click_db": round(found["click_db"], 1),
        "of_jumps": {
            "largest_change_in_3_ms": round(of_jumps["change"], 4),
            "click_db": round(of_jumps["click_db"], 1),
        },
    }


def explain(heard: Audio, down: Audio, added: Audio) -> dict[str, float]:
    """Find the fader's way through ``heard = down + v(t) added`` and what a smooth way leaves over."""
    extra, power = frame_sums((heard - down) * added), frame_sums(np.square(added))
    box = np.ones(SMOOTH) / SMOOTH
    smooth = np.convolve(extra, box, "same") / np.maximum(np.convolve(power, box, "same"), 1e-12)
    # From frame to frame, where there is enough to tell by.
    audible = power > 1e-3 * power.max()
    raw = extra[audible] / power[audible]
    centres = (np.arange(len(smooth)) + 0.5) * FRAME
    line = np.interp(np.arange(heard.shape[1]), centres, smooth)
    sos = butter(6, 8000, "highpass", fs=44100, output="sos")
    left, whole = (frame_sums(np.square(sosfilt(sos, x, axis=1))) for x in (heard - down - line * added, added))
    loud = whole > 1e-3 * whole.max()
    return {
        "end": float(np.median(raw[-50:])),
        "change": float(np.abs(np.diff(raw)).max()),
        "click_db": float(10 * np.log10((left[loud] / whole[loud]).max() + 1e-20)),
    }


def frame_sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over channels and frames of :data:`FRAME` samples."""
    count = values.shape[1] // FRAME
    return values[:, : count * FRAME].astype(np.float64).reshape(len(values), count, FRAME).sum(axis=(0, 2))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cunet-low", help="name or path")
    parser.add_argument("--song", default="Actions - One Minute Smile", help="a validation song")
    parser.add_argument("--fader", default="vocals", choices=STEMS)
    arguments = parser.parse_args()
    stems, samplerate = song_stems(arguments.song)
    document = {
        "model": arguments.model,
        "song": arguments.song,
        "fader": arguments.fader,
        "levels": levels(arguments.model, stems, samplerate, arguments.fader),
        "moving": moving(arguments.model, stems, samplerate, arguments.fader),
    }
    json.dump(document, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
