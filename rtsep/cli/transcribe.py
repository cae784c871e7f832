"""``rtsep transcribe``: the notes of recordings as MIDI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.errors import UsageError


@click.command("transcribe")
@click.argument("song", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A name ending in .mid.")
@click.option("--model", help="Name or .onnx file; the query's, or the default one, when left out.")
@click.option("--query", "query_file", type=click.Path(path_type=Path), help="Instrument to write down.")
@click.option("-c", "--channels", type=common.Numbers("1,2"), help="Channels of the file to use, from 1.")
@click.option("--stems", type=common.NameList(), default=(), help="Stems to write down; all when left out.")
@click.option(
    "--midi-latency",
    "latency",
    type=click.Choice(["tight", "normal", "quality"]),
    default="quality",
    show_default=True,
    help="How far the transcribers may look ahead.",
)
@click.option(
    "--midi-bend",
    "bend",
    type=common.StemValue("SEMITONES", "vocals=2"),
    multiple=True,
    help="Pitch bends in the file, of a stem of one voice, by so much at most.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="PNG file for a piano roll.")
@click.option(
    "--threshold",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.5,
    show_default=True,
    help="How sure a model that separates by query must be of a note.",
)
@click.option(
    "--shortest", type=click.FloatRange(0.0), default=60.0, show_default=True, metavar="MS", help="Of its notes."
)
@common.session_options
@common.json_option
def command(
    song: Path,
    output: Path,
    model: str | None,
    query_file: Path | None,
    channels: tuple[int, ...] | None,
    stems: tuple[str, ...],
    latency: str,
    bend: tuple[tuple[str, float], ...],
    plot: Path | None,
    threshold: float,
    shortest: float,
    provider: Any,
    threads: int,
    as_json: bool,
) -> None:
    """Write down the notes of a recording as a MIDI file, a track for each stem.

    \b
    rtsep transcribe song.wav -o song.mid --plot song.png
    rtsep transcribe quartet.wav --query oboe.query -o oboe.mid

    Times are those of the recording: the latency of the model is taken out. A model that separates by query gives one
    note at a time.
    """
    if output.suffix.lower() not in (".mid", ".midi"):
        raise UsageError(f"{output}: notes are written as MIDI; choose a name like {output.stem}.mid")
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"{plot}: the picture is a PNG; choose a name like {plot.stem}.png")
    from rtsep.cli.notes_options import check_bends
    from rtsep.notes.messages import default_strips
    from rtsep.notes.stream import kind_of_stem
    from rtsep.query.notes import TrackerSettings
    from rtsep.query.queries import Query, controls_for
    from rtsep.query.smf import Part, pitch_name, write_midi
    from rtsep.query.transcribe import transcribe
    from rtsep.zoo.registry import read_info, resolve

    ranges = _ranges(bend)
    query = Query.load(query_file) if query_file else None
    path = resolve(model or (query.model if query else "default"))
    info = read_info(path)
    for stem in ranges:
        check_bends(info, stem)
    frames_per_hop = info.notes.frames_per_hop if info.notes else 1
    frame_ms = 1000 * info.hop_samples / frames_per_hop / info.samplerates[0]
    settings = TrackerSettings(threshold, 0.6 * threshold, minimum_frames=max(1, round(shortest / frame_ms)))
    with common.progress_bar(song.name) as progress:
        found = transcribe(
            song,
            path,
            controls=controls_for(info, path, query),
            settings=settings,
            latency=latency,
            stems=stems or None,
            bends=tuple(ranges),
            channels=channels,
            provider=provider,
            threads=threads,
            progress=progress,
        )
    tracks = {query.name if query and stem == "query" else stem: notes for stem, notes in found.notes.items()}
    strips = default_strips(list(tracks))
    parts = {strip.name: Part(strip.channel, strip.program, ranges.get(strip.name, 0)) for strip in strips}
    write_midi(output, tracks, parts, bends=found.bends)
    if plot is not None:
        from rtsep.notes.plot import piano_roll

        piano_roll(plot, tracks, found.seconds, drums=[name for name in tracks if kind_of_stem(name) == "drums"])
    if found.replaced:
        common.talk(f"Note: {found.replaced} samples were NaN or infinite and became zero.")
    speed = found.seconds / max(found.wall_s, 1e-9)
    for name, notes in tracks.items():
        pitches = [note.pitch for note in notes]
        span = f"{pitch_name(min(pitches))} to {pitch_name(max(pitches))}" if pitches else "none heard"
        common.talk(f"{name}  {len(notes)} notes, {span}  {common.clock(found.seconds)}  {speed:.1f}x real time")
    if not as_json:
        click.echo(str(output))
        return
    common.put_json(
        {
            "file": str(output),
            "seconds": round(found.seconds, 3),
            "speed": round(speed, 2),
            "notes": {
                name: [
                    {
                        "start_s": round(note.start_s, 4), "end_s": round(note.end_s, 4),
                        "pitch": note.pitch, "velocity": note.velocity,
                    }
                    for note in notes
                ]
                for name, notes in tracks.items()
            },
        }
    )  # fmt: skip


def _ranges(bend: tuple[tuple[str, float], ...]) -> dict[str, int]:
    """Semitones by stem. UsageError."""
    for stem, value in bend:
        if value != int(value) or not 1 <= value <= 96:
            raise UsageError(f"--midi-bend {stem}={value:g}: a whole number of semitones, 1 to 96, is needed.")
    return {stem: int(value) for stem, value in bend}
