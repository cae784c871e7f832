"""The Conditioned U-Net as a causal, streaming model: one fader per instrument in front of one network.

From Meseguer-Brocal and Peeters (ISMIR 2019) it keeps the U-Net with FiLM in its encoder, its two kinds of FiLM and two
control networks, and the shapes of all weights where configured so (:meth:`StreamingCUNet.from_reference`). What
differs:

* frames are never skipped, and the taps over time spread instead (:mod:`models.cunet.layers`);
* the front end is the causal one with asymmetric windows, at full band and in stereo, on bands that widen towards high
  frequencies, and features are levels in dB of left, right, middle and side (``features = "log"``);
* the mask lies between the lowest and the highest fader (``mask = "range"``): if ``c`` are the faders and the stems
  have shares ``p_i`` of a bin, the wanted ``sum c_i p_i`` does. The network sees the faders stretched to 0 ... 1,
  because ``sum (a c_i + b) p_i = a sum c_i p_i + b``. All faders up is then the mixture, all down is silence, one fader
  alone is exactly proportional, none of which has to be learnt;
* faders move at a limited speed, frame by frame, so that a jump of the control cannot click.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.cunet.film import BATCH_NORM_EPSILON, CONDITIONS, CONTROL_WIDTHS, ControlNetwork
from models.cunet.layers import DoublingConv, HalvingConv
from models.cunet.reference import CUNet
from models.streaming.bands import DoublingBands
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.norm import InputNormalisation
from models.streaming.stft import StreamingISTFT, StreamingSTFT

LABELS = ("drums", "bass", "other", "vocals")
_SMALLEST_SPAN = 1e-3  # faders closer together than this count as level


@dataclass(frozen=True)
class CUNetConfig:
    """Sizes of a :class:`StreamingCUNet`.

    Attributes
    ----------
    variant : str
        ``"simple_dense"``, ``"complex_dense"``, ``"simple_cnn"`` or ``"complex_cnn"``: FiLM per block or per
        channel, and the kind of control network.
    window, hop : int
        Samples. Algorithmic latency is ``2 * hop``.
    edges : tuple of int
        Band edges in bins, see :class:`DoublingBands`; the number of bands is halved by every filter.
    filters : tuple of int
        Channels of the encoder blocks.
    control_widths : tuple of int
        Three hidden layers of the control network; those published for the variant when empty.
    frames : int
        Taps over time of every convolution; upstream's kernels have 5.
    dilations : tuple of int
        Frames from tap to tap, per encoder block; the decoder mirrors them.
    features : str
        ``"log"`` (levels of up to four views) or ``"magnitude"`` (linear, as upstream).
    mask : str
        ``"range"`` or ``"sigmoid"`` (as upstream: 0 to 1, the faders known to the network only).
    order : tuple of int
        Which fader goes to which input of the control network.
    ramp_frames : int
        Frames a fader takes from 0 to 1.
    dropout : float
        In training only, where upstream has it.
    channels : int
        Audio channels, 1 or 2.
    samplerates : tuple of int
        Rates (Hz) it runs at without a resampler; training must have covered their ratio.
    """

    variant: str = "simple_dense"
    window: int = 4096
    hop: int = 512
    edges: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    filters: tuple[int, ...] = (16, 32, 48, 64, 96, 128)
    control_widths: tuple[int, ...] = ()
    frames: int = 3
    dilations: tuple[int, ...] = (1, 1, 2, 4, 8, 16)
    features: str = "log"
    mask: str = "range"
    order: tuple[int, ...] = (0, 1, 2, 3)
    ramp_frames: int = 3
    dropout: float = 0.0
    channels: int = 2
    samplerates: tuple[int, ...] = (44100, 48000)

    def __post_init__(self) -> None:
        for name, allowed in (
            ("variant", tuple(CONTROL_WIDTHS)),
            ("features", ("log", "magnitude")),
            ("mask", ("range", "sigmoid")),
            ("channels", (1, 2)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {getattr(self, name)!r}.")
        if len(self.dilations) != len(self.filters):
            raise ValueError(f"dilations must be {len(self.filters)}, one per filter, got {len(self.dilations)}.")
        if self.control_widths and len(self.control_widths) != 3:
            raise ValueError(f"control_widths must be three widths, or none, got {self.control_widths}.")
        if sorted(self.order) != list(range(CONDITIONS)):
            raise ValueError(f"order must hold 0 to {CONDITIONS - 1} once each, got {self.order}.")
        for name in ("frames", "ramp_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")

    @classmethod
    def original(cls, variant: str = "simple_dense") -> CUNetConfig:
        """Return upstream's sizes and front end: mono at 8192 Hz, 1024/256, all 512 bins, kernels of 5 by 5."""
        return cls(
            variant=variant,
            window=1024,
            hop=256,
            edges=(512,),
            filters=(16, 32, 64, 128, 256, 512),
            frames=5,
            dilations=(1, 2, 4, 8, 16, 32),
            features="magnitude",
            mask="sigmoid",
            ramp_frames=1,
            dropout=0.5,
            channels=1,
            samplerates=(8192,),
        )

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> CUNetConfig:
        """Build from plain JSON/TOML values; unknown keys raise ``TypeError``."""
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class StreamingCUNet(StreamingModule):
    """Mixture hops and faders in; what the faders select, and the rest of the mixture, out, one hop late.

    Parameters
    ----------
    config : CUNetConfig

    Raises
    ------
    ValueError
        The bands cannot be halved once per filter.
    """

    floor = 1e-4  # -80 dB below a full-scale sine: where the logarithm of the features levels off
    stems = ("selected", "rest")
    residual_stem = "rest"
    dropout_blocks = (1, 2, 3)  # of the decoder
    controls = (
        {
            "name": "condition",
            "shape": (CONDITIONS,),
            "default": (1.0,) * CONDITIONS,
            "minimum": 0.0,
            "maximum": 1.0,
            "meaning": "how much of each instrument is in 'selected', 0 to 1",
            "labels": LABELS,
        },
    )

    def __init__(self, config: CUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.channels, self.samplerates = config.channels, config.samplerates
        self.hop_samples, self.latency = config.hop, config.hop
        self.stft = StreamingSTFT(config.window, config.hop, config.channels)
        self.bands = DoublingBands(config.window // 2 + 1, config.edges)
        filters, bands = config.filters, self.bands.bands
        if bands % 2 ** len(filters):
            raise ValueError(f"{bands} bands cannot be halved {len(filters)} times, once per filter; change edges.")
        self.views = 4 if config.channels == 2 else 1
        self.normalise = InputNormalisation(self.views * bands)
        widths = config.control_widths or CONTROL_WIDTHS[config.variant]
        self.control = ControlNetwork(config.variant, filters, (widths[0], widths[1], widths[2]), config.dropout)
        nn.init.ones_(self.control.scales.bias)  # the U-Net starts as one without FiLM
        sizes = list(zip((self.views, *filters), filters, config.dilations, strict=False))
        self.encoder = nn.ModuleList(
            HalvingConv(a, b, bands >> index, config.frames, dilation) for index, (a, b, dilation) in enumerate(sizes)
        )
        self.encoder_norms = nn.ModuleList(nn.BatchNorm2d(width, BATCH_NORM_EPSILON) for width in filters)
        outputs = (*filters[-2::-1], config.channels)
        inputs = (filters[-1], *(2 * width for width in outputs[:-1]))
        self.decoder = nn.ModuleList(
            DoublingConv(a, b, bands >> (len(filters) - index), config.frames, dilation)
            for index, (a, b, dilation) in enumerate(zip(inputs, outputs, config.dilations[::-1], strict=True))
        )
        self.decoder_norms = nn.ModuleList(nn.BatchNorm2d(width, BATCH_NORM_EPSILON) for width in outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.istft = StreamingISTFT(self.stft, config.channels)

    @classmethod
    def from_reference(cls, reference: CUNet) -> StreamingCUNet:
        """Start from a network of upstream's shape, at upstream's front end.

        The encoder and the control network then compute what the reference computes, in the past instead of around
        the frame. The decoder's strided kernels meet every second tap; here they meet all of them, at half the weight.
        The result is a start for training: masks, statistics and the framing are those of another front end.

        Raises
        ------
        ValueError
            The reference has no control network (the standard U-Net), or other sizes than one halving of 512 bins
            per filter allows.
        """
        if reference.control is None:
            raise ValueError("the standard U-Net has no condition; give one of the four conditioned variants.")
        theirs = reference.config
        original = CUNetConfig.original(theirs.variant)
        filters = theirs.filters
        config = dataclasses.replace(
            original,
            filters=filters,
            dilations=tuple(2**index for index in range(len(filters))),
            control_widths=theirs.control_widths,
            window=theirs.window,
            hop=theirs.hop,
            edges=(theirs.bins,),
            samplerates=(theirs.samplerate,),
            order=(1, 0, 2, 3),  # upstream's condition is bass, drums, rest, vocals
        )
        model = cls(config)
        model.control.load_state_dict(reference.control.state_dict())
        with torch.no_grad():
            for part, gain in (("encoder", 1.0), ("decoder", 0.5)):
                for mine, given in zip(getattr(model, part), getattr(reference, part), strict=True):
                    mine.conv.weight.copy_(gain * given.weight.transpose(2, 3))  # [.., F, N] -> [.., N, F]
                    mine.conv.bias.copy_(given.bias)
                norms = f"{part}_norms"
                getattr(model, norms).load_state_dict(getattr(reference, norms).state_dict())
        return model

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"condition": (CONDITIONS,), "started": (1,)}

    def features(self, re: Tensor, im: Tensor) -> Tensor:
        """Levels of the bands: left, right, middle and side (or the one channel).

        Parameters
        ----------
        re, im : Tensor
            ``[B, C, N, F]``.

        Returns
        -------
        Tensor
            ``[B, N, views * bands]``, not normalised.
        """
        if self.channels == 2:
            # The difference is taken before squaring: sums of squares would leave rounding in a silent side.
            re = torch.stack([re[:, 0], re[:, 1], 0.5 * (re[:, 0] + re[:, 1]), 0.5 * (re[:, 0] - re[:, 1])], 2)
            im = torch.stack([im[:, 0], im[:, 1], 0.5 * (im[:, 0] + im[:, 1]), 0.5 * (im[:, 0] - im[:, 1])], 2)
        else:
            re, im = re.transpose(1, 2), im.transpose(1, 2)
        return self.compress(self.bands.total(re.square() + im.square()))

    def compress(self, power: Tensor) -> Tensor:
        """Features from powers, ``[..., views, bands]`` -> ``[..., views * bands]``: in units of 10 dB, or linear."""
        power = power.clamp_min(0.0)
        values = torch.log10(power + self.floor**2) if self.config.features == "log" else power.sqrt()
        return values.flatten(-2)

    def faders(self, target: Tensor, frames: int, state: State) -> tuple[Tensor, State]:
        """Move the faders towards the control frame by frame; the first hop of a stream begins at it.

        Parameters
        ----------
        target : Tensor
            ``[B, 4]``.
        frames : int
            N of this chunk.
        state : dict
            ``condition`` ``[B, 4]`` after the last frame, ``started`` ``[B, 1]``, 0 before the first hop.

        Returns
        -------
        faders : Tensor
            ``[B, N, 4]``.
        state : dict
        """
        before = torch.where(state["started"] > 0, state["condition"], target)  # [B, 4]
        way = (target - before).unsqueeze(1)  # [B, 1, 4]
        far = torch.arange(1, frames + 1, dtype=target.dtype, device=target.device)[:, None] / self.config.ramp_frames
        line = before.unsqueeze(1) + torch.maximum(torch.minimum(way, far), -far)  # [B, N, 4]
        # Not plainly ones: a constant output would be left hanging in the exported graph.
        return line, {"condition": line[:, -1], "started": state["started"].clamp_min(1.0)}

    def band_masks(
        self, features: Tensor, condition: Tensor, state: State | None = None, company: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Map features and faders to masks.

        Parameters
        ----------
        features : Tensor
            ``[B, N, views * bands]``.
        condition : Tensor
            ``[B, N, 4]``, or ``[B, 1, 4]`` for faders that stand still.
        state : dict, optional
            Of the layers between features and masks: ``encoder.*`` and ``decoder.*``.
        company : Tensor, optional
            Further conditions ``[M, 4]``, in training: batch normalisation in the control network needs more of them
            than a small batch of audio holds.

        Returns
        -------
        masks : Tensor
            ``[B, C, N, bands]``, 0 to 1.
        state : dict
        """
        lowest, span, seen = self._stretch(condition)  # [B, N, 1], [B, N, 1], [B, N, 4]
        if company is None:
            films = self.control(seen)
        else:
            rows = torch.cat([seen.flatten(0, 1), self._stretch(company)[2]])  # [B N + M, 4]
            count = seen.shape[0] * seen.shape[1]
            films = [tuple(x[:count].unflatten(0, seen.shape[:2]) for x in film) for film in self.control(rows)]
        x = self.normalise(features).unflatten(-1, (self.views, -1)).transpose(1, 2)  # [B, views, N, bands]
        logits, new = self._unet(x, films, state)
        masks = torch.sigmoid(logits)
        if self.config.mask == "range":
            masks = lowest.unsqueeze(1) + span.unsqueeze(1) * masks  # [B, 1, N, 1] with [B, C, N, bands]
        return masks, new

    def _stretch(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lowest fader, distance to the highest, and what the control network sees, from ``[..., 4]``."""
        lowest = condition.amin(-1, keepdim=True)
        span = condition.amax(-1, keepdim=True) - lowest
        if self.config.mask == "range":
            condition = (condition - lowest) / span.clamp_min(_SMALLEST_SPAN)
        return lowest, span, condition[..., list(self.config.order)]

    def _unet(self, x: Tensor, films: list[tuple[Tensor, ...]], state: State | None) -> tuple[Tensor, State]:
        new: State = {}

        def call(part: str, index: int, x: Tensor) -> Tensor:
            name = f"{part}.{index}"
            y, after = getattr(self, part)[index](x, substate(state, name) if state is not None else None)
            new.update(prefixed(name, after))
            normed: Tensor = getattr(self, f"{part}_norms")[index](y)
            return normed

        skips: list[Tensor] = []
        for index, film in enumerate(films):
            x = call("encoder", index, x)
            scale, shift = (part.transpose(1, 2).unsqueeze(-1) for part in film)  # [B, 1 | C, N, 1]
            x = nn.functional.leaky_relu(x * scale + shift, 0.2)
            skips.append(x)
        skips.pop()
        for index in range(len(self.decoder)):
            x = call("decoder", index, torch.cat([x, skips.pop()], dim=1) if index else x)
            if index in self.dropout_blocks:
                x = self.dropout(x)
            if index < len(self.decoder) - 1:
                x = torch.relu(x)
        return x, new

    def forward(
        self, audio: Tensor, state: State | None = None, controls: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Separate whole hops.

        Parameters
        ----------
        audio : Tensor
            Mixture ``[B, C, T]``, T a multiple of the hop.
        state : dict, optional
            From :meth:`initial_state` or the call before.
        controls : mapping, optional
            ``condition`` ``[B, 4]``, 0 to 1 per instrument of :data:`LABELS`; all ones when left out.

        Returns
        -------
        stems : Tensor
            ``[B, 2, C, T]``: selected and rest; their sum is ``audio`` one hop late.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        target = audio.new_ones(audio.shape[0], CONDITIONS) if controls is None else controls["condition"]
        re, im, delayed, new_stft = self.stft(audio, substate(state, "stft"))
        condition, new_faders = self.faders(target, re.shape[2], state)
        inner = {key: value for key, value in state.items() if key.startswith(("encoder.", "decoder."))}
        masks, new_masks = self.band_masks(self.features(re, im), condition, inner)
        masks = self.bands.spread(masks)  # [B, C, N, F]
        selected, new_istft = self.istft(masks * re, masks * im, substate(state, "istft"))
        stems = torch.stack([selected, delayed - selected], dim=1)  # [B, 2, C, T]
        return stems, {**new_faders, **prefixed("stft", new_stft), **new_masks, **prefixed("istft", new_istft)}
