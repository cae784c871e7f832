"""``rtsep bench``: hop times of the running engine at several block sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtsep.cli import common
from rtsep.errors import DeadlineError, UsageError

if TYPE_CHECKING:
    from rtsep.engine.engine import Engine

_CHOOSE_BLOCK = 128

OK_RTF, TIGHT_RTF = 0.6, 0.9
"""p99 of the hop time over the hop period up to which a verdict is ``ok``, and ``tight``."""

_ROUNDS = 5
"""Parts of a run whose percentiles are kept each, for the spread."""


@click.command("bench")
@common.model_argument
@click.option(
    "--blocks", type=common.Numbers("64,256,1024"), default="64,256,1024", show_default=True, help="Block sizes to try."
)
@click.option("--seconds", type=click.FloatRange(1.0), default=10.0, show_default=True, help="For each block size.")
@click.option("--samplerate", type=click.IntRange(8000, 192000), help="Hz; native to the model when left out.")
@click.option("--slack", type=click.IntRange(0, 64), default=1, show_default=True, help="Hops the worker may be late.")
@common.session_options
@click.option("--strict", is_flag=True, help="Exit 5 when a hop was late.")
@click.option(
    "--choose", is_flag=True, help="Time the four-stem models, keep the best one this machine holds for `rtsep run`."
)
@click.option("--latency-limit", type=click.FloatRange(1.0), help="With --choose: ms from input to output, at most.")
@click.option(
    "--compare", nargs=2, type=click.Path(), metavar="A.json B.json", help="Measure nothing: say what B is against A."
)
@common.json_option
def command(
    model: str | None,
    model_option: str | None,
    blocks: tuple[int, ...],
    seconds: float,
    samplerate: int | None,
    slack: int,
    provider: Any,
    threads: int,
    strict: bool,
    choose: bool,
    latency_limit: float | None,
    compare: tuple[str, str] | None,
    as_json: bool,
) -> None:
    """Time a model: the real engine on a clocked dummy device that plays noise.

    RTF is the 99th percentile of the hop time over the hop's duration: below 1 keeps up, and the rest is reserve.
    """
    from rtsep.figures import SCHEMA
    from rtsep.zoo.registry import read_info, resolve

    if compare:
        from rtsep.cli.bench_compare import tell_difference

        if choose or model or model_option:
            raise UsageError("--compare measures nothing; give it two files and no model.")
        tell_difference(*compare, as_json=as_json)
        return
    if choose:
        if model or model_option:
            raise UsageError(f"--choose times all models; leave {model or model_option} out.")
        _choose(seconds, samplerate or 48000, slack, provider, threads, latency_limit, as_json)
        return
    if latency_limit is not None:
        raise UsageError("--latency-limit goes with --choose.")
    path = resolve(common.one_model(model, model_option))
    info = read_info(path)
    rate = samplerate or info.samplerates[0]
    results: list[dict[str, Any]] = []
    used = provider
    with common.progress_bar(info.name) as progress:
        for number, block in enumerate(blocks):

            def tell(passed: float, before: float = number * seconds) -> None:
                progress(round(100 * (before + passed)), round(100 * seconds * len(blocks)))

            engine, rounds = _timed(path, rate, block, slack, provider, threads, seconds, tell)
            used = engine.provider
            results.append({**_row(block, engine.stats()), "rounds": rounds})
    period = results[0]["period_ms"]
    if as_json:
        common.put_json(
            {
                "schema": SCHEMA,
                "model": {"name": info.name, "version": info.version, "hop_samples": info.hop_samples},
                "provider": used, "threads": threads, "samplerate": rate, "period_ms": period, "seconds": seconds,
                "blocks": results, "machine": common.machine(), "versions": common.versions(),
            }
        )  # fmt: skip
    else:
        facts = common.machine()
        click.echo(
            f"{info.name} {info.version}, hop {info.hop_samples} = {period:.1f} ms, {used}, {threads} "
            f"thread{'s' if threads > 1 else ''}, {facts['cpu']}, governor {facts['governor']}, load {facts['load']}"
        )
        rows = [["block", "p50 ms", "p95", "p99", "p99.9", "max", "RTF", "late", "verdict"]]
        rows += [
            [str(r["block"]), *(f"{r[k]:.2f}" for k in ("p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms", "rtf")),
             str(r["late_hops"]), r["verdict"]]
            for r in results
        ]  # fmt: skip
        for line in common.table(rows, right=range(8)):
            click.echo(line)
    late = sum(r["late_hops"] for r in results)
    if strict and late:
        raise DeadlineError(f"{late} hops were late. Try --slack {slack + 1}, a smaller model, or a quieter machine.")


def _timed(
    path: Path,
    rate: int,
    block: int,
    slack: int,
    provider: Any,
    threads: int,
    seconds: float,
    tell: Callable[[float], None],
) -> tuple[Engine, list[dict[str, float]]]:
    """Run a model on noise for some seconds, in real time; `tell` gets the seconds passed.

    Returns what ran, and the percentiles of each of `_ROUNDS` parts of the time.
    """
    from rtsep.audio.backends import DummyConfig
    from rtsep.engine.engine import Engine
    from rtsep.engine.stats import percentile_ms

    config = DummyConfig(samplerate=rate, blocksize=block, source="noise")
    with Engine(path, backend=config, slack_hops=slack, provider=provider, threads=threads) as engine:
        rounds: list[dict[str, float]] = []
        end = time.monotonic() + seconds
        seen = engine.hop_histogram()
        while (left := end - time.monotonic()) > 0:
            tell(seconds - left)
            if engine.wait(min(left, 0.2, seconds / _ROUNDS)):
                break
            if seconds - (end - time.monotonic()) >= (len(rounds) + 1) * seconds / _ROUNDS:
                now = engine.hop_histogram()
                rounds.append({f"p{p}_ms": percentile_ms(now - seen, p) for p in (50, 99)})
                seen = now
    return engine, rounds


def _choose(
    seconds: float, rate: int, slack: int, provider: Any, threads: int, limit_ms: float | None, as_json: bool
) -> None:
    from rtsep.zoo.choice import Timing, candidates, choose, store

    found, timings = candidates(), []
    with common.progress_bar("models") as progress:
        for number, (entry, sdr_db) in enumerate(found):

            def tell(passed: float, before: float = number * seconds) -> None:
                progress(round(100 * (before + passed)), round(100 * seconds * len(found)))

            engine, _ = _timed(entry.path, rate, _CHOOSE_BLOCK, slack, provider, threads, seconds, tell)
            row, latency = _row(_CHOOSE_BLOCK, engine.stats()), engine.latency()
            late = row["late_hops"] / max(1, row["hops"])
            timings.append(Timing(entry.name, sdr_db, latency.total_ms, row["rtf"], late))
    choice = choose(timings, common.machine()["cpu"], limit_ms)
    path = store(choice)
    if as_json:
        common.put_json({**asdict(choice), "kept_in": str(path), "versions": common.versions()})
        return
    rows = [["model", "SDR dB", "latency ms", "RTF", "late", ""]]
    rows += [
        [t.model, f"{t.sdr_db:.2f}", f"{t.latency_ms:.1f}", f"{t.rtf:.2f}", f"{100 * t.late:.1f} %",
         "chosen" if t.model == choice.model else "" if t.held else "too much"]
        for t in choice.timings
    ]  # fmt: skip
    for line in common.table(rows, right=range(1, 5)):
        click.echo(line)
    click.echo(f"{choice.model}: {choice.why}. Kept in {path}; `rtsep run` takes it when no model is named.")


def _row(block: int, stats: Any) -> dict[str, Any]:
    t = stats.hop_times
    rtf = t.p99_ms / t.period_ms if t.period_ms else float("inf")
    if stats.late_hops or rtf > TIGHT_RTF:
        verdict = "too slow" if rtf > TIGHT_RTF else "late now and then: try --slack 2"
    else:
        verdict = "ok" if rtf <= OK_RTF else "tight"
    return {
        "block": block, "hops": stats.hops, "p50_ms": t.p50_ms, "p95_ms": t.p95_ms, "p99_ms": t.p99_ms,
        "p999_ms": t.p999_ms, "max_ms": t.max_ms, "period_ms": t.period_ms, "rtf": rtf,
        "late_hops": stats.late_hops, "xruns": stats.xruns.total, "realtime": stats.realtime, "verdict": verdict,
    }  # fmt: skip
