"""Training of the streaming Open-Unmix."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models.data.spectra import SpectralDataset
from models.losses import Estimates, band_snr_loss, get_loss, stem_spectra, windowed_snr_loss
from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig
from models.training.mixtures import MixtureData, evaluate_stems

_STATISTICS_SEGMENTS = 60


class OpenUnmixTask:
    """:class:`models.training.task.Task` of the streaming Open-Unmix.

    Of ``[train]`` it uses ``threshold_db`` and ``loss``: ``"bands"`` (the default) works on spectra and is several
    times cheaper, ``"waveform"`` goes through the synthesis, to finish with; or any name of
    :func:`models.losses.list_losses`. What such a loss learns itself (a discriminator) is in ``loss_object``.
    """

    forward_methods = ("band_masks",)

    def __init__(self, document: dict[str, Any], config: Any) -> None:
        self.config = config
        self.data = MixtureData(document, config.samplerate, config.cache)
        self.data_lines, self.sample_seconds, self.facts = self.data.lines, self.data.seconds, self.data.facts
        self.model = StreamingOpenUnmix(StreamingOpenUnmixConfig.from_dict(document.get("model", {})))
        self.model = self.model.to(memory_format=torch.channels_last)
        named = config.loss not in ("", "bands", "waveform")
        self.loss_object = get_loss(config.loss, len(self.model.stems)) if named else None

    @torch.no_grad()
    def prepare(self) -> None:
        """Set the fixed input normalisation from training mixtures."""
        data, hop = self.data.dataset(seed=0), self.model.hop_samples
        rng = np.random.default_rng(0)
        collected = []
        for _ in range(_STATISTICS_SEGMENTS):
            mixture = torch.from_numpy(data.segment(rng)).sum(0, keepdim=True)  # [1, C, T]
            re, im, _, _ = self.model.stft(mixture[..., : mixture.shape[-1] // hop * hop])
            collected.append(self.model.features(re, im)[0])
        features = torch.cat(collected)  # [frames, features]
        self.model.normalise.set_statistics(features.mean(0), features.std(0))

    def dataset(self, seed: int) -> IterableDataset[Any]:
        """Return features and band sums, or true stems for the loss on waveforms."""
        remix = self.data.dataset(seed)
        on_bands = self.config.loss in ("", "bands")
        return SpectralDataset(remix, copy.deepcopy(self.model).cpu()) if on_bands else remix

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss that the config names."""
        if not isinstance(batch, Tensor):
            return self._band_loss(model, *batch)
        return self._waveform_loss(model, batch) if self.loss_object is None else self._named_loss(model, batch)

    def _warm_up_frames(self) -> int:
        """Frames left out of the loss: the analysis window and the state start empty."""
        return self.config.samplerate // 2 // self.model.hop_samples

    def _band_loss(self, model: nn.Module, features: Tensor, a: Tensor, c: Tensor, d: Tensor) -> Tensor:
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            masks, _ = model.band_masks(features)
        skip = self._warm_up_frames()
        window = self.config.samplerate // self.model.hop_samples
        sums = a[..., skip:, :], c[..., skip:, :], d[..., skip:]
        return band_snr_loss(masks[..., skip:, :].float(), *sums, window, self.config.threshold_db)

    def _waveform_loss(self, model: nn.Module, stems: Tensor) -> Tensor:
        hop = self.model.hop_samples
        stems = stems[..., : stems.shape[-1] // hop * hop]  # [B, S, C, T]
        with torch.autocast(stems.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            estimate, _ = model(stems.sum(1))
        skip = self._warm_up_frames() * hop
        estimate = estimate[..., skip + hop :].float()
        target = stems[..., skip : skip + estimate.shape[-1]]
        return windowed_snr_loss(estimate, target, self.config.samplerate, self.config.threshold_db)

    def _named_loss(self, model: nn.Module, stems: Tensor) -> Tensor:
        hop, skip = self.model.hop_samples, self._warm_up_frames()
        stems = stems[..., : stems.shape[-1] // hop * hop]  # [B, S, C, T]
        mixture, targets = stem_spectra(self.model.stft, stems)
        with torch.autocast(stems.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            masks, _ = model.band_masks(self.model.features(mixture.real, mixture.imag))
        spread = self.model.bands.spread(masks[..., skip:, :].float())  # [B, S, C, N, F]
        estimates = Estimates(
            spread, mixture[..., skip:, :], targets[..., skip:, :], stems[..., skip * hop :], self.model.istft
        )
        loss: Tensor = self.loss_object.to(stems.device)(estimates)
        return loss

    def validate(self) -> dict[str, float]:
        """Score the stems of the validation songs."""
        device = next(self.model.parameters()).device

        def separate(mixture: Tensor) -> Tensor:
            hop, length = self.model.hop_samples, mixture.shape[-1]
            padded = nn.functional.pad(mixture.to(device), (0, hop + -length % hop))
            return self.model(padded)[0][0, ..., hop : hop + length]

        return evaluate_stems(separate, self.data.validation_songs, self.config.samplerate, self.model.stems)
