"""The published stages as a causal stream: same shapes, so that upstream weights initialise it.

Every stage of :class:`StreamingStages` has the encoder, spectrogram branch and generated mask network of the reference
form, and the last one its decoder. Against the reference:

* convolutions and normalisations of the mask network are causal, see :mod:`models.metatasnet.mask`;
* encoder and decoder are the reference's, 1.5 strides later: their kernels stay centred on one another, for the
  longest needs that wait anyway;
* the spectrogram's window ends at the end of the hop of 12 latent frames (30 ms, where the reference's hop is 12.8
  frames), falls within a hop, and its levels are held for the hop;
* the logarithm levels off at 1e-3, about 96 dB under a full-scale sine, instead of 1e-8;
* lower rates come from the highest by halving filters (31 taps, linear phase). The other stages wait for them, so that
  the latents of one instant meet: 42 samples at 32 kHz;
* the first stages' decoders, which only their losses need, are left out;
* the mixture is multiplied by a fixed gain instead of divided by its standard deviation over the song, and what the
  stems miss of it is shared out, since nothing else sets the level of a scale-invariant system.

Statistics and receptive field are others than in training, so that upstream weights are a start for training and no
finished model. As in the reference the spectrogram is part of the latents: in silence the stems are not zero, only
their sum is. One channel; stereo is a batch of two. The full three stages take 18 GMAC per second and channel, more
than one thread of a CPU does live; the first alone (8 kHz) takes 2.9. What is made to play live is
:mod:`models.metatasnet.streaming`.

Axes: B batch, I instruments, T samples, N latent frames.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.metatasnet.filterbank import Analysis, Bank, Synthesis
from models.metatasnet.mask import CausalMask, FixedWeights, GeneratedWeights
from models.metatasnet.reference import INSTRUMENTS, MetaTasNet, ReferenceConfig, Stage, StageSizes
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.conv import CausalConv1d
from models.streaming.masks import mixture_consistent
from models.streaming.stft import StreamingSTFT

# Upstream has 1e-8, which is below rounding at its scale: there, implementations of the transform differ.
FLOOR = 1e-3
HOP_FRAMES = 12  # latent frames per hop, and per frame of the spectrogram
HALVING_TAPS = 31
HALVING_DELAY = (HALVING_TAPS // 2 - 1) // 2  # at the lower rate; the newest of two samples is the one that is kept


@dataclass(frozen=True)
class StagesConfig:
    """Sizes of :class:`StreamingStages`.

    Attributes
    ----------
    sizes : ReferenceConfig
        Of the reference form it is like.
    gain : float
        What the mixture is multiplied by: one over the standard deviation of a usual song.
    """

    sizes: ReferenceConfig = dataclasses.field(default_factory=ReferenceConfig)
    gain: float = 8.0

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> StagesConfig:
        """Build from plain JSON/TOML values; unknown keys raise ``TypeError``."""
        sizes = ReferenceConfig(**values.get("sizes", {}))  # type: ignore[arg-type]
        return cls(**{**values, "sizes": sizes})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class Delay(StreamingModule):
    """``[B, 1, T]``, some samples late."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.latency = samples

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"line": (1, self.latency)} if self.latency else {}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Delay whole chunks."""
        state = self.checked_state(state, x.shape[0])
        if not state:
            return x, {}
        line = torch.cat([state["line"], x], dim=-1)
        return line[..., : x.shape[-1]], {"line": line[..., x.shape[-1] :]}


def halving_filter() -> CausalConv1d:
    """Low pass at a quarter of the rate (a sinc in a Hann window) that keeps every second sample; it does not learn."""
    time = torch.arange(HALVING_TAPS).double() - HALVING_TAPS // 2
    taps = torch.sinc(0.46 * time) * torch.cos(math.pi * time / (HALVING_TAPS + 1)) ** 2
    layer = CausalConv1d(1, 1, HALVING_TAPS, stride=2, bias=False)
    layer.conv.weight.requires_grad_(False)
    layer.conv.weight.data.copy_((taps / taps.sum()).float())
    return layer


class SpectrumBranch(StreamingModule):
    """The reference's spectrogram branch with a window that ends now; ``[B, 1, T]`` -> ``[B, N, mels]``."""

    def __init__(self, sizes: StageSizes) -> None:
        super().__init__()
        bins = sizes.n_fft // 2 + 1
        self.stft = StreamingSTFT(sizes.n_fft, HOP_FRAMES * sizes.stride, channels=1)
        # A full-scale sine has magnitude 1 here, and half the sum of a Hann window in the reference.
        self.power_scale = (sizes.n_fft / 4) ** 2
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))
        self.affine_scale, self.affine_bias = nn.Parameter(torch.ones(bins)), nn.Parameter(torch.zeros(bins))
        self.mel_transform = nn.Linear(bins, sizes.mels)

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return one row per latent frame, held for a hop."""
        re, im, _, new = self.stft(audio, substate(state or self.initial_state(audio.shape[0]), "stft"))
        power = (re.square() + im.square()).squeeze(1) * self.power_scale  # [B, hops, F]
        x = (torch.log10(power + FLOOR) - self.mean) / self.std
        x = self.mel_transform(x * self.affine_scale + self.affine_bias)  # [B, hops, mels]
        return x.unsqueeze(2).expand(-1, -1, HOP_FRAMES, -1).flatten(1, 2), prefixed("stft", new)


class StreamingStage(StreamingModule):
    """One stage without its decoder: audio at its rate in, latents of the instruments out."""

    def __init__(self, sizes: StageSizes) -> None:
        super().__init__()
        self.bank = Bank(sizes.kernels, (sizes.encoder_filters,) * len(sizes.kernels), sizes.stride, centred=True)
        self.spectrum = SpectrumBranch(sizes)
        self.filters = Analysis(self.bank, channels=1)
        width = len(sizes.kernels) * sizes.encoder_filters + sizes.mels
        self.bottleneck = nn.Sequential(
            nn.Linear(width, sizes.latents, bias=False), nn.ReLU(), nn.Linear(sizes.latents, sizes.latents, bias=False)
        )
        self.weights: GeneratedWeights | FixedWeights = GeneratedWeights(sizes.mask)
        self.mask = CausalMask(sizes.mask)

    def forward(self, audio: Tensor, previous: Tensor | None, state: State) -> tuple[Tensor, Tensor, State]:
        """Return separated latents ``[B, I, N, latents]``, the audio as late as a decoder's output, and the state.

        Parameters
        ----------
        audio : Tensor
            ``[B, 1, T]``.
        previous : Tensor or None
            Separated latents of the stage before, ``[B, I, N, latents / 2]``.
        """
        x, delayed, new_filters = self.filters(audio, substate(state, "filters"))
        x = x.squeeze(1).unflatten(-1, (len(self.bank.lengths), -1)).transpose(2, 3).flatten(2)  # interleaved
        features, new_spectrum = self.spectrum(audio, substate(state, "spectrum"))
        latents = self.bottleneck(torch.cat([torch.relu(x), features], dim=-1)).unsqueeze(1)  # [B, 1, N, latents]
        if previous is None:
            seen = latents
        else:
            seen = torch.cat([latents.expand(-1, previous.shape[1], -1, -1), previous], dim=-1)
        logits, new_mask = self.mask(seen, self.weights(), substate(state, "mask"))
        new = {
            **prefixed("filters", new_filters),
            **prefixed("spectrum", new_spectrum),
            **prefixed("mask", new_mask),
        }
        return latents * torch.softmax(logits, dim=1), delayed, new

    @torch.no_grad()
    def take(self, stage: Stage) -> None:
        """Copy the weights of a stage of the reference form."""
        for mine, conv in zip(self.filters.kernels, stage.encoder.filters, strict=True):
            mine.copy_(conv.weight.squeeze(1))
        for place in (0, 2):
            self.bottleneck[place].weight.copy_(stage.encoder.bottleneck[place].weight.squeeze(-1))
        theirs = stage.encoder.spectrogram
        for name in ("mean", "std", "affine_scale", "affine_bias"):
            getattr(self.spectrum, name).copy_(getattr(theirs, name).flatten())
        self.spectrum.mel_transform.weight.copy_(theirs.mel_transform.weight.squeeze(-1))
        self.spectrum.mel_transform.bias.copy_(theirs.mel_transform.bias)
        assert isinstance(self.weights, GeneratedWeights)
        self.weights.generator.load_state_dict(stage.mask.state_dict())
        if stage.instrument_embedding is not None:
            assert self.weights.embeddings is not None
            self.weights.embeddings.load_state_dict(stage.instrument_embedding.state_dict())


class StreamingStages(StreamingModule):
    """Mixture hops in at the highest stage's rate, stem hops out.

    Parameters
    ----------
    config : StagesConfig
    """

    stems, channels, residual_stem = INSTRUMENTS, 1, None

    def __init__(self, config: StagesConfig) -> None:
        super().__init__()
        self.config = config
        count = config.sizes.stages
        sizes = [config.sizes.stage(i) for i in range(count)]
        last = sizes[-1]
        self.samplerates = (last.samplerate,)
        self.hop_samples = HOP_FRAMES * last.stride
        self.halvings = nn.ModuleList(halving_filter() for _ in range(count - 1))  # from the highest rate down
        # Stage i has been halved count - 1 - i times. In samples at its rate: what all wait for, less what it waited.
        self.delays = nn.ModuleList(Delay(2 * HALVING_DELAY * (2**stage - 1)) for stage in range(count))
        self.stages = nn.ModuleList(StreamingStage(s) for s in sizes)
        self.decoder = nn.Sequential(nn.Linear(last.latents, sum(last.decoder_filters), bias=False), nn.ReLU())
        self.synthesis = Synthesis(
            Bank(last.kernels, last.decoder_filters, last.stride, centred=True), len(INSTRUMENTS)
        )
        self.latency = self.delays[-1].latency + self.synthesis.latency

    @classmethod
    def from_reference(cls, reference: MetaTasNet, gain: float = StagesConfig.gain) -> StreamingStages:
        """Return a streaming form that starts from the weights of the reference form."""
        model = cls(StagesConfig(reference.config, gain))
        for mine, stage in zip(model.stages, reference.stages, strict=True):
            mine.take(stage)
        decoder = reference.stages[-1].decoder
        with torch.no_grad():
            model.decoder[0].weight.copy_(decoder.bottleneck[0].weight.squeeze(-1).t())
            for mine, conv in zip(model.synthesis.kernels, decoder.filters, strict=True):
                mine.copy_(conv.weight.squeeze(1))
        return model.eval()

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Separate whole hops.

        Parameters
        ----------
        audio : Tensor
            ``[B, 1, T]``, T a multiple of the hop.
        state : dict, optional

        Returns
        -------
        stems : Tensor
            ``[B, I, 1, T]``; their sum is ``audio``, :attr:`latency` samples late.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        new: State = {}
        rates = [audio * self.config.gain]  # the highest first
        for index, halve in enumerate(self.halvings):
            lower, after = halve(rates[-1], substate(state, f"halvings.{index}"))
            rates.append(lower)
            new |= prefixed(f"halvings.{index}", after)
        separated, delayed = None, audio
        for index, (stage, delay) in enumerate(zip(self.stages, self.delays, strict=True)):
            x, after = delay(rates[-1 - index], substate(state, f"delays.{index}"))
            new |= prefixed(f"delays.{index}", after)
            separated, delayed, after = stage(x, separated, substate(state, f"stages.{index}"))
            new |= prefixed(f"stages.{index}", after)
        stems, after = self.synthesis(self.decoder(separated), substate(state, "synthesis"))  # [B, I, T]
        new |= prefixed("synthesis", after)
        return mixture_consistent(stems.unsqueeze(2), delayed) / self.config.gain, new

    def materialise(self) -> StreamingStages:
        """Return a copy with the mask networks' weights themselves in place of their generators."""
        other = StreamingStages(self.config)
        other.load_state_dict(self.state_dict())
        for stage in other.stages:
            stage.weights = FixedWeights(stage.weights())
        return other.train(self.training)
