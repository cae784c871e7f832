"""Which plugin files can be trusted: each is loaded and played once in a process of its own, and the result kept.

A plugin that crashes takes its process with it, and one that hangs keeps it. So the process that meets a file for the
first time is one that may be lost, and no other process loads a file that did not pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rtsep.errors import PluginError, suggest
from rtsep.plugins.catalog import EFFECTS, find_effect
from rtsep.plugins.spec import SUFFIXES, PluginSpec

TIMEOUT_S = 30.0
"""Time for one file, load and first sound together."""
CACHE_VARIABLE = "RTSEP_PLUGIN_CACHE"
_VERSION = 1


@dataclass(frozen=True)
class ScanResult:
    """What the scan found out about one file.

    Attributes
    ----------
    path : str
    status : {"ok", "crashed", "hung", "failed"}
        ``"failed"``: it said itself that it cannot be used.
    detail : str
        How it failed; empty when it passed.
    names : tuple of str
        Plugins inside.
    plugins : tuple of dict
        Facts of each: name, maker, category, version, instrument, latency in samples, parameters, load time in seconds.
    seconds : float
        Time the scan took.
    stamp : str
        Of the file: sizes and times of what is inside.
    """

    path: str
    status: str
    detail: str
    names: tuple[str, ...]
    plugins: tuple[dict[str, Any], ...]
    seconds: float
    stamp: str

    @property
    def ok(self) -> bool:
        """Whether it may be loaded."""
        return self.status == "ok"


def standard_folders() -> list[Path]:
    """Return the folders where this system keeps plugins; some may not exist."""
    home = Path.home()
    if sys.platform == "darwin":
        roots = [home / "Library/Audio/Plug-Ins", Path("/Library/Audio/Plug-Ins")]
        return [root / kind for root in roots for kind in ("VST3", "Components")]
    if sys.platform == "win32":
        return [Path(os.environ.get("COMMONPROGRAMFILES", r"C:\Program Files\Common Files")) / "VST3"]
    return [home / ".vst3", Path("/usr/lib/vst3"), Path("/usr/local/lib/vst3")]


def find_files(places: Iterable[str | Path] | None = None) -> list[Path]:
    """Return plugin files: `places` themselves or inside them, the standard folders when left out.

    Raises
    ------
    PluginError
        A place that is not there.
    """
    found: list[Path] = []
    for place in standard_folders() if places is None else places:
        path = Path(place)
        if path.suffix.lower() in SUFFIXES and path.exists():
            found.append(path)
        elif path.is_dir():
            found += sorted(
                file for suffix in SUFFIXES for file in path.rglob(f"*{suffix}") if file.parent.suffix not in SUFFIXES
            )
        elif places is not None:
            raise PluginError(f"No plugin and no folder at {path}. See: rtsep plugins list")
    # A .vst3 on Linux and macOS is a folder that may hold files of that name.
    inside = {file for file in found for other in file.parents if other.suffix.lower() in SUFFIXES}
    return [file.absolute() for file in found if file not in inside]


def stamp_of(path: Path) -> str:
    """Return sizes and times of a file, or of all that is in a bundle; empty when it is not there."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    size = newest = 0
    for file in files:
        with contextlib.suppress(OSError):
            facts = file.stat()
            if not file.is_dir():
                size, newest = size + facts.st_size, max(newest, facts.st_mtime_ns)
    return f"{size}-{newest}" if size else ""


# --- cache ------------------------------------------------------------------------------------------------------------


