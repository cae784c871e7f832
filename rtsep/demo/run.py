"""The demonstration: render a song, play it through the real engine, mute the vocals half-way, say what came out.

Needs no sound card, no PortAudio and no network: the song goes in and out through the clocked file backend.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.backends import FileConfig
from rtsep.audio.files import read_audio
from rtsep.audio.wav import WavWriter
from rtsep.contract import ModelInfo
from rtsep.demo import DEMO_MODEL
from rtsep.demo.measure import attenuation, sdr
from rtsep.demo.picture import draw
from rtsep.demo.song import DEMO_SECONDS, DEMO_SEED, Song, render_song
from rtsep.engine.engine import Engine
from rtsep.engine.stats import EngineStats
from rtsep.errors import AudioFileError, EngineError, StemNotFoundError, UsageError
from rtsep.latency import LatencyReport

Audio = NDArray[np.float32]

MUTED = "vocals"
MIN_SECONDS = 6.0
BLOCKSIZE = 256
TARGET_MUTED_DB = 10.0
TARGET_OTHER_DB = 1.5
_MARGIN_S = 0.5
"""Left out after the mute: the ramp, the time the command took, and the look-back of the analysis."""
_POLL_S = 0.001
_FAST_ATTEMPTS, _FAST_TOLERANCE = 6, 0.1


@dataclass(frozen=True)
class DemoReport:
    """What the demonstration measured and where it put things.

    Attributes
    ----------
    folder : pathlib.Path
    files : dict of str to pathlib.Path
        ``input``, ``output``, ``stems/<name>``, ``picture``, ``latency_text``, ``report``.
    mute_s : float
        Song time from which the vocals are muted in the output.
    attenuation_db : dict of str to float
        By stem, over the muted part; see `rtsep.demo.measure.attenuation`. Empty when the model has other stems.
    accompaniment_sdr_db, mixture_sdr_db : float
        Of the output and of the untouched mixture against the true accompaniment, over the muted part.
    latency : LatencyReport
    stats : EngineStats
    model, version, provider : str
    """

    folder: Path
    files: dict[str, Path]
    mute_s: float
    attenuation_db: dict[str, float]
    accompaniment_sdr_db: float
    mixture_sdr_db: float
    latency: LatencyReport
    stats: EngineStats
    model: str
    version: str
    provider: str
    realtime: bool

    @property
    def muted_ok(self) -> bool:
        """The muted stem is down by the target or more."""
        return self.attenuation_db[MUTED] >= TARGET_MUTED_DB

    @property
    def others_ok(self) -> bool:
        """No other stem is down by more than the target."""
        return all(db <= TARGET_OTHER_DB for stem, db in self.attenuation_db.items() if stem != MUTED)

    @property
    def in_time(self) -> bool:
        """No hop was late (without a clock none can be)."""
        return self.stats.late_hops == 0

    @property
    def ok(self) -> bool:
        """All targets are met."""
        return self.muted_ok and self.others_ok and self.in_time

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints and ``report.json`` holds."""
        return {
            "ok": self.ok,
            "model": {"name": self.model, "version": self.version, "provider": self.provider},
            "song": {"seed": DEMO_SEED},
            "realtime": self.realtime,
            "muted": MUTED,
            "mute_s": round(self.mute_s, 4),
            "attenuation_db": {stem: round(db, 2) for stem, db in self.attenuation_db.items()},
            "targets_db": {"muted_at_least": TARGET_MUTED_DB, "others_at_most": TARGET_OTHER_DB},
            "accompaniment_sdr_db": round(self.accompaniment_sdr_db, 2),
            "mixture_sdr_db": round(self.mixture_sdr_db, 2),
            "latency": self.latency.to_dict(),
            "stats": self.stats.to_dict(),
            "files": {name: str(path) for name, path in self.files.items()},
        }


def run_demo(
    folder: str | os.PathLike[str] = "rtsep-demo",
    *,
    seconds: float = DEMO_SECONDS,
    fast: bool = False,
    model: str | os.PathLike[str] = DEMO_MODEL,
    seed: int = DEMO_SEED,
    progress: Callable[[float, float, str], None] | None = None,
) -> DemoReport:
    """Render, play, mute, measure, draw.

    Parameters
    ----------
    folder : path
        Made when missing; files in it are replaced.
    seconds : float
        Length of the song, 6 or more.
    fast : bool
        As fast as the machine goes, instead of in real time; then no hop can be late.
    model : str or path
        Must have the stem ``vocals``.
    seed : int
        Of the song.
    progress : callable, optional
        Called with seconds played, seconds in all, and what is going on.

    Returns
    -------
    DemoReport

    Raises
    ------
    UsageError
        `seconds` is too short, or the model has no vocals.
    AudioFileError, ModelError, EngineError
        As their names say.
    """
    if not seconds >= MIN_SECONDS:
        raise UsageError(f"seconds is {seconds:g}; {MIN_SECONDS:g} or more are needed to hear and measure anything.")
    from rtsep.zoo.registry import read_info, resolve

    info = read_info(resolve(model))
    if MUTED not in info.stems:
        raise StemNotFoundError(f"The demonstration mutes {MUTED!r}; {info.name} has {', '.join(info.stems)}.")
    say = progress or (lambda done, total, what: None)
    say(0.0, seconds, "rendering the song")
    song = render_song(seed, seconds=seconds)
    files = _lay_out(Path(folder), song)
    backend = FileConfig(input=str(files["input"]), output=str(files["output"]), blocksize=BLOCKSIZE, realtime=not fast)
    engine = Engine(os.fspath(model), backend=backend)
    for attempt in range(_FAST_ATTEMPTS if fast else 1):
        if attempt:
            engine = Engine(os.fspath(model), backend=backend)
        with engine:
            muted_at = _play(engine, song, say, fast)
        # Without a clock the half may have gone by before the command came; then it is played once more.
        if muted_at <= (0.5 + _FAST_TOLERANCE) * song.mixture.shape[1]:
            break
    return _report(engine, info, song, files, muted_at, not fast)


