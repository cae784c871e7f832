"""Open-Unmix as a causal, streaming model: one recurrent body, one mask head for all stems.

From Open-Unmix (Stöter et al., JOSS 2019) it keeps the body: normalised magnitudes -> linear, batch norm,
tanh -> recurrent layers -> skip connection -> linear, batch norm, ReLU -> masks on the mixture. The single
body for four heads follows "On loss functions and evaluation metrics for music source separation"
(Gusó et al., ICASSP 2022). What differs, and why:

* the STFT is causal, inside the model, with asymmetric windows (latency 2 hops instead of a whole window);
* bins are merged into bands towards high frequencies, which takes four fifths of the first and last layer away;
* magnitudes are compressed by a logarithm, and the side signal is a feature of its own (in most records
  the voice is in the middle);
* GRU instead of bidirectional LSTM: causal, and its state cannot grow;
* a few small convolutions over neighbouring bands sharpen the masks: the body, whose width is the rank of its
  masks, says what plays, and they follow its partials from band to band with weights shared over frequency;
* masks of the stems are a softmax, and their rounding error is shared out, so that stems add to the mixture.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.streaming.bands import DoublingBands
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.conv import CausalConv2d
from models.streaming.masks import apply_masks, mixture_consistent
from models.streaming.norm import InputNormalisation
from models.streaming.rnn import recurrent
from models.streaming.stft import StreamingISTFT, StreamingSTFT


@dataclass(frozen=True)
class StreamingOpenUnmixConfig:
    """Sizes of a :class:`StreamingOpenUnmix`.

    Attributes
    ----------
    window, hop : int
        Samples. Algorithmic latency is ``2 * hop``.
    edges : tuple of int
        Band edges in bins, see :class:`DoublingBands`.
    hidden, layers : int
        Recurrent body.
    rnn : str
        ``"gru"`` or ``"lstm"``.
    dropout : float
        Between recurrent layers, in training only.
    refine : int
        Channels of the convolutions over bands; 0 leaves them out.
    channels : int
        Audio channels, 1 or 2.
    samplerates : tuple of int
        Rates (Hz) it runs at without a resampler; training must have covered their ratio.
    """

    window: int = 2048
    hop: int = 512
    edges: tuple[int, ...] = (128, 256, 512, 1024)
    hidden: int = 352
    layers: int = 2
    rnn: str = "gru"
    dropout: float = 0.0
    refine: int = 0
    channels: int = 2
    stems: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    samplerates: tuple[int, ...] = (44100, 48000)

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> StreamingOpenUnmixConfig:
        """Build from plain JSON/TOML values; unknown keys raise ``TypeError``."""
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class MaskRefinement(StreamingModule):
    """Correction of mask logits from the bands around them, in this frame and the three before.

    Starts as the identity (its last layer is zero), so that it can be added to a trained body.

    Parameters
    ----------
    views, masks : int
        Channels of the features and of the logits.
    bands : int
    width : int
        Channels inside.
    """

    def __init__(self, views: int, masks: int, bands: int, width: int) -> None:
        super().__init__()
        self.conv1 = CausalConv2d(views + masks, width, bands, kernel=(3, 5))
        self.conv2 = CausalConv2d(width, width, bands, kernel=(2, 7), dilation=(1, 2))
        self.conv3 = CausalConv2d(width, width, bands, kernel=(1, 7), dilation=(1, 4))
        self.out = nn.Conv2d(width, masks, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, views: Tensor, logits: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return corrected logits ``[B, masks, N, bands]``; ``views`` is ``[B, views, N, bands]``."""
        state = self.checked_state(state, logits.shape[0])
        # Channels last is several times as fast in training on a CPU.
        x = torch.cat([views.to(logits.dtype), logits], dim=1).contiguous(memory_format=torch.channels_last)
        x, new1 = self.conv1(x, substate(state, "conv1"))
        x, new2 = self.conv2(torch.relu(x), substate(state, "conv2"))
        x, _ = self.conv3(torch.relu(x))
        new = {**prefixed("conv1", new1), **prefixed("conv2", new2)}
        return logits + self.out(torch.relu(x)), new


