"""``rtsep devices``: what PortAudio sees."""

from __future__ import annotations

import click

from rtsep.cli import common


@click.command("devices")
@common.json_option
def command(as_json: bool) -> None:
    """List audio devices. Give an index, or part of a name, to -i and -o of: rtsep run."""
    from rtsep.audio.devices import list_devices

    devices = list_devices()
    if as_json:
        common.put_json([device.to_dict() for device in devices])
        return
    if not devices:
        click.echo("No audio devices. Without one, this works: rtsep demo, rtsep separate, run --backend file.")
        return
    rows = [["", "", "name", "in", "out", "rate", "low latency in / out"]]
    for device in devices:
        both = device.default_input and device.default_output
        mark = "*" if both else ">" if device.default_input else "<" if device.default_output else ""
        rows.append(
            [
                mark,
                str(device.index),
                f"{device.name}, {device.hostapi}",
                str(device.input_channels),
                str(device.output_channels),
                str(device.samplerate),
                f"{device.low_latency_ms[0]:.1f} / {device.low_latency_ms[1]:.1f} ms",
            ]
        )
    for line in common.table(rows, right=(1, 3, 4, 5)):
        click.echo(line)
    common.talk("> default input   < default output   * both (one device, one clock: recommended)")
