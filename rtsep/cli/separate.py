"""``rtsep separate``: files through the engine's chain, offline."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.cli.by_example import Example, example_options
from rtsep.cli.plugin_options import chains_of, plugin_option
from rtsep.errors import AudioFileError, UsageError


@click.command("separate")
@click.argument("songs", nargs=-1, required=True, metavar="SONG...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A name ending in .wav gets the mix; a folder gets OUTPUT/SONG/STEM.wav.",
)
@click.option("--model", default="default", help="Name or .onnx file. See: rtsep models list")
@click.option("--stems", type=common.NameList(), help="Stems to write; all when left out.")
@click.option("-c", "--channels", type=common.Numbers("1,2"), help="Channels of the file to use, from 1.")
@click.option(
    "--format",
    "sample_format",
    type=click.Choice(["float", "pcm24", "pcm16"]),
    default="float",
    help="Samples in the files; float keeps every bit.",
)
@common.mixer_options
@plugin_option
@common.control_option
@example_options
@common.session_options
@common.json_option
def command(
    songs: tuple[Path, ...],
    output: Path,
    model: str,
    stems: tuple[str, ...] | None,
    channels: tuple[int, ...] | None,
    sample_format: Any,
    plugins: tuple[tuple[str, Any], ...],
    control: tuple[tuple[str, tuple[float, ...]], ...],
    query_file: Path | None,
    score_file: Path | None,
    score_track: int | None,
    score_offset: float,
    mute: tuple[str, ...],
    solo: tuple[str, ...],
    gain: tuple[tuple[str, float], ...],
    pan: tuple[tuple[str, float], ...],
    master_db: float,
    limiter: bool,
    provider: Any,
    threads: int,
    as_json: bool,
) -> None:
    """Split songs into stems, or mix them anew.

    \b
    rtsep separate song.flac --mute vocals -o karaoke.wav     one file, re-balanced
    rtsep separate song.flac -o out/                          out/song/drums.wav and so on
    rtsep separate *.mp3 --stems vocals --gain vocals=3 -o out/
    rtsep separate duet.wav --model msi --query oboe.query --score oboe.mid -o out/

    Latency is taken out: results start with the song and are as long. Files appear when they are whole.
    """
    to_file = output.suffix.lower() == ".wav" and not output.is_dir()
    from rtsep.mixer.faders import plan_mix
    from rtsep.zoo.registry import read_info, resolve

    path = resolve(model)
    info = read_info(path)
    plan = plan_mix(info, control=control, mute=mute, solo=solo, gain=dict(gain), pan=dict(pan))
    asked = bool(mute or solo or gain or pan)
    changed = asked or bool(master_db or limiter or plugins or (plan.faders and control))
    if to_file and len(songs) > 1:
        raise UsageError(f"{len(songs)} songs cannot go into one file; give a folder, for example: -o out/")
    if to_file and stems:
        raise UsageError("--stems needs a folder, for example: -o out/. For a mix of some stems use --solo.")
    if to_file and not changed:
        raise UsageError(
            f"{output} would be a copy of the song. Say what to change, for example --mute vocals, "
            "or give a folder for the stems: -o out/"
        )
    if not to_file and output.suffix and not output.is_dir():
        raise (
            UsageError(f"{output}: audio is written as .wav; for a folder end the name with a slash: {output}/")
            if not str(output).endswith("/")
            else UsageError(f"{output} is no folder.")
        )
    folders = _folders(songs, output)
    example = Example(query_file, score_file, score_track, score_offset)
    controls, score = example.load(info, path, plan.controls)
    from rtsep.audio.files import NonFiniteWarning
    from rtsep.offline import Separation, separate

    results: list[dict[str, Any]] = []
    failure: AudioFileError | None = None
    for song, folder in zip(songs, folders, strict=True):
        try:
            with warnings.catch_warnings(record=True) as caught, common.progress_bar(song.name) as progress:
                warnings.simplefilter("always", NonFiniteWarning)
                result: Separation = separate(
                    song,
                    model=path,
                    output=output if to_file else None,
                    output_dir=None if to_file else folder,
                    stems=stems,
                    mute=plan.mute,
                    solo=plan.solo if to_file or asked else (),
                    gain=plan.gain,
                    pan=plan.pan,
                    controls=controls,
                    chains=chains_of(plugins),
                    score=score,
                    master_db=master_db,
                    limiter=limiter,
                    channels=channels,
                    sample_format=sample_format,
                    provider=provider,
                    threads=threads,
                    progress=progress,
                )
        except AudioFileError as error:
            if len(songs) == 1:
                raise
            click.echo(f"Error: {error}", err=True)  # the other songs are worth finishing
            failure = error
            continue
        for warning in caught:
            common.talk(f"Note: {warning.message}")
        _report(song, result, results, as_json)
    if as_json:
        common.put_json(results)
    if failure:
        raise AudioFileError(f"{len(songs) - len(results)} of {len(songs)} songs failed.")


def _folders(songs: tuple[Path, ...], output: Path) -> list[Path]:
    """One folder a song, named after it; numbered where two songs have the same name."""
    folders: list[Path] = []
    for song in songs:
        folder = output / (song.stem or "song")
        number = 2
        while folder in folders:
            folder = output / f"{song.stem}-{number}"
            number += 1
        folders.append(folder)
    return folders


def _report(song: Path, result: Any, results: list[dict[str, Any]], as_json: bool) -> None:
    seconds = result.frames / result.samplerate
    rates = f"{result.samplerate} Hz"
    if result.model_samplerate != result.samplerate:
        rates += f" (model at {result.model_samplerate} Hz, resampled)"
    kind = {1: "mono", 2: "stereo"}.get(result.channels, f"{result.channels} channels")
    common.talk(
        f"{song.name}  {common.clock(seconds)}  {rates} {kind}  latency of {result.latency_samples} samples removed  "
        f"{result.speed:.1f}x real time"
    )
    results.append(
        {
            "input": str(song),
            "files": {name: str(path) for name, path in result.files.items()},
            "seconds": round(seconds, 3),
            "samplerate": result.samplerate,
            "model_samplerate": result.model_samplerate,
            "channels": result.channels,
            "frames": result.frames,
            "latency_samples_removed": result.latency_samples,
            "samples_replaced": result.replaced,
            "speed": round(result.speed, 2),
        }
    )
    if not as_json:
        for path in result.files.values():
            click.echo(str(path))