class StreamingOpenUnmix(StreamingModule):
    """Mixture hops in, stem hops out, one hop late.

    Parameters
    ----------
    config : StreamingOpenUnmixConfig
    """

    floor = 1e-4  # -80 dB below a full-scale sine: where the logarithm of the features levels off

    def __init__(self, config: StreamingOpenUnmixConfig) -> None:
        super().__init__()
        self.config = config
        self.stems, self.channels, self.samplerates = config.stems, config.channels, config.samplerates
        self.hop_samples, self.latency = config.hop, config.hop
        self.residual_stem: str | None = None
        self.stft = StreamingSTFT(config.window, config.hop, config.channels)
        self.bands = DoublingBands(config.window // 2 + 1, config.edges)
        views = 4 if config.channels == 2 else 1
        features = views * self.bands.bands
        self.normalise = InputNormalisation(features)
        self.fc1 = nn.Linear(features, config.hidden, bias=False)
        self.bn1 = nn.BatchNorm1d(config.hidden)
        self.rnn = recurrent(config.rnn, config.hidden, config.hidden, config.layers, config.dropout)
        self.fc2 = nn.Linear(2 * config.hidden, config.hidden, bias=False)
        self.bn2 = nn.BatchNorm1d(config.hidden)
        self.fc3 = nn.Linear(config.hidden, len(config.stems) * config.channels * self.bands.bands)
        masks = len(config.stems) * config.channels
        self.refine = MaskRefinement(views, masks, self.bands.bands, config.refine) if config.refine else None
        self.istft = StreamingISTFT(self.stft, masks)

    def features(self, re: Tensor, im: Tensor) -> Tensor:
        """Log magnitudes of the bands: left, right, middle and side (or the one channel).

        Parameters
        ----------
        re, im : Tensor
            ``[B, C, N, F]``.

        Returns
        -------
        Tensor
            ``[B, N, views * bands]``, neither normalised nor scaled.
        """
        if self.channels == 2:
            # The difference is taken before squaring: sums of squares would leave rounding in a silent side.
            re = torch.stack([re[:, 0], re[:, 1], 0.5 * (re[:, 0] + re[:, 1]), 0.5 * (re[:, 0] - re[:, 1])], 2)
            im = torch.stack([im[:, 0], im[:, 1], 0.5 * (im[:, 0] + im[:, 1]), 0.5 * (im[:, 0] - im[:, 1])], 2)
        else:
            re, im = re.transpose(1, 2), im.transpose(1, 2)
        return self.compress(self.bands.total(re.square() + im.square()))  # [B, N, views * bands]

    def compress(self, power: Tensor) -> Tensor:
        """Levels of the views' bands, ``[..., views, bands]`` -> ``[..., views * bands]``, in units of 10 dB."""
        return torch.log10(power.clamp_min(0.0) + self.floor**2).flatten(-2)

    def band_masks(self, features: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map features to masks.

        Parameters
        ----------
        features : Tensor
            ``[B, N, views * bands]``.
        state : dict, optional
            Of the layers between features and masks: ``rnn.*`` and ``refine.*``.

        Returns
        -------
        masks : Tensor
            ``[B, S, C, N, bands]``; they sum to one over S.
        state : dict
        """
        frames = features.shape[1]
        normalised = self.normalise(features)  # [B, N, views bands]
        x = self.fc1(normalised)  # [B, N, H]
        x = torch.tanh(self.bn1(x.flatten(0, 1))).unflatten(0, (-1, frames))
        y, new = self.rnn(x, substate(state, "rnn") if state is not None else None)
        new = prefixed("rnn", new)
        y = self.fc2(torch.cat([x, y], dim=-1))
        y = torch.relu(self.bn2(y.flatten(0, 1)))  # [B N, H]
        y = self.fc3(y).unflatten(0, (-1, frames))  # [B, N, S C bands]
        logits = y.unflatten(-1, (-1, self.bands.bands)).transpose(1, 2)  # [B, S C, N, bands]
        if self.refine is not None:
            views = normalised.unflatten(-1, (-1, self.bands.bands)).transpose(1, 2)  # [B, views, N, bands]
            logits, corrected = self.refine(views, logits, substate(state, "refine") if state is not None else None)
            new |= prefixed("refine", corrected)
        # [B, S C, N, bands] -> [B, S, C, N, bands]
        return torch.softmax(logits.unflatten(1, (len(self.stems), self.channels)), dim=1), new

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
            ``[B, S, C, T]``; their sum is ``audio`` one hop late.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        re, im, delayed, new_stft = self.stft(audio, substate(state, "stft"))
        masks, new_masks = self.band_masks(self.features(re, im), state)
        re, im = apply_masks(self.bands.spread(masks), re, im)  # [B, S, C, N, F]
        stems, new_istft = self.istft(re.flatten(1, 2), im.flatten(1, 2), substate(state, "istft"))
        stems = stems.unflatten(1, (len(self.stems), self.channels))  # [B, S, C, T]
        new = {**prefixed("stft", new_stft), **new_masks, **prefixed("istft", new_istft)}
        return mixture_consistent(stems, delayed), new
