"""Audio files to notes: the streaming step, offline, with a note tracker behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.files import AudioReader, map_channels
from rtsep.audio.resampler import StreamResampler
from rtsep.engine.runner import choose_rate
from rtsep.errors import UsageError
from rtsep.inference.session import StreamingSession
from rtsep.query.notes import Note, NoteEvent, NoteTracker, TrackerSettings, pair
from rtsep.query.queries import takes_query
from rtsep.zoo.registry import read_info

if TYPE_CHECKING:
    from rtsep.inference.provider import Provider

Audio = NDArray[np.float32]
KINDS = ("onset", "frame", "velocity")


@dataclass(frozen=True)
class Transcription:
    """What `transcribe` heard.

    Attributes
    ----------
    notes : dict of str to list of Note
        By stem, in time with the audio.
    seconds : float
        Length of the audio.
    replaced : int
        NaN and infinite samples that became zero.
    wall_s : float
        Seconds it took.
    """

    notes: dict[str, list[Note]]
    seconds: float
    replaced: int
    wall_s: float


def transcribe(
    path: str | os.PathLike[str],
    model: Path,
    *,
    controls: Mapping[str, float | Sequence[float] | Audio] | None = None,
    settings: TrackerSettings | None = None,
    channels: Sequence[int] | None = None,
    provider: Provider = "auto",
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Transcription:
    """Write down the notes of a recording.

    Parameters
    ----------
    path : path
        Any file libsndfile reads.
    model : pathlib.Path
        File of a model that gives notes.
    controls : mapping, optional
        Values by name, such as the query's.
    settings : TrackerSettings, optional
        Thresholds. Models that take a query give one pitch at a time, and are tracked so.
    channels : sequence of int, optional
        Channels of the file, from 1.
    provider, threads
        As `StreamingSession`.
    progress : callable, optional
        Called with samples done and samples in all.

    Raises
    ------
    UsageError
        The model gives no notes, or a control or channel does not exist.
    AudioFileError
        The file cannot be read.
    ModelError
        The model cannot be used.
    """
    info = read_info(model)
    if info.notes is None:
        raise UsageError(f"The model {info.name} gives no notes. See: rtsep models list")
    monophonic = takes_query(info)
    trackers = [NoteTracker(info.notes.lowest_midi, settings, monophonic=monophonic) for _ in info.notes.stems]
    events: list[list[NoteEvent]] = [[] for _ in trackers]
    frames_per_hop = info.notes.frames_per_hop
    hop = info.hop_samples
    waiting = np.zeros((info.channels, 0), np.float32)

    def listen(block: Audio) -> None:
        nonlocal waiting
        waiting = np.concatenate([waiting, resampler.process(block)], axis=1)
        for start in range(0, waiting.shape[1] - hop + 1, hop):
            session.step(np.ascontiguousarray(waiting[:, start : start + hop]))
            posteriors = session.notes
            assert posteriors is not None
            for stem, tracker in enumerate(trackers):
                for frame in range(frames_per_hop):
                    events[stem] += tracker.push(*(posteriors[kind][stem, frame] for kind in KINDS))
        waiting = waiting[:, waiting.shape[1] // hop * hop :]

    started = time.perf_counter()
    with (
        AudioReader(path) as reader,
        StreamingSession(model, provider=provider, threads=threads) as session,
    ):
        for name, values in (controls or {}).items():
            session.set_control(name, values)
        rate = choose_rate(reader.samplerate, info.samplerates)
        resampler = StreamResampler(reader.samplerate, rate, info.channels)
        for block in reader.blocks(max(16 * hop, 4096)):
            listen(map_channels(np.ascontiguousarray(block.T), info.channels, channels))
            if progress:
                progress(resampler.samples_in, max(reader.frames, resampler.samples_in))
        seconds = resampler.samples_in / reader.samplerate
        late = info.latency_samples + info.notes.extra_latency_samples + resampler.delay_samples
        # Silence until the end of the file has come through.
        listen(np.zeros((info.channels, -(-(late + hop) * reader.samplerate // rate)), np.float32))
        replaced = reader.replaced

    def at(frame: int) -> float:
        return (frame * hop / frames_per_hop - late) / rate

    notes = {
        stem: pair([*heard, *tracker.finish()], at, seconds)
        for stem, tracker, heard in zip(info.notes.stems, trackers, events, strict=True)
    }
    return Transcription(notes, seconds, replaced, time.perf_counter() - started)
