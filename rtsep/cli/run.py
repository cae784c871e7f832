"""``rtsep run``: live separation, with keys and meters on a terminal."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtsep.cli import common
from rtsep.cli.by_example import Example, example_options
from rtsep.cli.console_options import ConsoleOptions, console_options
from rtsep.cli.control_options import ControlOptions, Surfaces, argument, control_options
from rtsep.cli.input_options import input_options, introduce, take_song
from rtsep.cli.notes_options import NotesOptions, notes_options
from rtsep.cli.plugin_options import chains_of, plugin_option
from rtsep.cli.record_options import open_takes, record_options, takes_summary
from rtsep.errors import DeadlineError, RtsepError, UsageError

if TYPE_CHECKING:
    from rtsep.audio.backends import BackendConfig
    from rtsep.engine.engine import Engine
    from rtsep.engine.stats import EngineStats
    from rtsep.mixer.faders import ConditionFaders
    from rtsep.notes.live import LiveNotes
    from rtsep.query.score import Score
    from rtsep.takes.live import LiveTakes
    from rtsep.zoo.choice import Choice

_TICK_S = 0.05
_SHOW_S = 0.1


class LatencyHint(click.ParamType[Any]):
    """``low``, ``high`` or seconds."""

    name = "low|high|SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("low", "high") or isinstance(value, float):
            return value
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < 10:
            self.fail(f"{value!r} is not low, high or a number of seconds", param, ctx)
        return seconds


@click.command("run")
@common.model_argument
@click.option("-i", "--input-device", "--input", help="Index or part of a name; a file with --backend file.")
@click.option("-o", "--output-device", "--output", help="Index or part of a name; a .wav with --backend file.")
@input_options
@click.option("-c", "--channels", type=common.Numbers("1,2"), help="Input channels to use, from 1.")
@click.option("--output-channels", type=common.Numbers("1,2"), help="Output channels to use, from 1.")
@click.option("-b", "--blocksize", type=click.IntRange(0), default=0, help="Frames a callback; 0: the device's choice.")
@click.option("--samplerate", type=click.IntRange(8000, 192000), help="Hz; the device's own when left out.")
@click.option("--latency", type=LatencyHint(), default="low", help="What is suggested to PortAudio.")
@click.option("--backend", default="portaudio", metavar="NAME", help="portaudio, file or dummy.")
@click.option("--slack", type=click.IntRange(0, 64), default=1, help="Hops the worker may be late; each adds latency.")
@common.mixer_options
@plugin_option
@common.control_option
@example_options
@click.option("--score-in", metavar="PORT", help="MIDI input that says what the instrument plays. See: rtsep midi list")
@common.session_options
@control_options
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop by itself after this time.")
@notes_options
@console_options
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="WAV file for what is heard; or a folder, for every stem and the notes as MIDI beside it.",
)
@record_options
@click.option("--stats", "stats_file", type=click.Path(path_type=Path), help="JSON file for the figures at the end.")
@click.option("--strict", is_flag=True, help="Exit 5 when a hop was late or the device lost samples.")
@click.option("--keys/--no-keys", default=True, help="Listen to keys on a terminal.")
@common.json_option
def command(
    model: str | None,
    model_option: str | None,
    input_device: str | None,
    output_device: str | None,
    channels: tuple[int, ...] | None,
    output_channels: tuple[int, ...] | None,
    blocksize: int,
    samplerate: int | None,
    latency: Any,
    backend: str,
    slack: int,
    plugins: tuple[tuple[str, Any], ...],
    control: tuple[tuple[str, tuple[float, ...]], ...],
    query_file: Path | None,
    score_file: Path | None,
    score_track: int | None,
    score_offset: float,
    score_in: str | None,
    mute: tuple[str, ...],
    solo: tuple[str, ...],
    gain: tuple[tuple[str, float], ...],
    pan: tuple[tuple[str, float], ...],
    master_db: float,
    limiter: bool,
    provider: Any,
    threads: int,
    seconds: float | None,
    record: Path | None,
    stats_file: Path | None,
    strict: bool,
    keys: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Separate live input and play the mix.

    \b
    rtsep run -i scarlett -o scarlett --mute vocals
    rtsep run --backend file -i song.wav -o out.wav --gain drums=-6
    rtsep run msi --query oboe.query --solo query
    rtsep run low --midi-out virtual --record take/
    rtsep run low --osc 9000 --midi-in nano --save-setup gig.toml
    rtsep run low --console
    rtsep run low --input-file song.flac --loop 0:30-0:45 --mute vocals
    rtsep run low --plugin vocals=Reverb:room_size=0.4 --plugin master=ZaMaximX2

    Ends with Ctrl+C (exit code 130), q, --seconds, or the end of the file.
    """
    from rtsep.control.model_switch import add_model_switch
    from rtsep.control.registry import engine_registry
    from rtsep.control.song import add_song
    from rtsep.engine.engine import Engine
    from rtsep.mixer.faders import plan_mix
    from rtsep.zoo.registry import read_info, resolve

    model = argument("model", model, model_option)
    name, choice = common.chosen_model(model, model_option)
    path = resolve(name)
    info = read_info(path)
    song, input_device, device_channels = take_song(more, backend, input_device, output_device, channels)
    surfaces_options = ControlOptions.take_from(more)
    page, takes_folder = ConsoleOptions.take_from(more), more.pop("takes")
    options = NotesOptions.take_from(more, record, shown=page.wanted)
    options.strips(info)  # a name that is wrong is better found before anything is opened
    mix = surfaces_options.mix(info, mute=mute, solo=solo, gain=gain, pan=pan, master_db=master_db, limiter=limiter)
    plan = plan_mix(info, control=control, mute=mix.mute, solo=mix.solo, gain=mix.gain, pan=mix.pan)
    example = Example(query_file, score_file, score_track, score_offset, score_in)
    controls, score = example.load(info, path, plan.controls)
    options.make_folder()
    engine = Engine(
        path,
        backend=device_config(
            backend, input_device, output_device, device_channels, output_channels, samplerate, blocksize, latency
        ),
        slack_hops=slack,
        provider=provider,
        threads=threads,
        mute=plan.mute,
        solo=plan.solo,
        gain=plan.gain,
        pan=plan.pan,
        controls=controls,
        chains=chains_of(plugins),
        master_db=mix.master_db,
        bypass=mix.bypass,
        limiter=mix.limiter,
        record=options.recording,
        record_captured=options.take is not None,
        tap=options.wanted,
        song=song,
    )
    if stats_file is not None:
        common.write_json(stats_file, {})  # an unwritable place is better found out now
    interrupted: BaseException | None = None
    notes: LiveNotes | None = None
    surfaces: Surfaces | None = None
    takes: LiveTakes | None = None
    started = time.monotonic()
    try:
        engine.start()
        started = time.monotonic()
        _introduce(engine, plan.faders)
        introduce(engine)
        if not (model or model_option):
            why = choice.why if choice is not None else "the default; measure this machine with: rtsep bench --choose"
            common.talk(f"Choice   {why}")
        if options.wanted:
            notes = options.start(engine)
        registry = engine_registry(engine, notes, plan.faders, common.talk)
        add_model_switch(registry, engine, common.talk)
        add_song(registry, engine)
        takes = open_takes(takes_folder, engine, registry, notes)
        with (
            _score(engine, score, score_in),
            _tiers(engine, choice if not options.wanted else None),
            surfaces_options.open(registry, engine) as surfaces,
            page.open(engine, registry, notes, takes),
        ):
            _play(engine, plan.faders, seconds, keys, notes, surfaces, takes)
    except (KeyboardInterrupt, SystemExit, RtsepError) as stop:
        interrupted = stop
    finally:
        ignored = _ignore_interrupts()  # files are being closed: a second Ctrl+C must not cut that short
        try:
            try:
                if takes is not None:
                    takes.close()
                if notes is not None:
                    notes.stop()
            finally:
                engine.stop()
                if options.take is not None and notes is None:
                    options.clear_folder()
        finally:
            _restore_interrupts(ignored)
    recorded = options.recording if notes is not None or options.take is None else None
    more_facts = {**(surfaces.summary() if surfaces is not None else {}), **takes_summary(takes)}
    _finish(engine, time.monotonic() - started, recorded, stats_file, as_json, notes, more_facts)
    if interrupted is not None:
        raise interrupted
    if engine.exit_error is not None:
        raise engine.exit_error
    if notes is not None and notes.exit_error is not None:
        raise notes.exit_error
    if strict:
        stats = engine.stats()
        if stats.late_hops or stats.xruns.total or stats.input_overruns or stats.ring_underruns:
            raise DeadlineError(
                f"{stats.late_hops} hops were late and the device lost samples {stats.xruns.total} times. "
                f"Try --slack {slack + 1}, a larger --blocksize, or a smaller model; see: rtsep bench"
            )


