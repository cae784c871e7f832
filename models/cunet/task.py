"""Training of the streaming Conditioned U-Net: random conditions, and what they select as the target."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import IterableDataset, get_worker_info

from models.cunet.film import CONDITIONS
from models.cunet.streaming import LABELS, CUNetConfig, StreamingCUNet
from models.data.remix import RemixDataset
from models.data.spectra import SpectralDataset
from models.losses import band_snr_loss
from models.training.mixtures import MixtureData, evaluate_stems

_STATISTICS_SEGMENTS = 60


@dataclass(frozen=True)
class ConditionConfig:
    """The table ``[conditions]`` of a training file; shares are relative to each other.

    Attributes
    ----------
    per_segment : int
        Conditions that every segment is separated with.
    company : int
        Further ones per segment that only the control network sees, for its batch normalisation.
    one_hot : float
        One instrument.
    multi_hot : float
        Two or three instruments; karaoke is three.
    progressive : float
        Every fader anywhere between 0 and 1: condition and target are scaled alike.
    zero : float
        None at all. Nothing to learn for ``mask = "range"``, where it is silence by construction.
    """

    per_segment: int = 2
    company: int = 8
    one_hot: float = 0.55
    multi_hot: float = 0.2
    progressive: float = 0.25
    zero: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.one_hot, self.multi_hot, self.progressive, self.zero)
        if min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"conditions: shares must be 0 or more and not all 0, got {shares}.")
        if self.per_segment < 1 or self.company < 0:
            raise ValueError(
                f"conditions: per_segment must be 1 or more and company 0 or more, got {self.per_segment} "
                f"and {self.company}."
            )

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Return random conditions ``[count, 4]``."""
        shares = np.array([self.one_hot, self.multi_hot, self.progressive, self.zero])
        rows = np.zeros((count, CONDITIONS), np.float32)
        for row, kind in zip(rows, rng.choice(4, size=count, p=shares / shares.sum()), strict=True):
            if kind == 2:
                row[:] = rng.random(CONDITIONS)
            elif kind < 2:
                on = 1 if kind == 0 else rng.integers(2, CONDITIONS)
                row[rng.permutation(CONDITIONS)[:on]] = 1.0
        return rows


