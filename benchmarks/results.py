"""Score four-stem models side by side, in one run, and write docs/models/RESULTS.md.

    python benchmarks/results.py --config models/configs/bandsplit-low.toml               # the shipped ones
    python benchmarks/results.py --config models/configs/bandsplit-low.toml runs/x.onnx   # with others

Everything goes through the streaming graphs, hop by hop, as it plays live; stems are set back by the latency. For each:

* museval's SDR (median over seconds, then over the validation songs) at 44.1 and at 48 kHz, SI-SDR of whole songs;
* phantom vocals: how loud the stem of the vocals is, against the input, when nobody sings;
* vocals lost: how much of a voice alone comes out of the other stems, against the voice;
* silence: the loudest sample of any stem for silent input after music;
* drift: SDR of the first and of the last minute of ten, in which the same minute is played again and again;
* RTF: median step time over the hop's duration, the models taking turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.model_cards import TURNS, step_times, table
from export.parity import machine
from models.data.library import Song
from models.data.readers import STEMS
from models.evaluate import score, validation_songs
from rtsep.inference import StreamingSession
from rtsep.zoo import list_models

Audio = NDArray[np.float32]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "models" / "RESULTS.md"
RATES = (44_100, 48_000)
MINUTES = 10


def stems_of(session: StreamingSession, mixture: Audio) -> Audio:
    """Return stems ``[S, C, T]`` of ``[C, T]`` from the zero state, in the order of :data:`STEMS`, in their place."""
    info = session.info
    hop, latency, length = info.hop_samples, info.latency_samples, mixture.shape[1]
    session.reset()
    padded = np.zeros((info.channels, -(-(length + latency) // hop) * hop), np.float32)
    padded[:, :length] = mixture
    out = np.empty((len(info.stems), *padded.shape), np.float32)
    for at in range(0, padded.shape[1], hop):
        out[:, :, at : at + hop] = session.step(np.ascontiguousarray(padded[:, at : at + hop]))
    return out[[info.stems.index(stem) for stem in STEMS], :, latency : latency + length]


def decibels(audio: Audio, reference: Audio) -> float:
    """Energy of one signal against another in dB, not below -100."""
    return max(-100.0, 10 * float(np.log10((np.square(audio).sum() + 1e-20) / np.square(reference).sum())))


def si_sdr(reference: Audio, estimate: Audio) -> float:
    """Scale-invariant SDR in dB (Le Roux et al., ICASSP 2019), all channels as one signal."""
    target = reference * (np.vdot(estimate, reference) / max(1e-12, float(np.vdot(reference, reference))))
    return decibels(target, estimate - target)


def at_rate(song: Song, rate: int, native: int) -> Audio:
    """Return the song's stems ``[S, C, T]`` at a rate."""
    stems = np.stack([song.read(stem, 0, song.length) for stem in STEMS])
    if rate == native:
        return stems
    return np.stack([soxr.resample(stem.T, native, rate).T for stem in stems]).astype(np.float32)


def separation(session: StreamingSession, songs: list[Song], native: int) -> dict[str, Any]:
    """Figures that need the true stems."""
    vocals = STEMS.index("vocals")
    result: dict[str, Any] = {}
    phantom, lost, scale_free = [], [], []
    for rate in RATES:
        scores = []
        for song in songs:
            stems = at_rate(song, rate, native)
            mixture = stems.sum(0)
            found = stems_of(session, mixture)
            scores.append(score(stems, found, rate)["SDR"])
            if rate != native:
                continue
            scale_free.append([si_sdr(stems[s], found[s]) for s in range(len(STEMS))])
            silent_voice = mixture - stems[vocals]
            phantom.append(decibels(stems_of(session, silent_voice)[vocals], silent_voice))
            if np.square(stems[vocals]).mean() > 1e-6:
                alone = stems_of(session, stems[vocals])
                lost.append(decibels(np.delete(alone, vocals, axis=0).sum(0), stems[vocals]))
        medians = {stem: round(float(np.nanmedian([s[stem] for s in scores])), 2) for stem in STEMS}
        result[f"sdr_{rate}"] = {**medians, "mean": round(float(np.mean(list(medians.values()))), 2)}
    result["si_sdr"] = dict(zip(STEMS, np.round(np.median(scale_free, axis=0), 2).tolist(), strict=True))
    result["phantom_vocals_db"] = round(float(np.median(phantom)), 1)
    result["vocals_lost_db"] = round(float(np.median(lost)), 1)
    return result