def _score(engine: Engine, score: Score | None, port: str | None) -> AbstractContextManager[Any]:
    from rtsep.query.live import LiveScore, PlayedScore

    if port is not None:
        played = PlayedScore(engine, port)
        common.talk(f"Score    what is played on {played.name}")
        return played
    return LiveScore(engine, score) if score else nullcontext()


def _tiers(engine: Engine, choice: Choice | None) -> AbstractContextManager[Any]:
    """What keeps an automatically chosen model within this machine's means."""
    from rtsep.engine.tiers import TierKeeper

    ladder = choice.ladder() if choice is not None else []
    if choice is None or len(ladder) < 2:
        return nullcontext()
    costs = {timing.model: timing.rtf for timing in choice.timings}
    return TierKeeper(engine, ladder, [costs[name] for name in ladder], common.talk)


def device_config(
    backend: str,
    input_device: str | None,
    output_device: str | None,
    channels: tuple[int, ...] | None,
    output_channels: tuple[int, ...] | None,
    samplerate: int | None,
    blocksize: int,
    latency: Any,
) -> BackendConfig:
    """Return the backend's configuration; UsageError for a name or an option it has no use for."""
    from rtsep.audio.backends import backend_config

    given: dict[str, Any] = {}
    if blocksize:
        given["blocksize"] = blocksize
    if samplerate is not None:
        given["samplerate"] = samplerate
    if backend == "file":
        if input_device is None:
            raise UsageError("The file backend needs a file to play: -i song.wav (and -o out.wav to keep the result).")
        given.update(input=input_device, output=output_device, channels=channels)
    elif backend == "dummy":
        for option, value in (("-i", input_device), ("-o", output_device)):
            if value is not None:
                raise UsageError(f"The dummy backend has no devices; leave {option} {value} out.")
        if channels is not None:
            given["channels"] = len(channels)
    else:
        given.update(input_device=input_device, output_device=output_device, latency=latency)
        given.update(input_channels=channels, output_channels=output_channels)
    return backend_config(backend, **given)


