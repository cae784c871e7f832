"""Data and validation of systems that learn from true stems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.data.library import Song, describe, load_source
from models.data.readers import STEMS, Source
from models.data.remix import RemixConfig, RemixDataset
from models.metrics import clip_sdr, frame_sdr


class MixtureData:
    """The songs of a training file: ``[[source]]``, ``[remix]`` and ``[validation]``.

    Attributes
    ----------
    train_songs, validation_songs : list of Song
    lines : list of str
        One per source, for logs and model cards.
    seconds : float
        Length of a segment.
    facts : dict
        The augmentation, for the checkpoint.

    Parameters
    ----------
    document : dict
        The whole file.
    samplerate : int
        Hz.
    cache : str or path
        Folder of decoded songs.

    Raises
    ------
    ValueError
        A validation song is in no source, a source has no songs, or one of kind karaoke is not asked for.
    TypeError
        A key is unknown.
    """

    def __init__(self, document: dict[str, Any], samplerate: int, cache: str | Path) -> None:
        remix = {k: tuple(v) if isinstance(v, list) else v for k, v in document.get("remix", {}).items()}
        self.remix, self.samplerate = RemixConfig(**remix), samplerate
        sources = [Source(**{**s, "exclude": tuple(s.get("exclude", ()))}) for s in document["source"]]
        held_out = frozenset(document["validation"]["songs"])
        songs = [s for source in sources for s in load_source(source, samplerate, Path(cache))]
        if not self.remix.pairs and (named := sorted({s.source for s in songs if s.pair})):
            raise ValueError(
                f"source {', '.join(named)} has accompaniments in one piece: set pairs = true in [remix], for a model "
                "of vocals and accompaniment, or leave the source out."
            )
        self.train_songs = [s for s in songs if s.name not in held_out]
        self.validation_songs = [s for s in songs if s.name in held_out and s.complete]
        if missing := held_out - {s.name for s in self.validation_songs}:
            raise ValueError(f"validation songs not found in any source: {sorted(missing)}")
        self.weights = {source.name: source.weight for source in sources}
        self.lines, self.seconds = describe(sources, self.train_songs, samplerate), self.remix.seconds
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.remix).items()}
        self.facts = {"remix_config": plain}

    def dataset(self, seed: int) -> RemixDataset:
        """Return the endless stream of true stems ``[S, 2, T]``."""
        return RemixDataset(self.train_songs, self.weights, self.remix, self.samplerate, seed)


def evaluate_stems(
    separate: Callable[[Tensor], Tensor], songs: Sequence[Song], samplerate: int, stems: Sequence[str] = STEMS
) -> dict[str, float]:
    """Score a separation quickly; final figures come from :mod:`models.evaluate`.

    Parameters
    ----------
    separate : callable
        Maps a mixture ``[1, C, T]`` to stems ``[S, C, T]`` of the same length, in time with it, in the order of
        ``stems``.
    songs : sequence of Song
    samplerate : int
        Hz.
    stems : sequence of str
        Names of true stems; ``accompaniment`` is everything but the vocals.

    Returns
    -------
    dict
        ``score``: mean over the stems of ``sdr/<stem>``, which is the median over songs of the median over seconds
        in dB; ``clip_sdr/<stem>``: median over songs of the SDR of the whole song.
    """
    frames, clips = [], []
    for song in songs:
        true = torch.from_numpy(np.stack([song.read(s, 0, song.length) for s in STEMS]))  # [4, C, T]
        target = torch.stack([_true_stem(true, stem) for stem in stems])
        estimate = separate(true.sum(0, keepdim=True)).cpu()
        frames.append(frame_sdr(estimate, target, samplerate))
        clips.append(clip_sdr(estimate, target))
    per_stem = torch.stack(frames).nanmedian(0).values
    whole = torch.stack(clips).nanmedian(0).values
    figures = {f"sdr/{stem}": round(float(v), 3) for stem, v in zip(stems, per_stem, strict=True)}
    figures |= {f"clip_sdr/{stem}": round(float(v), 3) for stem, v in zip(stems, whole, strict=True)}
    return {"score": round(float(per_stem.mean()), 3), **figures}


def _true_stem(true: Tensor, name: str) -> Tensor:
    if name == "accompaniment":
        return true.sum(0) - true[STEMS.index("vocals")]
    return true[STEMS.index(name)]
