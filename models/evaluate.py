"""BSS Eval v4 of an exported model: ``python -m models.evaluate FILE.onnx --config CONFIG.toml``.

Songs go as files through ``rtsep separate``, the same streaming graph and hop chain that plays live, and the stems it
writes are scored by museval (Stöter et al., LVA/ICA 2018) in windows of one second. Per song the median over the
windows counts, per stem the median over the songs; the mixture as its own estimate is scored beside it. A conditioned
model is asked for one stem after the other; models that separate by query: :mod:`models.msi.evaluation`. With
``--karaoke``, and for models that have no other stems, the vocals and the sum of all others are scored.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import museval
import numpy as np
import soundfile
from numpy.typing import NDArray

from models.data.library import Song, load_source
from models.data.readers import STEMS, Source
from models.train import read_config

METRICS = ("SDR", "ISR", "SIR", "SAR")
KARAOKE = ("vocals", "accompaniment")
Scores = dict[str, dict[str, float]]


def validation_songs(config_path: Path) -> tuple[list[Song], int]:
    """Return the held-out songs of a training config and their sample rate."""
    config, document = read_config(config_path)
    names = document["validation"]["songs"]
    songs: list[Song] = []
    for table in document["source"]:
        source = Source(**{**table, "exclude": tuple(table.get("exclude", ()))})
        if any((Path(source.path) / f"{name}{suffix}").exists() for name in names for suffix in ("", ".stem.mp4")):
            songs += [s for s in load_source(source, config.samplerate, Path(config.cache)) if s.name in names]
    return songs, config.samplerate


def rtsep(*arguments: object) -> str:
    """Run a command of the host, as a user would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "rtsep", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"rtsep {arguments[0]} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def separate_with_rtsep(
    model: Path, mixture: NDArray[np.float32], samplerate: int, *options: str
) -> dict[str, NDArray[np.float32]]:
    """Run ``rtsep separate`` on ``[C, T]`` and return its stems ``[C, T]`` by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        soundfile.write(folder / "mixture.wav", mixture.T, samplerate, subtype="FLOAT")
        rtsep("separate", folder / "mixture.wav", "-o", folder / "out", "--model", model, *options)
        return {path.stem: soundfile.read(path, dtype="float32")[0].T for path in (folder / "out").rglob("*.wav")}


def four_stems(model: Path, mixture: NDArray[np.float32], samplerate: int) -> NDArray[np.float32]:
    """Return stems ``[S, C, T]`` in the order of :data:`STEMS`."""
    found = separate_with_rtsep(model, mixture, samplerate)
    return np.stack([found[stem] for stem in STEMS])


def stems_by_condition(model: Path, mixture: NDArray[np.float32], samplerate: int) -> NDArray[np.float32]:
    """Return what a conditioned model selects for each stem in turn, ``[S, C, T]``."""
    selected = []
    for stem in STEMS:
        faders = [word for s in STEMS for word in ("--control", f"condition.{s}={int(s == stem)}")]
        selected.append(separate_with_rtsep(model, mixture, samplerate, "--stems", "selected", *faders)["selected"])
    return np.stack(selected)


def score(
    reference: NDArray[np.float32],
    estimate: NDArray[np.float32],
    samplerate: int,
    stems: Sequence[str] = STEMS,
) -> Scores:
    """Median over the seconds of a song of museval's four figures per stem; ``[S, C, T]`` each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all-silent windows warn, and are left out below
        sdr, isr, sir, sar = museval.evaluate(
            reference.transpose(0, 2, 1), estimate.transpose(0, 2, 1), win=samplerate, hop=samplerate
        )
        rows = {"SDR": sdr, "ISR": isr, "SIR": sir, "SAR": sar}
        return {m: dict(zip(stems, map(float, np.nanmedian(rows[m], axis=1)), strict=True)) for m in METRICS}


def median_over_songs(songs: list[Scores]) -> Scores:
    """Median per metric and stem; songs in which a stem never plays are left out for that stem."""
    return {
        m: {stem: round(float(np.nanmedian([song[m][stem] for song in songs])), 2) for stem in songs[0][m]}
        for m in METRICS
    }


def vocals_and_rest(stems: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vocals and the sum of the others, ``[2, C, T]``, of stems in the order of :data:`STEMS`."""
    vocals = stems[STEMS.index("vocals")]
    return np.stack([vocals, stems.sum(0) - vocals])


def two_stems(model: Path, mixture: NDArray[np.float32], samplerate: int) -> NDArray[np.float32]:
    """Return vocals and accompaniment ``[2, C, T]`` of a model that has these two."""
    found = separate_with_rtsep(model, mixture, samplerate)
    return np.stack([found[stem] for stem in KARAOKE])


def evaluate(model: Path, config: Path, *, karaoke: bool = False) -> dict[str, Any]:
    """Score ``model`` on the validation material of ``config``; progress goes to stderr.

    ``karaoke`` scores vocals and accompaniment; models without other stems are always scored so.
    """
    stems = json.loads(rtsep("models", "info", model, "--json"))["stems"]
    if "query" in stems:
        from models.msi.evaluation import evaluate_queries

        return evaluate_queries(model, config)
    separate = stems_by_condition if "selected" in stems else four_stems
    has_two = "accompaniment" in stems
    names = KARAOKE if karaoke or has_two else STEMS
    songs, samplerate = validation_songs(config)
    ours, baseline = [], []
    for song in songs:
        reference = np.stack([song.read(stem, 0, song.length) for stem in STEMS])  # [S, C, T]
        mixture = reference.sum(0)
        if has_two:
            estimate = two_stems(model, mixture, samplerate)
        else:
            estimate = separate(model, mixture, samplerate)
            estimate = vocals_and_rest(estimate) if karaoke else estimate
        reference = vocals_and_rest(reference) if names == KARAOKE else reference
        ours.append(score(reference, estimate, samplerate, names))
        baseline.append(score(reference, np.repeat(mixture[None], len(names), 0), samplerate, names))
        print(song.name, {k: round(v, 2) for k, v in ours[-1]["SDR"].items()}, file=sys.stderr, flush=True)
    result = median_over_songs(ours)
    return {
        "metric": "museval (BSS Eval v4), median over seconds, then over songs, dB",
        "songs": [song.name for song in songs],
        **result,
        "mean_sdr": round(float(np.mean(list(result["SDR"].values()))), 2),
        "mixture_sdr": median_over_songs(baseline)["SDR"],
        "per_song_sdr": {
            song.name: {k: round(v, 2) for k, v in s["SDR"].items()} for song, s in zip(songs, ours, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description="BSS Eval v4 of an exported model.")
    parser.add_argument("model", type=Path, help="an .onnx file of contract v1")
    parser.add_argument("--config", type=Path, required=True, help="training config whose validation songs to use")
    parser.add_argument("--karaoke", action="store_true", help="score vocals and accompaniment, of any model")
    parser.add_argument("--json", type=Path, help="write everything here too")
    arguments = parser.parse_args()
    result = evaluate(arguments.model, arguments.config, karaoke=arguments.karaoke)
    for name, row in result.items():
        if isinstance(row, dict) and name != "per_song_sdr":
            print(f"{name:14}" + "".join(f"{key:>12} {value:6.2f}" for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