class ConditionedSpectra(SpectralDataset):
    """Features of remixed segments, and what conditions select of them as sums per band.

    Yields ``(features [N, views * bands], a [C, N, bands], c [K, C, N, bands], d [K, N], conditions [K + M, 4])``: with
    the target ``T = sum_i condition_i S_i`` of each of the first K conditions, ``a = sum |X|^2``, ``c = sum Re(X* T)``,
    ``d = sum |T|^2``; see :func:`models.losses.band_snr_loss`.

    Parameters
    ----------
    remix : RemixDataset
    model : StreamingCUNet
        Gives window, hop, bands and the definition of the features; its weights are not used.
    conditions : ConditionConfig
    """

    def __init__(self, remix: RemixDataset, model: StreamingCUNet, conditions: ConditionConfig) -> None:
        super().__init__(remix, model)  # type: ignore[arg-type]
        self.channels, self.conditions = model.channels, conditions

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        rng = np.random.default_rng((self.remix.seed, worker.id if worker else 0, 1))
        for stems in self.remix:
            drawn = self.conditions.draw(rng, self.conditions.per_segment + self.conditions.company)
            yield self.select(stems.numpy(), torch.from_numpy(drawn))

    @torch.no_grad()
    def select(self, stems: NDArray[np.float32], conditions: Tensor) -> tuple[Tensor, ...]:
        """Transform true stems ``[S, 2, T]``; see the class for what comes out."""
        if self.channels == 1:
            stems = stems.mean(axis=1, keepdims=True)
        used = conditions[: self.conditions.per_segment]
        mixture, a, c, d = [], [], [], torch.zeros(len(used), stems.shape[2] // self.hop)
        for channel in range(self.channels):
            parts = [self._spectrum(stem[channel]) for stem in stems]  # S x [N, F, 2]
            x = torch.stack(parts).sum(0)
            mixture.append(x)
            a.append(self._power(x))
            per_condition = []
            for row, condition in enumerate(used.tolist()):
                target = torch.zeros_like(x)
                for share, part in zip(condition, parts, strict=True):
                    if share:
                        target.add_(part, alpha=share)
                per_condition.append(self.bands.total((x * target).sum(-1)))
                d[row] += target[:, :-1].square().sum(dim=(1, 2))  # the Nyquist bin belongs to no band
            c.append(torch.stack(per_condition))
        views = list(a)
        if self.channels == 2:
            views += [self._power(0.5 * (mixture[0] + mixture[1])), self._power(0.5 * (mixture[0] - mixture[1]))]
        return self.compress(torch.stack(views, dim=-2)), torch.stack(a), torch.stack(c, 1), d, conditions


class CUNetTask:
    """:class:`models.training.task.Task` of the streaming Conditioned U-Net.

    Of ``[train]`` it uses ``threshold_db``: errors this far below the mixture stop to matter. ``[conditions]`` is
    :class:`ConditionConfig`.
    """

    forward_methods = ("band_masks",)

    def __init__(self, document: dict[str, Any], config: Any) -> None:
        self.config = config
        self.conditions = ConditionConfig(**document.get("conditions", {}))
        self.data = MixtureData(document, config.samplerate, config.cache)
        self.data_lines, self.sample_seconds = self.data.lines, self.data.seconds
        self.facts = {**self.data.facts, "condition_config": dataclasses.asdict(self.conditions)}
        self.model = StreamingCUNet(CUNetConfig.from_dict(document.get("model", {})))
        self.model = self.model.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def prepare(self) -> None:
        """Set the fixed normalisation of logarithmic features from training mixtures."""
        if self.model.config.features != "log":
            return
        data, hop = self.data.dataset(seed=0), self.model.hop_samples
        rng = np.random.default_rng(0)
        collected = []
        for _ in range(_STATISTICS_SEGMENTS):
            mixture = _as_channels(torch.from_numpy(data.segment(rng)).sum(0, keepdim=True), self.model.channels)
            re, im, _, _ = self.model.stft(mixture[..., : mixture.shape[-1] // hop * hop])
            collected.append(self.model.features(re, im)[0])
        features = torch.cat(collected)  # [frames, features]
        self.model.normalise.set_statistics(features.mean(0), features.std(0))

    def dataset(self, seed: int) -> IterableDataset[Any]:
        """Return features, band sums and conditions."""
        return ConditionedSpectra(self.data.dataset(seed), copy.deepcopy(self.model).cpu(), self.conditions)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the thresholded SNR loss in dB of what the conditions select."""
        features, a, c, d, conditions = batch
        count = c.shape[1]
        used, company = conditions.split([count, conditions.shape[1] - count], dim=1)
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            masks, _ = model.band_masks(
                features.repeat_interleave(count, 0), used.reshape(-1, 1, CONDITIONS), None, company.flatten(0, 1)
            )  # [B K, C, N, bands]
        masks = masks.unflatten(0, (-1, count)).float()  # [B, K, C, N, bands]
        skip = self.config.samplerate // 2 // self.model.hop_samples  # the window and the state start empty
        window = self.config.samplerate // self.model.hop_samples
        sums = a[..., skip:, :], c[..., skip:, :], d[..., skip:]
        return band_snr_loss(masks[..., skip:, :], *sums, window, self.config.threshold_db)

    def validate(self) -> dict[str, float]:
        """Score the four instruments of the validation songs, one fader up at a time."""
        device = next(self.model.parameters()).device
        hop = self.model.hop_samples

        def separate(mixture: Tensor) -> Tensor:
            length = mixture.shape[-1]
            padded = nn.functional.pad(mixture.to(device), (0, hop + -length % hop))
            audio = _as_channels(padded, self.model.channels).expand(CONDITIONS, -1, -1)
            stems, _ = self.model(audio, None, {"condition": torch.eye(CONDITIONS, device=device)})
            return stems[:, 0, :, hop : hop + length].expand(-1, mixture.shape[1], -1)  # [S, C, T]

        return evaluate_stems(separate, self.data.validation_songs, self.config.samplerate, LABELS)


def _as_channels(audio: Tensor, channels: int) -> Tensor:
    """Stereo ``[B, 2, T]`` as the model takes it: unchanged, or the mean of both for a mono model."""
    return audio if channels == audio.shape[1] else audio.mean(1, keepdim=True)
