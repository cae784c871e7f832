"""``rtsep models``: what is in the wheel, and what a model file says about itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.contract import ControlSpec
from rtsep.errors import ModelError, ModelNotFoundError

_COMPANIONS = {"query": "query encoder (rtsep enroll)", "synth": "synthesiser (rtsep synth)"}


@click.group("models")
def command() -> None:
    """List and check models."""


@command.command("list")
@common.json_option
def list_command(as_json: bool) -> None:
    """List the models that come with rtsep."""
    from rtsep.zoo.registry import list_models

    entries: list[dict[str, Any]] = []
    for entry in list_models():
        try:
            info = entry.info
        except ModelError as error:
            entries.append({"name": entry.name, "path": str(entry.path), "error": str(error)})
            continue
        entries.append(
            {
                "name": entry.name,
                "aliases": list(entry.aliases),
                "version": info.version,
                "stems": list(info.stems),
                "samplerates": list(info.samplerates),
                "hop_samples": info.hop_samples,
                "latency_samples": info.latency_samples,
                "latency_ms": round(1000 * info.latency_samples / info.samplerates[0], 2),
                "licence": info.licence,
                "companions": list(entry.companions),
                "path": str(entry.path),
            }
        )
    if as_json:
        common.put_json(entries)
        return
    if not entries:
        common.talk("No models are shipped here. A file works everywhere a name does: --model PATH.onnx")
        return
    rows = [["name", "also", "stems", "latency", "rates", "licence", "beside it"]]
    for e in entries:
        if "error" in e:
            rows.append([str(e["name"]), "", f"unreadable: {e['error']}", "", "", "", ""])
            continue
        rates = ", ".join(f"{r / 1000:g}" for r in e["samplerates"]) + " kHz"
        rows.append(
            [
                f"{e['name']} {e['version']}",
                ", ".join(e["aliases"]),
                " ".join(e["stems"]),
                f"{e['latency_ms']:.1f} ms",
                rates,
                str(e["licence"]),
                ", ".join(e["companions"]),
            ]
        )
    for line in common.table(rows, right=(3,)):
        click.echo(line)
    _list_transcribers()


def _list_transcribers() -> None:
    from rtsep.notes.transcriber_info import read_transcriber_info, shipped_transcribers

    rows = [["transcriber", "of", "look-ahead", "licence"]]
    for path in shipped_transcribers().values():
        info = read_transcriber_info(path)
        dial = ", ".join(f"{p.name} {1000 * p.latency_samples / info.samplerate:.0f} ms" for p in info.dial)
        rows.append([f"{info.name} {info.version}", info.kind, dial, info.licence])
    if len(rows) > 1:
        click.echo("")
        for line in common.table(rows):
            click.echo(line)


@command.command("info")
@click.argument("model", default="default")
@common.json_option
def info_command(model: str, as_json: bool) -> None:
    """Show what a model says about itself. MODEL is a name or a file."""
    from rtsep.zoo.registry import companions_of, read_info, resolve

    path = resolve(model)
    info = read_info(path)
    beside = companions_of(path)
    if as_json:
        common.put_json({"path": str(path), "size_bytes": path.stat().st_size, "companions": beside, **asdict(info)})
        return
    rate = info.samplerates[0]
    rows = [
        ["name", f"{info.name} {info.version}"],
        ["file", f"{path}  ({path.stat().st_size / 1e6:.1f} MB)"],
        ["stems", " ".join(info.stems) + (f"  (residual: {info.residual_stem})" if info.residual_stem else "")],
        ["audio", f"{' and '.join(map(str, info.samplerates))} Hz, {info.channels} channels"],
        ["hop", f"{info.hop_samples} samples ({1000 * info.hop_samples / rate:.1f} ms)"],
        ["latency", f"{info.latency_samples} samples ({1000 * info.latency_samples / rate:.1f} ms)"],
        ["controls", "; ".join(map(_control, info.controls)) or "none"],
        ["notes", f"{', '.join(info.notes.stems)}" if info.notes else "none"],
        ["beside it", ", ".join(_COMPANIONS[kind] for kind in beside) or "none"],
        ["size", f"{info.parameters:,} parameters, {info.macs_per_second / 1e6:,.0f} MMAC/s"],
        ["licence", info.licence],
        ["trained on", ", ".join(info.training_data) or "nothing (untrained)"],
        ["contract", f"version {info.contract_version}, exported from {info.git_commit[:12]}"],
        ["weights", f"sha256 {info.weights_sha256}"],
    ]
    rows += [["evaluation" if i == 0 else "", f"{k}: {v}"] for i, (k, v) in enumerate(info.evaluation.items())]
    for line in common.table(rows):
        click.echo(line)


def _control(control: ControlSpec) -> str:
    """Name, range, and labels or shape of a control."""
    shape = "x".join(map(str, control.shape)) + " values" if control.shape else ""
    of = ", ".join(control.labels) or shape
    return f"{control.name} ({control.minimum:g} to {control.maximum:g}{': ' if of else ''}{of})"


@command.command("verify")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@common.json_option
def verify_command(models: tuple[str, ...], as_json: bool) -> None:
    """Check shipped models (all without MODEL): hash, contract, and output against the golden pair.

    A file that is not shipped has no golden pair; of it the contract is checked.
    """
    from rtsep.zoo.registry import ZooEntry, list_models, resolve, verify

    shipped = {entry.path: entry for entry in list_models()}
    paths = [resolve(model) for model in models] or list(shipped)
    if not paths:
        raise ModelNotFoundError("No models are shipped here, so there is nothing to verify. Give a file.")
    results: list[dict[str, Any]] = []
    failure: ModelError | None = None
    for path in paths:
        entry: ZooEntry | None = shipped.get(path)
        try:
            if entry is not None:
                found = verify(entry)
                line = f"ok  {entry.name}  {found.hops} hops, largest difference {found.max_abs_error:.1e}"
                results.append({"model": entry.name, "ok": True, **asdict(found)})
            else:
                line = f"ok  {path}  contract version {_open(path)} (no golden pair to compare with)"
                results.append({"model": str(path), "ok": True})
        except ModelError as error:
            failure = error
            line = f"bad {path}  {error}"
            results.append({"model": str(path), "ok": False, "error": str(error)})
        if not as_json:
            click.echo(line)
    if not models:
        results += _verify_transcribers(as_json)
        failed = [result for result in results if not result["ok"]]
        failure = failure or (ModelError(str(failed[0]["error"])) if failed else None)
    if as_json:
        common.put_json(results)
    if failure:
        bad = sum(not result["ok"] for result in results)
        raise type(failure)(f"{bad} of {len(results)} models failed.")


def _verify_transcribers(quiet: bool) -> list[dict[str, Any]]:
    from rtsep.notes.transcriber import Transcriber
    from rtsep.notes.transcriber_info import shipped_transcribers

    results: list[dict[str, Any]] = []
    for path in shipped_transcribers().values():
        try:
            name = Transcriber(path, 1).info.name
            results.append({"model": name, "ok": True})
            line = f"ok  {name}  runs, silence gives finite numbers"
        except ModelError as error:
            results.append({"model": str(path), "ok": False, "error": str(error)})
            line = f"bad {path}  {error}"
        if not quiet:
            click.echo(line)
    return results


def _open(path: Path) -> int:
    from rtsep.inference.session import StreamingSession

    with StreamingSession(path, provider="cpu") as session:
        return session.info.contract_version


@command.command("path")
@click.argument("model", default="default")
def path_command(model: str) -> None:
    """Print the file of a model."""
    from rtsep.zoo.registry import resolve

    click.echo(str(resolve(model)))
