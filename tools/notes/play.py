"""Notes with pitch bends through FluidSynth: many lines in one run."""

from __future__ import annotations

import math
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import soundfile

from tools.multitracks.effects import Audio
from tools.multitracks.score import Note
from tools.multitracks.synth import SAMPLERATE, SynthError

BEND_RANGE = 12  # semitones, set by RPN 0
_TICKS = 5000  # per second
_GAP = 0.6  # least seconds between lines in one run
_GRID = 0.64  # FluidSynth plays in blocks of 64 samples and whole milliseconds: only here both begin anew


class Line(NamedTuple):
    """Notes (times in seconds) for one program; ``bends`` are (seconds, semitones), in the order of time."""

    notes: list[Note]
    program: int
    drums: bool = False
    bends: tuple[tuple[float, float], ...] = ()


def play_lines(lines: list[Line], font: Path, seconds: float) -> list[Audio]:
    """Render each line for itself, dry, one after the other in one run of FluidSynth.

    Returns
    -------
    list of arrays ``[2, T]`` float32 at 44.1 kHz, one per line

    Raises
    ------
    SynthError
        FluidSynth failed.
    """
    spacing = math.ceil((seconds + _GAP) / _GRID) * _GRID  # so that a line sounds the same wherever it stands
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1000000)])
    now = 0
    for i, line in enumerate(lines):
        for tick, _, message in sorted(_events(line, i * spacing, seconds), key=lambda event: event[:2]):
            track.append(message.copy(time=tick - now))
            now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(len(lines) * spacing * _TICKS) - now)))
    with tempfile.TemporaryDirectory(prefix="rtsep-notes-") as folder:
        midi, wave = Path(folder, "lines.mid"), Path(folder, "lines.wav")
        mido.MidiFile(type=0, ticks_per_beat=_TICKS, tracks=[track]).save(midi)
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-r", str(SAMPLERATE), "-g", "0.4", "-O", "s24"]
        command += ["-o", "synth.dynamic-sample-loading=1", "-o", "synth.polyphony=128"]
        done = subprocess.run([*command, "-F", str(wave), str(font), str(midi)], capture_output=True, check=False)
        if done.returncode or not wave.is_file():
            raise SynthError(f"fluidsynth failed on {font.name}: {done.stderr.decode()[-300:].strip()}")
        audio, _ = soundfile.read(wave, dtype="float32", always_2d=True)
    samples = round(seconds * SAMPLERATE)
    starts = [round(i * spacing * SAMPLERATE) for i in range(len(lines))]
    audio = np.pad(audio, ((0, max(0, starts[-1] + samples - len(audio))), (0, 0)))
    return [np.ascontiguousarray(audio[start : start + samples].T) for start in starts]


def _events(line: Line, offset: float, seconds: float) -> list[tuple[int, int, mido.Message]]:
    """(tick, order at that tick, message): controllers, ends of notes, bends, beginnings of notes, silence."""
    channel = 9 if line.drums else 0
    begin, end = round(offset * _TICKS), round((offset + seconds) * _TICKS)

    def control(number: int, value: int) -> mido.Message:
        return mido.Message("control_change", channel=channel, control=number, value=value)

    events = [(begin, -1, mido.Message("program_change", channel=channel, program=line.program))]
    if not line.drums:
        events += [(begin, -1, control(*pair)) for pair in ((101, 0), (100, 0), (6, BEND_RANGE), (38, 0))]
        events.append((begin, -1, mido.Message("pitchwheel", channel=channel, pitch=0)))
    for at, semitones in line.bends:
        if 0 <= at < seconds:
            pitch = int(np.clip(round(8192 * semitones / BEND_RANGE), -8192, 8191))
            events.append((begin + round(at * _TICKS), 1, mido.Message("pitchwheel", channel=channel, pitch=pitch)))
    for note in line.notes:
        on = begin + round(note.start * _TICKS)
        off = max(on + 1, begin + round((note.start + note.length) * _TICKS))
        if on < end:
            message = mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
            events += [(on, 2, message), (min(off, end), 0, message.copy(velocity=0))]
    events.append((end, 3, control(120, 0)))
    return events
