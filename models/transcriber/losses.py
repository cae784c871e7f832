"""Losses of transcribers: each position of the dial against the targets, as late as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from models.transcriber.model import LARGEST_BEND


@dataclass(frozen=True)
class LossWeights:
    """The table ``[losses]`` of a training file.

    Attributes
    ----------
    onset, frame, velocity, pitch : float
        Weights of the losses.
    onset_positive, frame_positive : float
        How much more a target counts than its absence: notes are rare.
    focus : float
        Exponent by which what is already right counts less (Lin et al., ICCV 2017); 0 for plain cross-entropy.
    """

    onset: float = 1.0
    frame: float = 0.5
    velocity: float = 0.5
    pitch: float = 1.0
    onset_positive: float = 3.0
    frame_positive: float = 1.5
    focus: float = 1.0


def event_loss(logits: Tensor, target: Tensor, weight: Tensor, positive: float, focus: float) -> Tensor:
    """Weighted, focused cross-entropy with soft targets, summed over P, mean over frames; shapes ``[B, N, P]``."""
    loss = binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=torch.tensor(positive, device=logits.device)
    )
    if focus:
        loss = loss * (torch.sigmoid(logits.detach()) - target).abs() ** focus
    return (loss * weight).sum(-1).mean()


def dial_losses(
    logits: Tensor, batch: Mapping[str, Tensor], lookahead: Sequence[int], lowest_midi: int, weights: LossWeights
) -> dict[str, Tensor]:
    """Losses by name, mean over the positions of the dial.

    Parameters
    ----------
    logits : Tensor
        ``[B, D, outputs, N, P]``; step n of position d speaks of frame ``n - lookahead[d]``.
    batch : mapping
        ``onset``, ``frame``, ``velocity``, ``weight`` ``[B, N, P]``, ``pitch`` ``[B, N]``.
    lookahead : sequence of int
        Frames.
    lowest_midi : int
        Of P, for the bend.
    weights : LossWeights
    """
    losses = {name: logits.new_zeros(()) for name in ("onset", "frame", "velocity", "pitch")}
    frames, share = logits.shape[3], 1.0 / len(lookahead)
    for d, late in enumerate(lookahead):
        said = logits[:, d, :, late:]  # [B, outputs, N - late, P]
        truth = {name: batch[name][:, : frames - late] for name in ("onset", "frame", "velocity", "weight", "pitch")}
        known = truth["weight"]
        losses["onset"] += share * event_loss(said[:, 0], truth["onset"], known, weights.onset_positive, weights.focus)
        losses["frame"] += share * event_loss(said[:, 1], truth["frame"], known, weights.frame_positive, weights.focus)
        struck = truth["onset"] * (truth["velocity"] > 0) * known
        error = (torch.sigmoid(said[:, 2]) - truth["velocity"]).square()
        losses["velocity"] += share * (error * struck).sum() / struck.sum().clamp_min(1.0)
        if said.shape[1] > 3:
            losses["pitch"] += share * _pitch_loss(said[:, 3], truth, lowest_midi)
    return {name: getattr(weights, name) * value for name, value in losses.items()}


def _pitch_loss(bend: Tensor, truth: Mapping[str, Tensor], lowest_midi: int) -> Tensor:
    """Mean error in semitones where a note sounds whose momentary pitch is known and near it."""
    sounding, which = truth["frame"].max(-1)  # [B, N]
    wanted = truth["pitch"] - lowest_midi - which
    counts = (sounding > 0) & (truth["pitch"] > 0) & (wanted.abs() < LARGEST_BEND)
    counts = counts & (truth["weight"].amin(-1) > 0)
    got = LARGEST_BEND * torch.tanh(bend.gather(-1, which.unsqueeze(-1)).squeeze(-1))
    error = smooth_l1_loss(got, wanted, reduction="none", beta=0.1)
    return (error * counts).sum() / counts.sum().clamp_min(1)
