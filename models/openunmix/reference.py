"""Reference (offline) form of Open-Unmix: what the upstream checkpoints were trained as.

One class covers the three forms that differ only in their normalisation and in their last layer:

========= ============================ ============================== =================================
variant   normalisation                last layer                     output of one head
========= ============================ ============================== =================================
``v1``    fixed input mean and scale,  ``fc3``, ``bn3``               ReLU mask times the mixture
          batch normalisation                                         magnitude
``heads`` as ``v1``                    ``fc3_1``..``fc3_S``,          as ``v1``, one mask per target
                                       ``bn3_1``..``bn3_S``
``early`` instance normalisation over  ``fc3``                        ReLU magnitude, no mask, no skip
          the whole clip                                              around the LSTM
========= ============================ ============================== =================================

Parameter names and shapes are those of the published state dictionaries, so that `loader` can be strict.
None of this is causal (bidirectional LSTM, statistics and filtering over the clip, centred frames): the
streaming system is `models.openunmix.streaming`; this is what it is measured against.

Sources: F.-R. Stoeter, S. Uhlich, A. Liutkus, Y. Mitsufuji, "Open-Unmix - A Reference Implementation for
Music Source Separation", JOSS 4(41), 2019; E. Guso, J. Pons, S. Pascual, J. Serra, "On loss functions and
evaluation metrics for music source separation", ICASSP 2022 (the form with four heads). Both MIT.

Axes: B batch, S stems, C channels, T samples, F bins, N frames, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.openunmix.wiener import wiener

Variant = Literal["v1", "early", "heads"]
VARIANTS: tuple[Variant, ...] = ("v1", "early", "heads")
DROPOUT = 0.4


@dataclass(frozen=True)
class ReferenceConfig:
    """Shape of one reference network; every field but the rates can be read from its weights.

    Parameters
    ----------
    variant : str
        ``"v1"``, ``"early"`` or ``"heads"`` (see the module's table).
    channels : int
        Channels of the magnitude the network sees, 1 or 2.
    n_fft, hop : int
        Window length and step in samples; ``n_fft`` is even and gives ``n_fft // 2 + 1`` output bins.
    samplerate : int
        Hz.
    max_bin : int
        Input bins kept from 0 Hz upwards, 1 to ``n_fft // 2 + 1``; see :func:`bandwidth_to_max_bin`.
    hidden : int
        Units after ``fc1``. The LSTM has ``hidden`` units, or ``hidden // 2`` per direction.
    layers : int
        Of the LSTM, 1 or more.
    unidirectional : bool
        The LSTM sees the past only.
    heads : int
        Targets one network estimates; 1 unless ``variant`` is ``"heads"``.

    Raises
    ------
    ValueError
        A field is outside the ranges above.
    """

    variant: Variant = "v1"
    channels: int = 2
    n_fft: int = 4096
    hop: int = 1024
    samplerate: int = 44100
    max_bin: int = 1487
    hidden: int = 512
    layers: int = 3
    unidirectional: bool = False
    heads: int = 1

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}.")
        if self.n_fft < 2 or self.n_fft % 2:
            raise ValueError(f"n_fft must be an even number of samples, 2 or more, got {self.n_fft}.")
        for field in ("hop", "samplerate", "hidden", "layers", "heads"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be 1 or more, got {getattr(self, field)}.")
        if self.channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, got {self.channels}.")
        if not 1 <= self.max_bin <= self.bins:
            raise ValueError(f"max_bin must be 1 to {self.bins} with n_fft {self.n_fft}, got {self.max_bin}.")
        if self.hidden % 2 and not self.unidirectional:
            raise ValueError(f"hidden must be even for a bidirectional LSTM, got {self.hidden}.")
        if self.heads > 1 and self.variant != "heads":
            raise ValueError(f"heads must be 1 with variant {self.variant!r}, got {self.heads}.")

    @property
    def bins(self) -> int:
        """Output bins F, 0 Hz to half the sample rate."""
        return self.n_fft // 2 + 1

    @property
    def lstm_hidden(self) -> int:
        """LSTM units per direction."""
        return self.hidden if self.unidirectional else self.hidden // 2


def bandwidth_to_max_bin(samplerate: int, n_fft: int, bandwidth_hz: float, *, early: bool = False) -> int:
    """Return the number of input bins for a bandwidth, as upstream counts them.

    Parameters
    ----------
    samplerate : int
        Hz.
    n_fft : int
        Samples.
    bandwidth_hz : float
        Highest frequency kept, 0 or more.
    early : bool
        The 2019 code took the index of the last bin in the band, v1 that index plus one: 16 kHz at 44.1 kHz
        with 4096 samples is 1486 bins in the former and 1487 in the latter.
    """
    if bandwidth_hz < 0:
        raise ValueError(f"bandwidth_hz must be 0 or more, got {bandwidth_hz}.")
    last = min(int(bandwidth_hz * n_fft / samplerate), n_fft // 2)
    return last if early else last + 1


class OpenUnmix(nn.Module):
    """One Open-Unmix network: mixture magnitudes in, target magnitudes out.

    Parameters
    ----------
    config : ReferenceConfig

    Notes
    -----
    ``fc1`` reads index ``channel * max_bin + bin`` and ``fc3`` writes index ``channel * bins + bin``.
    ``input_mean`` holds *minus* the mean and ``input_scale`` *one over* the standard deviation, because they
    are added and multiplied; :meth:`set_input_statistics` takes the plain figures.
    """

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width_out = config.hidden, config.channels * config.bins
        early = config.variant == "early"
        if not early:
            self.input_mean = nn.Parameter(torch.zeros(config.max_bin))
            self.input_scale = nn.Parameter(torch.ones(config.max_bin))
        self.output_scale = nn.Parameter(torch.ones(config.bins))
        self.output_mean = nn.Parameter(torch.ones(config.bins))
        self.fc1 = nn.Linear(config.channels * config.max_bin, hidden, bias=False)
        self.lstm = nn.LSTM(
            hidden,
            config.lstm_hidden,
            num_layers=config.layers,
            bidirectional=not config.unidirectional,
            dropout=0.0 if early or config.layers == 1 else DROPOUT,
        )
        lstm_width = config.lstm_hidden * (1 if config.unidirectional else 2)
        self.fc2 = nn.Linear(lstm_width if early else lstm_width + hidden, hidden, bias=False)
        if not early:
            self.bn1 = nn.BatchNorm1d(hidden)
            self.bn2 = nn.BatchNorm1d(hidden)
        # Plain attributes rather than a ModuleList: the state dictionary's names are part of the format.
        for suffix in self._head_suffixes():
            self.add_module(f"fc3{suffix}", nn.Linear(hidden, width_out, bias=False))
            if not early:
                self.add_module(f"bn3{suffix}", nn.BatchNorm1d(width_out))

    def _head_suffixes(self) -> tuple[str, ...]:
        if self.config.variant != "heads":
            return ("",)
        return tuple(f"_{head + 1}" for head in range(self.config.heads))

    @torch.no_grad()
    def set_input_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Write the training data's statistics into the input normalisation.

        Parameters
        ----------
        mean, std : Tensor
            Of the linear magnitude per bin, ``[F]`` with ``max_bin`` bins or more; ``std`` above 0.

        Raises
        ------
        ValueError
            The variant is early (it has none), there are too few bins, or a ``std`` is not positive.
        """
        if self.config.variant == "early":
            raise ValueError("variant 'early' normalises by the clip itself and holds no input statistics.")
        kept = self.config.max_bin
        for name, values in (("mean", mean), ("std", std)):
            if values.ndim != 1 or values.shape[0] < kept:
                raise ValueError(f"{name} must be [{kept} bins or more], got {tuple(values.shape)}.")
        if not bool((std[:kept] > 0).all()):
            raise ValueError(f"std must be above 0 in every bin, got {float(std[:kept].min()):g}.")
        self.input_mean.copy_(-mean[:kept])
        self.input_scale.copy_(1.0 / std[:kept])

    def masks(self, magnitude: Tensor) -> Tensor:
        """Return one mask per target (early variant: one magnitude), each 0 or more.

        Parameters
        ----------
        magnitude : Tensor
            Of the mixture, linear, ``[B, C, F, N]`` with F = ``n_fft // 2 + 1``.

        Returns
        -------
        Tensor
            ``[B, S, C, F, N]``; S is the number of heads.

        Raises
        ------
        ValueError
            The channels or bins are not the network's.
        """
        config = self.config
        if magnitude.ndim != 4 or magnitude.shape[1:3] != (config.channels, config.bins):
            raise ValueError(
                f"magnitude must be [B, {config.channels}, {config.bins}, N] for this network, "
                f"got {tuple(magnitude.shape)}; ReferenceSeparator has the front end."
            )
        early = config.variant == "early"
        x = magnitude[:, :, : config.max_bin].permute(3, 0, 1, 2)  # [N, B, C, max_bin]
        if not early:
            x = (x + self.input_mean) * self.input_scale
        x = x.flatten(2)  # [N, B, C * max_bin], channel-major
        if early:
            x = _clip_norm(x)
        x = torch.tanh(self._norm("bn1", self.fc1(x)))  # [N, B, H]
        recurrent, _ = self.lstm(x)  # [N, B, H]
        x = recurrent if early else torch.cat([x, recurrent], dim=-1)  # [N, B, H or 2H]
        x = functional.relu(self._norm("bn2", self.fc2(x)))  # [N, B, H]

        heads = []
        for suffix in self._head_suffixes():
            y = self._norm(f"bn3{suffix}", self.get_submodule(f"fc3{suffix}")(x))  # [N, B, C * F]
            y = y.unflatten(-1, (config.channels, config.bins))  # [N, B, C, F]
            heads.append(functional.relu(y * self.output_scale + self.output_mean))
        return torch.stack(heads).permute(2, 0, 3, 4, 1)  # [S, N, B, C, F] -> [B, S, C, F, N]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Normalise ``[N, B, H]`` by the named batch norm, or by the clip in the early variant."""
        if self.config.variant == "early":
            return _clip_norm(x)
        return self.get_submodule(name)(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # [N * B, H] -> [N, B, H]

    def forward(self, magnitude: Tensor) -> Tensor:
        """Estimate the targets' magnitudes.

        Parameters
        ----------
        magnitude : Tensor
            Of the mixture, linear, ``[B, C, F, N]``.

        Returns
        -------
        Tensor
            ``[B, S, C, F, N]``, 0 or more: mask times mixture, or the early variant's regression.
        """
        masks = self.masks(magnitude)
        return masks if self.config.variant == "early" else masks * magnitude[:, None]


def _clip_norm(x: Tensor) -> Tensor:
    """Give every item and unit of ``[N, B, H]`` zero mean and unit variance over the frames."""
    # In evaluation too: upstream's InstanceNorm1d keeps no running statistics.
    return functional.instance_norm(x.permute(1, 2, 0)).permute(2, 0, 1)  # [B, H, N] inside


class ReferenceSeparator(nn.Module):
    """Mixture in, stems out, for a whole clip: frames, networks, multichannel Wiener filter, synthesis.

    Parameters
    ----------
    networks : mapping of str to OpenUnmix, or tuple of OpenUnmix and target names
        One network per target; or one network with several heads and the names of its heads. All networks
        share channels, ``n_fft``, ``hop`` and ``samplerate``.
    iterations : int
        Of expectation-maximisation in the filter, 0 or more; 0 keeps the initial estimate.
    wiener_frames : int or None
        Frames per filter window; None is one window over the clip. Upstream separates with 300 and
        evaluated with one window.
    softmask : bool
        Start from the ratio mask instead of the magnitude with the mixture's phase.
    residual : str or None
        Name of an extra stem with what the targets leave over.
    alpha : float
        Exponent of the networks' magnitudes before filtering; 1 everywhere but in the early ``separate()``,
        which had 2.

    Raises
    ------
    ValueError
        The networks do not fit together, or one target is to be filtered without a residual.
    """

    def __init__(
        self,
        networks: Mapping[str, OpenUnmix] | tuple[OpenUnmix, Sequence[str]],
        *,
        iterations: int = 1,
        wiener_frames: int | None = 300,
        softmask: bool = False,
        residual: str | None = None,
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        modules, targets = _modules_and_targets(networks)
        if iterations < 0:
            raise ValueError(f"iterations must be 0 or more, got {iterations}.")
        if wiener_frames is not None and wiener_frames < 1:
            raise ValueError(f"wiener_frames must be 1 or more, or None for the clip, got {wiener_frames}.")
        if residual in targets:
            raise ValueError(f"residual must not be a target's name ({', '.join(targets)}), got {residual!r}.")
        if iterations and len(targets) == 1 and residual is None:
            raise ValueError(
                f"iterations must be 0 for the single target {targets[0]!r} without a residual, got "
                f"{iterations}; name a residual stem, e.g. residual='accompaniment'."
            )
        self.networks = nn.ModuleList(modules)
        self.targets = targets
        self.stems = targets if residual is None else (*targets, residual)
        self.iterations, self.wiener_frames = iterations, wiener_frames
        self.softmask, self.residual, self.alpha = softmask, residual, alpha
        self.config: ReferenceConfig = modules[0].config
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(self.config.n_fft), persistent=False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """Separate whole clips.

        Parameters
        ----------
        audio : Tensor
            ``[B, C, T]`` at ``config.samplerate``, T above ``n_fft // 2``. C is the networks' channels;
            networks that see one channel take 1 or 2 and filter both with the same magnitudes.

        Returns
        -------
        Tensor
            ``[B, S, C, T]``, in the order of ``stems``.

        Raises
        ------
        ValueError
            Another shape, or too short a clip.
        """
        config = self.config
        allowed = (1, 2) if config.channels == 1 else (config.channels,)
        if audio.ndim != 3 or audio.shape[1] not in allowed:
            raise ValueError(f"audio must be [B, C, T] with C in {allowed}, got {tuple(audio.shape)}.")
        if audio.shape[-1] <= config.n_fft // 2:
            raise ValueError(f"T must be above n_fft / 2 = {config.n_fft // 2}, got {audio.shape[-1]}.")
        mixture = self.analyse(audio)  # [B, C, F, N]
        magnitude = _network_magnitude(mixture, config)  # [B, C or 1, F, N]
        # [B, S, C or 1, F, N]
        estimates = torch.cat([network(magnitude) for network in self.networks], dim=1)
        if self.alpha != 1.0:
            estimates = estimates**self.alpha

        frames = mixture.shape[-1]
        step = self.wiener_frames or frames
        stems = torch.cat(
            [
                wiener(
                    mixture[..., start : start + step],
                    estimates[..., start : start + step],
                    iterations=self.iterations,
                    softmask=self.softmask,
                    residual=self.residual is not None,
                )
                for start in range(0, frames, step)
            ],
            dim=-1,
        )  # [B, S, C, F, N]
        return self.synthesise(stems, audio.shape[-1])

    def analyse(self, audio: Tensor) -> Tensor:
        """Transform ``[B, C, T]`` to complex bins ``[B, C, F, N]``: centred, reflected, Hann."""
        frames = torch.stft(
            audio.flatten(0, -2),
            self.config.n_fft,
            self.config.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return frames.unflatten(0, audio.shape[:-1])  # [B * C, F, N] -> [B, C, F, N]

    def synthesise(self, stems: Tensor, samples: int) -> Tensor:
        """Invert :meth:`analyse`: complex bins ``[B, S, C, F, N]`` to ``[B, S, C, samples]``."""
        audio = torch.istft(
            stems.flatten(0, -3),
            self.config.n_fft,
            self.config.hop,
            window=self.window,
            center=True,
            length=samples,
        )
        return audio.unflatten(0, stems.shape[:-2])  # [B * S * C, T] -> [B, S, C, T]


def _modules_and_targets(
    networks: Mapping[str, OpenUnmix] | tuple[OpenUnmix, Sequence[str]],
) -> tuple[list[OpenUnmix], tuple[str, ...]]:
    """Return the networks in order and the names of their heads, after checking that they fit together."""
    if isinstance(networks, Mapping):
        modules, targets = list(networks.values()), tuple(networks)
        if not modules:
            raise ValueError("networks must hold one target or more, got none.")
    else:
        modules, targets = [networks[0]], tuple(networks[1])
    heads = sum(module.config.heads for module in modules)
    if heads != len(targets) or len(set(targets)) != heads:
        raise ValueError(
            f"targets must be {heads} different names, one per head, got {targets}; "
            "a network with several heads is passed as (network, targets)."
        )
    front_ends = {(m.config.channels, m.config.n_fft, m.config.hop, m.config.samplerate) for m in modules}
    if len(front_ends) > 1:
        raise ValueError(f"(channels, n_fft, hop, samplerate) must be equal in all networks, got {sorted(front_ends)}.")
    return modules, targets


def _network_magnitude(mixture: Tensor, config: ReferenceConfig) -> Tensor:
    """Return magnitudes as the network was trained on them: ``[B, C, F, N]`` to ``[B, C or 1, F, N]``."""
    magnitude = mixture.abs()
    if config.channels > 1 or mixture.shape[1] == 1:
        return magnitude
    if config.variant == "early":
        # The 2019 code sums the channels' powers; v1 averages their magnitudes.
        return magnitude.square().sum(dim=1, keepdim=True).sqrt()
    return magnitude.mean(dim=1, keepdim=True)
