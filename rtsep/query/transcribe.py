"""Audio files to notes: the streaming step, offline, with a note tracker behind it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtsep.audio.files import AudioReader, map_channels
from rtsep.audio.resampler import StreamResampler
from rtsep.engine.runner import choose_rate
from rtsep.inference.session import StreamingSession
from rtsep.notes.stream import StemEvent, StemNotes, bends_of, notes_of
from rtsep.query.notes import Bend, Note, TrackerSettings
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
    bends : dict of str to list of Bend
        By stem, of those whose bends were asked for.
    """

    notes: dict[str, list[Note]]
    seconds: float
    replaced: int
    wall_s: float
    bends: dict[str, list[Bend]] = field(default_factory=dict)


def transcribe(
    path: str | os.PathLike[str],
    model: Path,
    *,
    controls: Mapping[str, float | Sequence[float] | Audio] | None = None,
    settings: TrackerSettings | None = None,
    latency: str = "quality",
    stems: Sequence[str] | None = None,
    transcribers: Mapping[str, str | Path] | None = None,
    bends: Collection[str] = (),
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
        File of a model. The stems it writes down itself are taken from it, the others from transcribers.
    controls : mapping, optional
        Values by name, such as the query's.
    settings : TrackerSettings, optional
        Thresholds for the model's own posteriors. Those that take a query give one pitch at a time.
    latency : {"tight", "normal", "quality"}
        Of the transcribers: how much they may hear of what follows before they decide.
    stems, transcribers, bends
        As `rtsep.notes.stream.StemNotes`.
    channels : sequence of int, optional
        Channels of the file, from 1.
    provider, threads
        As `StreamingSession`.
    progress : callable, optional
        Called with samples done and samples in all.

    Raises
    ------
    UsageError
        A control, stem or channel does not exist.
    AudioFileError
        The file cannot be read.
    ModelError
        The model cannot be used.
    """
    info = read_info(model)
    hop = info.hop_samples
    events: list[StemEvent] = []
    waiting = np.zeros((info.channels, 0), np.float32)

    def listen(block: Audio) -> None:
        nonlocal waiting
        waiting = np.concatenate([waiting, resampler.process(block)], axis=1)
        for start in range(0, waiting.shape[1] - hop + 1, hop):
            separated = session.step(np.ascontiguousarray(waiting[:, start : start + hop]))
            own = session.notes
            posteriors = None if own is None else np.stack([own[kind] for kind in KINDS])  # [3, S', N, P]
            events.extend(listener.push(separated, posteriors))
        waiting = waiting[:, waiting.shape[1] // hop * hop :]

    started = time.perf_counter()
    with (
        AudioReader(path) as reader,
        StreamingSession(model, provider=provider, threads=threads) as session,
    ):
        for name, values in (controls or {}).items():
            session.set_control(name, values)
        rate = choose_rate(reader.samplerate, info.samplerates)
        listener = StemNotes(
            info, rate, latency, transcribers=transcribers, stems=stems, settings=settings, bends=bends
        )
        resampler = StreamResampler(reader.samplerate, rate, info.channels)
        for block in reader.blocks(max(16 * hop, 4096)):
            listen(map_channels(np.ascontiguousarray(block.T), info.channels, channels))
            if progress:
                progress(resampler.samples_in, max(reader.frames, resampler.samples_in))
        seconds = resampler.samples_in / reader.samplerate
        late = info.latency_samples + resampler.delay_samples
        # Silence until the end of the file has come through.
        rest = math.ceil((late + hop + listener.tail_s * rate) * reader.samplerate / rate)
        listen(np.zeros((info.channels, rest), np.float32))
        replaced = reader.replaced
    events += listener.reset()
    heard = notes_of(events, -late / rate, seconds)
    notes = {info.stems[stem]: heard.get(stem, []) for stem in listener.delays_s}
    bent = bends_of(events, -late / rate, seconds)
    bends_by_stem = {name: bent.get(info.stems.index(name), []) for name in bends if name in notes}
    return Transcription(notes, seconds, replaced, time.perf_counter() - started, bends_by_stem)