def _introduce(engine: Engine, faders: ConditionFaders | None) -> None:
    info, report = engine.info, engine.latency()
    common.talk(
        f"Model    {info.name} {info.version}  {len(info.stems)} stems  {engine.model_samplerate} Hz  "
        f"hop {info.hop_samples}  {engine.provider}"
    )
    if faders is not None:
        common.talk(f"Faders   {', '.join(faders.settings.stems)}; what they select is what plays")
    backend = engine.config.backend
    where = type(backend).__name__.removesuffix("Config").lower()
    common.talk(
        f"Device   {where}  {engine.samplerate} Hz  block {engine.stats().block or backend.blocksize or 'varies'}"
    )
    if engine.model_samplerate != engine.samplerate:
        extra = sum(part.ms for part in report.parts if part.name.startswith("resampler"))
        common.talk(
            f"Note: the model runs at {engine.model_samplerate} Hz, the device at {engine.samplerate} Hz; "
            f"resampling adds {extra:.1f} ms."
        )
    parts = " + ".join(f"{part.name} {part.ms:.1f}" for part in report.parts if part.samples)
    common.talk(f"Latency  {report.total_ms:.1f} ms  = {parts}  ({report.total_samples} samples)")


def _play(
    engine: Engine,
    faders: ConditionFaders | None,
    seconds: float | None,
    keys: bool,
    notes: LiveNotes | None,
    surfaces: Surfaces,
    takes: LiveTakes,
) -> None:
    """Keep the display going until something ends it."""
    from rtsep.cli.display import frame
    from rtsep.cli.keys import Desk, Keyboard

    deadline = None if seconds is None else time.monotonic() + seconds
    desk = Desk(engine, faders, surfaces.registry, surfaces)
    notes_ended = False
    with ExitStack() as stack:
        keyboard = stack.enter_context(Keyboard()) if keys else None
        listening = keyboard is not None and keyboard.active
        common.talk(f"Press Ctrl+C to stop{', ? for keys' if listening else ''}.")
        live: Any = None
        if sys.stderr.isatty() and not common.is_quiet():
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            live = stack.enter_context(Live(console=Console(stderr=True), auto_refresh=False, transient=True))
        shown = 0.0
        while not desk.quit:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return
            wait = _TICK_S if deadline is None else min(_TICK_S, max(deadline - now, 0.0))
            if engine.wait(wait):
                return
            surfaces.registry.poll()
            if notes is not None and not notes.running and not notes_ended:
                notes_ended = True
                common.talk(f"Note: no more MIDI, the sound goes on. {notes.exit_error}")
            for news in engine.plugin_news():
                common.talk(f"Note: {news}")
            if keyboard is not None:
                for key in keyboard.read():
                    desk.press(key)
            if live is not None and now - shown >= _SHOW_S:
                shown = now
                live.update(Text("\n".join(frame(engine, desk, notes, takes)), no_wrap=True), refresh=True)


