"""``rtsep synth``: a MIDI file, played with the sound of a query."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.errors import UsageError


@click.command("synth")
@click.argument("notes", metavar="NOTES.MID", type=click.Path(path_type=Path))
@click.option("--query", "query_file", required=True, type=click.Path(path_type=Path), help="Whose sound to play with.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A name ending in .wav.")
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
    """Play a MIDI file with the timbre of an instrument that was enrolled.

    \b
    rtsep synth melody.mid --query oboe.query -o melody.wav

    Up to 16 notes sound at once. The file begins with the MIDI file and ends when the last note has faded.
    """
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
