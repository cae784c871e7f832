"""Separation of whole songs with the reference form, as upstream evaluates it."""

from __future__ import annotations

import itertools

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from models.metatasnet.reference import INSTRUMENTS, MetaTasNet

SILENT = 1e-7  # a channel whose standard deviation is below this is not normalised


@torch.no_grad()
def separate(
    model: MetaTasNet,
    audio: NDArray[np.float32],
    samplerate: int,
    *,
    least_squares: bool = True,
    chunk_seconds: float = 30.0,
    overlap_seconds: float = 8.0,
) -> NDArray[np.float32]:
    """Separate a song: every channel by itself, at every stage's rate, divided by its standard deviation.

    Parameters
    ----------
    model : MetaTasNet
        In evaluation mode.
    audio : ndarray
        ``[C, T]``.
    samplerate : int
        Of ``audio`` in Hz; the stems come back at the same rate.
    least_squares : bool
        Scale the four stems of a channel so that their sum fits the mixture best over the song, as upstream does:
        a scale-invariant loss leaves their level free. Without it they keep the network's own scale, times the
        standard deviation that was divided by.
    chunk_seconds, overlap_seconds : float
        The song goes through in chunks of this length, each with this much more on either side. Normalisations
        take their statistics per chunk. Upstream cuts every song into eight, with 8 s of overlap.

    Returns
    -------
    ndarray
        ``[S, C, T]`` in the order drums, bass, other, vocals.

    Raises
    ------
    ValueError
        Another shape, no samples, or values that are not finite.

    Notes
    -----
    Upstream resamples with librosa's kaiser_best, here it is soxr's HQ. Upstream leaves samples at the end out that
    fill no latent frame; here the end is padded with zeros and cut off again.
    """
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise ValueError(f"audio must be [C, T] with T of 1 or more, got {list(audio.shape)}.")
    if not np.isfinite(audio).all():
        raise ValueError("audio must be finite, got NaN or infinity; was the file read as the right format?")
    stems = np.stack([_separate_channel(model, x, samplerate, chunk_seconds, overlap_seconds) for x in audio], axis=1)
    if least_squares:
        for channel in range(len(audio)):
            stems[:, channel] *= fit_to_mixture(stems[:, channel], audio[channel])[:, None]
    return stems


def fit_to_mixture(stems: NDArray[np.float32], mixture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the gains ``[S]`` that bring the sum of the stems ``[S, T]`` closest to the mixture ``[T]``."""
    gains = np.linalg.lstsq(stems.T.astype(np.float64), mixture.astype(np.float64), rcond=None)[0]
    return gains.astype(np.float32)


def _separate_channel(
    model: MetaTasNet, audio: NDArray[np.float32], samplerate: int, chunk_seconds: float, overlap_seconds: float
) -> NDArray[np.float32]:
    """Separate ``[T]`` into ``[S, T]``."""
    config = model.config
    base_rate, stride = config.samplerate, config.stride
    low = soxr.resample(audio, samplerate, base_rate, quality="HQ")
    # Whole latent frames, and enough of them for the spectrogram's reflection at the ends.
    shortest = 1024 * (base_rate // 8000)
    frames = -(-max(len(low), shortest) // stride)
    scales = [1] + [2**i for i in range(1, config.stages)]
    inputs, deviations = [], []
    for scale in scales:
        x = low if scale == 1 else soxr.resample(audio, samplerate, base_rate * scale, quality="HQ")
        fitted = np.zeros(frames * stride * scale, np.float32)
        count = min(len(x), len(fitted))
        fitted[:count] = x[:count]
        deviation = float(fitted.std(ddof=1))
        deviations.append(deviation if deviation > SILENT else 1.0)
        inputs.append(torch.from_numpy(fitted / deviations[-1]))

    chunk = max(1, round(chunk_seconds * base_rate / stride))  # latent frames
    overlap = round(overlap_seconds * base_rate / stride)
    count = max(1, round(frames / chunk))
    edges = [round(i * frames / count) for i in range(count + 1)]
    pieces = []
    for start, stop in itertools.pairwise(edges):
        first, last = max(0, start - overlap), min(frames, stop + overlap)
        step = [stride * scale for scale in scales]
        cut = [x[None, None, first * s : last * s] for x, s in zip(inputs, step, strict=True)]
        stems = model(cut)[-1][0, :, 0]  # [I, T of the chunk]
        pieces.append(stems[:, (start - first) * step[-1] : (stop - first) * step[-1]])
    joined = torch.cat(pieces, dim=-1).numpy() * np.float32(deviations[-1])  # [I, T at the highest rate]

    result = np.zeros((len(INSTRUMENTS), len(audio)), np.float32)
    back = soxr.resample(joined.T, base_rate * scales[-1], samplerate, quality="HQ").T
    count = min(len(audio), back.shape[1])
    result[:, :count] = back[:, :count]
    return result
