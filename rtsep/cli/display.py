"""The live picture of ``rtsep run``: a bar a stem, and one line of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rtsep.cli.keys import HELP

if TYPE_CHECKING:
    from rtsep.cli.keys import Desk
    from rtsep.engine.engine import Engine
    from rtsep.engine.stats import EngineStats
    from rtsep.notes.live import LiveNotes
    from rtsep.takes.live import LiveTakes

BAR = 28
_BOTTOM_DB = -60.0


def decibels(level: float) -> float:
    """Level as dB of full scale; ``-inf`` for nothing."""
    return 20.0 * math.log10(level) if level > 1e-9 else -math.inf


def bar(rms: float, peak: float, width: int = BAR) -> str:
    """RMS as a bar with the peak as a mark, -60 to 0 dBFS."""

    def cells(level: float) -> int:
        return max(0, min(width, round((decibels(max(level, 1e-6)) - _BOTTOM_DB) / -_BOTTOM_DB * width)))

    filled, mark = cells(rms), cells(peak)
    text = "█" * filled + "·" * (width - filled)
    if mark > filled:
        text = text[: mark - 1] + "▏" + text[mark:]
    return text


def share_bar(share: float, width: int = BAR) -> str:
    """A part of the whole as a bar, 0 to 1."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "·" * (width - filled)


def gain_text(db: float) -> str:
    """Fader position in seven characters."""
    return "   -inf" if db <= -120.0 else f"{db:+7.1f}"


def pan_text(pan: float) -> str:
    """Balance in four characters: ``L50``, ``C``, ``R100``."""
    percent = round(100 * abs(pan))
    return "C   " if percent == 0 else f"{'L' if pan < 0 else 'R'}{percent}".ljust(4)


def stats_line(stats: EngineStats) -> str:
    """One line: hop times, load, what was lost."""
    t = stats.hop_times
    return (
        f"hop {t.p50_ms:.1f} ms p50  {t.p99_ms:.1f} p99  {t.max_ms:.1f} max  of {t.period_ms:.1f}   "
        f"load {100 * stats.load:.0f} %   xruns {stats.xruns.total}   late {stats.late_hops}"
    )


def song_line(engine: Engine) -> str:
    """One line: where the file that plays as input is, and its loop."""
    on, from_s, to_s = engine.song_loop
    loop = f"   loop {minutes(from_s)} to {minutes(to_s)}" if on else ""
    speed = f"   speed {engine.song_speed:g}" if engine.song_speed != 1.0 else ""
    waits = "" if engine.song_playing else "   PAUSED"
    return f"file {minutes(engine.song_position_s)} of {minutes(engine.song_duration_s)}{loop}{speed}{waits}"


def minutes(seconds: float) -> str:
    """``1:23.4``."""
    tenths = max(0, int(10 * seconds))
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def delays_text(delays_s: Mapping[str, float]) -> str:
    """``drums, other 97 ms   bass, vocals 147 ms``: stems of the same delay together, the soonest first."""
    by_delay: dict[float, list[str]] = {}
    for stem, delay_s in sorted(delays_s.items(), key=lambda item: item[1]):
        by_delay.setdefault(round(1000 * delay_s, 1), []).append(stem)
    return "   ".join(f"{', '.join(stems)} {delay:.1f} ms" for delay, stems in by_delay.items())


def notes_line(notes: LiveNotes) -> str:
    """One line: notes, what sounds, where it goes."""
    status, midi = notes.status, notes.midi
    where = "recorded" if notes.config.take is not None else "on the console"
    if midi is not None:
        where = f"{midi.port}{' DEAD, trying again' if midi.dead else ''}"
    late = f"   late {midi.late}   dropped {midi.dropped}" if midi is not None else ""
    return f"notes {status['notes']}   sounding {status['sounding']}   {where}   {delays_text(notes.delays_s)}{late}"


def take_line(engine: Engine, takes: LiveTakes) -> str:
    """One line: the take that runs and how long it is, or why none does; empty when there is nothing to say."""
    state = takes.state
    if state.since_s is not None:
        return f"RECORDING {state.folder}   {minutes(engine.position_samples / engine.samplerate - state.since_s)}"
    return f"not recording: {state.error}" if state.error else ""


def frame(engine: Engine, desk: Desk, notes: LiveNotes | None = None, takes: LiveTakes | None = None) -> list[str]:
    """Lines of the live display."""
    meters, settings = engine.meters(), desk.settings
    width = max(len(stem) for stem in desk.stems)
    lines = []
    for i, stem in enumerate(desk.stems):
        flags = ("M" if settings.mute[i] else " ") + ("S" if settings.solo[i] else " ")
        if desk.faders is not None:  # instruments of one stem have no levels of their own
            share = desk.faders.values()[i]
            lines.append(
                f"{'>' if i == desk.selected else ' '}{i + 1} {stem:<{width}} {flags} {share_bar(share)} "
                f"{100 * share:5.0f} %   gain {gain_text(float(settings.gain_db[i]))}"
            )
            continue
        rms = decibels(float(meters.rms[i]))
        lines.append(
            f"{'>' if i == desk.selected else ' '}{i + 1} {stem:<{width}} {flags} "
            f"{bar(float(meters.rms[i]), float(meters.peak[i]))} {max(rms, -99.9):6.1f} dB  "
            f"gain {gain_text(float(settings.gain_db[i]))}  {pan_text(float(settings.pan[i]))}"
        )
    clipped = f"   CLIP {meters.clipped}" if meters.clipped else ""
    bypass = "   BYPASS" if engine.settings.bypass else ""
    rms = decibels(meters.master_rms)
    lines.append(
        f"   {'out':<{width}}    {bar(meters.master_rms, meters.master_peak)} "
        f"{max(rms, -99.9):6.1f} dB{bypass}{clipped}"
    )
    lines.append(f"   {stats_line(engine.stats())}")
    if engine.has_song:
        lines.append(f"   {song_line(engine)}")
    if notes is not None and notes.running:
        lines.append(f"   {notes_line(notes)}")
    if takes is not None and (line := take_line(engine, takes)):
        lines.append(f"   {line}")
    if desk.learning is not None:
        lines.append(f"   learn {desk.learning}: touch a MIDI control   left/right another parameter   l leave")
    if desk.said:
        lines.append(f"   {desk.said}")
    if desk.show_help:
        lines.append(f"   {HELP}")
    return lines
