"""``rtsep bench``: hop times of the running engine at several block sizes."""

from __future__ import annotations

import time
from typing import Any

import click

from rtsep.cli import common
from rtsep.errors import DeadlineError

OK_RTF, TIGHT_RTF = 0.6, 0.9
"""p99 of the hop time over the hop period up to which a verdict is ``ok``, and ``tight``."""


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
    as_json: bool,
) -> None:
    """Time a model: the real engine on a clocked dummy device that plays noise.

    RTF is the 99th percentile of the hop time over the hop's duration: below 1 keeps up, and the rest is reserve.
    """
    from rtsep.audio.backends import DummyConfig
    from rtsep.engine.engine import Engine
    from rtsep.zoo.registry import read_info, resolve

    path = resolve(common.one_model(model, model_option))
    info = read_info(path)
    rate = samplerate or info.samplerates[0]
    results: list[dict[str, Any]] = []
    used = provider
    with common.progress_bar(info.name) as progress:
        for number, block in enumerate(blocks):
            config = DummyConfig(samplerate=rate, blocksize=block, source="noise")
            with Engine(path, backend=config, slack_hops=slack, provider=provider, threads=threads) as engine:
                used = engine.provider
                end = time.monotonic() + seconds
                while (left := end - time.monotonic()) > 0:
                    progress(round(100 * ((number + 1) * seconds - left)), round(100 * seconds * len(blocks)))
                    if engine.wait(min(left, 0.2)):
                        break
            results.append(_row(block, engine.stats()))
    period = results[0]["period_ms"]
    if as_json:
        common.put_json(
            {
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
