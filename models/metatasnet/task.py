"""Training of the streaming Meta-TasNet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models.data.readers import STEMS
from models.losses import windowed_snr_loss
from models.metatasnet.losses import LossWeights, meta_tasnet_loss
from models.metatasnet.streaming import MetaTasNetConfig, StreamingMetaTasNet
from models.training.mixtures import MixtureData, evaluate_stems

_STATISTICS_SEGMENTS = 60
_LOSSES = ("snr", "si_sdr")


class MetaTasNetTask:
    """:class:`models.training.task.Task` of the streaming Meta-TasNet.

    Of ``[train]`` it uses ``threshold_db`` and ``loss``: ``"snr"`` (the default) is
    :func:`models.losses.windowed_snr_loss`; ``"si_sdr"`` is the published sum, weighted by the table
    ``[loss_weights]`` (:class:`models.metatasnet.losses.LossWeights`).

    Raises
    ------
    ValueError
        The loss is unknown, or the model does not put out the four instruments.
    """

    forward_methods = ("with_latents",)

    def __init__(self, document: dict[str, Any], config: Any) -> None:
        self.config, self.kind = config, config.loss or "snr"
        if self.kind not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)}, got {self.kind!r}.")
        self.loss_weights = LossWeights(**document.get("loss_weights", {}))
        self.model = StreamingMetaTasNet(MetaTasNetConfig.from_dict(document.get("model", {})))
        if self.model.stems != STEMS or self.model.config.materialised:
            raise ValueError(
                f"a model in training has the stems {STEMS} and its generator, got {self.model.stems}, "
                f"materialised = {self.model.config.materialised}; other views are made afterwards."
            )
        self.data = MixtureData(document, config.samplerate, config.cache)
        self.data_lines, self.sample_seconds, self.facts = self.data.lines, self.data.seconds, self.data.facts

    @torch.no_grad()
    def prepare(self) -> None:
        """Set the fixed input normalisation from training mixtures."""
        data, rng = self.data.dataset(seed=0), np.random.default_rng(0)
        collected = []
        for _ in range(_STATISTICS_SEGMENTS):
            mixture = self._whole_hops(torch.from_numpy(data.segment(rng))).sum(0, keepdim=True)  # [1, C, T]
            collected.append(self.model.features(mixture, self.model.encode(mixture))[0][0])
        features = torch.cat(collected)  # [frames, features]
        self.model.normalise.set_statistics(features.mean(0), features.std(0))

    def dataset(self, seed: int) -> IterableDataset[Any]:
        """Return the endless stream of true stems."""
        return self.data.dataset(seed)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of true stems ``[B, S, C, T]`` against their separated sum."""
        target = self._whole_hops(batch)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            if self.kind == "snr":
                estimate, _ = model(target.sum(1))
            else:
                estimate, reconstruction, latents = model.with_latents(target)
        # The spectrogram and the states start empty: half a second is left out.
        skip, late = self.config.samplerate // 2, self.model.latency
        estimate = estimate[..., skip + late :].float()
        target = target[..., skip : skip + estimate.shape[-1]]
        if self.kind == "snr":
            return windowed_snr_loss(estimate, target, self.config.samplerate, self.config.threshold_db)
        reconstruction = reconstruction[..., skip + late :].float()
        return meta_tasnet_loss(estimate, target, reconstruction, latents.float(), self.loss_weights)

    def validate(self) -> dict[str, float]:
        """Score the stems of the validation songs."""
        device = next(self.model.parameters()).device

        def separate(mixture: Tensor) -> Tensor:
            hop, late, length = self.model.hop_samples, self.model.latency, mixture.shape[-1]
            padded = nn.functional.pad(mixture.to(device), (0, late + -(late + length) % hop))
            return self.model(padded)[0][0, ..., late : late + length]

        return evaluate_stems(separate, self.data.validation_songs, self.config.samplerate)

    def _whole_hops(self, audio: Tensor) -> Tensor:
        """Leave out the samples at the end that fill no hop."""
        return audio[..., : audio.shape[-1] // self.model.hop_samples * self.model.hop_samples]
