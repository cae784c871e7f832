"""Whole files and arrays through the same chain that plays live, as fast as the machine can."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.files import AudioReader, NonFiniteWarning, check_mapping, map_channels
from rtsep.audio.resampler import (
    HIGHEST_RATE,
    LOWEST_RATE,
)
from rtsep.audio.wav import SampleFormat, WavWriter
from rtsep.chain import HopChain
from rtsep.controls import Values, checked_controls
from rtsep.engine.runner import choose_rate
from rtsep.errors import AudioFileError, PluginError, UsageError
from rtsep.inference.session import StreamingSession
from rtsep.mixer.mixer import Mixer
from rtsep.mixer.settings import MixerSettings
from rtsep.pipe import Pipe
from rtsep.plugins.host import load_chains, make_racks
from rtsep.plugins.scan import admit
from rtsep.plugins.spec import check_chains
from rtsep.query.score import ScoreReader, hop_time
from rtsep.zoo.registry import read_info, resolve

if TYPE_CHECKING:
    from rtsep.inference.provider import Provider
    from rtsep.plugins.spec import PluginSpec
    from rtsep.query.score import Score

Audio = NDArray[np.float32]
Progress = Callable[[int, int], None]
MIX = "mix"
"""Key and file name of the re-balanced mix beside the stems."""


@dataclass(frozen=True)
class Separation:
    """What `separate` made.

    Attributes
    ----------
    stems : dict of str to array [C, T]
        float32 at `samplerate`, ``T`` that of the input; empty when files were written instead.
    mix : array [C, T] or None
        Likewise; None when files were written.
    files : dict of str to pathlib.Path
        By stem, and ``"mix"``; empty when nothing was written.
    samplerate : int
        Of the input and of all results, in hertz.
    model_samplerate : int
        What the model ran at.
    channels, frames : int
        Of all results.
    latency_samples : int
        Delay of model and resamplers that was taken out again, at `samplerate`.
    replaced : int
        NaN and infinite samples of the input that became zero.
    wall_s : float
        Seconds it took, without opening the model.
    """

    samplerate: int
    model_samplerate: int
    channels: int
    frames: int
    latency_samples: int
    replaced: int
    wall_s: float
    stems: dict[str, Audio] = field(default_factory=dict)
    mix: Audio | None = None
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Seconds of audio per second of work."""
        return self.frames / self.samplerate / max(self.wall_s, 1e-9)


