"""From a note's onset to its MIDI bytes at a receiver.

Notes that are known are played from a file into the engine at the clock's pace: the drums of the demo's song, and for
the other stems plucked tones, three a second, one at a time. In the place of a model runs a graph of the default
model's hop and latency that gives the stem as it is: what is asked here is when, not how well. The shipped transcriber
of the stem hears it and the notes go out of a JACK MIDI port; a JACK client in C notes when each byte came. A message
counts for the onset of the same pitch (drums: of any) within 60 ms of where the declared delay says.

onset to byte       from the captured onset to the receiver
off its due time    how late the port hands over a note that it was given 100 ms ahead
off the promise     the same less the delay that is printed at the start: what a DAW cannot take back
"""

from __future__ import annotations

import bisect
import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.device_clock import DeviceClock
from benchmarks.midi_out import emission
from benchmarks.record import Recorder, digits
from rtsep.audio.backends import FileConfig
from rtsep.demo.song import render_song
from rtsep.engine import Engine
from rtsep.notes.live import LiveNotes
from rtsep.notes.messages import default_strips
from rtsep.zoo.registry import read_info, resolve
from tests.integration.jack import INSTALL, JackServer, jack_server, missing_tools
from tests.integration.test_midi_jack import receiver
from tests.support.graphs import make_delay_model

RATE = 48_000
DIALS = {"quick": ("normal",), "full": ("tight", "normal", "quality")}
STEMS = {"quick": ("other",), "full": ("drums", "bass", "other", "vocals")}
SECONDS = {"quick": 10.0, "full": 20.0}
WITHIN_S = 0.06
_BEFORE_S, _AFTER_S = 5.0, 1.0
ROUNDS = 5


def measure(recorder: Recorder, depth: str) -> None:
    """Each position of the latency dial, for each stem."""
    if missing := missing_tools():
        recorder.missing("note_latency", "onset to byte", f"{', '.join(missing)} not there: {INSTALL}")
        return
    emitted(recorder, 200 if depth == "quick" else 1000)
    for dial in DIALS[depth]:
        for stem in STEMS[depth]:
            one(recorder, dial, stem, SECONDS[depth])