def _finish(
    engine: Engine,
    wall_s: float,
    record: Path | None,
    stats_file: Path | None,
    as_json: bool,
    notes: LiveNotes | None = None,
    more_facts: dict[str, Any] | None = None,
) -> None:
    try:
        stats, report = engine.stats(), engine.latency()
    except UsageError:  # it never started: there is nothing to say
        if stats_file is not None:
            stats_file.unlink(missing_ok=True)
        return
    document = {**summary(engine, stats, wall_s), **(more_facts or {})}
    if notes is not None:
        document["notes"] = notes_summary(notes)
    if stats_file is not None:
        common.write_json(stats_file, document)
    if as_json:
        common.put_json(document)
        return
    t = stats.hop_times
    click.echo(
        f"Stopped after {common.clock(wall_s)}.  {stats.hops} hops, {stats.late_hops} late, "
        f"{stats.xruns.total} xruns.  p99 {t.p99_ms:.1f} ms of {t.period_ms:.1f} ms.  Latency {report.total_ms:.1f} ms."
    )
    if stats.fallback_hops or stats.silent_samples:
        click.echo(f"Covered by the delayed input: {stats.fallback_hops} hops; silent samples: {stats.silent_samples}.")
    if stats.late_hops > 0.01 * max(stats.hops, 1):
        common.talk("Many hops were late. Try --slack 2, a smaller model, or see: rtsep bench")
    if notes is not None:
        from rtsep.cli.display import delays_text

        found = notes_summary(notes)
        lost = f", {found['dropped']} dropped" if found["dropped"] else ""
        delays = delays_text(notes.delays_s)
        click.echo(f"Notes: {found['notes']}, {found['late']} late{lost}. After the sound: {delays}.")
    if record is not None:
        click.echo(f"Recorded {stats.record_frames} frames in {record}")


def notes_summary(notes: LiveNotes) -> dict[str, Any]:
    """What ``--json`` and ``--stats`` give of the notes."""
    midi, status = notes.midi, notes.status
    return {
        "notes": status["notes"],
        "missed_hops": status["missed_hops"],
        "delay_ms": {stem: round(1000 * value, 2) for stem, value in notes.delays_s.items()},
        "delay_parts_ms": {
            stem: {part: round(1000 * value, 2) for part, value in parts.items()}
            for stem, parts in notes.delay_parts_s.items()
        },
        "port": midi.port if midi else None,
        "messages": midi.sent if midi else 0,
        "late": midi.late if midi else 0,
        "dropped": midi.dropped if midi else 0,
        "respawns": midi.respawns if midi else 0,
    }


def summary(engine: Engine, stats: EngineStats, wall_s: float) -> dict[str, Any]:
    """What ``--json`` and ``--stats`` give: model, machine, latency, statistics."""
    info = engine.info
    return {
        "model": {"name": info.name, "version": info.version, "samplerate": engine.model_samplerate,
                  "hop_samples": info.hop_samples, "provider": engine.provider},
        "device": {"samplerate": engine.samplerate, "block": stats.block},
        "seconds": round(wall_s, 3),
        "latency": engine.latency().to_dict(),
        "stats": stats.to_dict(),
        "late_hops": [hop.to_dict() for hop in engine.late_hops()],
        "machine": common.machine(),
    }  # fmt: skip


def _ignore_interrupts() -> list[tuple[int, Any]]:
    before: list[tuple[int, Any]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before.append((number, signal.signal(number, signal.SIG_IGN)))
        except ValueError:  # not in the main thread: then no signal arrives here either
            return before
    return before


def _restore_interrupts(before: list[tuple[int, Any]]) -> None:
    for number, handler in before:
        signal.signal(number, handler)
