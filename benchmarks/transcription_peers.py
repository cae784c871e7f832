"""Put the live transcribers beside basic-pitch run live, aubio and swift-f0: the same recordings, one run, one table.

    apt-get install aubio-tools
    python -m pip install --no-deps basic-pitch swift-f0
    python benchmarks/transcription_peers.py --json figures.json

basic-pitch has no live form. Here it hears, every 40 ms, the last 1.99 s; the frames that lie 3, 4 or 6 from the right
edge of its posteriors make notes by peaks of its onsets, with the threshold that scores best on these very recordings.
aubio gives out uncompensated times, so it is scored as it is and shifted by what suits it best. swift-f0 segments whole
recordings: no live figure, the quality to reach. Recordings, in which training had no part, are those of
``benchmarks/transcription.py``. Times are audio time plus the time that computing took; "core" is processor time by
the length of the audio, for one stream.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.transcription import BLOCK, RATE, ROOT, delays, listen
from export.parity import machine
from models.transcriber.evaluate import KINDS, empty_material, held_out
from models.transcriber.scoring import TOLERANCES_MS, match, total
from rtsep.notes.stream import StemListener
from rtsep.notes.transcriber import Transcriber
from rtsep.notes.transcriber_info import DIAL, shipped_transcribers

Audio = np.ndarray
INSTALL = "apt-get install aubio-tools; python -m pip install --no-deps basic-pitch swift-f0"
ANY_DRUM = 38


@dataclass
class Heard:
    """What a system gave out for one recording: notes [n, 4], when each began to sound outside, processor seconds."""

    notes: Audio
    given: dict[tuple[float, int], float] = field(default_factory=dict)
    cpu_s: float = 0.0


System = Callable[[Audio], Heard]


def rtsep(kind: str, latency: str) -> System:
    """Our transcriber of a kind, host tracker included."""
    path = shipped_transcribers()[kind]

    def hear(audio: Audio) -> Heard:
        notes, given, cpu = listen(path, latency, audio)
        step = cpu * BLOCK / (len(audio) + RATE)
        return Heard(notes, {key: at + step for key, at in given.items()}, cpu)

    return hear


@dataclass(frozen=True)
class Window:
    """Right edge of one of basic-pitch's windows: its end in samples, when it was known, the last posteriors."""

    end: int
    known: float
    onsets: Audio
    frames: Audio