def emitted(recorder: Recorder, notes: int) -> None:
    """How far from its due time a note that is known 100 ms ahead leaves the port; ``benchmarks/midi_out.py``."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = emission(Path(folder), notes, 50.0)
    times = found["emission_ms"]
    assert isinstance(times, dict)
    facts = {"p99_ms": times["p99"], "max_ms": times["max"], "notes": times["count"], "late": found["late"]}
    recorder.put("note_latency", "off its due time", times["p50"], "ms", facts=facts, began=began)


def one(recorder: Recorder, dial: str, stem: str, seconds: float) -> None:
    """One stem of a song."""
    audio, truth = material(stem, seconds, recorder.seed)
    before, after = (np.zeros((2, round(s * RATE)), np.float32) for s in (_BEFORE_S, _AFTER_S))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, jack_server() as server, contextlib.ExitStack() as stack:
        folder = Path(name)
        audio = np.concatenate([before, audio, after], axis=1)
        soundfile.write(folder / "song.wav", audio.T, RATE, subtype="FLOAT")
        config = FileConfig(str(folder / "song.wav"), blocksize=128)
        info = read_info(resolve("default"))
        gains = [float(name == stem) for name in info.stems]
        model = make_delay_model(
            folder / "m.onnx", hop=info.hop_samples, latency=info.latency_samples, stems=info.stems, gains=gains
        )
        engine = stack.enter_context(Engine(model, backend=config, tap=True))
        notes = stack.enter_context(LiveNotes(engine, "virtual", latency=dial, stems=[stem]))
        listen(server, folder / "bytes.txt")
        midi = notes.midi
        while midi is None or not midi.port:
            time.sleep(0.01)
            midi = notes.midi
        server.command("jack_connect", midi.port, "midi-monitor:input")
        clock = DeviceClock(engine)
        zero, stems, delays = clock.captured_s(0), list(engine.info.stems), dict(notes.delays_s)
        engine.wait(_BEFORE_S + seconds + _AFTER_S + 5)
        late = notes.midi.late if notes.midi else 0
        time.sleep(0.5)
        came = heard(folder / "bytes.txt")
    channel = next(strip.channel for strip in default_strips(stems) if strip.name == stem)
    truth = [(onset + _BEFORE_S, pitch) for onset, pitch in truth]
    got = [(at - zero, pitch) for at, on, pitch in came if on == channel]
    found = 1e3 * np.array(matched(truth, got, delays[stem], any_pitch=stem == "drums"))
    parameters = {"stem": stem, "dial": dial, "block": 128}
    facts = {
        "onsets": len(truth), "notes_out": len(got), "matched": len(found),
        "declared_ms": digits(1e3 * delays[stem]), "late_at_the_port": late,
    }  # fmt: skip
    if len(found) < 2 * ROUNDS:
        why = f"{len(found)} of {len(truth)} onsets came out, too few"
        recorder.missing("note_latency", "onset to byte", why, parameters)
        return
    for figure, values in (("onset to byte", found), ("off the promise", found - 1e3 * delays[stem])):
        recorder.put(
            "note_latency",
            figure,
            float(np.median(values)),
            "ms",
            better="lower" if figure == "onset to byte" else "neither",
            parameters=parameters,
            rounds=[float(np.median(part)) for part in np.array_split(values, ROUNDS)],
            samples=values,
            facts=facts,
            began=began,
        )


def material(stem: str, seconds: float, seed: int) -> tuple[np.ndarray, list[tuple[float, int]]]:
    """Return audio [2, T] and its onsets in seconds with their pitches, by time."""
    if stem == "drums":
        song = render_song(samplerate=RATE, seconds=seconds)
        return song.stems[stem], sorted((note.onset_s, note.midi) for note in song.notes if note.stem == stem)
    rng = np.random.default_rng(seed)
    audio, truth = np.zeros((2, round(seconds * RATE)), np.float32), []
    low, high = (28, 52) if stem == "bass" else (52, 76)
    at = 0.0
    while at < seconds - 0.5:
        pitch = int(rng.integers(low, high))
        start, t = round(at * RATE), np.arange(round(0.3 * RATE)) / RATE
        hertz = 440.0 * 2 ** ((pitch - 69) / 12)
        partials = [n for n in range(1, 16) if n * hertz < 8000]
        tone = sum(np.sin(2 * np.pi * n * hertz * t + rng.uniform(0, 6)) / n**1.2 * np.exp(-n * t) for n in partials)
        envelope = np.minimum(1, np.minimum(t / 0.003, (t[-1] - t) / 0.03)) * np.exp(-3 * t)
        audio[:, start : start + len(t)] += (0.2 * rng.uniform(0.5, 1.0) * envelope * tone).astype(np.float32)
        truth.append((start / RATE, pitch))
        at += 1 / 3 + rng.uniform(0, 0.05)
    return audio, truth


def listen(server: JackServer, path: Path) -> None:
    """Start the receiver; it ends with the server."""
    with path.open("wb") as file:
        process = subprocess.Popen(
            [str(receiver()), "midi-monitor", "times"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    server.clients.append(process)
    server.wait_for_port("midi-monitor:input")


def heard(path: Path) -> list[tuple[float, int, int]]:
    """Return time on `time.monotonic`, channel from 1 and pitch of all note-ons that a receiver printed."""
    found = []
    for line in path.read_text().split("\n")[:-1]:
        at, *data = line.split()
        if at != "lost" and int(data[0], 16) & 0xF0 == 0x90 and int(data[2], 16):
            found.append((int(at) / 1e6, (int(data[0], 16) & 15) + 1, int(data[1], 16)))
    return found


def matched(
    truth: list[tuple[float, int]], got: list[tuple[float, int]], delay_s: float, *, any_pitch: bool
) -> list[float]:
    """Return the seconds from each onset to its note, for the notes that came within `WITHIN_S` of their time."""
    times = [at for at, _ in got]
    found, used = [], set()
    for onset, pitch in truth:
        first = bisect.bisect_left(times, onset + delay_s - WITHIN_S)
        last = bisect.bisect_right(times, onset + delay_s + WITHIN_S)
        near = [k for k in range(first, last) if k not in used and (any_pitch or got[k][1] == pitch)]
        if near:
            best = min(near, key=lambda k: abs(times[k] - onset - delay_s))
            used.add(best)
            found.append(times[best] - onset)
    return found
