"""The command line: ``python -m export SYSTEM CHECKPOINT -o FILE.onnx``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from models.registry import SYSTEMS
from rtsep.errors import ModelFileError, RtsepError, UsageError

FACT_KEYS = ("version", "licence", "training_data", "evaluation", "summary")
"""Keys of a checkpoint's ``extras`` that go into metadata and card by name; all others into the card's ``training``."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("system", type=click.Choice(list(SYSTEMS)))
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .onnx file to write."
)
@click.option("--name", help="Name of the model.  [default: the output's file name]")
@click.option("--model-version", help="Version of the model.  [default: the checkpoint's, or 1]")
@click.option("--licence", help="Licence of the weights.  [default: the checkpoint's]")
@click.option("--training-data", multiple=True, help="Name of a collection; repeat.  [default: the checkpoint's]")
@click.option("--summary", help="One line for the model's card.  [default: the checkpoint's, or the stems]")
@click.option(
    "--evaluation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON of python -m models.evaluate, for the card.  [default: the checkpoint's]",
)
@click.option("--stems", help="Stems to put out, for a system that can choose; for example vocals,accompaniment.")
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="Audio compared with PyTorch."
)
@click.option("--benchmark-hops", type=click.IntRange(min=20), default=400, show_default=True, help="Steps timed.")
def main(
    system: str,
    checkpoint: Path,
    output: Path,
    name: str | None,
    model_version: str | None,
    licence: str | None,
    training_data: tuple[str, ...],
    summary: str | None,
    evaluation: Path | None,
    stems: str | None,
    seconds: float,
    benchmark_hops: int,
) -> None:
    """Export a CHECKPOINT of a SYSTEM to the streaming ONNX contract (docs/contract.md).

    Writes FILE.onnx, its card FILE.json and the golden pair FILE.golden.npz, or, when the graph differs from
    PyTorch by more than 1e-4, nothing, with exit code 4.
    """
    from export.pipeline import export_model
    from models.checkpoint import load_checkpoint

    try:
        try:
            model, extras = load_checkpoint(checkpoint, system)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"{checkpoint} is no checkpoint that can be exported: {error}") from error
        if stems is not None:
            model = chosen_stems(model, system, stems)
        if hasattr(model, "materialise"):
            model = model.materialise()  # what generates weights is not part of what plays
        options = {
            "version": model_version,
            "licence": licence,
            "training_data": list(training_data) or None,
            "summary": summary,
            "evaluation": read_evaluation(evaluation) if evaluation else None,
        }
        given = {key: value for key, value in options.items() if value is not None}
        facts = facts_from({**extras, **given}, name or output.stem, tuple(getattr(model, "stems", ())))
        beside = companions(model, output, facts.name) if system == "msi" else []
        if system == "transcriber":  # of another contract: docs/transcribers.md
            from export.transcriber import export_transcriber as export_model  # type: ignore[assignment]
        report = export_model(model, output, facts, seconds=seconds, benchmark_hops=benchmark_hops)
    except RtsepError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    for line in [*report.lines(), *(f"beside it   {path}  {path.stat().st_size / 1e6:.2f} MB" for path in beside)]:
        click.echo(line)


def companions(model: Any, output: Path, name: str) -> list[Path]:
    """Write the graphs that stand beside a model that separates by query; before the model, which is found first."""
    from export.queries import export_query_encoder, export_synth

    written = []
    for kind, export in (("query", export_query_encoder), ("synth", export_synth)):
        written.append(output.with_name(f"{output.stem}.{kind}.onnx"))
        export(model, written[-1], name)
    return written


def chosen_stems(model: Any, system: str, stems: str) -> Any:
    """Return a model that puts out the comma-separated `stems`; UsageError when it cannot."""
    if not hasattr(model, "view"):
        raise UsageError(f"{system} always puts out {', '.join(model.stems)}; leave --stems out.")
    try:
        return model.view(tuple(name.strip() for name in stems.split(",")))
    except ValueError as error:
        raise UsageError(f"--stems {stems}: {error}") from error


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return the figures that ``python -m models.evaluate --json`` wrote, without those of single songs.

    Raises
    ------
    UsageError
        The file is no JSON object.
    """
    try:
        figures = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no JSON: {error}. Write it with: python -m models.evaluate --json") from error
    if not isinstance(figures, dict):
        raise UsageError(f"{path} holds a {type(figures).__name__}; an object with figures is needed.")
    return {key: value for key, value in figures.items() if key not in ("songs", "per_song_sdr")}


def facts_from(extras: Mapping[str, Any], name: str, stems: tuple[str, ...]) -> Any:
    """Return the `export.pipeline.Facts` of a checkpoint's extras.

    Parameters
    ----------
    extras : mapping
        ``licence`` (str) and ``training_data`` (list of str) must be there; ``version`` (str), ``summary`` (str)
        and ``evaluation`` (dict) may be; every other key goes into the card's ``training``.
    name : str
        Of the model.
    stems : tuple of str
        For the summary when there is none.

    Raises
    ------
    UsageError
        A key is missing or has a value of a wrong type.
    """
    from export.pipeline import Facts

    for key in ("licence", "training_data"):
        if not extras.get(key):
            option = key.replace("_", "-")
            raise UsageError(f"The checkpoint does not say its {key}. Say it with: --{option} TEXT")
    data = extras["training_data"]
    if isinstance(data, str) or not all(isinstance(item, str) for item in data):
        raise UsageError(f"training_data is {data!r}; a list of names is needed.")
    return Facts(
        name=name,
        version=str(extras.get("version", "1")),
        licence=str(extras["licence"]),
        training_data=tuple(data),
        evaluation=dict(extras.get("evaluation") or {}),
        summary=str(extras.get("summary") or f"{len(stems)} stems: {', '.join(stems)}"),
        training={key: value for key, value in extras.items() if key not in FACT_KEYS},
    )
