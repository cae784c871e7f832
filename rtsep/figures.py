"""Measured figures: the form they are kept in, and what two runs say about each other. Standard library only.

A file of figures is JSON lines. A line of the kind ``run`` holds what all figures of a run have in common (commit,
machine, versions, seed, date); each line of the kind ``figure`` names its run. The document that ``rtsep bench
--json`` prints can be read, too. ``benchmarks/record.py`` writes, ``rtsep bench --compare`` compares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from rtsep.errors import FiguresError, suggest

SCHEMA = 1

BETTER = ("lower", "higher", "neither")
PERCENTILES = ("p50", "p95", "p99", "p99.9", "max", "count")

LEAST_SPREAD = 0.03
"""Part of a figure that two runs may always differ by: a machine is never the same twice."""

FEWEST_ROUNDS = 3
"""Rounds from which a spread is believed."""


@dataclass(frozen=True)
class Run:
    """What all figures of a run have in common.

    Parameters
    ----------
    run : str
        Names the run; figures refer to it.
    commit : str
        Of the code that was measured; ends in ``+`` when there were changes beside it.
    machine : dict
        ``cpu``, ``cores``, ``system``, ``governor``, ``load``, ``realtime`` (is that priority allowed) and others.
    versions : dict
        Of Python and of the packages.
    seed : int
    date : str
        ISO 8601, UTC.
    command : str
        What measured it.
    """

    run: str
    commit: str
    machine: dict[str, Any]
    versions: dict[str, Any]
    seed: int
    date: str
    command: str


@dataclass(frozen=True)
class Figure:
    """One figure, with its spread.

    Parameters
    ----------
    run : str
        The `Run` it belongs to.
    benchmark : str
        What measured it.
    figure : str
        What it is.
    parameters : dict
        Under which circumstances; figures with the same benchmark, figure and parameters are compared.
    unit : str
    better : {"lower", "higher", "neither"}
    value : float or None
        None: not measured; `note` says why.
    rounds : list of float
        The same figure in each round; their range is the spread.
    percentiles : dict or None
        ``p50 p95 p99 p99.9 max count`` of the samples, where it is a distribution.
    histogram : dict or None
        ``edges`` (n + 1 ascending) and ``counts`` (n).
    facts : dict
        What else was seen meanwhile: late hops, load, stalls of the machine.
    note : str
    """

    run: str
    benchmark: str
    figure: str
    parameters: dict[str, Any]
    unit: str
    better: str
    value: float | None
    rounds: list[float] = field(default_factory=list)
    percentiles: dict[str, Any] | None = None
    histogram: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if self.better not in BETTER:
            raise FiguresError(f"better is {self.better!r}; allowed are {', '.join(BETTER)}.")
        if self.value is None and not self.note:
            raise FiguresError(f"{self.benchmark}, {self.figure}: no value, and no note that says why.")
        for number in [*self.rounds, *([] if self.value is None else [self.value])]:
            if not math.isfinite(number):
                raise FiguresError(f"{self.benchmark}, {self.figure}: {number} is no figure.")
        if self.percentiles is not None and set(self.percentiles) != set(PERCENTILES):
            raise FiguresError(
                f"{self.benchmark}, {self.figure}: percentiles are {', '.join(self.percentiles)}; "
                f"needed are {', '.join(PERCENTILES)}."
            )
        if self.histogram is not None:
            edges, counts = self.histogram.get("edges", []), self.histogram.get("counts", [])
            if len(edges) != len(counts) + 1 or any(a >= b for a, b in pairwise(edges)):
                raise FiguresError(
                    f"{self.benchmark}, {self.figure}: a histogram of {len(counts)} counts needs "
                    f"{len(counts) + 1} ascending edges, got {len(edges)}."
                )

    @property
    def key(self) -> tuple[str, str, str]:
        """What figures of two runs must share to be compared."""
        return self.benchmark, self.figure, json.dumps(self.parameters, sort_keys=True)

    @property
    def spread(self) -> float | None:
        """Range of the rounds as a part of their median; None with fewer than `FEWEST_ROUNDS`."""
        middle = median(self.rounds) if self.rounds else 0.0
        if len(self.rounds) < FEWEST_ROUNDS or middle == 0:
            return None
        return (max(self.rounds) - min(self.rounds)) / abs(middle)


def read_figures(path: str | Path) -> tuple[list[Run], list[Figure]]:
    """Read and check a file of figures, or what ``rtsep bench --json`` printed.

    Raises
    ------
    FiguresError
        The file is missing, no such file, of another schema version, or a line of it is wrong; the message names it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise FiguresError(f"{path} cannot be read: {why}. Make one with: rtsep bench --json > {path}") from error
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and "kind" not in whole:
        return _from_bench(path, whole)
    runs: list[Run] = []
    figures: list[Figure] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                entry = _line(line)
            except FiguresError as error:
                raise FiguresError(f"{path}, line {number}: {error}") from error
            if isinstance(entry, Run):
                runs.append(entry)
            else:
                figures.append(entry)
    if not runs:
        raise FiguresError(f"{path} holds no figures. Make some with: rtsep bench --json > {path}")
    known = {run.run for run in runs}
    for figure in figures:
        if figure.run not in known:
            raise FiguresError(f"{path}: {figure.benchmark}, {figure.figure} belongs to {figure.run!r}, no run of it.")
    return runs, figures


def to_line(entry: Run | Figure) -> str:
    """Return the line of JSON that `read_figures` reads."""
    kind = "run" if isinstance(entry, Run) else "figure"
    values = {f.name: getattr(entry, f.name) for f in fields(entry)}
    return json.dumps({"schema": SCHEMA, "kind": kind, **values}, ensure_ascii=False, allow_nan=False)


