"""``rtsep midi``: the MIDI ports of this machine, and what to do when something goes wrong with them."""

from __future__ import annotations

import json
import queue
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.errors import DeviceError, UsageError

_NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


@click.group("midi")
def command() -> None:
    """List MIDI ports, watch one, silence one, recover a take."""


@command.command("list")
@common.json_option
def list_command(as_json: bool) -> None:
    """List MIDI ports. Give part of a name to: rtsep run --midi-out, rtsep midi panic --port."""
    from rtsep.notes.ports import probe

    ports = probe()
    if as_json:
        common.put_json([asdict(port) for port in ports])
        return
    if not ports:
        click.echo("No MIDI ports. A port of its own, which others connect to: virtual.")
        return
    rows = [["", "name", "system"]]
    rows += [["->" if port.direction == "out" else "<-", port.name, port.api] for port in ports]
    for line in common.table(rows):
        click.echo(line)
    common.talk("-> rtsep can send to it   <- rtsep can listen to it")


@command.command("monitor")
@click.option("--port", default="virtual", help="virtual (others connect to it) or part of a name.")
@click.option("--seconds", type=click.FloatRange(0.1), help="Stop after this time; otherwise with Ctrl+C.")
@common.json_option
def monitor_command(port: str, seconds: float | None, as_json: bool) -> None:
    """Print what arrives on a MIDI port, with times in seconds; one JSON object a line with --json."""
    from rtsep.notes.ports import check_name, find_port, open_input, probe

    check_name(port)
    if port == "null" or port.startswith("log:"):
        raise UsageError(f"{port!r} is nothing to listen to; give virtual or part of a name. See: rtsep midi list")
    known = [found for found in probe() if found.direction == "in"]  # which also proves that the system answers
    if port != "virtual":
        port = find_port(port, known).name
    arrived: queue.SimpleQueue[tuple[float, list[int]]] = queue.SimpleQueue()
    handle, name, api = open_input(port, "rtsep-monitor")
    handle.ignore_types(sysex=False, timing=True, active_sense=True)
    handle.set_callback(lambda event, _data: arrived.put((time.monotonic(), event[0])))
    common.talk(f"Listening on {name} ({api}). Ctrl+C ends it.")
    began = time.monotonic()
    sounding: set[tuple[int, int]] = set()
    try:
        while seconds is None or time.monotonic() - began < seconds:
            try:
                at, data = arrived.get(timeout=0.05)
            except queue.Empty:
                continue
            _track(data, sounding)
            if as_json:
                click.echo(json.dumps({"t": round(at - began, 4), "bytes": bytes(data).hex(" "), **describe(data)}))
            else:
                facts = describe(data)
                words = " ".join(f"{key} {value}" for key, value in facts.items() if key != "kind")
                click.echo(f"{at - began:9.3f}  {facts['kind']:<10}  {words}")
    finally:
        if sounding:
            common.talk(f"{len(sounding)} notes still sound: {', '.join(_name(note) for _, note in sorted(sounding))}")
        handle.close_port()
        handle.delete()


@command.command("panic")
@click.option("--port", default="all", help="Part of a name, or all.")
@common.json_option
def panic_command(port: str, as_json: bool) -> None:
    """End every note on a port: note-offs for all notes of all channels, then silence. About 3 s a port."""
    from rtsep.notes.output import MidiOutput
    from rtsep.notes.ports import check_name, find_port, probe

    check_name(port)
    known = [found for found in probe() if found.direction == "out"]
    if port == "all":
        names = [found.name for found in known]
        if not names:
            raise DeviceError("There is no MIDI port to silence. See: rtsep midi list")
    elif port.startswith("log:") or port == "null":
        names = [port]
    elif port == "virtual":
        raise UsageError(
            "A virtual port is a new one that nobody plays from; give part of a name. See: rtsep midi list"
        )
    else:
        names = [find_port(port, known).name]
    done: list[dict[str, Any]] = []
    for name in names:
        try:
            with MidiOutput(name, [], "rtsep-panic") as output:
                output.panic(all_channels=True)
                output.close(timeout_s=8.0)
                done.append({"port": name, "sent": output.status.sent})
        except DeviceError as error:
            if len(names) == 1:
                raise
            done.append({"port": name, "error": str(error)})
    if as_json:
        common.put_json(done)
    else:
        for entry in done:
            click.echo(f"{entry['port']}: {entry.get('error') or str(entry['sent']) + ' messages sent'}")
    if all("error" in entry for entry in done):
        raise DeviceError("No port could be silenced. See: rtsep midi list")


@command.command("recover")
@click.argument("log", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The MIDI file; LOG with .mid when left out.")
@common.json_option
def recover_command(log: Path, output: Path | None, as_json: bool) -> None:
    """Make a MIDI file of the log that a take leaves behind, also one that was cut off."""
    from rtsep.notes.log import recover

    if output is not None and output.suffix.lower() not in (".mid", ".midi"):
        raise UsageError(f"{output}: notes are written as .mid; choose a name like {output.stem}.mid")
    made = recover(log, output)
    for remark in made.remarks:
        common.talk(f"Note: {remark}")
    if made.closed:
        common.talk(f"Note: {made.closed} notes never ended; they end with the last event.")
    if as_json:
        common.put_json({"file": str(made.path), "notes": made.notes, "closed": made.closed, "remarks": made.remarks})
        return
    common.talk("  ".join(f"{name} {count}" for name, count in made.notes.items()) + "  notes")
    click.echo(str(made.path))


def describe(data: list[int]) -> dict[str, Any]:
    """Say what a MIDI message is: its kind, its channel from 1, its values."""
    kind, channel = data[0] & 0xF0, (data[0] & 0x0F) + 1
    if kind == 0xF0 or len(data) < 2:
        return {"kind": "sysex" if data[0] == 0xF0 else "system", "length": len(data)}
    if kind == 0x90 and data[2]:
        return {"kind": "note on", "channel": channel, "note": data[1], "name": _name(data[1]), "velocity": data[2]}
    if kind in (0x80, 0x90):
        return {"kind": "note off", "channel": channel, "note": data[1], "name": _name(data[1])}
    if kind == 0xA0:
        return {"kind": "pressure", "channel": channel, "note": data[1], "value": data[2]}
    if kind == 0xB0:
        return {"kind": "control", "channel": channel, "number": data[1], "value": data[2]}
    if kind == 0xE0:
        return {"kind": "bend", "channel": channel, "value": data[1] + 128 * data[2] - 8192}
    return {"kind": "program" if kind == 0xC0 else "pressure", "channel": channel, "value": data[1]}


def _track(data: list[int], sounding: set[tuple[int, int]]) -> None:
    kind, channel = data[0] & 0xF0, data[0] & 0x0F
    if kind == 0x90 and data[2]:
        sounding.add((channel, data[1]))
    elif kind in (0x80, 0x90):
        sounding.discard((channel, data[1]))


def _name(note: int) -> str:
    return f"{_NOTES[note % 12]}{note // 12 - 1}"
