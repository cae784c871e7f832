"""Sound for notes: General MIDI soundfonts through FluidSynth, recorded drum kits sample by sample."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import soundfile
import soxr

from tools.multitracks.effects import SAMPLERATE, Audio, place
from tools.multitracks.score import Note

SOUNDFONTS = {  # file: Debian package, licence
    "sf2/FluidR3_GM.sf2": ("fluid-soundfont-gm", "MIT"),
    "sf2/TimGM6mb.sf2": ("timgm6mb-soundfont", "GPL-2"),
    "sf3/MuseScore_General_Lite.sf3": ("musescore-general-soundfont-small", "MIT"),
}
RECORDED_KITS = {
    "sf2/Black_Pearl_4_LV2.sf2": ("avldrums.lv2-soundfont", "CC BY-SA 3.0"),
    "sf2/Red_Zeppelin_4_LV2.sf2": ("avldrums.lv2-soundfont", "CC BY-SA 3.0"),
}
HYDROGEN = Path("/usr/share/hydrogen/data/drumkits")
SOUNDS = Path("/usr/share/sounds")
_TICKS = 5000  # per second
_GAP = 0.5  # seconds between lines in one run

# What a drum is: patterns for the names of Hydrogen's instruments, the better first, and General MIDI notes.
_PIECES = {
    "kick": ((r"kick|bass ?drum",), (35, 36)),
    "snare": ((r"snare(?!.*(roll|rim))",), (38,)),
    "stick": ((r"stick|rim|click|clap",), (37, 39)),
    "closed": ((r"hat.*cl|closed hh", r"hat|hh"), (42, 44)),
    "open": ((r"hat.*op|open hh",), (46,)),
    "low": ((r"\btom ?(low|floor)|floor tom|low tom|drum 1", r"\btom|conga 1"), (41, 43)),
    "mid": ((r"\btom ?(mid|2)|middle tom|drum 2", r"\btom|conga 2"), (45, 47)),
    "high": ((r"\btom ?(hi|1)|high tom|drum 2", r"\btom|conga 2"), (48, 50)),
    "crash": ((r"crash(?!.*ride)|splash", r"crash|cymbal"), (49, 57, 55, 52)),
    "ride": ((r"(?<!/)ride(?!.*crash)", r"ride|cymbal"), (51, 53, 59)),
}


class SynthError(Exception):
    """A program or sound that rendering needs is missing, or rendering failed."""


def check() -> list[Path]:
    """Return the General MIDI soundfonts that are installed.

    Raises
    ------
    SynthError
        FluidSynth or every soundfont is missing; the message names the packages.
    """
    if shutil.which("fluidsynth") is None:
        raise SynthError("the program fluidsynth is missing. Install it, for example: apt install fluidsynth")
    fonts = [SOUNDS / name for name in SOUNDFONTS if (SOUNDS / name).is_file()]
    if not fonts:
        packages = " ".join(package for package, _ in SOUNDFONTS.values())
        raise SynthError(f"no General MIDI soundfont in {SOUNDS}. Install one or more: apt install {packages}")
    return fonts


def recorded_kits() -> list[Path]:
    """Return the soundfonts of recorded kits that are installed (none is needed)."""
    return [SOUNDS / name for name in RECORDED_KITS if (SOUNDS / name).is_file()]


class Line(NamedTuple):
    """Notes (times in seconds) for one program of a soundfont; ``drums`` for its drum kits."""

    notes: list[Note]
    program: int
    drums: bool = False


def play(lines: list[Line], font: Path, seconds: float) -> list[Audio]:
    """Render each line for itself, dry.

    All lines go through one run of FluidSynth, one after the other: unpacking a compressed soundfont takes far longer
    than playing half a minute with it.

    Returns
    -------
    list of arrays ``[2, T]`` float32 at 44.1 kHz, one per line

    Raises
    ------
    SynthError
        FluidSynth failed.
    """
    spacing = seconds + _GAP
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1000000)])
    now = 0
    for i, line in enumerate(lines):
        channel, begin = 9 if line.drums else 0, round(i * spacing * _TICKS)
        end = begin + round(seconds * _TICKS)
        change = mido.Message("program_change", channel=channel, program=line.program)
        silence = mido.Message("control_change", channel=channel, control=120)
        # A note's end comes before the next one's start at the same tick.
        events: list[tuple[int, int, mido.Message]] = [(begin, -1, change), (end, 2, silence)]
        for note in line.notes:
            on = begin + round(note.start * _TICKS)
            off = max(on + 1, begin + round((note.start + note.length) * _TICKS))
            if on < end:
                message = mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
                events += [(on, 1, message), (min(off, end), 0, message.copy(velocity=0))]
        for tick, _, message in sorted(events, key=lambda event: event[:2]):
            track.append(message.copy(time=tick - now))
            now = tick
    track.append(mido.MetaMessage("end_of_track", time=round(len(lines) * spacing * _TICKS) - now))
    with tempfile.TemporaryDirectory(prefix="rtsep-lines-") as folder:
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


@dataclass(frozen=True)
class Layer:
    """A recording of one stroke strength; velocities up to ``top`` (0..1) play it."""

    path: Path
    top: float


Kit = dict[str, list[list[Layer]]]  # piece -> drums that can be it -> layers, softest first


def hydrogen_kits() -> list[Kit]:
    """Return the installed Hydrogen kits that have kick, snare and hi-hat."""
    kits = [_read_kit(path) for path in sorted(HYDROGEN.glob("*/drumkit.xml"))]
    return [kit for kit in kits if {"kick", "snare", "closed"} <= set(kit)]


@lru_cache(maxsize=64)
def _read_kit(path: Path) -> Kit:
    # Files of before 2012 have no namespace, later ones have.
    text = re.sub(r'\sxmlns="[^"]*"', "", path.read_text(encoding="utf-8", errors="replace"))
    drums: list[tuple[str, list[Layer]]] = []
    for instrument in ElementTree.fromstring(text).iter("instrument"):
        layers = [
            Layer(path.parent / (node.findtext("filename") or ""), float(node.findtext("max") or 1))
            for node in instrument.iter("layer")
        ] or [Layer(path.parent / (instrument.findtext("filename") or ""), 1.0)]
        if layers := sorted((layer for layer in layers if layer.path.is_file()), key=lambda layer: layer.top):
            drums.append(((instrument.findtext("name") or "").lower(), layers))
    kit: Kit = {}
    for piece, (patterns, _) in _PIECES.items():
        for pattern in patterns:
            if found := [layers for name, layers in drums if re.search(pattern, name)]:
                kit[piece] = found
                break
    return kit


@lru_cache(maxsize=48)
def _sample(path: Path, semitones: float) -> Audio:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = audio[:, :2] if audio.shape[1] >= 2 else np.repeat(audio, 2, axis=1)
    audio = soxr.resample(audio, rate * 2 ** (semitones / 12), SAMPLERATE).T
    audio = audio[:, : 4 * SAMPLERATE]
    return np.ascontiguousarray(audio / max(float(np.abs(audio).max()), 1e-6))


def strike(hits: list[Note], kits: list[Kit], rng: np.random.Generator, seconds: float) -> Audio:
    """Play drum hits (times in seconds) with recorded drums, each drum tuned, placed and damped anew.

    Two kits may share the work, so that there are far more drum sets than kits.

    Returns
    -------
    array ``[2, T]`` float32 at 44.1 kHz
    """
    samples = round(seconds * SAMPLERATE)
    out = np.zeros((2, samples + 5 * SAMPLERATE), np.float32)
    chosen = [kits[i] for i in rng.integers(len(kits), size=2 if rng.random() < 0.5 else 1)]
    mirrored = 1 if rng.random() < 0.5 else -1
    usual_pan = {"closed": 0.35, "open": 0.35, "low": -0.5, "mid": 0.1, "high": 0.4, "crash": -0.4, "ride": -0.5}
    usual_db = {"closed": -11.0, "open": -11.0, "crash": -8.0, "ride": -12.0, "stick": -6.0, "snare": -1.0}
    for piece, (_, pitches) in _PIECES.items():
        mine = [hit for hit in hits if hit.pitch in pitches and hit.start < seconds]
        owners = [kit for kit in chosen if piece in kit] or [kit for kit in kits if piece in kit]
        semitones = float(np.clip(rng.normal(0, 1.5), -4, 4))
        damping = rng.uniform(0.08, 0.4) if rng.random() < 0.35 else None  # seconds to fall by 20 dB
        gain = 10 ** ((usual_db.get(piece, -3.0) + rng.normal(0, 2)) / 20)
        pan = float(np.clip(usual_pan.get(piece, 0.0) * mirrored * rng.uniform(0, 1.2), -0.9, 0.9))
        if not mine or not owners:
            continue
        drums = owners[int(rng.integers(len(owners)))][piece]
        drum = drums[int(rng.integers(len(drums)))]
        pieces: dict[Path, Audio] = {}
        for i, hit in enumerate(mine):
            force = hit.velocity / 127
            layer = next((layer for layer in drum if force <= layer.top), drum[-1])
            if layer.path not in pieces:
                audio = place(_sample(layer.path, semitones), pan, 1.0)
                if damping:
                    audio = audio * 10 ** (-np.arange(audio.shape[1]) / (damping * SAMPLERATE)).astype(np.float32)
                pieces[layer.path] = audio
            start = round(hit.start * SAMPLERATE)
            stroke = pieces[layer.path][:, : out.shape[1] - start]
            if piece in ("closed", "open") and i + 1 < len(mine):  # the next stroke ends this one
                stroke = _until(stroke, round((mine[i + 1].start - hit.start) * SAMPLERATE))
            out[:, start : start + stroke.shape[1]] += gain * force**1.3 * stroke
    return out[:, :samples]


def _until(audio: Audio, length: int) -> Audio:
    """Cut to ``length`` with a fade of 10 ms."""
    fade = SAMPLERATE // 100
    if length >= audio.shape[1]:
        return audio
    cut = audio[:, : length + fade].copy()
    count = min(fade, cut.shape[1])
    cut[:, -count:] *= np.linspace(1, 0, count, dtype=np.float32)
    return cut