class BasicPitchLive:
    """basic-pitch's network on a sliding window, and a causal reading of its posteriors."""

    rate, window, frames, frame = 22_050, 43_844, 172, 256
    tick, kept = 882, 16
    """Samples between windows (40 ms); frames from the right edge that are kept."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("basic_pitch")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("basic-pitch")
        path = Path(found.submodule_search_locations[0]) / "saved_models/icassp_2022/nmp.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.known: dict[int, tuple[list[Window], float]] = {}

    def windows(self, audio: Audio) -> tuple[list[Window], float]:
        """The right edges of all windows over a recording, and the processor seconds they took."""
        key = id(audio)
        if key not in self.known:
            sound = soxr.resample(np.concatenate([audio, np.zeros(RATE, np.float32)]), RATE, self.rate)
            sound = np.concatenate([np.zeros(self.window, np.float32), sound]).astype(np.float32)
            edges, began = [], time.process_time()
            for end in range(self.window + self.tick, len(sound), self.tick):
                before = time.perf_counter()
                feed = {"serving_default_input_2:0": sound[None, end - self.window : end, None]}
                onsets, frames, _ = self.session.run(None, feed)
                known = (end - self.window) / self.rate + time.perf_counter() - before
                edges.append(Window(end - self.window, known, onsets[0, -self.kept :], frames[0, -self.kept :]))
            self.known[key] = edges, time.process_time() - began
        return self.known[key]

    def posteriors(self, audio: Audio, ahead: int) -> Iterator[tuple[float, float, Audio, Audio]]:
        """Per frame: its time, when it was known, onsets of it and its neighbours [3, 88], frames [88]."""
        last = -1
        for window in self.windows(audio)[0]:
            newest = window.end // self.frame
            for number in range(max(last + 1, newest - self.kept + 2), newest - ahead + 1):
                last, back = number, self.kept - 1 - (newest - number)
                at = (window.end - (newest - number) * self.frame) / self.rate
                yield at, window.known, window.onsets[back - 1 : back + 2], window.frames[back]

    def hear(self, audio: Audio, ahead: int, threshold: float) -> Heard:
        """Notes at one onset threshold: peaks at least 50 ms apart; ends after three frames below 0.3."""
        open_at: dict[int, float] = {}
        quiet = np.zeros(88, int)
        last = np.full(88, -1.0)
        heard = Heard(np.zeros((0, 4)), {}, self.windows(audio)[1])
        rows = []

        def end(pitch: int, at: float) -> None:
            start = open_at.pop(pitch)
            rows.append((start, max(at, start + 0.01), pitch + 21, 80))

        at = 0.0
        for at, known, (before, now, after), sounds in self.posteriors(audio, ahead):
            quiet = np.where(sounds < 0.3, quiet + 1, 0)
            for pitch in [p for p in open_at if quiet[p] >= 3]:
                end(pitch, at)
            for pitch in np.flatnonzero((now >= threshold) & (now >= before) & (now > after) & (at - last > 0.05)):
                if pitch in open_at:
                    end(pitch, at)
                open_at[int(pitch)] = last[pitch] = at
                heard.given[at, int(pitch) + 21] = known
        for pitch in list(open_at):
            end(pitch, at)
        heard.notes = np.array(sorted(rows), float).reshape(-1, 4)
        return heard


def aubio(audio: Audio, known: dict[int, Heard] = {}) -> Heard:  # noqa: B006
    """``aubionotes`` as it comes, block 512 and hop 256 at 44.1 kHz; once a recording."""
    if id(audio) in known:
        return known[id(audio)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        soundfile.write(path, soxr.resample(np.concatenate([audio, np.zeros(RATE)]), RATE, 44_100), 44_100)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        out = subprocess.run(["aubionotes", "-i", str(path)], capture_output=True, text=True, check=True).stdout
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    rows = [line.split() for line in out.splitlines()]
    notes = [(float(r[1]), max(float(r[2]), float(r[1]) + 0.01), round(float(r[0])), 80) for r in rows if len(r) == 3]
    known[id(audio)] = Heard(np.array(notes, float).reshape(-1, 4), {(n[0], n[2]): n[0] for n in notes}, cpu)
    return known[id(audio)]


def swift_f0(audio: Audio, whole_numbers: bool = False) -> Heard:
    """swift-f0 with its own segmentation of the whole recording; its pitches with cents, or as MIDI notes have them."""
    from swift_f0 import SwiftF0, segment_notes

    began = time.process_time()
    notes = segment_notes(SwiftF0(threads=1, spin=False).detect(np.asarray(audio, np.float32), RATE))
    rows = [(n.start, max(n.end, n.start + 0.01), 69 + 12 * np.log2(n.pitch_hz / 440), 80) for n in notes]
    notes_found = np.array(rows, float).reshape(-1, 4)
    if whole_numbers:
        notes_found[:, 2] = np.round(notes_found[:, 2])
    return Heard(notes_found, {}, time.process_time() - began)


def shifted(heard: Heard, seconds: float) -> Heard:
    """The same notes earlier, given out when they were."""
    notes = heard.notes.copy()
    notes[:, :2] = np.maximum(notes[:, :2] - seconds, 0.0)
    notes[:, 1] = np.maximum(notes[:, 1], notes[:, 0] + 0.01)
    return Heard(notes, {(max(t - seconds, 0.0), p): at for (t, p), at in heard.given.items()}, heard.cpu_s)


def classless(notes: Audio) -> Audio:
    """Every drum as one: onsets alone, those within 30 ms taken together."""
    kept: list[tuple[float, float, int, int]] = []
    for onset in sorted(notes[:, 0]):
        if not kept or onset - kept[-1][0] > 0.03:
            kept.append((onset, onset + 0.01, ANY_DRUM, 80))
    return np.array(kept, float).reshape(-1, 4)


def score(system: System, clips: list[Any], empty: list[Any], kind: str, any_drum: bool = False) -> dict[str, Any]:
    """Figures of one system on one kind of recordings."""
    matches: dict[int, list[Any]] = {t: [] for t in TOLERANCES_MS}
    late, cpu, seconds = [], 0.0, 0.0
    for audio, reference in clips:
        heard = system(audio)
        cpu, seconds = cpu + heard.cpu_s, seconds + len(audio) / RATE + 1
        truth, notes = (classless(reference), classless(heard.notes)) if any_drum else (reference, heard.notes)
        for t in TOLERANCES_MS:
            matches[t].append(match(truth, notes, kind, t))
        late += [] if any_drum else delays(reference, heard.given)
    false = {what: round(60 * len(system(audio).notes) / (len(audio) / RATE), 1) for what, audio in empty}
    both = total(matches[50])
    return {
        **{f"f1_{t}ms": round(total(m).f1, 3) for t, m in matches.items()},
        "precision": round(both.precision, 3),
        "recall": round(both.recall, 3),
        "given_out_ms": {p: round(float(np.percentile(late, p)), 1) for p in (50, 99)} if late else None,
        "false_notes_per_minute": false,
        "core": round(cpu / seconds, 4),
    }


def best(systems: dict[float, System], clips: list[Any], empty: list[Any], kind: str) -> dict[str, Any]:
    """The setting with the best F1 at 50 ms on these very clips."""
    rows = {value: score(system, clips, [], kind) for value, system in systems.items()}
    value = max(rows, key=lambda v: rows[v]["f1_50ms"])
    return {**score(systems[value], clips, empty, kind), "setting": value}


def four_stems(latency: str, seconds: float = 20.0) -> float:
    """Share of a core for drums, two voices and a polyphonic stem at once."""
    paths, rng = shipped_transcribers(), np.random.default_rng(0)
    listeners = [
        StemListener(Transcriber(paths[kind], count, latency), list(range(count)), RATE)
        for kind, count in (("drums", 1), ("monophonic", 2), ("polyphonic", 1))
    ]
    audio = 0.1 * rng.standard_normal((2, int(seconds * RATE))).astype(np.float32)
    began = time.process_time()
    for at in range(0, audio.shape[1] - BLOCK + 1, BLOCK):
        for listener, count in zip(listeners, (1, 2, 1), strict=True):
            listener.push(audio[:count, at : at + BLOCK])
    return round((time.process_time() - began) / seconds, 4)


def compare(data: Path, cache: Path, most: int) -> dict[str, Any]:
    """Every table."""
    result: dict[str, Any] = {"machine": machine(), "tables": {}}
    live = BasicPitchLive()
    for kind in KINDS:
        sources = [held_out((source,), data, cache) for source in KINDS[kind]]
        pairs = [pair for found in sources for pair in [p for p in found if p[1].role == kind][: most or None]]
        clips = [(np.asarray(b.read(c)), c.notes) for b, c in pairs]
        empty = empty_material(kind, data, cache)
        rows = {f"rtsep {p}": score(rtsep(kind, p), clips, empty, kind) for p in DIAL}
        if kind == "drums":
            for p in DIAL:
                rows[f"rtsep {p}, any drum"] = score(rtsep(kind, p), clips, [], kind, any_drum=True)
            shifts = {s: (lambda audio, s=s: shifted(aubio(audio), s)) for s in np.arange(0.0, 0.13, 0.01).round(2)}
            at = {s: score(system, clips, [], kind, any_drum=True) for s, system in shifts.items()}
            chosen = max(at, key=lambda s: at[s]["f1_50ms"])
            rows["aubio, any drum, shifted"] = {**at[chosen], "setting": chosen}
        else:
            for ahead in (3, 4, 6):
                settings = {
                    t: (lambda audio, t=t, ahead=ahead: live.hear(audio, ahead, t)) for t in (0.4, 0.5, 0.6, 0.7)
                }
                rows[f"basic-pitch live, {ahead} frames"] = best(settings, clips, empty, kind)
            rows["aubio"] = score(aubio, clips, empty, kind)
            shifts = {s: (lambda audio, s=s: shifted(aubio(audio), s)) for s in np.arange(0.0, 0.13, 0.01).round(2)}
            rows["aubio, shifted"] = best(shifts, clips, empty, kind)
            rows["swift-f0, whole recording"] = score(swift_f0, clips, empty, kind)
            rows["the same, MIDI pitches"] = score(partial(swift_f0, whole_numbers=True), clips, empty, kind)
        result["tables"][kind] = {
            "recordings": len(clips),
            "notes": sum(len(n) for _, n in clips),
            "systems": rows,
        }
    result["four_stems_core"] = {p: four_stems(p) for p in DIAL}
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    out = []
    for kind, table in result["tables"].items():
        out += [f"**{kind}** ({table['recordings']} recordings, {table['notes']} notes)", ""]
        out += ["| | F1 20 ms | 30 ms | 50 ms | P, R | given out p50, p99 | false a minute | core |"]
        out += ["|---|---|---|---|---|---|---|---|"]
        for name, row in table["systems"].items():
            given = row["given_out_ms"]
            when = f"{given[50]:.0f}, {given[99]:.0f} ms" if given else "-"
            false = row["false_notes_per_minute"]
            worst = max(false, key=lambda what: false[what]) if false else ""
            cell = f"{false[worst]:.1f} ({worst})" if false and false[worst] else ("0" if false else "-")
            label = f"{name} ({row['setting']:g})" if "setting" in row else name
            f1 = " | ".join(f"{row[f'f1_{t}ms']:.3f}" for t in TOLERANCES_MS)
            quality = f"{row['precision']:.2f}, {row['recall']:.2f}"
            out.append(f"| {label} | {f1} | {quality} | {when} | {cell} | {100 * row['core']:.1f} % |")
        out.append("")
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["four_stems_core"].items())
    return [*out, f"Four stems at once, share of one core: {shares}"]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder that holds notes/")
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--most", type=int, default=0, help="recordings of each source; 0 for all")
    parser.add_argument("--json", type=Path, help="write everything here, too")
    options = parser.parse_args()
    missing = [name for name in ("basic_pitch", "swift_f0") if importlib.util.find_spec(name) is None]
    missing += [] if shutil.which("aubionotes") else ["aubionotes"]
    if missing:
        parser.error(f"{', '.join(missing)} not installed; run: {INSTALL}")
    result = compare(options.data, options.cache, options.most)
    print("\n".join(lines(result)))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
