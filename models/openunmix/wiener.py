"""Multichannel Wiener filtering of magnitude estimates, offline and recursive.

Each source is a local Gaussian model: at frequency f and frame n its C channels have covariance
``v[n, f] * R[f]``, with a power ``v`` that changes every frame and a spatial covariance ``R`` that does not.
Expectation-maximisation alternates between estimating ``v`` and ``R`` from the sources and re-estimating the
sources with the Wiener filter that those two imply.

:func:`wiener` is what Open-Unmix applies to windows of some 300 frames: offline only, because ``R`` and the
scaling are taken over the whole window. :class:`RecursiveWiener` is the causal counterpart for streams: the
two sums behind ``R`` become exponentially forgetting ones over the frames heard so far.

Sources: Duong, Vincent, Gribonval, "Under-determined reverberant audio source separation using a full-rank
spatial covariance model", IEEE TASLP 18(7), 2010, sec. III; Nugraha, Liutkus, Vincent, "Multichannel audio
source separation with deep neural networks", IEEE TASLP 24(9), 2016, alg. 1. The details that make
:func:`wiener` equal to Open-Unmix v1.3.0 (initialisation, scaling by the window's peak, where epsilon stands)
are that project's.

Axes: B batch, S stems, C channels, F bins, N frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.streaming.base import State, StreamingModule

EPSILON = 1e-10
PEAK = 10.0  # a window louder than this is scaled down to it before filtering


def wiener(
    mixture: Tensor,
    magnitudes: Tensor,
    *,
    iterations: int = 1,
    softmask: bool = False,
    residual: bool = False,
    epsilon: float = EPSILON,
) -> Tensor:
    """Filter one window of a mixture with the magnitudes estimated for its sources.

    Parameters
    ----------
    mixture : Tensor
        Complex bins ``[B, C, F, N]``, C 1 or 2. The N frames are one window.
    magnitudes : Tensor
        Linear, 0 or more, ``[B, S, C, F, N]`` or ``[B, S, 1, F, N]``.
    iterations : int
        Of expectation-maximisation, 0 or more; 0 returns the initial estimate.
    softmask : bool
        Start from ``x * v_j / (epsilon + sum v)`` instead of ``v_j * exp(i angle(x))``.
    residual : bool
        Append a source with what the initial estimates leave of the mixture.
    epsilon : float
        Above 0: added to the denominators, its square root to the diagonal of the mixture's covariance.

    Returns
    -------
    Tensor
        Complex bins ``[B, S, C, F, N]``, one source more with ``residual``; dtype of ``mixture``.

    Raises
    ------
    ValueError
        A shape, dtype or value is outside the above.

    Notes
    -----
    Double precision inside: the determinant of a 2 x 2 mixture covariance is the difference of two nearly
    equal products wherever one source dominates, and single precision leaves little of it.
    """
    _check(mixture, magnitudes, iterations, epsilon)
    x = mixture.to(torch.complex128)
    v = magnitudes.to(torch.float64)
    if softmask:
        y = x[:, None] * (v / (epsilon + v.sum(dim=1, keepdim=True)))  # [B, S, C, F, N]
    else:
        phase = x.angle()[:, None]  # [B, 1, C, F, N]
        y = torch.complex(v * phase.cos(), v * phase.sin())  # [B, S, C, F, N]
    if residual:
        y = torch.cat([y, x[:, None] - y.sum(dim=1, keepdim=True)], dim=1)  # [B, S + 1, C, F, N]
    if iterations:
        scale = (x.abs().amax(dim=(1, 2, 3), keepdim=True) / PEAK).clamp(min=1.0)  # [B, 1, 1, 1]
        y = expectation_maximisation(y / scale[:, None], x / scale, iterations=iterations, epsilon=epsilon)
        y = y * scale[:, None]
    return y.to(mixture.dtype)


def _check(mixture: Tensor, magnitudes: Tensor, iterations: int, epsilon: float) -> None:
    if mixture.ndim != 4 or not mixture.is_complex() or mixture.shape[1] not in (1, 2):
        raise ValueError(
            f"mixture must be complex [B, C, F, N] with C 1 or 2, got {mixture.dtype} {tuple(mixture.shape)}."
        )
    batch, channels, bins, frames = mixture.shape
    allowed = {(batch, count, bins, frames) for count in (1, channels)}
    if magnitudes.ndim != 5 or (magnitudes.shape[0], *magnitudes.shape[2:]) not in allowed:
        raise ValueError(
            f"magnitudes for this mixture must be [{batch}, S, 1 or {channels}, {bins}, {frames}], "
            f"got {tuple(magnitudes.shape)}."
        )
    if magnitudes.is_complex():
        raise ValueError("magnitudes must be real, got complex values; pass their absolute values.")
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, got {iterations}.")
    if epsilon <= 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}.")


def expectation_maximisation(y: Tensor, x: Tensor, *, iterations: int = 1, epsilon: float = EPSILON) -> Tensor:
    """Refine estimates of sources under the local Gaussian model.

    Parameters
    ----------
    y : Tensor
        Complex initial estimates ``[B, S, C, F, N]``.
    x : Tensor
        Complex mixture ``[B, C, F, N]``, C 1 or 2.
    iterations, epsilon
        As in :func:`wiener`.

    Returns
    -------
    Tensor
        Complex refined estimates ``[B, S, C, F, N]``.
    """
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, :, None, None]  # [C, C, 1, 1]
    for _ in range(iterations):
        power = y.abs().square().mean(dim=2)  # [B, S, F, N]
        spatial = torch.einsum("bscfn,bsdfn->bscdf", y, y.conj())  # [B, S, C, C, F]
        spatial = spatial / (epsilon + power.sum(dim=-1))[:, :, None, None]
        covariance = torch.einsum("bsfn,bscdf->bcdfn", power.to(x.dtype), spatial)  # [B, C, C, F, N]
        whitened = _solve(covariance + epsilon**0.5 * identity, x)  # [B, C, F, N]
        y = power[:, :, None] * torch.einsum("bscdf,bdfn->bscfn", spatial, whitened)  # [B, S, C, F, N]
    return y


def _solve(covariance: Tensor, x: Tensor) -> Tensor:
    """Return ``covariance^-1 x`` of ``[B, C, C, F, N]`` and ``[B, C, F, N]``, written out for C 1 and 2."""
    if x.shape[1] == 1:
        return x / covariance[:, 0]
    (a, b), (c, d) = covariance[:, 0].unbind(1), covariance[:, 1].unbind(1)  # each [B, F, N]
    left, right = x.unbind(1)  # each [B, F, N]
    return torch.stack([d * left - b * right, a * right - c * left], dim=1) / (a * d - b * c)[:, None]


class RecursiveWiener(StreamingModule):
    """Stereo Wiener filter whose spatial covariances follow the stream; frame-synchronous, latency 0.

    Per frame, with ``y_j`` the masked estimates, ``v_j`` their mean power over channels and
    ``l = 1 - 1 / memory_frames``::

        num_j <- l num_j + y_j y_j^H          den_j <- l den_j + v_j          R_j = num_j / den_j
        share_j = v_j / sum_i v_i             A = sum_j share_j R_j + regularisation * I
        y_j <- share_j R_j A^-1 x

    Only the present and past frames enter. Against :func:`wiener`: ``R`` forgets instead of spanning a
    window; nothing is scaled by a window's peak, because dividing by the total power makes the filter
    independent of level (single precision suffices then, and silence gives exact silence).
    Real arithmetic throughout, so that it exports. The stems add up to the mixture only up to
    ``regularisation``; apply :func:`~models.streaming.masks.mixture_consistent` after it.

    Parameters
    ----------
    stems, bins : int
        S and F.
    memory_frames : float
        Time constant of the forgetting, in frames, above 1; ``math.inf`` never forgets. 300 is the window
        of the offline filter.
    regularisation : float
        Added to the diagonal of a matrix whose trace is 2; above 0.
    """

    floor = 1e-20  # power below which a bin counts as silent
    negligible = 1e-30  # what the covariance forgets altogether

    def __init__(self, stems: int, bins: int, memory_frames: float = 300.0, regularisation: float = 1e-4) -> None:
        super().__init__()
        if not memory_frames > 1:
            raise ValueError(f"memory_frames must be above 1, got {memory_frames}.")
        if not regularisation > 0:
            raise ValueError(f"regularisation must be above 0, got {regularisation}.")
        self.stems, self.bins = stems, bins
        self.forget, self.regularisation = 1.0 - 1.0 / memory_frames, regularisation

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        # num is Hermitian 2 x 2: left and right power, real and imaginary part of left times conj(right).
        # den is half of num's trace and needs no state of its own.
        return {"covariance": (self.stems, 4, self.bins)}

    def forward(
        self, stem_re: Tensor, stem_im: Tensor, re: Tensor, im: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Filter the mixture with the stems' estimates.

        Parameters
        ----------
        stem_re, stem_im : Tensor
            Masked bins of the stems ``[B, S, 2, N, F]``.
        re, im : Tensor
            Bins of the mixture ``[B, 2, N, F]``.

        Returns
        -------
        stem_re, stem_im : Tensor
            Filtered bins ``[B, S, 2, N, F]``.
        state : dict

        Raises
        ------
        ValueError
            The shapes are others.
        """
        batch, _, frames, _ = re.shape
        if re.shape[1] != 2 or stem_re.shape != (batch, self.stems, 2, frames, self.bins):
            raise ValueError(
                f"stems must be [B, {self.stems}, 2, N, {self.bins}] and the mixture [B, 2, N, {self.bins}], "
                f"got {tuple(stem_re.shape)} and {tuple(re.shape)}."
            )
        state = self.checked_state(state, batch)
        (lr, rr), (li, ri) = stem_re.unbind(2), stem_im.unbind(2)  # each [B, S, N, F]
        now = torch.stack([lr * lr + li * li, rr * rr + ri * ri, lr * rr + li * ri, li * rr - lr * ri], dim=2)
        covariance, history = state["covariance"], []  # [B, S, 4, F]
        for frame in now.unbind(3):
            covariance = self.forget * covariance + frame
            # A long silence would otherwise end in denormal numbers, which a CPU computes slowly.
            covariance = covariance * (covariance.abs() > self.negligible)
            history.append(covariance)
        spatial = torch.stack(history, dim=3)  # [B, S, 4, N, F]
        spatial = spatial / (0.5 * (spatial[:, :, :1] + spatial[:, :, 1:2]) + self.floor)

        power = 0.5 * (now[:, :, 0] + now[:, :, 1])  # [B, S, N, F]
        share = (power / (power.sum(dim=1, keepdim=True) + self.floor)).unsqueeze(2)  # [B, S, 1, N, F]
        a, d, cross_re, cross_im = (share * spatial).sum(dim=1).unbind(1)  # each [B, N, F]
        a, d = a + self.regularisation, d + self.regularisation
        inverse = 1.0 / (a * d - cross_re.square() - cross_im.square())  # [B, N, F]
        (xl, xr), (yl, yr) = re.unbind(1), im.unbind(1)  # real and imaginary, left and right, [B, N, F]
        # A^-1 x with A = [[a, c], [conj(c), d]]
        left_re = (d * xl - cross_re * xr + cross_im * yr) * inverse
        left_im = (d * yl - cross_re * yr - cross_im * xr) * inverse
        right_re = (a * xr - cross_re * xl - cross_im * yl) * inverse
        right_im = (a * yr - cross_re * yl + cross_im * xl) * inverse

        gain = (share * spatial).unbind(2)  # four of [B, S, N, F]
        wl_re, wl_im, wr_re, wr_im = (w.unsqueeze(1) for w in (left_re, left_im, right_re, right_im))
        left = gain[0] * wl_re + gain[2] * wr_re - gain[3] * wr_im  # [B, S, N, F]
        right = gain[1] * wr_re + gain[2] * wl_re + gain[3] * wl_im
        out_re = torch.stack([left, right], dim=2)  # [B, S, 2, N, F]
        left = gain[0] * wl_im + gain[2] * wr_im + gain[3] * wr_re
        right = gain[1] * wr_im + gain[2] * wl_im - gain[3] * wl_re
        out_im = torch.stack([left, right], dim=2)  # [B, S, 2, N, F]
        return out_re, out_im, {"covariance": covariance}
