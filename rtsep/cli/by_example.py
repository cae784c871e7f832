"""Options that ``run`` and ``separate`` share for models that separate by example: a query, and a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rtsep.cli import common
from rtsep.errors import UsageError

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo
    from rtsep.controls import Values
    from rtsep.query.score import Score

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Example:
    """What the options say.

    Parameters
    ----------
    query : path or None
        A query file.
    score : path or None
        A MIDI file.
    track : int or None
        Its track, from 1.
    offset_s : float
        How much later than the audio it begins.
    played : str or None
        MIDI input whose notes are the score.
    """

    query: Path | None
    score: Path | None
    track: int | None
    offset_s: float
    played: str | None = None

    def load(
        self, info: ModelInfo, path: Path, controls: Mapping[str, Values]
    ) -> tuple[dict[str, Values], Score | None]:
        """Return the controls to start with, `controls` included, and the score; says what they are.

        Raises
        ------
        QueryError, MidiFileError
            A file cannot be used.
        UsageError
            The model takes no query or score, or needs a query and has none; options contradict each other.
        """
        if self.score is None and (self.track is not None or self.offset_s):
            raise UsageError("--score-track and --score-offset are for --score FILE.mid.")
        from rtsep.query.queries import CONTROL, Query, controls_for

        started = dict(controls)
        if CONTROL not in controls:
            query = Query.load(self.query) if self.query else None
            started.update(controls_for(info, path, query))
            if query is not None:
                common.talk(f"Query    {query.name}  {query.seconds:.1f} s from {query.source}")
        elif self.query is not None:
            raise UsageError(f"--query and --control {CONTROL} say the same; give one.")
        if self.played is not None:
            if self.score is not None:
                raise UsageError("--score and --score-in both say what is played; give one.")
            from rtsep.query.score import reads_score

            reads_score(info)
        if self.score is None:
            return started, None
        from rtsep.query.score import WEIGHT, read_score

        score = read_score(self.score, info, track=self.track, offset_s=self.offset_s)
        for remark in score.remarks:
            common.talk(f"Note: {self.score}: {remark}")
        common.talk(f"Score    {self.score.name}  {len(score.notes)} notes, to {common.clock(score.notes[-1].end_s)}")
        started[WEIGHT] = 1.0
        return started, score


def example_options(function: F) -> F:
    """Add ``--query --score --score-track --score-offset``; their values are what `Example` takes."""
    file = click.Path(path_type=Path)
    for option in (
        click.option(
            "--score-offset",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="How much later than the audio the score begins; may be negative.",
        ),
        click.option("--score-track", type=click.IntRange(1), help="Track of the score, from 1; all when left out."),
        click.option("--score", "score_file", type=file, metavar="FILE.mid", help="What that instrument plays."),
        click.option("--query", "query_file", type=file, help="Instrument to separate. See: rtsep enroll"),
    ):
        function = option(function)
    return function
