"""Evaluation of a model that separates by query, through the commands a person uses.

Duets of held-out chorales on held-out recorded notes: the instrument is enrolled from another recording
(``rtsep enroll``), separated (``rtsep separate --query``) and written down (``rtsep transcribe``). Instruments that
were trained on and those that never were are reported apart, as by Lin et al. (ISMIR 2021).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from models.evaluate import rtsep
from models.metrics import clip_sdr
from models.msi.reference import LOWEST_MIDI, SAMPLERATE
from models.msi.task import MSITask, classes_of, note_f1, runs
from models.train import read_config

FRAMES_PER_SECOND = 100


def evaluate_queries(model: Path, config_path: Path) -> dict[str, Any]:
    """Score a model on the duets of its training config; progress goes to stderr.

    Returns
    -------
    dict
        For ``seen`` and ``unseen`` instruments each, means over the duets: ``SDR`` and ``mixture SDR`` in dB (plain,
        whole clips), ``note_f1`` (onset within 50 ms, pitch within half a semitone).
    """
    config, document = read_config(config_path)
    task = MSITask(document, config)
    result: dict[str, Any] = {
        "metric": "Means over duets of recorded notes: SDR of the whole clip in dB, note F1 (mir_eval, onset 50 ms)"
    }
    for kind, duets in task.duets.items():
        rows = []
        for index, duet in enumerate(duets):
            rows.append(judge(model, duet))
            print(f"{kind} {index + 1}/{len(duets)}", rows[-1], file=sys.stderr, flush=True)
        if rows:
            result[kind] = {name: round(float(np.mean([row[name] for row in rows])), 2) for name in rows[0]}
            result[kind]["duets"] = len(rows)
    return result


def judge(model: Path, duet: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Enroll, separate and transcribe one duet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        query, song = folder / "instrument.query", folder / "song.wav"
        soundfile.write(folder / "alone.wav", duet["queries"][0, 0], SAMPLERATE, subtype="FLOAT")
        soundfile.write(song, duet["mixture"], SAMPLERATE, subtype="FLOAT")
        rtsep("enroll", folder / "alone.wav", "-o", query, "--model", model)
        chosen = ("--model", model, "--query", query)
        rtsep("separate", song, *chosen, "-o", folder / "out", "--stems", "query")
        rtsep("transcribe", song, *chosen, "-o", folder / "notes.mid")
        found = next((folder / "out").rglob("query.wav"))
        estimate = torch.from_numpy(soundfile.read(found, dtype="float32", always_2d=True)[0].T)[None, :1]  # [1, 1, T]
        notes = read_notes(folder / "notes.mid")
    target, mixture = (torch.from_numpy(duet[key])[None, None] for key in ("target", "mixture"))
    length = min(estimate.shape[-1], target.shape[-1])
    truth = classes_of(torch.from_numpy(duet["roll"])[None])[0]
    # classes_of counts as the model hears, a frame late; the file is in time with the audio.
    true_notes = [(a - 1, b - 1, c) for a, b, c in runs(truth)]
    return {
        "SDR": float(clip_sdr(estimate[..., :length], target[..., :length])),
        "mixture SDR": float(clip_sdr(mixture[..., :length], target[..., :length])),
        "note_f1": note_f1(notes, true_notes),
    }


def read_notes(path: Path) -> list[tuple[int, int, int]]:
    """Notes of a MIDI file as :func:`models.msi.task.runs` gives them: first frame, frame after the last, class."""
    sounding: dict[int, float] = {}
    notes, now = [], 0.0
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "note_on" and message.velocity:
            sounding[message.note] = now
        elif message.type in ("note_on", "note_off") and message.note in sounding:
            start = sounding.pop(message.note)
            notes.append((start, now, message.note))
    return [
        (round(FRAMES_PER_SECOND * a), round(FRAMES_PER_SECOND * b), midi - LOWEST_MIDI) for a, b, midi in sorted(notes)
    ]
