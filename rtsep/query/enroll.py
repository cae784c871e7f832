"""From a recording to a query: check it, leave the silence out, run the encoder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

import rtsep
from rtsep.audio.files import AudioReader, map_channels
from rtsep.errors import DeviceLostError, MetadataError, QueryError
from rtsep.query.graphs import QueryEncoder
from rtsep.query.queries import FloatArray, Query
from rtsep.zoo.registry import read_info

if TYPE_CHECKING:
    from rtsep.audio.backends import BackendConfig

SILENT_PEAK = 1e-3
"""A recording that never exceeds this (-60 dBFS) holds no instrument."""
TRIM_DB = 40.0
"""Frames this far below the loudest one are silence."""
SHORTEST_S, LONGEST_S = 1.0, 30.0
"""Sound an encoder needs, and the most it is given: its memory grows with the length, its answer hardly changes."""
CLIPPED_AT, CLIPPED_SHARE = 0.9999, 1e-3
"""Samples from here on are at full scale (16-bit files end at 0.99997), and the share of them that is too much."""

_FRAME_S = 0.01
_DEVICE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Sound:
    """What was made of a recording.

    Parameters
    ----------
    audio : array [T]
        Mono, without silence, at the encoder's rate.
    recorded_s, sounding_s, used_s : float
        Length of the recording, of its sound, and of `audio`.
    """

    audio: FloatArray
    recorded_s: float
    sounding_s: float
    used_s: float


def enroll(
    audio: FloatArray, samplerate: int, encoder: QueryEncoder, *, name: str, source: str, force: bool = False
) -> tuple[Query, Sound]:
    """Learn an instrument.

    Parameters
    ----------
    audio : array [C, T]
        float32, full scale 1.0: the instrument alone.
    samplerate : int
        Of `audio`, in hertz.
    encoder : QueryEncoder
    name, source : str
        Of the query, and where the audio comes from.
    force : bool
        Accept a clipped recording.

    Raises
    ------
    QueryError
        The audio is silent, too short, clipped or not finite.
    ModelError
        The encoder cannot be run.
    """
    sound = prepare(audio, samplerate, encoder.info.samplerate, source=source, force=force)
    vector, timbre = encoder.encode(sound.audio)
    return (
        Query(
            name=name,
            model=encoder.info.model,
            encoder_sha256=encoder.sha256,
            samplerate=encoder.info.samplerate,
            seconds=round(sound.used_s, 3),
            source=source,
            created_by=f"rtsep {rtsep.__version__}",
            vector=vector,
            timbre=timbre,
        ),
        sound,
    )


def open_encoder(model: Path) -> QueryEncoder:
    """Open the query encoder of a model file; ModelError when there is none or it belongs to another model."""
    info = read_info(model)
    encoder = QueryEncoder(model)
    if encoder.info.model != info.name:
        raise MetadataError(
            f"The query encoder beside {model} is for the model {encoder.info.model!r}; {model} is {info.name!r}."
        )
    return encoder


def prepare(audio: FloatArray, samplerate: int, target_rate: int, *, source: str, force: bool = False) -> Sound:
    """Check a recording ``[C, T]``, average its channels, resample it and leave the silence out.

    A frame of 10 ms is silence when its level is `TRIM_DB` below that of the loudest one; the others stay in order.

    Raises
    ------
    QueryError
        As `enroll`.
    """
    finite = np.isfinite(audio)
    if not finite.all():
        raise QueryError(
            f"{source}: {audio.size - int(np.count_nonzero(finite))} samples are NaN or infinite. "
            "The file is damaged; record or export it again."
        )
    recorded_s = audio.shape[1] / samplerate
    peak = float(np.abs(audio).max(initial=0.0))
    if peak < SILENT_PEAK:
        raise QueryError(
            f"{source} is silent: its peak is {_decibels(peak)}, {_decibels(SILENT_PEAK)} is the least. "
            "Is it the right file, the right input, the right channel?"
        )
    clipped = float((np.abs(audio) >= CLIPPED_AT).mean(axis=1).max())
    if clipped > CLIPPED_SHARE and not force:
        raise QueryError(
            f"{source} is clipped: {100 * clipped:.2g} % of its samples are at full scale, {100 * CLIPPED_SHARE:g} % "
            "is the most. Record it at a lower level, or take it as it is with --force."
        )
    mono = audio.mean(axis=0, dtype=np.float32)
    if float(np.abs(mono).max()) < SILENT_PEAK:
        raise QueryError(f"{source}: its {len(audio)} channels cancel each other. Choose one, for example: -c 1")
    mono = np.asarray(soxr.resample(mono, samplerate, target_rate, "HQ"), np.float32)
    kept = _without_silence(mono, max(1, round(_FRAME_S * target_rate)))
    sounding_s = len(kept) / target_rate
    if sounding_s < SHORTEST_S:
        raise QueryError(
            f"{source} is too short: {sounding_s:.2f} s of its {recorded_s:.2f} s are sound, {SHORTEST_S:g} s is the "
            "least. Record more of the instrument, alone."
        )
    used = np.ascontiguousarray(kept[: int(LONGEST_S * target_rate)])
    return Sound(used, recorded_s, sounding_s, len(used) / target_rate)


def read_recording(path: str | os.PathLike[str], channels: Sequence[int] | None = None) -> tuple[FloatArray, int]:
    """Read ``[C, T]`` and its rate; `channels` are numbers from 1.

    Raises
    ------
    AudioFileError
        The file cannot be read.
    QueryError
        It holds NaN or infinite samples.
    UsageError
        It has no such channel.
    """
    with AudioReader(path) as reader:
        blocks = [block.T for block in reader.blocks(1 << 16)]
        if reader.replaced:
            raise QueryError(
                f"{reader.path}: {reader.replaced} samples are NaN or infinite. The file is damaged; record or export "
                "it again."
            )
        audio = np.concatenate([np.zeros((reader.channels, 0), np.float32), *blocks], axis=1)
        return map_channels(audio, len(channels or audio), channels), reader.samplerate


def record(
    config: BackendConfig, seconds: float, progress: Callable[[int, int], None] | None = None
) -> tuple[FloatArray, int]:
    """Record from a device; returns ``[C, T]`` and its rate. Ends early where a file ends.

    Raises
    ------
    DeviceError
        The device cannot be opened, delivers nothing, or lost samples.
    """
    from rtsep.audio.backends import open_backend

    backend = open_backend(config)
    try:
        backend.start()
        total = round(seconds * backend.samplerate)
        frames = np.zeros((total, backend.input_channels), np.float32)
        done, heard = 0, time.monotonic()
        while done < total and not (backend.finished and not backend.readable):
            count = min(backend.readable, total - done)
            if count:
                done += backend.read(frames[done : done + count])
                heard = time.monotonic()
                if progress:
                    progress(done, total)
            elif time.monotonic() - heard > _DEVICE_TIMEOUT_S:
                raise DeviceLostError(f"The device delivered nothing for {_DEVICE_TIMEOUT_S:.0f} s. See: rtsep doctor")
            else:
                backend.wait(1, 0.01)
        if not backend.input_active and done < total:
            raise DeviceLostError("The device delivered faster than could be read, and samples were lost. Try again.")
        return np.ascontiguousarray(frames[:done].T), backend.samplerate
    finally:
        backend.stop(2.0)


def _without_silence(mono: FloatArray, frame: int) -> FloatArray:
    frames = mono[: len(mono) // frame * frame].reshape(-1, frame)
    if not len(frames):
        return frames.reshape(-1)
    levels = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    kept: FloatArray = frames[levels > levels.max() * 10 ** (-TRIM_DB / 20)]
    return kept.reshape(-1)


def _decibels(level: float) -> str:
    return f"{20 * np.log10(level):.0f} dBFS" if level > 0 else "digital silence"
