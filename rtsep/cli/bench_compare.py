"""``rtsep bench --compare``: what a second run of measurements says against a first."""

from __future__ import annotations

import json
from collections import Counter

import click

from rtsep.cli import common
from rtsep.errors import FiguresError
from rtsep.figures import Verdict, compare, read_figures, unlike


def tell_difference(first: str, second: str, *, as_json: bool) -> None:
    """Print a verdict for each figure that both files have; FiguresError when there is none."""
    (runs_a, figures_a), (runs_b, figures_b) = read_figures(first), read_figures(second)
    warnings = unlike(runs_a, runs_b)
    verdicts = compare(figures_a, figures_b)
    if not verdicts:
        raise FiguresError(
            f"{first} and {second} have no figure in common. Measure the same model with the same options in both."
        )
    for warning in warnings:
        common.talk(f"Beware: {warning}")
    if as_json:
        common.put_json({"warnings": warnings, "figures": [_document(v) for v in verdicts]})
        return
    rows = [["figure", "before", "after", "unit", "ratio", "spread", "verdict"]]
    rows += [_row(verdict) for verdict in verdicts]
    for line in common.table(rows, right=range(1, 3)):
        click.echo(line)
    counts = Counter(verdict.word for verdict in verdicts)
    left = len({f.key for f in figures_a} ^ {f.key for f in figures_b})
    words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    click.echo(f"{words}{f'; {left} figures are in one file only' if left else ''}")


def _row(verdict: Verdict) -> list[str]:
    a, b = verdict.before, verdict.after
    parameters = json.loads(a.key[2])
    name = " ".join([a.figure, *(f"{key}={value}" for key, value in parameters.items())])
    ratio = "" if verdict.ratio is None else f"{verdict.ratio:.3f}"
    spread = "" if verdict.spread is None else f"{100 * verdict.spread:.0f} %"
    return [name, *("-" if f.value is None else f"{f.value:.4g}" for f in (a, b)), a.unit, ratio, spread, verdict.word]


def _document(verdict: Verdict) -> dict[str, object]:
    a, b = verdict.before, verdict.after
    return {
        "benchmark": a.benchmark, "figure": a.figure, "parameters": a.parameters, "unit": a.unit, "before": a.value,
        "after": b.value, "ratio": verdict.ratio, "spread": verdict.spread, "verdict": verdict.word,
    }  # fmt: skip
