"""How much of each true stem is left in a mix, and how far the mix is from what it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsep.errors import UsageError

Audio = NDArray[np.float32]
_FFT, _HOP = 4096, 1024
_QUIETEST = 1e-7
"""Bins in which a stem is this far (power) below its own loudest bin say nothing about it."""


@dataclass(frozen=True)
class Attenuation:
    """What `attenuation` found.

    Attributes
    ----------
    db : dict of str to float
        By stem, how much weaker it is than in the input; 0 is untouched, 100 at most.
    """

    db: dict[str, float]


def attenuation(output: Audio, stems: Mapping[str, Audio]) -> Attenuation:
    """Measure how much of each known stem is left in a mix.

    In every frequency bin the short-time spectrum of `output` is regressed (least squares) on the spectra of all stems
    together, over all frames and channels. The complex coefficient ``g_i(f)`` is how much of stem `i` came through;
    what is not explained by any stem (artefacts) counts against none of them. The energy that is left of stem `i` is
    ``sum_f |g_i(f)|^2 E_i(f) / sum_f E_i(f)``, with ``E_i(f)`` its own energy, and the attenuation minus that in dB.

    Parameters
    ----------
    output : array [C, T]
        In time with the stems.
    stems : mapping of str to array [C, T]
        The true stems.

    Returns
    -------
    Attenuation

    Raises
    ------
    UsageError
        Shapes differ, or there are fewer frames than it takes to tell the stems apart.
    """
    names = list(stems)
    for name in names:
        if stems[name].shape != output.shape:
            raise UsageError(f"{name} is {stems[name].shape}, the output is {output.shape}.")
    y = _spectra(output)  # [F, N * C]
    if y.shape[1] < 4 * len(names):
        raise UsageError(
            f"{output.shape[1]} samples are too few to tell {len(names)} stems apart; give a second or more."
        )
    x = np.stack([_spectra(stems[name]) for name in names], axis=1)  # [F, S, N * C]
    energy = np.sum(np.abs(x) ** 2, axis=2)  # [F, S]
    gram = np.einsum("fsn,ftn->fst", x.conj(), x)
    right = np.einsum("fsn,fn->fs", x.conj(), y)
    # A whiff of regularisation: stems that are silent in a bin make the system singular there, and must get 0.
    floor = 1e-9 * energy.max(axis=1, keepdims=True) + 1e-20
    gram += np.eye(len(names)) * floor[:, :, None]
    g = np.linalg.solve(gram, right[:, :, None])[:, :, 0]  # [F, S]
    result = {}
    for i, name in enumerate(names):
        heard = energy[:, i] > _QUIETEST * energy[:, i].max(initial=0.0)
        total = float(energy[heard, i].sum())
        left = float(np.sum(np.abs(g[heard, i]) ** 2 * energy[heard, i]))
        result[name] = min(100.0, -10.0 * np.log10(max(left, 1e-30) / total)) if total > 0 else 0.0
    return Attenuation({name: float(db) for name, db in result.items()})


def sdr(estimate: Audio, truth: Audio) -> float:
    """Plain signal-to-distortion ratio in dB over all channels and samples: ``|truth|^2 / |truth - estimate|^2``."""
    signal = float(np.sum(truth.astype(np.float64) ** 2))
    error = float(np.sum((truth.astype(np.float64) - estimate) ** 2))
    return float(10.0 * np.log10((signal + 1e-20) / (error + 1e-20)))


def _spectra(audio: Audio) -> NDArray[np.complex128]:
    """Short-time spectra ``[F, N * C]``."""
    window = np.hanning(_FFT + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(audio, _FFT, axis=1)[:, ::_HOP]  # [C, N, _FFT]
    spectra = np.fft.rfft(frames * window, axis=2)
    return np.ascontiguousarray(spectra.reshape(-1, spectra.shape[2]).T)
