"""Meta-TasNet as a causal, streaming model at 44.1 and 48 kHz, in stereo.

From Meta-TasNet (Samuel et al., ICASSP 2020) it keeps: learnt analysis and synthesis by kernels of several lengths, a
spectrogram beside them, one temporal convolutional mask network per instrument whose weights a generator makes from
the instrument's embedding, and the softmax over the instruments. What differs, and why:

* one stage at the full rate instead of 8, 16 and 32 kHz: no resamplers, no cut-off, and a thirtieth of the work (the
  published model takes 36 GMAC per second of stereo);
* both channels in one pass: the kernels are shared by the channels, the mask network sees both and gives each masks of
  its own. Upstream runs left and right as two songs;
* kernels of 512 and 1024 samples at a stride of 256: the latency is 768 samples, plus 256 to fill a hop. A third
  length of 256, one stride, was measured with ideal masks and added nothing, and it costs the reconstruction;
* the latents that are masked come from the kernels alone, without rectifier and without bias: silence in is exact
  silence out, and stems whose masks add to one add to the mixture. The spectrogram and the levels of the latents go to
  the mask network only;
* the spectrogram has a long window that ends at the present sample, and bands instead of bins at high frequencies;
* causal convolutions and normalisation per frame, see :mod:`models.metatasnet.mask`;
* what rounding and the synthesis miss of the mixture is shared out, so that stems add to it exactly.

Axes: B batch, I instruments, S stems, C channels, T samples, N latent frames, D latents per channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.metatasnet.filterbank import Analysis, Bank, Synthesis, cosine_frame
from models.metatasnet.generator import MaskSizes
from models.metatasnet.mask import CausalMask, FixedWeights, GeneratedWeights, fold
from models.metatasnet.reference import INSTRUMENTS
from models.streaming.bands import DoublingBands
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.masks import mixture_consistent
from models.streaming.norm import InputNormalisation
from models.streaming.stft import StreamingSTFT


@dataclass(frozen=True)
class MetaTasNetConfig:
    """Sizes of a :class:`StreamingMetaTasNet`.

    Attributes
    ----------
    stride, hop : int
        Samples per latent frame and per step; ``hop`` is a multiple of ``stride``.
    kernels, latents : tuple of int
        Lengths in samples and how many of each, see :class:`models.metatasnet.filterbank.Bank`.
    window : int
        Samples of the spectrogram's window; one frame per hop.
    edges : tuple of int
        Its band edges in bins, see :class:`models.streaming.bands.DoublingBands`.
    bottleneck : int
        Features that the instruments' mask networks share.
    width, hidden, layers, stacks, taps, groups, embedding, rank
        Of the mask networks, see :class:`models.metatasnet.generator.MaskSizes`. ``taps`` is its ``kernel``.
    channels : int
        Audio channels, 1 or 2.
    instruments : tuple of str
        One embedding each; the softmax goes over all of them.
    stems : tuple of str
        What comes out: the instruments; or some of them and, last, a name for what they leave over.
    samplerates : tuple of int
        Rates (Hz) it runs at without a resampler; training must have covered their ratio.
    materialised : bool
        The mask networks' weights are stored themselves, without a generator.

    Raises
    ------
    ValueError
        The hop is no multiple of the stride, or the stems are not as above.
    """

    stride: int = 256
    hop: int = 256
    kernels: tuple[int, ...] = (512, 1024)
    latents: tuple[int, ...] = (256, 128)
    window: int = 4096
    edges: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    bottleneck: int = 256
    width: int = 80
    hidden: int = 80
    layers: int = 6
    stacks: int = 2
    taps: int = 3
    groups: int = 1
    embedding: int = 8
    rank: int = 5
    channels: int = 2
    instruments: tuple[str, ...] = INSTRUMENTS
    stems: tuple[str, ...] = INSTRUMENTS
    samplerates: tuple[int, ...] = (44100, 48000)
    materialised: bool = False

    def __post_init__(self) -> None:
        if self.hop < self.stride or self.hop % self.stride:
            raise ValueError(f"hop must be a multiple of the stride {self.stride}, got {self.hop}.")
        if self.channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, got {self.channels}.")
        for name, values in (("instruments", self.instruments), ("stems", self.stems)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must have different names, got {values}.")
        strangers = [stem for stem in self.stems if stem not in self.instruments]
        whole = set(self.stems) == set(self.instruments)
        some = len(self.stems) > 1 and strangers == [self.stems[-1]]
        if not whole and not some:
            raise ValueError(
                f"stems must be all of {self.instruments}, or one or more of them and then a name of its own for what "
                f"they leave over, such as ('vocals', 'accompaniment'), got {self.stems}."
            )

    @property
    def residual_stem(self) -> str | None:
        """The stem that takes what the others leave over, if there is one."""
        return None if set(self.stems) == set(self.instruments) else self.stems[-1]

    @property
    def mask(self) -> MaskSizes:
        """Sizes of the mask networks."""
        return MaskSizes(
            inputs=self.bottleneck,
            outputs=self.channels * sum(self.latents),
            width=self.width,
            hidden=self.hidden,
            layers=self.layers,
            stacks=self.stacks,
            kernel=self.taps,
            groups=self.groups,
            embedding=self.embedding,
            rank=self.rank,
            instruments=len(self.instruments),
        )

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> MetaTasNetConfig:
        """Build from plain JSON/TOML values; unknown keys raise ``TypeError``."""
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class StreamingMetaTasNet(StreamingModule):
    """Mixture hops in, stem hops out, ``max(kernels) - stride`` samples late.

    Parameters
    ----------
    config : MetaTasNetConfig
    """

    floor = 1e-4  # -80 dB below a full-scale sine: where the logarithm of the features levels off

    def __init__(self, config: MetaTasNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stems, self.channels, self.samplerates = config.stems, config.channels, config.samplerates
        self.hop_samples, self.residual_stem = config.hop, config.residual_stem
        self.separated = [config.instruments.index(s) for s in config.stems if s in config.instruments]
        bank = Bank(config.kernels, config.latents, config.stride)
        self.analysis = Analysis(bank, config.channels)
        self.synthesis = Synthesis(bank, len(self.separated) * config.channels)
        self.latency = self.synthesis.latency
        self.stft = StreamingSTFT(config.window, config.hop, config.channels)
        self.bands = DoublingBands(config.window // 2 + 1, config.edges)
        views = 4 if config.channels == 2 else 1
        features = views * self.bands.bands + sum(config.latents)
        self.normalise = InputNormalisation(features)
        self.bottleneck = nn.Linear(features, config.bottleneck)
        weights = GeneratedWeights(config.mask)
        weights.generator.start_near_plain_layers()
        self.weights: GeneratedWeights | FixedWeights = FixedWeights(weights()) if config.materialised else weights
        self.mask = CausalMask(config.mask)
        kernels = cosine_frame(bank)
        with torch.no_grad():
            for parameters, values in zip((self.analysis.kernels, self.synthesis.kernels), kernels, strict=True):
                for parameter, value in zip(parameters, values, strict=True):
                    parameter.copy_(value)

    @property
    def embeddings(self) -> nn.Embedding:
        """The instruments' embeddings, a layer of weight ``[I, E]``.

        Raises
        ------
        ValueError
            The model is materialised and has none.
        """
        embeddings = getattr(self.weights, "embeddings", None)
        if embeddings is None:
            raise ValueError("a materialised model has no embeddings; use the checkpoint it was made from.")
        return embeddings

    def features(self, audio: Tensor, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Levels that the mask network sees, in units of 10 dB.

        Parameters
        ----------
        audio : Tensor
            ``[B, C, T]``.
        latents : Tensor
            ``[B, C, N, D]``.
        state : dict, optional
            Of the spectrogram.

        Returns
        -------
        features : Tensor
            ``[B, N, views * bands + D]``: bands of left, right, middle and side; latents over both channels.
        state : dict
        """
        re, im, _, new = self.stft(audio, state)  # [B, C, hops, F]
        if self.channels == 2:
            # The difference is taken before squaring: sums of squares would leave rounding in a silent side.
            re = torch.stack([re[:, 0], re[:, 1], 0.5 * (re[:, 0] + re[:, 1]), 0.5 * (re[:, 0] - re[:, 1])], 2)
            im = torch.stack([im[:, 0], im[:, 1], 0.5 * (im[:, 0] + im[:, 1]), 0.5 * (im[:, 0] - im[:, 1])], 2)
        else:
            re, im = re.transpose(1, 2), im.transpose(1, 2)  # [B, hops, views, F]
        power = self.bands.total(re.square() + im.square())
        spectrum = torch.log10(power.clamp_min(0.0) + self.floor**2).flatten(-2)  # [B, hops, views * bands]
        steps = self.config.hop // self.config.stride
        if steps > 1:  # held for the latent frames of a hop
            spectrum = spectrum.unsqueeze(2).expand(-1, -1, steps, -1).flatten(1, 2)
        levels = torch.log10(latents.square().mean(1) + self.floor**2)  # [B, N, D]
        return torch.cat([spectrum, levels], dim=-1), new

    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Separate whole hops.

        Parameters
        ----------
        audio : Tensor
            Mixture ``[B, C, T]``, T a multiple of the hop.
        state : dict, optional
            From :meth:`initial_state` or the call before.

        Returns
        -------
        stems : Tensor
            ``[B, S, C, T]``; their sum is ``audio``, :attr:`latency` samples late.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        latents, delayed, new_analysis = self.analysis(audio, substate(state, "analysis"))  # [B, C, N, D]
        features, new_stft = self.features(audio, latents, substate(state, "stft"))
        shared = self.bottleneck(self.normalise(features)).unsqueeze(1)  # [B, 1, N, bottleneck]
        logits, new_mask = self.mask(shared, self.weights(), substate(state, "mask"))  # [B, I, N, C D]
        masks = torch.softmax(logits, dim=1)
        if self.separated != list(range(masks.shape[1])):
            masks = torch.cat([masks[:, i : i + 1] for i in self.separated], dim=1)
        masks = masks.unflatten(-1, (self.channels, -1)).transpose(2, 3)  # [B, S, C, N, D]
        separated = (masks * latents.unsqueeze(1)).flatten(1, 2)  # [B, S C, N, D]
        stems, new_synthesis = self.synthesis(separated, substate(state, "synthesis"))
        stems = stems.unflatten(1, (-1, self.channels))  # [B, S, C, T]
        if self.residual_stem is None:
            stems = mixture_consistent(stems, delayed)
        else:
            stems = torch.cat([stems, (delayed - stems.sum(1)).unsqueeze(1)], dim=1)
        new = {
            **prefixed("analysis", new_analysis),
            **prefixed("synthesis", new_synthesis),
            **prefixed("stft", new_stft),
            **prefixed("mask", new_mask),
        }
        return stems, new

    def encode(self, audio: Tensor) -> Tensor:
        """Latents of whole clips that begin here, ``[..., T]`` -> ``[..., N, D]``."""
        return self.analysis.of_line(nn.functional.pad(audio, (self.latency, 0)))

    def with_latents(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the published loss looks at, see :func:`models.metatasnet.losses.meta_tasnet_loss`.

        Parameters
        ----------
        targets : Tensor
            True stems ``[B, S, C, T]``.

        Returns
        -------
        stems : Tensor
            The forward pass's, from the sum of the targets.
        reconstruction : Tensor
            The mixture analysed and synthesised, ``[B, C, T]``, :attr:`latency` samples late.
        latents : Tensor
            Of the true stems ``[B, S, N, C * D]``.
        """
        mixture = targets.sum(1)
        stems, _ = self(mixture)
        encoded = self.encode(mixture)  # [B, C, N, D]
        state = self.synthesis.initial_state(len(encoded))
        state = {key: value[:, : self.channels] for key, value in state.items()}
        reconstruction, _ = self.synthesis.of(encoded, state)
        latents = self.encode(targets).transpose(2, 3).flatten(-2)  # [B, S, C, N, D] -> [B, S, N, C D]
        return stems, reconstruction, latents

    def materialise(self) -> StreamingMetaTasNet:
        """Return a copy with the mask networks' weights themselves in place of their generator."""
        if self.config.materialised:
            return self._rebuilt(self.config)
        return self._rebuilt(dataclasses.replace(self.config, materialised=True))

    def view(self, stems: Sequence[str]) -> StreamingMetaTasNet:
        """Return a copy that puts out other stems, see :class:`MetaTasNetConfig`."""
        return self._rebuilt(dataclasses.replace(self.config, stems=tuple(stems)))

    @torch.no_grad()
    def interpolate(self, first: str, second: str, share: float, name: str | None = None) -> StreamingMetaTasNet:
        """Return a materialised copy whose one stem is an instrument between two.

        Its embedding is ``(1 - share) * first + share * second``. The softmax needs what it competes with: the second
        slot of the pair gets the complement, ``share * first + (1 - share) * second``, so that the two ends
        are exactly the two instruments of the full model.

        Parameters
        ----------
        first, second : str
            Instruments.
        share : float
            0 to 1, of the second.
        name : str, optional
            Of the stem; default ``first-second``. The other stem is ``rest``.

        Raises
        ------
        ValueError
            An instrument is unknown, both are the same, or the share is out of range.
        """
        instruments = self.config.instruments
        if unknown := [i for i in (first, second) if i not in instruments]:
            raise ValueError(f"there is no instrument {unknown[0]!r}; the model has {', '.join(instruments)}.")
        if first == second or not 0.0 <= share <= 1.0:
            raise ValueError(f"two different instruments and a share of 0 to 1 are needed, got {first}, {share}.")
        name = name or f"{first}-{second}"
        embeddings = self.embeddings.weight.clone()
        a, b = instruments.index(first), instruments.index(second)
        embeddings[a] = torch.lerp(self.embeddings.weight[a], self.embeddings.weight[b], share)
        embeddings[b] = torch.lerp(self.embeddings.weight[b], self.embeddings.weight[a], share)
        names = list(instruments)
        names[a], names[b] = name, f"not {name}"
        config = dataclasses.replace(self.config, instruments=tuple(names), stems=(name, "rest"))
        mixed = self._rebuilt(config)
        mixed.embeddings.weight.copy_(embeddings)
        return mixed.materialise()

    @torch.no_grad()
    def with_instrument(self, name: str, embedding: Tensor) -> StreamingMetaTasNet:
        """Return a copy with one more instrument in the softmax and the stems ``(name, "rest")``.

        Parameters
        ----------
        name : str
            Not one of the instruments.
        embedding : Tensor
            ``[E]``.

        Raises
        ------
        ValueError
            The name is taken.
        """
        if name in (*self.config.instruments, "rest"):
            raise ValueError(f"the name {name!r} is taken; the model has {', '.join(self.config.instruments)}.")
        config = dataclasses.replace(self.config, instruments=(*self.config.instruments, name), stems=(name, "rest"))
        grown = StreamingMetaTasNet(config).to(self.embeddings.weight)
        weights = {key: value for key, value in self.state_dict().items() if key != "weights.embeddings.weight"}
        weights["weights.embeddings.weight"] = torch.cat([self.embeddings.weight, embedding.view(1, -1)])
        grown.load_state_dict(weights)
        return grown.train(self.training)

    @torch.no_grad()
    def _rebuilt(self, config: MetaTasNetConfig) -> StreamingMetaTasNet:
        """A model of another config with these weights, made fixed where the config asks for it."""
        other = StreamingMetaTasNet(config).to(self.bottleneck.weight)
        weights = self.state_dict()
        if isinstance(other.weights, FixedWeights) and isinstance(self.weights, GeneratedWeights):
            weights = {key: value for key, value in weights.items() if not key.startswith("weights.")}
            folded = fold(self.weights.generator, self.embeddings.weight)
            weights |= {f"weights.values.{key}": value for key, value in folded.items()}
        other.load_state_dict(weights)
        return other.train(self.training)