def steadiness(session: StreamingSession, songs: list[Song], native: int) -> dict[str, Any]:
    """What minutes of playing do to a model, and what silence brings out after them."""
    hop, channels = session.info.hop_samples, session.info.channels
    joined = np.concatenate([at_rate(song, native, native) for song in songs], axis=2)
    minute = np.ascontiguousarray(joined[:, :, : 60 * native // hop * hop])
    mixture = minute.sum(0)
    session.reset()
    sdr = []
    for number in range(MINUTES):
        parts = [session.step(np.ascontiguousarray(h)).copy() for h in np.split(mixture, mixture.shape[1] // hop, 1)]
        if number in (0, MINUTES - 1):
            found = np.concatenate(parts, axis=2)[[session.info.stems.index(stem) for stem in STEMS]]
            late = session.info.latency_samples
            skip = 2 * native  # the first time the state is still empty
            true, estimate = minute[:, :, skip : -late or None], found[:, :, skip + late :]
            sdr.append([decibels(true[s], estimate[s] - true[s]) for s in range(len(STEMS))])
    silence = np.zeros((channels, hop), np.float32)
    loud = [float(np.abs(session.step(silence)).max()) for _ in range(3 * native // hop)]
    return {
        "first_minute_sdr": round(float(np.mean(sdr[0])), 2),
        "last_minute_sdr": round(float(np.mean(sdr[1])), 2),
        "largest_change_of_a_stem_db": round(float(np.abs(np.subtract(*sdr)).max()), 3),
        "silence_after_1_s": max(loud[native // hop :]),
    }


def page(results: dict[str, dict[str, Any]], songs: int) -> str:
    """Return the report."""
    head = ["model", "latency ms", "RTF", *STEMS, "mean", "mean at 48 kHz"]
    rows: list[list[object]] = []
    for name, r in sorted(results.items(), key=lambda item: -item[1]["sdr_44100"]["mean"]):
        sdr = r["sdr_44100"]
        row = [name, f"{r['latency_ms']:.1f}", f"{r['rtf']:.3f}", *(sdr[stem] for stem in STEMS)]
        rows.append([*row, sdr["mean"], r["sdr_48000"]["mean"]])
    more = ["model", *(f"SI-SDR {s}" for s in STEMS), "phantom vocals dB", "vocals lost dB"]
    more += ["minute 1, 10", "silence"]
    others: list[list[object]] = []
    for name, r in results.items():
        minutes = f"{r['first_minute_sdr']:.2f}, {r['last_minute_sdr']:.2f}"
        row = [name, *(r["si_sdr"][s] for s in STEMS), r["phantom_vocals_db"], r["vocals_lost_db"]]
        others.append([*row, minutes, f"{r['silence_after_1_s']:.0e}"])
    facts = machine()
    return "\n".join(
        [
            "# Results",
            "",
            "Written by `python benchmarks/results.py`, one run; what the columns mean stands at its top.",
            "",
            f"SDR in dB (museval, BSS Eval v4): median over seconds, then over {songs} validation songs. Latency is "
            "the algorithmic one at 44.1 kHz.",
            "",
            *table(head, rows),
            "",
            "Phantom vocals and vocals lost: lower is better. Silence: the loudest sample one second after the music.",
            "",
            *table(more, others),
            "",
            f"{facts['cpu']}, {facts['cores']} cores, ONNX Runtime {facts['onnxruntime']}, one thread, back to back.",
            "",
        ]
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="besides the shipped ones")
    parser.add_argument("--config", type=Path, required=True, help="training config whose validation songs to use")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    songs, native = validation_songs(options.config)
    if not songs:
        parser.error(f"none of the validation songs of {options.config} was found")
    paths = [entry.path for entry in list_models()] + options.models
    sessions = [StreamingSession(path, provider="cpu") for path in paths]
    sessions = [session for session in sessions if set(session.info.stems) == set(STEMS)]
    results: dict[str, dict[str, Any]] = {}
    for session, times in zip(sessions, step_times(sessions), strict=True):
        info = session.info
        period_ms = 1000 * info.hop_samples / info.samplerates[0]
        results[info.name] = {
            "latency_ms": 1000 * (info.hop_samples + info.latency_samples) / info.samplerates[0],
            "rtf": float(np.median(times)) / period_ms,
            **separation(session, songs, native),
            **steadiness(session, songs, native),
        }
        print(info.name, json.dumps(results[info.name]), file=sys.stderr, flush=True)
    text = page(results, len(songs))
    PAGE.write_text(text, encoding="utf-8")
    if options.json:
        document = {"machine": machine(), "turns": TURNS, "songs": [song.name for song in songs], "models": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