def _line(line: str) -> Run | Figure:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise FiguresError(f"no JSON: {error}.") from error
    if not isinstance(document, dict):
        raise FiguresError("no JSON object.")
    _check_schema(document)
    kind: Any = {"run": Run, "figure": Figure}.get(str(document.get("kind")))
    if kind is None:
        raise FiguresError(f"kind is {document.get('kind')!r}; allowed are run and figure.")
    types = {f.name: str(f.type).split("[")[0].split(" ")[0] for f in fields(kind)}
    for name in document:
        if name not in types and name not in ("schema", "kind"):
            raise FiguresError(f"unknown key {name!r}.{suggest(name, types)}")
    for name, kind_name in types.items():
        if name not in document:
            raise FiguresError(f"the key {name!r} is missing.")
        _check_type(name, document[name], kind_name)
    entry: Run | Figure = kind(**{name: document[name] for name in types})
    return entry


def _check_schema(document: Mapping[str, Any]) -> None:
    if document.get("schema") != SCHEMA:
        raise FiguresError(
            f"schema {document.get('schema')!r}; this version of rtsep reads {SCHEMA}. Measure again, or compare with "
            "the version that wrote it."
        )


_OR_NULL = ("value", "percentiles", "histogram")


def _check_type(name: str, value: Any, wanted: str) -> None:
    if value is None and name in _OR_NULL:
        return
    allowed: dict[str, tuple[type, ...]] = {
        "str": (str,), "dict": (dict,), "list": (list,), "int": (int,), "float": (int, float),
    }  # fmt: skip
    numbers = value if name == "rounds" and isinstance(value, list) else []
    wrong = not isinstance(value, allowed[wanted]) or isinstance(value, bool)
    if wrong or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        raise FiguresError(f"{name} is {value!r}; {wanted}{' of numbers' if name == 'rounds' else ''} is needed.")


def _from_bench(path: str | Path, document: Mapping[str, Any]) -> tuple[list[Run], list[Figure]]:
    """Read the document of ``rtsep bench --json``."""
    try:
        _check_schema(document)
        name = f"{path}"
        run = Run(name, "", dict(document["machine"]), dict(document["versions"]), 0, "", "rtsep bench")
        figures = []
        for row in document["blocks"]:
            parameters = {
                "model": document["model"]["name"], "provider": document["provider"], "threads": document["threads"],
                "samplerate": document["samplerate"], "block": row["block"],
            }  # fmt: skip
            for percentile in ("p50", "p99"):
                key = f"{percentile}_ms"
                rounds = [float(part[key]) for part in row["rounds"]]
                figure = f"hop time {percentile}"
                figures.append(Figure(name, "bench", figure, parameters, "ms", "lower", float(row[key]), rounds))
    except FiguresError as error:
        raise FiguresError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FiguresError(
            f"{path} is nothing that rtsep bench --json printed ({error!r}). Make one with: rtsep bench --json > {path}"
        ) from error
    return [run], figures


# --- two runs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What two figures say about each other.

    Attributes
    ----------
    before, after : Figure
    ratio : float or None
        After over before; None when before is 0 or one was not measured.
    spread : float or None
        The wider one of both, `LEAST_SPREAD` at least; None when one is not known.
    word : str
        ``faster`` and ``slower`` for times and rates, ``better`` and ``worse`` for what is no time, ``the same``
        within the spread, ``unknown`` without a spread.
    """

    before: Figure
    after: Figure
    ratio: float | None
    spread: float | None
    word: str


def compare(before: Iterable[Figure], after: Iterable[Figure]) -> list[Verdict]:
    """Hold the figures that both have against each other, in the order of the first.

    Two figures differ when their medians are further apart than the wider one of their spreads.
    """
    others = {figure.key: figure for figure in after}
    return [_verdict(figure, others[figure.key]) for figure in before if figure.key in others]


def _verdict(a: Figure, b: Figure) -> Verdict:
    if not a.value or b.value is None:
        return Verdict(a, b, None, None, "the same" if a.value is not None and a.value == b.value else "unknown")
    ratio = _middle(b) / _middle(a)
    if a.spread is None or b.spread is None:
        return Verdict(a, b, ratio, None, "the same" if ratio == 1 else "unknown")
    spread = max(a.spread, b.spread, LEAST_SPREAD)
    if abs(ratio - 1) <= spread:
        return Verdict(a, b, ratio, spread, "the same")
    timed = a.unit in ("ns", "us", "ms", "s", "instructions", "CPU s/s", "x real time")
    good, bad = ("faster", "slower") if timed else ("better", "worse")
    if a.better == "neither":
        return Verdict(a, b, ratio, spread, "other")
    return Verdict(a, b, ratio, spread, good if (ratio < 1) == (a.better == "lower") else bad)


def _middle(figure: Figure) -> float:
    return median(figure.rounds) if figure.rounds else float(figure.value or 0.0)


def unlike(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    """Return what makes two files hard to compare: other machines, other versions; one line each."""
    found = []
    for what in ("machine", "versions"):
        keys = ("cpu", "cores", "system", "governor", "realtime") if what == "machine" else ("onnxruntime", "python")
        for key in keys:
            first, second = ({str(getattr(run, what).get(key)) for run in runs} for runs in (a, b))
            if first != second:
                found.append(f"{key}: {', '.join(sorted(first))} against {', '.join(sorted(second))}")
    loads = [max((float(run.machine.get("load") or 0.0) for run in runs), default=0.0) for runs in (a, b)]
    if max(loads) > 0.5:
        found.append(f"other programs ran: load {loads[0]:.1f} against {loads[1]:.1f}")
    return found
