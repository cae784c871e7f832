"""Training of the band-split system."""

from __future__ import annotations

import ctypes
import sys
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models.bandsplit.config import BandSplitConfig
from models.bandsplit.streaming import StreamingBandSplit
from models.bandsplit.transfer import weights_for
from models.data.readers import STEMS
from models.losses import Estimates, get_loss, stem_spectra, windowed_snr_loss
from models.training.mixtures import MixtureData, evaluate_stems

_WARM_UP_SECONDS = 0.5
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_memory() -> None:
    """Let glibc keep what is freed instead of giving it back to the system and asking for it again at every step.

    Fresh pages have to be cleared: a training step on a CPU was measured 10 to 25 % slower for them. Other systems are
    left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_M_TOP_PAD, 64 << 20)


def chosen_stems(true: Tensor, stems: tuple[str, ...], rest: str) -> Tensor:
    """Return the targets of a model.

    Parameters
    ----------
    true : Tensor
        Drums, bass, other and vocals, ``[B, 4, C, T]``.
    stems : tuple of str
        Of the model.
    rest : str
        Which of them is all that is in none of the others.

    Returns
    -------
    Tensor
        ``[B, S, C, T]``; their sum is that of ``true``.
    """
    picked = {stem: true[:, STEMS.index(stem)] for stem in stems if stem != rest}
    left = [true[:, index] for index, stem in enumerate(STEMS) if stem not in picked]
    picked[rest] = torch.stack(left).sum(0)
    return torch.stack([picked[stem] for stem in stems], dim=1)


class OutputEstimates(Estimates):
    """:class:`models.losses.Estimates` of a model whose waveforms are more than masks on the mixture's frames."""

    output: Tensor

    @cached_property
    def estimate_waveforms(self) -> Tensor:
        """What the model put out ``[B, S, C, (N - 1) hop]``, in time with the targets."""
        return self.output


class BandSplitTask:
    """:class:`models.training.task.Task` of the band-split system.

    Of ``[train]`` it uses ``threshold_db``, ``bfloat16`` and ``loss``: ``"waveform"`` (the default,
    :func:`models.losses.windowed_snr_loss` of what the model puts out), or any name of
    :func:`models.losses.list_losses`. What such a loss learns itself (a discriminator) is in ``loss_object``.
    """

    def __init__(self, document: dict[str, Any], config: Any) -> None:
        self.config = config
        self.data = MixtureData(document, config.samplerate, config.cache)
        self.data_lines, self.sample_seconds, self.facts = self.data.lines, self.data.seconds, self.data.facts
        self.model = StreamingBandSplit(BandSplitConfig.from_dict(document.get("model", {})))
        if self.data.remix.pairs and "accompaniment" not in self.model.stems:
            raise ValueError(
                "[remix] pairs = true is for a model of vocals and accompaniment, "
                f"not of {', '.join(self.model.stems)}."
            )
        named = config.loss not in ("", "waveform")
        self.loss_object = get_loss(config.loss, len(self.model.stems)) if named else None
        if not named and self.sample_seconds < _WARM_UP_SECONDS + 1.1:
            raise ValueError(
                f"[remix] seconds must be at least {_WARM_UP_SECONDS + 1.1:.1f}, got {self.sample_seconds}: the loss "
                f"is taken in windows of a second, after {_WARM_UP_SECONDS} s in which the state fills."
            )
        keep_memory()

    def prepare(self) -> None:
        """Nothing is measured: the features are relative to the frame they are of."""

    def chosen_weights(self, weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
        """Return what of another model's weights this one can start from: see :mod:`models.bandsplit.transfer`."""
        return weights_for(weights, BandSplitConfig.from_dict(config), self.model)

    def dataset(self, seed: int) -> IterableDataset[Any]:
        """Return true stems."""
        return self.data.dataset(seed)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss that the config names, of true stems ``[B, 4, 2, T]``."""
        hop, skip = self.model.hop_samples, self._warm_up_samples()
        true = batch[..., : batch.shape[-1] // hop * hop]
        if self.model.channels == 1:
            true = true.mean(2, keepdim=True)
        with torch.autocast(true.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            output, _ = model(true.sum(1))
        targets = chosen_stems(true, self.model.stems, self.model.config.rest)[..., skip:]  # [B, S, C, T]
        output = output[..., skip + self.model.latency :].float()
        if self.loss_object is None:
            aligned = targets[..., : output.shape[-1]]
            return windowed_snr_loss(output, aligned, self.config.samplerate, self.config.threshold_db)
        return self._named_loss(output, targets)

    def _warm_up_samples(self) -> int:
        """Samples left out of the loss: the analysis window and the state start empty."""
        hop = self.model.hop_samples
        return int(_WARM_UP_SECONDS * self.config.samplerate) // hop * hop

    def _named_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Losses on frames see the frames of what was put out; its end is not known yet."""
        stft, late = self.model.stft, self.model.latency
        mixture, spectra = stem_spectra(stft, targets)
        # Magnitudes relative to the mixture's stand in for the masks: filters and residuals are in them too.
        _, estimated = stem_spectra(stft, nn.functional.pad(output, (0, late)))
        masks = estimated.abs() / mixture.abs().clamp_min(1e-9).unsqueeze(1)
        estimates = OutputEstimates(masks, mixture, spectra, targets, self.model.istft)
        estimates.output = output
        assert self.loss_object is not None
        loss: Tensor = self.loss_object.to(targets.device)(estimates)
        return loss

    def validate(self) -> dict[str, float]:
        """Score the stems of the validation songs."""
        device = next(self.model.parameters()).device

        def separate(mixture: Tensor) -> Tensor:
            hop, late, length = self.model.hop_samples, self.model.latency, mixture.shape[-1]
            if self.model.channels == 1:
                mixture = mixture.mean(1, keepdim=True)
            padded = nn.functional.pad(mixture.to(device), (0, late + -length % hop))
            stems = self.model(padded)[0][0, ..., late : late + length]  # [S, C, T]
            return stems.expand(-1, 2, -1)

        return evaluate_stems(separate, self.data.validation_songs, self.config.samplerate, self.model.stems)
