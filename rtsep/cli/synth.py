"""``rtsep synth``: a MIDI file or live MIDI, played with the sound of a query."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.errors import EngineError, RtsepError, UsageError


@click.command("synth")
@click.argument("notes", metavar="[NOTES.MID]", required=False, type=click.Path(path_type=Path))
@click.option("--query", "query_file", required=True, type=click.Path(path_type=Path), help="Whose sound to play with.")
@click.option("-o", "--output", help="A name ending in .wav; with --live index or part of the name of a device.")
@click.option("--live", is_flag=True, help="Play what comes from a MIDI input, on an audio device.")
@click.option(
    "--midi-in", default="virtual", metavar="PORT", help="For --live: virtual or part of a name. See: rtsep midi list"
)
@click.option("--backend", default="portaudio", metavar="NAME", help="For --live: portaudio, file or dummy.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="For --live: stop by itself after this time.")
@click.option("--model", help="Name or .onnx file; the query's when left out.")
@click.option("--track", type=click.IntRange(1), help="Track of the file, from 1; all when left out.")
@click.option("--transpose", type=click.IntRange(-60, 60), default=0, metavar="SEMITONES", help="Up, or down below 0.")
@click.option(
    "--gain", "gain_db", type=click.FloatRange(-120.0, 24.0), default=0.0, metavar="DB", help="Of the result."
)
@click.option(
    "--format",
    "sample_format",
    type=click.Choice(["float", "pcm24", "pcm16"]),
    default="float",
    help="Samples in the file; float keeps what exceeds full scale.",
)
@common.json_option
def command(
    notes: Path | None,
    query_file: Path,
    output: str | None,
    live: bool,
    midi_in: str,
    backend: str,
    seconds: float | None,
    model: str | None,
    track: int | None,
    transpose: int,
    gain_db: float,
    sample_format: Any,
    as_json: bool,
) -> None:
    """Play a MIDI file, or a keyboard, with the timbre of an instrument that was enrolled.

    \b
    rtsep synth melody.mid --query oboe.query -o melody.wav
    rtsep synth --live --query oboe.query --midi-in keystation

    Up to 16 notes sound at once. The file begins with the MIDI file and ends when the last note has faded.
    """
    if live:
        if notes is not None or track is not None:
            raise UsageError("--live plays what comes from --midi-in; leave NOTES.MID and --track out.")
        _play_live(query_file, output, midi_in, backend, seconds, model, transpose, gain_db, as_json)
        return
    if notes is None or output is None:
        raise UsageError("Give a MIDI file and -o NAME.wav, or --live to play from a keyboard. See: rtsep synth --help")
    _render(notes, query_file, Path(output), model, track, transpose, gain_db, sample_format, as_json)


def _render(
    notes: Path,
    query_file: Path,
    output: Path,
    model: str | None,
    track: int | None,
    transpose: int,
    gain_db: float,
    sample_format: Any,
    as_json: bool,
) -> None:
    from rtsep.audio.wav import WavWriter
    from rtsep.query.graphs import LOWEST_MIDI, SynthGraph, query_model
    from rtsep.query.queries import Query
    from rtsep.query.smf import MidiNotes, pitch_name, read_midi, within
    from rtsep.query.synth import HIGHEST_MIDI, level_db, render

    if output.suffix.lower() != ".wav":
        raise UsageError(f"{output}: audio is written as .wav; choose a name like {output.stem}.wav")
    query = Query.load(query_file)
    found = read_midi(notes, track)
    moved = [replace(note, pitch=note.pitch + transpose) for note in found.notes]
    played = within(MidiNotes(moved, found.remarks), LOWEST_MIDI, HIGHEST_MIDI, os.fspath(notes))
    graph = SynthGraph(query_model(model or query.model), query)
    started = time.perf_counter()
    with common.progress_bar(notes.name) as progress:
        audio = render(played.notes, graph, progress) * 10 ** (gain_db / 20)
    wall_s = time.perf_counter() - started
    rate = graph.info.samplerate
    with WavWriter(output, rate, 1, sample_format=sample_format, atomic=True) as writer:
        writer.write(audio[:, None].astype("float32"))
    for remark in played.remarks:
        common.talk(f"Note: {remark}")
    pitches = [note.pitch for note in played.notes]
    seconds, peak = len(audio) / rate, level_db(audio)
    common.talk(
        f"{query.name}  {len(pitches)} notes, {pitch_name(min(pitches))} to {pitch_name(max(pitches))}  "
        f"{common.clock(seconds)}  {rate} Hz  peak {peak:.1f} dBFS  {seconds / max(wall_s, 1e-9):.1f}x real time"
    )
    if peak > 0:
        kept = "the float file keeps it" if sample_format == "float" else "the file is clipped"
        common.talk(f"Note: the peak is above full scale; {kept}. For example: --gain {-int(peak + 2)}")
    if as_json:
        common.put_json(
            {
                "file": str(output), "query": query.name, "model": query.model, "notes": len(pitches),
                "seconds": round(seconds, 3), "samplerate": rate, "peak_dbfs": round(peak, 2),
                "speed": round(seconds / max(wall_s, 1e-9), 2), "remarks": played.remarks,
            }
        )  # fmt: skip
    else:
        click.echo(str(output))


def _play_live(
    query_file: Path,
    device: str | None,
    midi_in: str,
    backend: str,
    seconds: float | None,
    model: str | None,
    transpose: int,
    gain_db: float,
    as_json: bool,
) -> None:
    from rtsep.cli.run import device_config
    from rtsep.query.graphs import SynthGraph, query_model
    from rtsep.query.live_synth import LiveSynth
    from rtsep.query.midi_in import MidiInput
    from rtsep.query.queries import Query

    query = Query.load(query_file)
    graph = SynthGraph(query_model(model or query.model), query)
    config = device_config(backend, None, device, None, None, None, 0, "low")
    synth = LiveSynth(graph, config, gain_db)
    with (
        MidiInput(midi_in, listener=lambda note: synth.play(replace(note, pitch=note.pitch + transpose))) as keys,
        synth,
    ):
        common.talk(f"{query.name}  plays what comes to {keys.name}; at most {synth.latency_ms:.0f} ms later.")
        common.talk("Press Ctrl+C to stop.")
        deadline = None if seconds is None else time.monotonic() + seconds
        while synth.running and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.05)
    if isinstance(synth.error, RtsepError):
        raise synth.error
    if synth.error is not None:
        raise EngineError(f"The synthesiser stopped: {synth.error}") from synth.error
    if as_json:
        common.put_json(
            {"query": query.name, "notes": synth.notes, "left_out": synth.left_out, "underruns": synth.underruns,
             "latency_ms": round(synth.latency_ms, 2), "samplerate": synth.samplerate}
        )  # fmt: skip
        return
    left_out = f", {synth.left_out} outside its range" if synth.left_out else ""
    click.echo(f"Notes: {synth.notes}{left_out}. The device ran dry {synth.underruns} times.")
