"""Reference (offline) form of Meta-TasNet: what the upstream checkpoints were trained as.

Three Conv-TasNets, at 8, 16 and 32 kHz, whose strides grow with the rate, so that all have 400 latent frames per
second; each hands its separated latents to the next one's mask network. Parameter names and shapes are those of the
published state dictionaries, so that :mod:`models.metatasnet.loader` can be strict.

None of this is causal (normalisation over the clip, centred frames and kernels): what streams is
:mod:`models.metatasnet.streaming` and, with these very shapes, :mod:`models.metatasnet.stages`.

Source: D. Samuel, A. Ganeshan, J. Naradowsky, "Meta-learning extractors for music source separation", ICASSP 2020,
and its code (pfnet-research/meta-tasnet, MIT).

Axes: B batch, I instruments, C channels, T samples, F bins, N frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.metatasnet.generator import MaskGenerator, MaskSizes, Normalisation

INSTRUMENTS = ("drums", "bass", "other", "vocals")
EPSILON = 1e-8
FLOOR = 1e-8  # added to the power before the logarithm of the spectrogram


@dataclass(frozen=True)
class ReferenceConfig:
    """Sizes of the reference form; the defaults are the published model's.

    Attributes
    ----------
    stages : int
        Stage i runs at ``samplerate * 2**i`` with ``latents * 2**i`` latents.
    samplerate : int
        Of the first stage, Hz; a multiple of 8000.
    latents, kernel, stride : int
        Of the first stage: latent channels, samples of the shortest kernel, samples per latent frame.
    filters : int
        Parallel kernels, each twice as long as the one before.
    mels : int
        Channels of the spectrogram branch.
    width, hidden, layers, stacks, taps : int
        Of the mask network, see :class:`models.metatasnet.generator.MaskSizes`.
    embedding : int
    rank : int or None
        None: independent weights per instrument.
    """

    stages: int = 3
    samplerate: int = 8000
    latents: int = 440
    kernel: int = 20
    stride: int = 20
    filters: int = 3
    mels: int = 256
    width: int = 160
    hidden: int = 160
    layers: int = 6
    stacks: int = 3
    taps: int = 3
    embedding: int = 8
    rank: int | None = 5

    def stage(self, index: int) -> StageSizes:
        """Sizes of one stage."""
        scale = 2**index
        latents = scale * self.latents
        return StageSizes(
            samplerate=scale * self.samplerate,
            stride=scale * self.stride,
            kernels=tuple(scale * self.kernel * 2**i for i in range(self.filters)),
            latents=latents,
            mels=self.mels,
            mask=MaskSizes(
                inputs=latents + (latents // 2 if index else 0),
                outputs=latents,
                width=self.width,
                hidden=self.hidden,
                layers=self.layers,
                stacks=self.stacks,
                kernel=self.taps,
                embedding=self.embedding,
                rank=self.rank,
            ),
        )

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class StageSizes:
    """Sizes of one stage, see :class:`ReferenceConfig`; the mask network's are in ``mask``."""

    samplerate: int
    stride: int
    kernels: tuple[int, ...]
    latents: int
    mels: int
    mask: MaskSizes

    @property
    def n_fft(self) -> int:
        """Window of the spectrogram in samples: 128 ms."""
        return 1024 * (self.samplerate // 8000)

    @property
    def encoder_filters(self) -> int:
        """Channels of each encoder kernel."""
        return self.latents // 4

    @property
    def decoder_filters(self) -> tuple[int, ...]:
        """Channels of the decoder kernels, the shortest first."""
        return tuple(self.latents // 2 ** (i + 1) for i in range(len(self.kernels)))


class Spectrogram(nn.Module):
    """Log power, fixed and then learnt normalisation per bin, and a learnt matrix from bins to channels."""

    def __init__(self, sizes: StageSizes) -> None:
        super().__init__()
        self.n_fft, self.hop = sizes.n_fft, sizes.n_fft // 4
        bins = self.n_fft // 2 + 1
        # Parameters that do not learn, because that is what they are upstream, and counted as.
        self.window = nn.Parameter(torch.hann_window(self.n_fft), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(1, bins, 1), requires_grad=False)
        self.std = nn.Parameter(torch.ones(1, bins, 1), requires_grad=False)
        self.affine_bias = nn.Parameter(torch.zeros(1, bins, 1))
        self.affine_scale = nn.Parameter(torch.ones(1, bins, 1))
        self.mel_transform = nn.Conv1d(bins, sizes.mels, 1)

    def log_power(self, audio: Tensor) -> Tensor:
        """Log10 of the power, ``[B, T]`` -> ``[B, F, N]``."""
        frames = torch.stft(
            audio, self.n_fft, self.hop, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )
        return torch.log10(frames.real.square() + frames.imag.square() + FLOOR)

    def forward(self, audio: Tensor, frames: int) -> Tensor:
        """Map ``[B, 1, T]`` to ``[B, mels, frames]``, interpolated in time."""
        x = (self.log_power(audio.squeeze(1)) - self.mean) / self.std  # [B, F, N]
        x = self.mel_transform(x * self.affine_scale + self.affine_bias)  # [B, mels, N]
        return functional.interpolate(x, size=frames, mode="linear", align_corners=True)


class Encoder(nn.Module):
    """Parallel kernels of several lengths and the spectrogram, mixed into latents by two 1x1 convolutions."""

    def __init__(self, sizes: StageSizes) -> None:
        super().__init__()
        self.stride = sizes.stride
        self.spectrogram = Spectrogram(sizes)
        self.filters = nn.ModuleList(
            nn.Conv1d(1, sizes.encoder_filters, k, sizes.stride, padding=(k - sizes.stride) // 2, bias=False)
            for k in sizes.kernels
        )
        width = len(sizes.kernels) * sizes.encoder_filters + sizes.mels
        self.bottleneck = nn.Sequential(
            nn.Conv1d(width, sizes.latents, 1, bias=False),
            nn.ReLU(),
            nn.Conv1d(sizes.latents, sizes.latents, 1, bias=False),
        )

    def forward(self, audio: Tensor) -> Tensor:
        """Map ``[B, 1, T]`` to latents ``[B, latents, T / stride]``."""
        # Interleaved: channel 0 of every kernel, channel 1 of every kernel, ...
        x = torch.stack([conv(audio) for conv in self.filters], dim=2).flatten(1, 2)  # [B, filters * kernels, N]
        features = self.spectrogram(audio, x.shape[-1])
        latents: Tensor = self.bottleneck(torch.cat([functional.relu(x), features], dim=1))
        return latents


class Decoder(nn.Module):
    """A rectified 1x1 convolution, and overlap-add of kernels of several lengths."""

    def __init__(self, sizes: StageSizes) -> None:
        super().__init__()
        self.widths = sizes.decoder_filters
        self.bottleneck = nn.Sequential(nn.ConvTranspose1d(sizes.latents, sum(self.widths), 1, bias=False), nn.ReLU())
        self.filters = nn.ModuleList(
            nn.ConvTranspose1d(width, 1, k, sizes.stride, padding=(k - sizes.stride) // 2, bias=False)
            for width, k in zip(self.widths, sizes.kernels, strict=True)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents ``[B, latents, N]`` to audio ``[B, 1, N * stride]``."""
        parts = self.bottleneck(latents).split(self.widths, dim=1)
        return torch.stack([conv(part) for conv, part in zip(self.filters, parts, strict=True)]).sum(0)


class MaskNetwork(MaskGenerator):
    """The mask network with its normalisations over all time."""

    def forward(self, embeddings: Tensor | None, x: Tensor) -> Tensor:
        """Return masks that add to one over the instruments.

        Parameters
        ----------
        embeddings : Tensor or None
            ``[I, E]``; None with independent weights.
        x : Tensor
            ``[B, I, inputs, N]``.

        Returns
        -------
        Tensor
            ``[B, I, outputs, N]``.
        """

        def conv(layer: nn.Module, x: Tensor, dilation: int = 1, groups: int = 1) -> Tensor:
            kernels = layer.weights(embeddings)  # type: ignore[operator]  # [I, outputs, inputs / groups, kernel]
            padding = dilation * (kernels.shape[-1] - 1) // 2
            y = functional.conv1d(
                x.flatten(1, 2),  # [B, I inputs, N]
                kernels.flatten(0, 1),
                padding=padding,
                dilation=dilation,
                groups=len(kernels) * groups,
            )
            return y.unflatten(1, (len(kernels), -1))

        def norm(layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, Normalisation)
            scale, bias = layer.weights(embeddings)  # [I, C]
            groups = len(scale) * self.sizes.groups
            y = functional.group_norm(x.flatten(1, 2), groups, scale.flatten(), bias.flatten(), EPSILON)
            return y.unflatten(1, scale.shape)

        x = norm(self.norm_2, self.prelu_2(conv(self.in_conv, norm(self.norm_1, self.prelu_1(x)))))
        skips = torch.zeros_like(x)
        for layer, dilation in zip(self.tcn, self.sizes.dilations, strict=True):
            y = norm(layer.norm_1, layer.prelu_1(conv(layer.conv1d, x)))
            y = norm(layer.norm_2, layer.prelu_2(conv(layer.dconv1d, y, dilation, self.sizes.hidden)))
            x = x + conv(layer.res_out, y)
            skips = skips + conv(layer.skip_out, y)
        logits = norm(self.norm_4, self.prelu_4(conv(self.mask_output, norm(self.norm_3, self.prelu_3(skips)))))
        return torch.softmax(logits, dim=1)


class Stage(nn.Module):
    """One Conv-TasNet: encoder, mask network, decoder.

    Parameters
    ----------
    sizes : StageSizes
    """

    def __init__(self, sizes: StageSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder, self.decoder = Encoder(sizes), Decoder(sizes)
        self.mask = MaskNetwork(sizes.mask)
        generated = sizes.mask.rank is not None
        self.instrument_embedding = nn.Embedding(len(INSTRUMENTS), sizes.mask.embedding) if generated else None

    def forward(self, audio: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Separate at this stage's rate.

        Parameters
        ----------
        audio : Tensor
            ``[B, 1, T]``, T a multiple of the stride and above half the spectrogram's window.
        previous : Tensor, optional
            Separated latents of the stage before, ``[B, I, latents / 2, N]``.

        Returns
        -------
        stems : Tensor
            ``[B, I, 1, T]``, of any scale.
        separated : Tensor
            Latents of the stems ``[B, I, latents, N]``.
        latents : Tensor
            Latents of the mixture ``[B, latents, N]``.

        Raises
        ------
        ValueError
            T is not a multiple of the stride.
        """
        if audio.shape[-1] % self.sizes.stride:
            raise ValueError(f"T must be a multiple of the stride {self.sizes.stride}, got {audio.shape[-1]}.")
        latents = self.encoder(audio)  # [B, latents, N]
        mixture = latents.unsqueeze(1).expand(-1, len(INSTRUMENTS), -1, -1)  # [B, I, latents, N]
        x = mixture if previous is None else torch.cat([mixture, previous], dim=2)
        embeddings = None if self.instrument_embedding is None else self.instrument_embedding.weight
        separated = mixture * self.mask(embeddings, x)
        stems = self.decoder(separated.flatten(0, 1)).unflatten(0, separated.shape[:2])  # [B, I, 1, T]
        return stems, separated, latents


class MetaTasNet(nn.Module):
    """All stages; for whole clips see :func:`models.metatasnet.offline.separate`.

    Parameters
    ----------
    config : ReferenceConfig
    """

    def __init__(self, config: ReferenceConfig | None = None) -> None:
        super().__init__()
        self.config = config or ReferenceConfig()
        self.stages = nn.ModuleList(Stage(self.config.stage(i)) for i in range(self.config.stages))

    def forward(self, audio: Sequence[Tensor]) -> list[Tensor]:
        """Separate a clip given at every stage's rate.

        Parameters
        ----------
        audio : sequence of Tensor
            Per stage ``[B, 1, T * 2**stage]``.

        Returns
        -------
        list of Tensor
            Per stage ``[B, I, 1, T * 2**stage]``, of any scale; the last one is the result.

        Raises
        ------
        ValueError
            Another number of stages, or lengths that do not double.
        """
        lengths = [x.shape[-1] for x in audio]
        if lengths != [lengths[0] * 2**i for i in range(len(self.stages))]:
            raise ValueError(
                f"audio must be given {len(self.stages)} times, each twice as long as the one before, got {lengths}."
            )
        outputs, separated = [], None
        for stage, x in zip(self.stages, audio, strict=True):
            stems, separated, _ = stage(x, separated)
            outputs.append(stems)
        return outputs
