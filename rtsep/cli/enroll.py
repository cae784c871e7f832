"""``rtsep enroll``: an instrument, learnt from a recording or from a device, as a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtsep.cli import common
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.query.queries import FloatArray


@click.command("enroll")
@click.argument("recording", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A name ending in .query.")
@click.option("--model", help="Name or .onnx file. See: rtsep models list")
@click.option("--live", type=click.FloatRange(1.0, 600.0), metavar="SECONDS", help="Record for so long instead.")
@click.option(
    "-i", "--input-device", "--input", help="With --live: index or part of a name; a file for --backend file."
)
@click.option("--backend", default="portaudio", metavar="NAME", help="With --live: portaudio, file or dummy.")
@click.option("-c", "--channels", type=common.Numbers("1,2"), help="Channels to use, from 1; their mean is taken.")
@click.option("--force", is_flag=True, help="Take a clipped recording as it is.")
@common.json_option
def command(
    recording: Path | None,
    output: Path,
    model: str | None,
    live: float | None,
    input_device: str | None,
    backend: str,
    channels: tuple[int, ...] | None,
    force: bool,
    as_json: bool,
) -> None:
    """Learn what an instrument sounds like, from a few seconds of it alone.

    \b
    rtsep enroll oboe.wav -o oboe.query
    rtsep enroll --live 5 -i scarlett -o oboe.query
    rtsep run msi --query oboe.query --solo query

    Silence is left out; one second of sound is the least, and thirty are the most that is used.
    """
    if (recording is None) == (live is None):
        raise UsageError(
            "Give a recording, or --live SECONDS to make one; not both. For example: rtsep enroll oboe.wav"
        )
    if live is None and (input_device is not None or backend != "portaudio"):
        raise UsageError("-i and --backend are for --live SECONDS; a recording is read from its file.")
    from rtsep.query.enroll import enroll, open_encoder, read_recording
    from rtsep.query.graphs import query_model
    from rtsep.query.queries import SUFFIX

    if output.suffix != SUFFIX:
        raise UsageError(f"{output}: queries are written as {SUFFIX}; choose a name like {output.stem}{SUFFIX}")
    encoder = open_encoder(query_model(model))
    if recording is not None:
        audio, samplerate = read_recording(recording, channels)
        source = recording.name
    else:
        assert live is not None
        audio, samplerate, source = _record(live, input_device, backend, channels)
    query, sound = enroll(audio, samplerate, encoder, name=output.stem, source=source, force=force)
    query.save(output)
    left_out = sound.recorded_s - sound.sounding_s
    common.talk(
        f"{query.name}  {sound.used_s:.1f} s of sound out of {sound.recorded_s:.1f} s recorded  "
        f"({left_out:.1f} s of silence left out)  for {query.model}"
    )
    if sound.used_s < sound.sounding_s:
        common.talk(f"Note: of {sound.sounding_s:.1f} s of sound the first {sound.used_s:g} were used.")
    if not as_json:
        click.echo(str(output))
        return
    common.put_json(
        {
            "file": str(output), "name": query.name, "model": query.model, "source": query.source,
            "recorded_s": round(sound.recorded_s, 3), "sounding_s": round(sound.sounding_s, 3),
            "used_s": round(sound.used_s, 3), "query": [float(value) for value in query.vector],
        }
    )  # fmt: skip


def _record(
    seconds: float, device: str | None, backend: str, channels: tuple[int, ...] | None
) -> tuple[FloatArray, int, str]:
    """Record from a device; the third value says where from."""
    from rtsep.cli.run import device_config
    from rtsep.query.enroll import record
    from rtsep.query.queries import LIVE

    given: dict[str, Any] = {"channels": channels, "output_channels": None, "samplerate": None, "blocksize": 0}
    config = device_config(backend, device, None, latency="high", **given)
    common.talk(f"Recording {seconds:g} s: play the instrument alone.")
    with common.progress_bar("recording") as progress:
        audio, samplerate = record(config, seconds, progress)
    return audio, samplerate, f"{LIVE}{device or backend}"
