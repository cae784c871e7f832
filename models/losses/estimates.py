"""What the losses look at: masks, spectra and waveforms of one batch, each computed when a loss asks for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.streaming.stft import StreamingISTFT, StreamingSTFT

HEADS = ("relu", "softmax", "sigmoid")


def apply_head(head: str, z: Tensor) -> tuple[Tensor, Tensor | None]:
    """Turn the last layer's outputs into masks.

    With outputs of zero every head gives masks of ``1 / S``, so that models that differ in the head alone start from
    the same estimates.

    Parameters
    ----------
    head : str
        ``"relu"``: unbounded masks; ``"softmax"``: masks that add to one over the stems; ``"sigmoid"``: one by one.
    z : Tensor
        ``[B, S, ...]``.

    Returns
    -------
    masks : Tensor
        Like ``z``.
    logits : Tensor or None
        What :class:`Estimates` wants as logits; None for ``"relu"``, whose outputs are no logits.

    Raises
    ------
    ValueError
        There is no such head.
    """
    stems = z.shape[1]
    if head == "relu":
        return torch.relu(z + 1 / stems), None
    if head == "softmax":
        return torch.softmax(z, dim=1), z
    if head == "sigmoid":
        logits = z - math.log(stems - 1)
        return torch.sigmoid(logits), logits
    raise ValueError(f"there is no head {head!r}; there are {', '.join(HEADS)}.")


def stem_spectra(stft: StreamingSTFT, stems: Tensor) -> tuple[Tensor, Tensor]:
    """Transform true stems.

    Parameters
    ----------
    stft : StreamingSTFT
        Of the model that is trained.
    stems : Tensor
        ``[B, S, C, T]``, T a multiple of the hop.

    Returns
    -------
    mixture : Tensor
        Complex ``[B, C, N, F]``, the sum of the stems' spectra.
    targets : Tensor
        Complex ``[B, S, C, N, F]``.
    """
    # Item by item was measured twice as fast on a CPU as all at once: less memory is asked of the system.
    targets = torch.stack([torch.complex(*stft(item)[:2]) for item in stems])
    return targets.sum(1), targets


@dataclass
class Estimates:
    """Estimates and truth of a batch.

    Parameters
    ----------
    masks : Tensor
        Real ``[B, S, C, N, F]``; the only part that carries gradients.
    mixture, targets : Tensor
        Complex spectra ``[B, C, N, F]`` and ``[B, S, C, N, F]``.
    waveforms : Tensor, optional
        True stems ``[B, S, C, N hop]`` over the same hops; losses in the time domain need them.
    istft : StreamingISTFT, optional
        Causal synthesis of ``S C`` streams; losses in the time domain need it.
    logits : Tensor, optional
        Before the softmax or the sigmoid that made the masks; the cross-entropies are more exact with them.

    Raises
    ------
    ValueError
        Shapes do not fit each other, or the spectra are not complex.
    """

    masks: Tensor
    mixture: Tensor
    targets: Tensor
    waveforms: Tensor | None = None
    istft: StreamingISTFT | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.masks.shape)
        wanted = {"targets": shape, "mixture": (shape[0], *shape[2:])}
        if self.logits is not None:
            wanted["logits"] = shape
        for name, expected in wanted.items():
            got = tuple(getattr(self, name).shape)
            if got != expected:
                raise ValueError(f"{name} must be {list(expected)} to fit masks {list(shape)}, got {list(got)}.")
        if not (self.mixture.is_complex() and self.targets.is_complex()):
            raise ValueError(
                f"mixture and targets must be complex spectra, got {self.mixture.dtype} and {self.targets.dtype}; "
                "see stem_spectra."
            )

    @cached_property
    def mixture_magnitude(self) -> Tensor:
        """``|X|``, ``[B, 1, C, N, F]``."""
        return self.mixture.abs().unsqueeze(1)

    @cached_property
    def target_magnitudes(self) -> Tensor:
        """``|Y|``, ``[B, S, C, N, F]``."""
        return self.targets.abs()

    @cached_property
    def estimate_magnitudes(self) -> Tensor:
        """``M |X|``, ``[B, S, C, N, F]``."""
        return self.masks * self.mixture_magnitude

    @cached_property
    def phase_sensitive_targets(self) -> Tensor:
        """``|Y| cos(angle X - angle Y)``, ``[B, S, C, N, F]``: the part of Y in phase with the mixture."""
        unit = self.mixture / self.mixture.abs().clamp_min(1e-12)
        return (self.targets * unit.conj().unsqueeze(1)).real

    @cached_property
    def target_waveforms(self) -> Tensor:
        """True stems ``[B, S, C, (N - 1) hop]``, as far as whole estimates of them exist."""
        waveforms, istft = self._synthesis()
        return waveforms[..., : -istft.hop_samples]

    @cached_property
    def estimate_waveforms(self) -> Tensor:
        """Estimates with the mixture's phase through the causal iSTFT ``[B, S, C, (N - 1) hop]``.

        The synthesis is one hop late, and the first hop that comes out lacks the overlap of the frame before:
        it is left out, which also puts estimates and targets in time.
        """
        waveforms, istft = self._synthesis()
        spectra = (self.masks * self.mixture.unsqueeze(1)).flatten(1, 2)  # [B, S C, N, F]
        audio, _ = istft(spectra.real, spectra.imag)
        return audio[..., istft.hop_samples :].unflatten(1, waveforms.shape[1:3])

    def _synthesis(self) -> tuple[Tensor, StreamingISTFT]:
        if self.waveforms is None or self.istft is None:
            raise ValueError("a loss in the time domain needs waveforms and istft; give both to Estimates.")
        samples = self.masks.shape[3] * self.istft.hop_samples
        wanted = (*self.masks.shape[:3], samples)
        if tuple(self.waveforms.shape) != wanted:
            raise ValueError(
                f"waveforms must be {list(wanted)} to fit {self.masks.shape[3]} frames of "
                f"{self.istft.hop_samples} samples, got {list(self.waveforms.shape)}."
            )
        return self.waveforms, self.istft
