"""``rtsep doctor``: what a bug report needs, and what to do about what is wrong."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from rtsep.cli import common
from rtsep.errors import RtsepError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``ok`` is None where it is only worth knowing."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""


@click.command("doctor")
@click.option("--model", default="default", help="Name or .onnx file to check with.")
@click.option("--seconds", type=click.FloatRange(0.5), default=4.0, show_default=True, help="Length of the test run.")
@common.json_option
def command(model: str, seconds: float, as_json: bool) -> None:
    """Check this machine and print what a bug report needs. Exits 1 when a check fails."""
    checks: list[Check] = []
    facts = common.machine()
    for name, value in facts.items():
        checks.append(Check(name, None, str(value)))
    for name, value in common.versions().items():
        if name not in ("python", "PortAudio"):
            missing = value == "missing"
            remedy = "pip install --force-reinstall rtsep" if missing else ""
            checks.append(Check(name, not missing, value, remedy))
    checks.append(_guarded("ONNX Runtime", _providers))
    checks.append(_realtime())
    checks.append(_huge_pages())
    checks.append(_guarded("temporary files", _temporary))
    checks.append(_guarded("PortAudio", _devices, fatal=False))
    checks.append(_guarded("model", lambda: _model(model)))
    if checks[-1].ok:
        common.talk(f"Running the engine for {seconds:g} s ...")
        checks.append(_guarded("engine", lambda: _engine(model, seconds)))
    failed = [check for check in checks if check.ok is False]
    if as_json:
        common.put_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        mark = {True: "ok", False: "FAIL", None: ""}
        rows = [[mark[c.ok], c.name, c.found.replace("\n", " ")] for c in checks]
        for line, check in zip(common.table(rows), checks, strict=True):
            click.echo(line)
            if check.remedy:
                click.echo(f"      -> {check.remedy}")
    if failed:
        raise RtsepError(f"{len(failed)} checks failed: {', '.join(check.name for check in failed)}.")


def _guarded(name: str, look: Callable[[], Check], fatal: bool = True) -> Check:
    """Run one check; whatever it raises is what it found."""
    try:
        return look()
    except RtsepError as error:
        return Check(name, False if fatal else None, str(error))
    except Exception as error:  # a doctor that falls ill helps nobody
        return Check(name, False if fatal else None, f"{type(error).__name__}: {error}")


def _providers() -> Check:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    return Check("providers", "CPUExecutionProvider" in providers, ", ".join(providers))


def _realtime() -> Check:
    try:
        import resource
    except ImportError:
        return Check("real-time limit", None, "not on this system")
    limit = getattr(resource, "RLIMIT_RTPRIO", None)
    if limit is None:
        return Check("real-time limit", None, "not on this system")
    soft = resource.getrlimit(limit)[0]
    allowed = os.geteuid() == 0 or soft > 0
    remedy = "" if allowed else "add '@audio - rtprio 90' to /etc/security/limits.d/audio.conf and join the group audio"
    return Check("real-time limit", None, "root" if os.geteuid() == 0 else str(soft), remedy)


def _huge_pages() -> Check:
    """Making one stops a core for as long as it takes where the kernel is not preemptible; see docs/engine.md."""
    try:
        folder = Path("/sys/kernel/mm/transparent_hugepage")
        enabled = (folder / "enabled").read_text(encoding="ascii")
        made = (folder / "khugepaged/pages_collapsed").read_text(encoding="ascii").strip()
    except OSError:
        return Check("huge pages", None, "not on this system")
    return Check("huge pages", None, f"{enabled.partition('[')[2].partition(']')[0]}, {made} made of small ones so far")


def _temporary() -> Check:
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(1 << 16))
        file.flush()
        return Check("temporary files", True, str(Path(file.name).parent))


def _devices() -> Check:
    from rtsep.audio.devices import list_devices, load_sounddevice

    library = load_sounddevice()
    devices = list_devices()
    names = "; ".join(str(device) for device in devices) or "no devices"
    return Check("PortAudio", None, f"{library.get_portaudio_version()[1]}: {names}")


def _model(model: str) -> Check:
    from rtsep.zoo.registry import list_models, resolve, verify

    path = resolve(model)
    for entry in list_models():
        if entry.path == path:
            found = verify(entry)
            return Check("model", True, f"{entry.name}, golden pair within {found.max_abs_error:.1e}")
    from rtsep.inference.session import StreamingSession

    with StreamingSession(path, provider="cpu") as session:
        return Check("model", True, f"{session.info.name} {session.info.version}, {path}")


def _engine(model: str, seconds: float) -> Check:
    from rtsep.audio.backends import DummyConfig
    from rtsep.engine.engine import Engine
    from rtsep.zoo.registry import read_info, resolve

    rate = read_info(resolve(model)).samplerates[0]
    with Engine(model, backend=DummyConfig(samplerate=rate, blocksize=256, source="noise")) as engine:
        engine.wait(seconds)
    stats: Any = engine.stats()
    t = stats.hop_times
    found = (
        f"{stats.hops} hops, p50 {t.p50_ms:.2f} ms, p99 {t.p99_ms:.2f}, max {t.max_ms:.2f} of {t.period_ms:.2f}; "
        f"{stats.late_hops} late, {stats.xruns.total} xruns; real-time scheduling {'yes' if stats.realtime else 'no'}"
    )
    good = stats.hops > 0 and stats.late_hops == 0 and stats.xruns.total == 0
    return Check("engine", good, found, "" if good else "close other programs, or see: rtsep bench; then try --slack 2")