def _lay_out(folder: Path, song: Song) -> dict[str, Path]:
    """Write the input and the true stems; return all names, those of later files too."""
    files = {
        "input": folder / "input.wav",
        "output": folder / "output.wav",
        "picture": folder / "spectrogram.png",
        "latency_text": folder / "latency.txt",
        "latency": folder / "latency.json",
        "report": folder / "report.json",
    }
    try:
        (folder / "stems").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"The folder {folder / 'stems'} cannot be made: {error.strerror}.") from error
    for name, audio in song.stems.items():
        files[f"stems/{name}"] = folder / "stems" / f"{name}.wav"
        _write(files[f"stems/{name}"], audio, song.samplerate)
    _write(files["input"], song.mixture, song.samplerate)
    return files


def _write(path: Path, audio: Audio, samplerate: int) -> None:
    try:
        with WavWriter(path, samplerate, len(audio), atomic=True) as writer:
            writer.write(np.ascontiguousarray(audio.T))
    except BaseException:
        # Ctrl+C may come after the file was made and before anybody was in charge of it.
        path.with_name(path.name + ".part").unlink(missing_ok=True)
        raise


def _play(engine: Engine, song: Song, say: Callable[[float, float, str], None], fast: bool) -> int:
    """Wait for the half, mute, wait for the end; return the device's frame count at which the mute was set."""
    total = int(song.mixture.shape[1])
    half, seconds = total // 2, total / song.samplerate
    what = "playing" + (" as fast as it goes" if fast else "")
    while engine.position_samples < half:
        if engine.wait(0):
            if fast:
                return total
            raise EngineError("The engine came to the end of the song before the half of it. See: rtsep doctor")
        say(engine.position_samples / song.samplerate, seconds, what)
        # Close to the half the clock is asked as often as it can be; before, there is no need to.
        near = (half - engine.position_samples) / song.samplerate < 0.3
        time.sleep(0.0 if fast else _POLL_S if near else 0.1)
    engine.set_mute(MUTED, True)
    muted_at = engine.position_samples
    while not engine.wait(0.02 if fast else 0.1):
        say(min(seconds, engine.position_samples / song.samplerate), seconds, f"{what}, {MUTED} muted")
    return muted_at


def _report(
    engine: Engine, info: ModelInfo, song: Song, files: dict[str, Path], muted_at: int, realtime: bool
) -> DemoReport:
    latency, stats = engine.latency(), engine.stats()
    total, rate = song.mixture.shape[1], song.samplerate
    heard = read_audio(files["output"]).audio
    shift = latency.stream_samples
    if heard.shape[1] < shift + total:
        raise EngineError(f"{files['output']} has {heard.shape[1]} frames; {shift + total} were to be expected.")
    output = np.ascontiguousarray(heard[:, shift : shift + total])
    start = min(muted_at + round(_MARGIN_S * rate), total)
    if total - start < rate:
        raise EngineError(
            f"The vocals were muted at {muted_at / rate:.1f} s of {total / rate:.1f} s, too late to measure. "
            "Give a longer song: --seconds 20"
        )
    after = slice(start, total)
    found = attenuation(output[:, after], {name: audio[:, after] for name, audio in song.stems.items()})
    truth = song.mixture[:, after] - song.stems[MUTED][:, after]
    report = DemoReport(
        folder=files["report"].parent,
        files=files,
        mute_s=muted_at / rate,
        attenuation_db=found.db,
        accompaniment_sdr_db=sdr(output[:, after], truth),
        mixture_sdr_db=sdr(song.mixture[:, after], truth),
        latency=latency,
        stats=stats,
        model=info.name,
        version=info.version,
        provider=engine.provider,
        realtime=realtime,
    )
    losses = ", ".join(f"{stem} {-db:+.1f} dB" for stem, db in found.db.items())
    caption = [
        f"left of each stem after the mute: {losses}",
        f"{info.name} {info.version}, latency {latency.total_ms:.0f} ms (taken out here), "
        f"hop p99 {stats.hop_times.p99_ms:.1f} of {stats.hop_times.period_ms:.1f} ms, {stats.late_hops} late",
    ]
    draw(files["picture"], song.mixture, output, rate, report.mute_s, caption, MUTED)
    _write_text(files["latency_text"], "\n".join(latency.lines()) + "\n")
    _write_text(files["latency"], json.dumps(latency.to_dict(), indent=2) + "\n")
    _write_text(files["report"], json.dumps(report.to_dict(), indent=2) + "\n")
    return report


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AudioFileError(f"{path} cannot be written: {error.strerror}.") from error
