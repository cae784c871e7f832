"""``rtsep latency``: the sum, part by part, and the proof."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtsep.cli import common
from rtsep.errors import EngineError, RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.contract import ModelInfo
    from rtsep.latency import LatencyPlan, LatencyReport

_BLOCK = 256
_ROUNDS = 4
_BLOCKS_TO_COMPARE = (64, 128, 256, 441, 480, 512, 1024)


@click.command("latency")
@common.model_argument
@click.option(
    "-b", "--blocksize", type=click.IntRange(0), default=0, help="Frames a callback; 256, or the card's choice."
)
@click.option("--samplerate", type=click.IntRange(8000, 192000), help="Of the device in Hz; native when left out.")
@click.option("--slack", type=click.IntRange(0, 64), default=1, show_default=True, help="Hops the worker may be late.")
@click.option("--measure", is_flag=True, help="Run the engine with its output wired to its input and measure.")
@click.option("--backend", type=click.Choice(["dummy", "portaudio"]), default="dummy", help="What to measure through.")
@click.option("-i", "--input-device", help="With --backend portaudio: index or part of a name.")
@click.option("-o", "--output-device", help="Likewise; a cable must lead from it to the input.")
@common.json_option
def command(
    model: str | None,
    model_option: str | None,
    blocksize: int,
    samplerate: int | None,
    slack: int,
    measure: bool,
    backend: str,
    input_device: str | None,
    output_device: str | None,
    as_json: bool,
) -> None:
    """Show where the latency comes from.

    Computed from the model and the sizes given. With --measure an impulse goes round a running engine whose output is
    wired to its input (the clocked dummy device, one block for the cable), and measured stands beside computed.

    With --measure --backend portaudio the sound card is measured through a cable from its output to its input, and what
    rtsep adds is added to it: the card's drivers may claim anything, the cable does not.
    """
    if (input_device or output_device) and not (measure and backend == "portaudio"):
        raise UsageError("-i and -o go with --measure --backend portaudio; without them the latency is computed.")
    from rtsep.zoo.registry import read_info, resolve

    path = resolve(common.one_model(model, model_option))
    info = read_info(path)
    rate = samplerate or info.samplerates[0]
    if measure and backend == "portaudio":
        _measure_card(path, input_device, output_device, samplerate, blocksize, slack, as_json)
        return
    blocksize = blocksize or _BLOCK
    if measure:
        _measure(path, info, rate, blocksize, slack, as_json)
        return
    plan = compute(info, rate, blocksize, slack)
    if as_json:
        document = {"model": info.name, "blocksize": blocksize, **plan.report.to_dict()}
        common.put_json(document)
        return
    for line in plan.report.lines():
        click.echo(line)
    common.talk(_comparison(info, rate, blocksize, slack))


def compute(info: ModelInfo, samplerate: int, block: int, slack: int, device_in: int = 0) -> LatencyPlan:
    """Return the latency of a model behind a device, as the engine would plan it."""
    from rtsep.engine.config import EngineConfig
    from rtsep.engine.runner import choose_rate
    from rtsep.latency import plan_latency

    rate = choose_rate(samplerate, info.samplerates)
    into = out = 0
    if rate != samplerate:
        from rtsep.audio.resampler import minimum_delay, whole_delay

        quality = EngineConfig().resampler
        into = whole_delay(minimum_delay(samplerate, rate, quality), info.latency_samples, samplerate, rate)
        out = minimum_delay(rate, samplerate, quality)
    return plan_latency(
        samplerate=samplerate,
        model_samplerate=rate,
        block=block,
        hop=info.hop_samples,
        model_latency=info.latency_samples,
        slack_hops=slack,
        resampler_in=into,
        resampler_out=out,
        device_in=device_in,
    )


def _comparison(info: ModelInfo, rate: int, block: int, slack: int) -> str:
    here = compute(info, rate, block, slack).report.total_ms
    others = {b: compute(info, rate, b, slack).report.total_ms for b in _BLOCKS_TO_COMPARE if b != block}
    best = min(others, key=lambda b: (others[b], -b))
    worst = max(others, key=lambda b: others[b])
    smaller = f"Smaller: block {best} gives {others[best]:.1f} ms.  " if others[best] < here - 0.05 else ""
    larger = f"Larger: block {worst} gives {others[worst]:.1f} ms." if others[worst] > here + 0.05 else ""
    return f"  {smaller}{larger}".rstrip()


def _measure(path: Path, info: ModelInfo, rate: int, block: int, slack: int, as_json: bool) -> None:
    report, rounds = measure_loop(path, rate, block, slack)
    measured = sum(rounds) / len(rounds)
    agree = all(abs(r - report.total_samples) <= (0 if rate in info.samplerates else 1) for r in rounds)
    if as_json:
        common.put_json(
            {
                "model": info.name,
                "blocksize": block,
                **report.to_dict(),
                "measured_samples": rounds,
                "measured_ms": round(1000 * measured / rate, 3),
                "agree": agree,
            }
        )
    else:
        for line in report.lines():
            click.echo(line)
        click.echo(
            f"  {'measured':<14} {measured:>8.0f} {1000 * measured / rate:>8.1f}   {len(rounds)} times round the loop"
        )
    if not agree:
        raise RtsepError(
            f"Measured {rounds} samples, computed {report.total_samples}. Please report this: rtsep doctor"
        )


def _measure_card(
    path: Path,
    input_device: str | None,
    output_device: str | None,
    samplerate: int | None,
    block: int,
    slack: int,
    as_json: bool,
) -> None:
    from rtsep.audio.backends import PortAudioConfig
    from rtsep.cli.loopback import measure_round_trip
    from rtsep.engine.engine import Engine

    config = PortAudioConfig(input_device, output_device, samplerate, block)
    with Engine(path, backend=config, slack_hops=slack) as engine:
        report, rate = engine.latency(), engine.samplerate
    common.talk("Playing four short bursts of noise ...")
    trip = measure_round_trip(replace(config, samplerate=rate))
    measured = trip.median + report.stream_samples
    if as_json:
        document = {**report.to_dict(), "round_trip_samples": trip.samples, "measured_samples": measured}
        common.put_json({**document, "measured_ms": round(1000 * measured / rate, 3)})
        return
    for line in report.lines():
        click.echo(line)
    click.echo(
        f"  {'measured':<14} {measured:>8} {1000 * measured / rate:>8.1f}   card {trip.median} through the cable "
        f"+ rtsep {report.stream_samples}"
    )


def measure_loop(path: Path, samplerate: int, block: int, slack: int) -> tuple[LatencyReport, list[int]]:
    """Send an impulse round a running engine.

    Returns
    -------
    report : LatencyReport
        Of that engine, the wire included as ``device in``.
    rounds : list of int
        Samples from each pass of the impulse to the next.

    Raises
    ------
    EngineError
        The impulse did not come round.
    """
    from rtsep.audio.backends import DummyConfig
    from rtsep.audio.files import read_audio
    from rtsep.engine.engine import Engine

    start = samplerate // 10
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "loop.wav"
        config = DummyConfig(samplerate=samplerate, blocksize=block, source="impulse", impulse_at=start, loopback=True)
        engine = Engine(path, backend=config, slack_hops=slack, record=record)
        with engine:
            report = engine.latency()
            frames = start + (_ROUNDS + 2) * report.total_samples
            common.talk(f"Measuring, {frames / samplerate:.1f} s ...")
            deadline = time.monotonic() + frames / samplerate + 10.0
            while engine.position_samples < frames + 4 * block:
                if engine.wait(0.02) or time.monotonic() > deadline:
                    break
            lost = engine.stats()
        audio = read_audio(record).audio[0]
    rounds = _passes(audio, report.total_samples, _ROUNDS)
    if len(rounds) < _ROUNDS:
        raise EngineError(
            f"The impulse came round {len(rounds)} of {_ROUNDS} times ({lost.late_hops} hops late, "
            f"{lost.xruns.total} xruns). Is the machine busy? Try --slack {slack + 1}, or see: rtsep bench"
        )
    return report, rounds


def _passes(audio: Any, period: int, count: int) -> list[int]:
    """Distances between successive passes of an impulse that was seen first where `audio` is loudest first."""
    import numpy as np

    level = np.abs(audio)
    if not level.size or level.max() < 1e-3:
        return []
    at = int(np.flatnonzero(level > 0.5 * level.max())[0])
    at += int(np.argmax(level[at : at + 64]))
    distances: list[int] = []
    while len(distances) < count:
        # Anything from half a period to one and a half: a wrong computation must be seen, not assumed away.
        window = level[at + period // 2 : at + period + period // 2]
        if len(window) < period or window.max() < 1e-3:
            break
        following = at + period // 2 + int(np.argmax(window))
        distances.append(following - at)
        at = following
    return distances
