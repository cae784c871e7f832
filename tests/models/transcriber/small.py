"""Small transcribers with weights that are not those of a start, and a folder of clips made from sines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from models.transcriber.model import StreamingTranscriber, TranscriberConfig

RATE, HOP = 16000, 160
SMALL = {
    "polyphonic": TranscriberConfig("polyphonic", 33, 96, channels=6, hidden=6, readout=5, head=5),
    "monophonic": TranscriberConfig("monophonic", 36, 84, channels=5, hidden=5, readout=4, head=4),
    "drums": TranscriberConfig("drums", channels=4, hidden=12, readout=4, head=4, long=2048, short=512),
}


def small_model(kind: str) -> StreamingTranscriber:
    """A model in evaluation mode whose outputs move: statistics and biases are drawn, not zeros and ones."""
    torch.manual_seed(3)
    model = StreamingTranscriber(SMALL[kind]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 1.0)
    for readout in model.dial:
        nn.init.normal_(readout.speak.weight, 0, 1.0)
        nn.init.normal_(readout.speak.bias, 0, 0.5)
    return model


def write_clips(folder: Path, count: int = 3, seconds: float = 8.0) -> None:
    """Clips in the form of ``tools/render_notes.py``: decaying sines with partials, one every 0.4 s."""
    folder.mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        audio, notes = np.zeros(int(seconds * RATE), np.float32), []
        for onset in np.arange(0.2, seconds - 0.6, 0.4):
            midi = int(rng.integers(48, 80))
            time = np.arange(int(0.35 * RATE)) / RATE
            hertz = 440 * 2 ** ((midi - 69) / 12)
            tone = sum(np.sin(2 * np.pi * n * hertz * time) / n for n in (1, 2, 3)) * np.exp(-4 * time)
            first = round(onset * RATE)
            audio[first : first + len(tone)] += 0.1 * tone.astype(np.float32)
            notes.append([round(float(onset), 4), round(float(onset + 0.35), 4), midi, 90])
        pitch = np.zeros(int(seconds * 100))
        for onset, offset, midi, _ in notes:
            pitch[round(onset * 100) : round(offset * 100)] = midi
        soundfile.write(folder / f"{index:06d}.flac", audio, RATE, subtype="PCM_16")
        document = {"seconds": seconds, "notes": notes, "cents": 0.0, "facts": {}, "pitch": pitch.tolist()}
        (folder / f"{index:06d}.json").write_text(json.dumps(document))