def cache_path() -> Path:
    """Return the file that results are kept in; ``RTSEP_PLUGIN_CACHE`` names another one."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library/Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "rtsep" / "plugins.json"


def read_cache() -> dict[str, ScanResult]:
    """Return what is known, by path; nothing when the file is missing, damaged, or of another version."""
    try:
        document = json.loads(cache_path().read_text(encoding="utf-8"))
        if document["version"] != _VERSION or document["host"] != _host_version():
            return {}
        return {
            path: ScanResult(**{**entry, "names": tuple(entry["names"]), "plugins": tuple(entry["plugins"])})
            for path, entry in document["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(result: ScanResult) -> None:
    """Add one result; a cache that cannot be written costs the next scan's time and nothing else."""
    path = cache_path()
    files = {**read_cache(), result.path: result}
    document = {
        "version": _VERSION,
        "host": _host_version(),
        "files": {name: asdict(entry) for name, entry in files.items()},
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="plugins-", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(temporary, path)


def remember_crash(path: str | Path, how: str) -> None:
    """Remember that a file that had passed ended a process that used it."""
    known = read_cache().get(str(path))
    if known is not None:
        _remember(replace(known, status="crashed", detail=how))


def _host_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pedalboard")
    except PackageNotFoundError:
        return "none"


# --- scanning ---------------------------------------------------------------------------------------------------------


def scan(path: str | Path, *, rescan: bool = False, timeout_s: float | None = None) -> ScanResult:
    """Return what is known of a file; load it in a process of its own when nothing is, or when it changed.

    Parameters
    ----------
    path : path
    rescan : bool
        Try again, whatever is known.
    timeout_s : float, optional
        30 when left out. After that time the process is killed and the file remembered as one that hangs.

    Raises
    ------
    PluginError
        No such file; pedalboard is missing.
    """
    path = Path(path).absolute()
    stamp = stamp_of(path)
    if not stamp:
        raise PluginError(f"No plugin at {path}. See: rtsep plugins list")
    known = None if rescan else read_cache().get(str(path))
    if known is not None and known.stamp == stamp:
        return known
    if _host_version() == "none":
        raise PluginError("Plugins need pedalboard. Install it with: pip install 'rtsep[plugins]'")
    result = _scan_in_child(path, stamp, timeout_s or TIMEOUT_S)
    _remember(result)
    return result


def scan_all(
    places: Iterable[str | Path] | None = None,
    *,
    rescan: bool = False,
    timeout_s: float | None = None,
    progress: Callable[[int, int, ScanResult | None], None] | None = None,
) -> list[ScanResult]:
    """Scan all files at `places`, the standard folders when left out; `progress` gets done, total, the last result."""
    files = find_files(places)
    results = []
    for number, file in enumerate(files):
        results.append(scan(file, rescan=rescan, timeout_s=timeout_s))
        if progress is not None:
            progress(number + 1, len(files), results[-1])
    return results


def _scan_in_child(path: Path, stamp: str, timeout_s: float) -> ScanResult:
    from rtsep.engine.wire import child_environment

    def result(status: str, detail: str = "", plugins: Sequence[dict[str, Any]] = ()) -> ScanResult:
        names = tuple(plugin["name"] for plugin in plugins)
        return ScanResult(str(path), status, detail, names, tuple(plugins), round(time.monotonic() - began, 3), stamp)

    began = time.monotonic()
    # The result goes through a file: plugins print what they like. A session of its own takes their children along.
    with tempfile.TemporaryDirectory(prefix="rtsep-scan-") as folder:
        answer = Path(folder) / "result.json"
        process = subprocess.Popen(
            [sys.executable, "-m", "rtsep.plugins.scan_process", str(path), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=child_environment(),
        )
        before, talk = os.times(), None
        try:
            _, talk = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill(process)
        if talk is None:
            after = os.times()  # of the children that have ended, as this one has now
            worked_s = after.children_user + after.children_system - before.children_user - before.children_system
            return result("hung", f"no answer within {timeout_s:g} s, {_stage(answer)}{_slow(worked_s / timeout_s)}")
        if process.returncode:
            last = talk.decode(errors="replace").strip().splitlines()[-1:]
            return result("crashed", f"{_how(process.returncode)} {_stage(answer)}" + "".join(f": {x}" for x in last))
        try:
            document = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return result("crashed", f"ended without a result ({error})")
    if "error" in document:
        return result("failed", document["error"])
    return result("ok", plugins=document["plugins"])


def _stage(answer: Path) -> str:
    try:
        return str(json.loads(answer.read_text(encoding="utf-8"))["stage"])
    except (OSError, ValueError, KeyError):
        return "while it was loaded and tried"


def _slow(part: float) -> str:
    """Tell a process that computed for this part of the time from one that waited: it may be worth a longer try."""
    return "; it was at work all the time and may only be slow: --timeout gives it longer" if part > 0.3 else ""


def _how(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


# --- what may be loaded -----------------------------------------------------------------------------------------------


def resolve(spec: PluginSpec) -> PluginSpec:
    """Return a spec with the effect's own spelling, or with the path of an installed file of that name.

    Raises
    ------
    PluginError
        Neither an effect nor an installed plugin is called so.
    """
    if spec.external:
        return replace(spec, plugin=str(Path(spec.plugin).expanduser().absolute()))
    try:
        return replace(spec, plugin=find_effect(spec.plugin).name)
    except PluginError:
        files = {file.stem.lower(): file for file in find_files()}
    if file := files.get(spec.plugin.lower()):
        return replace(spec, plugin=str(file))
    hint = suggest(spec.plugin, [*EFFECTS, *(file.stem for file in files.values())])
    raise PluginError(f"No plugin {spec.plugin!r}.{hint} See: rtsep plugins list")


def admit(specs: Iterable[PluginSpec]) -> tuple[PluginSpec, ...]:
    """Return specs that may be loaded: resolved, and scanned where they come from a file.

    Raises
    ------
    PluginError
        A file that did not pass, with how it failed; a name that the file does not hold.
    """
    admitted = []
    for spec in specs:
        spec = resolve(spec)
        if spec.external:
            result = scan(spec.plugin)
            if not result.ok:
                raise PluginError(
                    f"{spec.plugin} is not loaded: it {_said(result)}. To try it again: "
                    f"rtsep plugins scan --rescan {spec.plugin}"
                )
            if spec.name is None and len(result.names) > 1:
                raise PluginError(
                    f"{spec.plugin} holds {', '.join(result.names)}; say which: {Path(spec.plugin).name}#NAME"
                )
            if spec.name is not None and spec.name not in result.names:
                raise PluginError(
                    f"{spec.plugin} holds no {spec.name!r}, but {', '.join(result.names)}."
                    f"{suggest(spec.name, result.names)}"
                )
        admitted.append(spec)
    return tuple(admitted)


def loading_s(specs: Iterable[PluginSpec]) -> float:
    """Return how long the scan took for these, together: a bound for loading them."""
    files = [spec.plugin for spec in specs if spec.external]
    known = read_cache() if files else {}
    return sum(known[file].seconds for file in files if file in known)


def _said(result: ScanResult) -> str:
    how = {"crashed": "crashed when it was tried", "hung": "hung when it was tried", "failed": "cannot be used"}
    return f"{how.get(result.status, result.status)} ({result.detail})"