def separate(
    audio: str | os.PathLike[str] | NDArray[np.floating],
    *,
    samplerate: int | None = None,
    model: str | os.PathLike[str] = "default",
    output_dir: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    stems: Sequence[str] | None = None,
    mute: Sequence[str] = (),
    solo: Sequence[str] = (),
    gain: Mapping[str, float] | None = None,
    pan: Mapping[str, float] | None = None,
    master_db: float = 0.0,
    controls: Mapping[str, Values] | None = None,
    chains: Mapping[str, Iterable[PluginSpec]] | None = None,
    score: Score | None = None,
    limiter: bool = False,
    channels: Sequence[int] | None = None,
    sample_format: SampleFormat = "float",
    provider: Provider = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> Separation:
    """Split a recording into stems, and mix them anew.

    Parameters
    ----------
    audio : path or array [C, T] or [T]
        Any file libsndfile reads, or floats with full scale 1.0.
    samplerate : int
        Of an array, in hertz, 8000 to 192000. A file knows its own.
    model : str or path
        Name or file; see ``rtsep models list``.
    output_dir : path, optional
        Folder for one WAV file a stem, and for ``mix.wav`` when the mix is not the input. Made when missing.
    output : path, optional
        WAV file for the mix.
    stems : sequence of str, optional
        Stems to give or write; all when left out. The mix always knows all of them.
    mute, solo, gain, pan, master_db, limiter
        The mixer, as live: names of stems; gains by stem in dB (-120 to 24); balances by stem (-1 to 1).
    controls : mapping of str to float, sequence or array, optional
        Values of the model's controls; the others keep their defaults.
    chains : mapping of str to iterable of PluginSpec, optional
        Plugins that stems, or ``"master"``, go through, as live; without the live limit on their latency.
    score : rtsep.query.score.Score, optional
        Notes that replace the model's own transcription; each hop gets what sounds in the audio of its stems.
    channels : sequence of int, optional
        1-based channels of the input to use. Files with more channels than the model give their first ones.
    sample_format : {"float", "pcm16", "pcm24"}
        Of the files; ``"float"`` keeps every bit.
    provider, threads
        As `StreamingSession`.
    progress : callable, optional
        Called with samples done and samples in all, both at the input's rate.

    Returns
    -------
    Separation
        Arrays when neither `output_dir` nor `output` is given, paths otherwise. Everything is as long as the
        input and in time with it; one input channel gives one output channel.

    Raises
    ------
    AudioFileError
        A file cannot be read or written.
    ModelError
        The model cannot be used.
    UsageError
        An argument is not allowed (StemNotFoundError for a name).
    PluginError
        A plugin cannot be used, or failed half-way.

    Warns
    -----
    NonFiniteWarning
        NaN or infinite samples were replaced by zero.

    Notes
    -----
    The stems of a model with a residual stem, and those of any model at the input's own rate, sum to the input within
    rounding; an untouched mix is the input bit for bit. Stems with plugins are
    given as the plugins leave them. Where the model runs at another rate or in mono, what it never
    saw is in the residual stem. Files are written as ``.part`` and renamed at the end: a name that
    exists is whole. A file is never wholly in memory, unless arrays are returned.
    """
    path = resolve(model)
    info = read_info(path)
    settings = MixerSettings(info.stems)
    settings.apply(mute=mute, solo=solo, gain=gain, pan=pan, master_db=master_db)
    settings.limiter = limiter
    values = checked_controls(info, controls or {})
    plugins = {target: admit(specs) for target, specs in check_chains(chains or {}, info.stems).items()}
    wanted = tuple(info.stems) if stems is None else tuple(stems)
    chosen = [settings.index(stem) for stem in wanted]
    files = _file_names(output_dir, output, wanted, mixed=bool(settings.values.any() or plugins))
    for file in files.values():
        if not isinstance(audio, np.ndarray) and file.exists() and file.samefile(audio):
            raise UsageError(f"{file} is the input itself; choose another name or folder for the output.")
    with ExitStack() as stack:
        stack.callback(_remove_parts, files)
        source = stack.enter_context(_Source(audio, samplerate, channels, info.channels))
        rate = choose_rate(source.samplerate, info.samplerates)
        session = stack.enter_context(StreamingSession(path, provider=provider, threads=threads))
        for name, value in values.items():
            session.set_control(name, value)
        mixer = Mixer(info.stems, info.channels, rate, output_samplerate=source.samplerate, settings=settings)
        wanted_stems = chosen if output is None or output_dir else []
        block_frames = max(16 * info.hop_samples, 4096)
        racks = host = None
        if plugins:
            racks = make_racks(
                info.stems,
                info.channels,
                info.hop_samples,
                rate,
                output_channels=source.channels,
                samplerate=source.samplerate,
                settings=settings,
            )
            host = load_chains(racks, info.stems, plugins, live=False)
        chain = HopChain(session, mixer, racks)
        pipe = Pipe(chain, source.samplerate, rate, wanted_stems, source.channels, block_frames)
        if score is not None:
            reader = ScoreReader(score, info, session.set_control)
            pipe.before_hop = lambda hop: reader.at(hop_time(info, hop, rate, pipe.delay_in))
        out_channels = 1 if source.mono else source.channels
        names = [info.stems[s] for s in pipe.stems] + [MIX]
        sinks = _Sinks(names, out_channels, pipe.latency_samples)
        for name, file in files.items():
            writer = WavWriter(file, source.samplerate, out_channels, sample_format=sample_format, atomic=True)
            sinks.writers[name] = stack.enter_context(writer)
        sinks.keep = not files
        started = time.perf_counter()
        for block in source.blocks(block_frames):
            sinks.push(pipe.process(block), source.taken)
            if progress:
                progress(sinks.done, max(source.frames, source.taken))
        silence = np.zeros((source.channels, info.hop_samples), np.float32)
        while sinks.done < source.taken:
            sinks.push(pipe.process(silence), source.taken)
        for news in host.watch() if host is not None else ():
            raise PluginError(f"{news['label']} on {news['target']} {news.get('fault', 'changed its latency')}.")
        if source.taken == 0:
            raise AudioFileError(f"{source.name} is damaged: its header promises samples, none are there.")
        if progress:
            progress(sinks.done, source.taken)
        wall_s = time.perf_counter() - started
    if source.replaced:
        warnings.warn(
            f"{source.name}: {source.replaced} samples were NaN or infinite and became zero.",
            NonFiniteWarning,
            stacklevel=2,
        )
    arrays = {name: np.concatenate(parts, axis=1) for name, parts in sinks.kept.items()}
    return Separation(
        samplerate=source.samplerate,
        model_samplerate=rate,
        channels=out_channels,
        frames=source.taken,
        latency_samples=pipe.latency_samples,
        replaced=source.replaced,
        wall_s=wall_s,
        mix=arrays.pop(MIX, None),
        stems=arrays,
        files=files,
    )


def _file_names(
    output_dir: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    stems: Sequence[str],
    *,
    mixed: bool,
) -> dict[str, Path]:
    files: dict[str, Path] = {}
    if output_dir is not None:
        folder = Path(output_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioFileError(f"The folder {folder} cannot be made: {error.strerror}.") from error
        files = {stem: folder / f"{stem}.wav" for stem in stems}
        if mixed and output is None:
            files[MIX] = folder / f"{MIX}.wav"
    if output is not None:
        files[MIX] = Path(output)
    return files


def _remove_parts(files: Mapping[str, Path]) -> None:
    """Remove what an interrupt between creating a file and taking charge of it may have left."""
    for file in files.values():
        with suppress(OSError):
            file.with_name(file.name + ".part").unlink()


class _Source:
    """The input as blocks ``[C, n]`` for the model, from a file or an array; context manager."""

    def __init__(
        self,
        audio: str | os.PathLike[str] | NDArray[np.floating],
        samplerate: int | None,
        mapping: Sequence[int] | None,
        channels: int,
    ) -> None:
        self._mapping = mapping
        self.taken = self.replaced = 0
        self._reader: AudioReader | None = None
        self._array: NDArray[np.floating] | None = None
        if isinstance(audio, np.ndarray):
            self.name = "the array"
            self._array = _checked_array(audio)
            self.frames = self._array.shape[1]
            self.samplerate = _checked_rate(samplerate)
            available = len(self._array)
        else:
            if samplerate is not None:
                raise UsageError(f"samplerate is {samplerate}, and {os.fspath(audio)} has its own; leave it out.")
            self._reader = AudioReader(audio)
            self.name = str(self._reader.path)
            self.frames, self.samplerate = self._reader.frames, self._reader.samplerate
            available = self._reader.channels
        try:
            used = available if mapping is None else len(check_mapping(mapping, available, self.name))
            self.mono = used == 1
            self.channels = 2 if channels == 1 and (used == 2 or (used > 2 and mapping is None)) else channels
            channels = self.channels
            map_channels(np.zeros((available, 1), np.float32), channels, mapping)  # says now what does not fit
        except UsageError:
            self.close()
            raise

    def blocks(self, frames: int) -> Iterator[Audio]:
        if self._reader is not None:
            for block in self._reader.blocks(frames):
                self.taken += len(block)
                yield map_channels(np.ascontiguousarray(block.T), self.channels, self._mapping)
            self.replaced = self._reader.replaced
            return
        assert self._array is not None
        for start in range(0, self.frames, frames):
            piece = np.array(self._array[:, start : start + frames], np.float32)
            finite = np.isfinite(piece)
            if not finite.all():
                self.replaced += int(piece.size - np.count_nonzero(finite))
                piece[~finite] = 0.0
            self.taken += piece.shape[1]
            yield map_channels(piece, self.channels, self._mapping)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked_array(audio: NDArray[np.floating]) -> NDArray[np.floating]:
    if not np.issubdtype(audio.dtype, np.floating):
        raise UsageError(f"The array is {audio.dtype}; floats with full scale 1.0 are needed.")
    if audio.ndim == 1:
        audio = audio[None]
    if audio.ndim != 2 or 0 in audio.shape:
        raise UsageError(f"The array has the shape {list(audio.shape)}; [C, T] or [T] with samples is needed.")
    if audio.shape[0] > 64 and audio.shape[0] > audio.shape[1]:
        raise UsageError(f"The array has the shape {list(audio.shape)}, which looks like [T, C]; pass its transpose.")
    return audio


def _checked_rate(samplerate: int | None) -> int:
    if samplerate is None:
        raise UsageError("samplerate is needed with an array, for example samplerate=44100.")
    if not LOWEST_RATE <= samplerate <= HIGHEST_RATE:
        raise UsageError(f"samplerate is {samplerate}; allowed are {LOWEST_RATE} to {HIGHEST_RATE} Hz.")
    return samplerate


class _Sinks:
    """Drops the latency from the front, cuts at the length of the input, and writes or keeps the rest."""

    def __init__(self, names: list[str], channels: int, latency: int) -> None:
        self._names, self._channels, self._drop = names, channels, latency
        self.done = 0
        self.keep = True
        self.kept: dict[str, list[Audio]] = {}
        self.writers: dict[str, WavWriter] = {}

    def push(self, out: Audio, limit: int) -> None:
        dropped = min(self._drop, out.shape[2])
        self._drop -= dropped
        n = min(out.shape[2] - dropped, limit - self.done)
        if n <= 0:
            return
        self.done += n
        for name, audio in zip(self._names, out[:, :, dropped : dropped + n], strict=True):
            if self._channels == 1 and len(audio) > 1:
                audio = audio.mean(axis=0, keepdims=True, dtype=np.float32)
            if name in self.writers:
                self.writers[name].write(np.ascontiguousarray(audio.T))
            elif self.keep:
                self.kept.setdefault(name, []).append(audio.copy())
