"""``rtsep demo``: hear and see it work, without a sound card."""

from __future__ import annotations

from pathlib import Path

import click

from rtsep.cli import common
from rtsep.demo import DEMO_MODEL
from rtsep.errors import DeadlineError, RtsepError


@click.command("demo")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), default=Path("rtsep-demo"), show_default=True,
    help="Folder for what it writes.",
)  # fmt: skip
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Length of the song, 6 or more.")
@click.option("--fast", is_flag=True, help="As fast as the machine goes, instead of in real time.")
@click.option("--model", default=DEMO_MODEL, show_default=True, help="Name or .onnx file. See: rtsep models list")
@click.option("--strict", is_flag=True, help="Exit 1 when a target is missed, 5 when a hop was late.")
@common.json_option
def command(folder: Path, seconds: float, fast: bool, model: str, strict: bool, as_json: bool) -> None:
    """Render a short song, play it through the engine in real time, mute the vocals half-way.

    Writes the input, the output, the true stems, a picture and a latency report, and prints how much of each stem
    is left after the mute.
    """
    from rtsep.demo.run import MUTED, TARGET_MUTED_DB, TARGET_OTHER_DB, run_demo

    with common.progress_bar("demo") as bar:
        label = ""

        def progress(done: float, total: float, what: str) -> None:
            nonlocal label
            if what != label:
                label = what
                common.talk(f"{what} ...")
            bar(round(1000 * done), round(1000 * total))

        report = run_demo(folder, seconds=seconds, fast=fast, model=model, progress=progress)
    if as_json:
        common.put_json(report.to_dict())
    else:
        click.echo(f"Model     {report.model} {report.version}, {report.provider}")
        click.echo("Latency")
        for line in report.latency.lines():
            click.echo(line)
        t, s = report.stats.hop_times, report.stats
        click.echo(
            f"Hops      {s.hops}: p50 {t.p50_ms:.2f} ms  p95 {t.p95_ms:.2f}  p99 {t.p99_ms:.2f}  max {t.max_ms:.2f}  "
            f"of {t.period_ms:.2f}   {s.late_hops} late, {s.xruns.total} xruns"
            + ("" if report.realtime else "   (without a clock)")
        )
        click.echo(f"Muted     {MUTED} at {report.mute_s:.2f} s. Attenuation of the true stems after that:")
        for stem, db in report.attenuation_db.items():
            good = db >= TARGET_MUTED_DB if stem == MUTED else db <= TARGET_OTHER_DB
            wanted = f"at least {TARGET_MUTED_DB:g}" if stem == MUTED else f"at most {TARGET_OTHER_DB:g}"
            click.echo(f"  {stem:<8} {db:6.1f} dB   {'ok' if good else 'missed'} ({wanted} wanted)")
        click.echo(
            f"Result    SDR {report.accompaniment_sdr_db:.1f} dB against the true accompaniment "
            f"(the untouched mixture: {report.mixture_sdr_db:.1f} dB)"
        )
        click.echo(f"Listen    {report.files['input']}  then  {report.files['output']}")
        click.echo(f"Look      {report.files['picture']}")
        click.echo(f"Read      {report.files['report']}, {report.files['latency_text']}")
    if strict and not (report.muted_ok and report.others_ok):
        raise RtsepError("A target was missed (see above).")
    if strict and not report.in_time:
        raise DeadlineError(f"{report.stats.late_hops} hops were late. See: rtsep bench")
