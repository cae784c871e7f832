"""MSI as a causal, streaming model: a query, live separation of what sounds like it, and its notes.

The network is that of :mod:`models.msi.reference`, convolution by convolution. What differs, and why:

* every convolution reaches into the past only, the STFT is causal and has asymmetric windows: algorithmic latency
  of two hops (20 ms) instead of 260 ms of network and 128 ms of window;
* the regressed magnitude is turned into a ratio to the mixture's between 0 and 1, so that silence stays silent and
  the rest is an exact residual;
* optional, and not in upstream's size: a decoder with a mask beside the magnitude (the mask separates, the magnitude
  synthesises), magnitudes compressed by a power, high bins merged into bands, templates for the transcription;
* a score may replace the transcription, as a control that a person or a MIDI file sets hop by hop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.msi.layers import (
    CausalDecoder,
    CausalEncoder,
    CausalTimbreFilter,
    CausalTranscriptor,
    TemplateQueryNet,
    Templates,
)
from models.msi.reference import (
    CHANNELS,
    CLASSES,
    HIGHEST_MIDI,
    HOP,
    LOWEST_MIDI,
    PITCHES,
    QUERY_CHANNELS,
    QUERY_SIZE,
    SAMPLERATE,
    TRANSCRIPTOR_CHANNELS,
    WINDOW,
    PitchExtractor,
    QueryNet,
    ReferenceMSI,
    entangle,
)
from models.streaming.bands import DoublingBands
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.stft import StreamingISTFT, StreamingSTFT

RECORDING_RMS = 0.1  # that recordings are brought to before anything is learnt from them
FLOOR = 1e-4  # amplitude at which compression turns linear, so that its slope is bounded
SOUNDING = 1e-4  # power under a recording's loudest frame at which a frame no longer counts as sounding: 40 dB


@dataclass(frozen=True)
class MSIConfig:
    """Sizes of a :class:`StreamingMSI`; the defaults are upstream's.

    Attributes
    ----------
    edges : tuple of int
        Band edges in bins, see :class:`DoublingBands`; the number of bands halves from level to level.
    channels, transcriptor_channels, query_channels : tuple of int
        Per level.
    templates : int
        Units of :class:`models.msi.layers.Templates`, which help transcription and mask, and of the query network,
        whose convolutions they replace; 0 for none.
    compression : float
        Power that magnitudes are raised to, above 0, at most 1.
    mask : bool
        Separate with a mask from the decoder rather than with its magnitude. The magnitude then is the synth's alone,
        and learns from its loss only.
    window, hop : int
        Samples at 16 kHz.
    """

    edges: tuple[int, ...] = (1024,)
    channels: tuple[int, ...] = CHANNELS
    transcriptor_channels: tuple[int, ...] = TRANSCRIPTOR_CHANNELS
    query_channels: tuple[int, ...] = QUERY_CHANNELS
    templates: int = 0
    compression: float = 1.0
    mask: bool = False
    window: int = WINDOW
    hop: int = HOP

    def __post_init__(self) -> None:
        if not 0 < self.compression <= 1:
            raise ValueError(f"compression must be above 0 and at most 1, got {self.compression}.")

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> MSIConfig:
        """Build from plain JSON/TOML values; unknown keys raise ``TypeError``."""
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class StreamingMSI(StreamingModule):
    """Mono mixture hops at 16 kHz in, the queried instrument and the rest out, one hop late, with its notes.

    Parameters
    ----------
    config : MSIConfig

    Raises
    ------
    ValueError
        The bands cannot be halved as often as there are levels.
    """

    stems = ("query", "rest")
    residual_stem = "rest"
    channels = 1
    samplerates = (SAMPLERATE,)
    notes = {  # noqa: RUF012 - a constant of the class
        "stems": ("query",),
        "lowest_midi": LOWEST_MIDI,
        "highest_midi": HIGHEST_MIDI,
        "frames_per_hop": 1,
        "extra_latency_samples": 0,
    }
    controls = (
        {
            "name": "query",
            "shape": [QUERY_SIZE],
            "default": [0.0] * QUERY_SIZE,
            "minimum": -1,
            "maximum": 1,
            "meaning": "which instrument to extract: what the query encoder makes of a recording of it",
        },
        {
            "name": "score",
            "shape": [PITCHES],
            "default": [0.0] * PITCHES,
            "minimum": 0,
            "maximum": 1,
            "meaning": "notes of the instrument that sound now, from MIDI 21 up; heeded as far as score_weight says",
        },
        {
            "name": "score_weight",
            "shape": [],
            "default": [0.0],
            "minimum": 0,
            "maximum": 1,
            "meaning": "0: the model's own transcription leads the separation; 1: the score does",
        },
    )

    def __init__(self, config: MSIConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MSIConfig()
        self.hop_samples = self.latency = config.hop
        self.stft = StreamingSTFT(config.window, config.hop, channels=1)
        self.istft = StreamingISTFT(self.stft, streams=1)
        self.bands = DoublingBands(self.stft.dft.bins, config.edges)
        halvings = len(config.channels) - 1
        if self.bands.bands % (1 << halvings) or not self.bands.bands >> (halvings + len(config.transcriptor_channels)):
            raise ValueError(
                f"the number of bands must be a multiple of {1 << halvings} and at least "
                f"{1 << (halvings + len(config.transcriptor_channels))}, got {self.bands.bands}."
            )
        self.shapes = [(c, self.bands.bands >> level) for level, c in enumerate(config.channels)]
        units = config.templates
        self.query_net: nn.Module = (
            TemplateQueryNet(self.bands.bands, units, QUERY_SIZE)
            if units
            else QueryNet(self.bands.bands, config.query_channels, QUERY_SIZE)
        )
        self.encoder = CausalEncoder(QUERY_SIZE, self.shapes)
        self.templates = Templates(QUERY_SIZE, self.bands.bands, units, config.mask) if units else None
        self.transcriptor = CausalTranscriptor(*self.shapes[-1], config.transcriptor_channels, units)
        self.pitch_extractor = PitchExtractor(self.shapes)
        with torch.no_grad():  # a start that lets timbre pass whatever the pitch
            for layer in self.pitch_extractor.layers:
                layer.conv.weight[: len(layer.conv.weight) // 2] += 1.0
        self.timbre_filter = CausalTimbreFilter(self.shapes)
        self.decoder = CausalDecoder(self.shapes, config.mask)
        # A full-scale sine has this magnitude in upstream's STFT; its weights expect it.
        self.scale = config.window / 4
        window = self.stft.analysis
        # Equivalent noise bandwidth: the bins' power of a full-scale sine adds up to it.
        self.noise_bins = float(window.numel() * window.square().sum() / window.sum() ** 2)

    @classmethod
    def from_reference(cls, reference: ReferenceMSI) -> StreamingMSI:
        """Take over the weights of an upstream checkpoint, as a start for training.

        Every shape is the same, but the reach of the convolutions and the STFT's window are not: without further
        training it separates worse than upstream.

        Raises
        ------
        ValueError
            The reference is a variant with parts missing.
        """
        if reference.variant != "MSI":
            raise ValueError(f"variant must be 'MSI', which has all parts, got {reference.variant!r}.")
        model = cls(MSIConfig())
        weights = reference.state_dict()
        model.load_state_dict({key: weights[key.replace(".conv.conv.", ".conv.")] for key in model.state_dict()})
        return model

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"frame": (PITCHES,)}

    def compress(self, magnitude: Tensor) -> Tensor:
        """Linear magnitudes of bands in the scale of the STFT to what the network works on, any shape."""
        power, floor = self.config.compression, self.scale * FLOOR
        return (self.scale * magnitude + floor) ** power - floor**power

    def expand(self, compressed: Tensor) -> Tensor:
        """Undo :meth:`compress`; what is negative counts as 0."""
        power, floor = self.config.compression, self.scale * FLOOR
        magnitude = (compressed.clamp_min(0.0) + floor**power) ** (1 / power) - floor
        return magnitude.clamp_min(0.0) / self.scale

    def spectrum(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part ``[B, N, F]`` of whole recordings ``[B, T]``, N = T // hop.

        The frames are those of the stream, found by index rather than hop by hop: that exports for any T.
        """
        window, hop = self.config.window, self.config.hop
        frames = audio.shape[-1] // hop
        line = pad(audio, (window - hop, 0))  # [B, window - hop + T]
        index = torch.arange(frames, device=audio.device)[:, None] * hop
        index = index + torch.arange(window, device=audio.device)  # [N, window]
        re, im = self.stft.dft(line[:, index] * self.stft.analysis)
        return re, im

    def features(self, audio: Tensor) -> Tensor:
        """Compressed band magnitudes ``[B, 1, N, bands]`` of whole recordings ``[B, T]``."""
        re, im = self.spectrum(audio)
        return self.compress(self.bands.merge((re.square() + im.square()).sqrt())).unsqueeze(1)

    def recording_features(self, audio: Tensor) -> Tensor:
        """:meth:`features` of recordings ``[B, T]`` to enroll, all brought to one level."""
        rms = audio.square().mean(-1, keepdim=True).sqrt()  # [B, 1]
        return self.features(audio * (RECORDING_RMS / rms.clamp_min(1e-4)))

    def embed(self, features: Tensor) -> Tensor:
        """Query ``[B, 6]`` of a recording's features ``[B, 1, N, bands]``."""
        return self.query_net(features)

    def timbre(self, features: Tensor, query: Tensor) -> list[Tensor]:
        """Timbre of a recording: the filtered levels ``[B, C, F]``, averaged over the frames in which it sounds.

        Parameters
        ----------
        features : Tensor
            ``[B, 1, N, bands]`` of the instrument alone.
        query : Tensor
            ``[B, 6]``.
        """
        levels, _ = self.encoder(features, query)
        maps, _ = self.timbre_filter(levels)
        power = self.expand(features).square().sum(-1, keepdim=True)  # [B, 1, N, 1]
        sounding = (power > SOUNDING * power.amax(2, keepdim=True)).to(maps[0].dtype)
        count = sounding.sum(2).clamp_min(1.0)  # [B, 1, 1]
        return [(x * sounding).sum(2) / count for x in maps]

    def posteriors(self, logits: Tensor, controls: Mapping[str, Tensor] | None) -> Tensor:
        """Classes' posteriors ``[B, P, N]`` of logits, replaced by the score as far as ``score_weight`` says."""
        own = torch.softmax(logits, dim=1)
        if controls is None:
            return own
        score = controls["score"]  # [B, pitches]
        score = torch.cat([score, 1 - score.amax(1, keepdim=True)], dim=1)  # [B, P]
        score = (score / score.sum(1, keepdim=True)).unsqueeze(-1)  # chords share
        weight = controls["score_weight"].reshape(-1, 1, 1)
        return own + weight * (score - own)

    def _see(
        self, features: Tensor, query: Tensor, state: State | None = None
    ) -> tuple[Tensor | None, Tensor | None, State]:
        """What the templates give, their state last; nothing where there are none."""
        if self.templates is None:
            return None, None, {}
        (seen, prior), new = self.templates(features, query, state)
        return seen, prior, new

    def ratio(self, decoded: Tensor, prior: Tensor | None, mixture: Tensor) -> Tensor:
        """Share of the queried instrument in the mixture's bands ``[B, 1, N, bands]``, in [0, 1].

        Parameters
        ----------
        decoded : Tensor
            What the decoder gives.
        prior : Tensor or None
            Logits of the templates' mask, added to the decoder's.
        mixture : Tensor
            Linear magnitudes ``[B, 1, N, bands]``.
        """
        if self.config.mask:
            logits = decoded[:, 1:]
            return torch.sigmoid(logits if prior is None else logits + prior)
        return (self.expand(decoded) / (mixture + 1e-6)).clamp(0.0, 1.0)

    def forward(
        self,
        audio: Tensor,
        state: State | None = None,
        controls: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], State]:
        """Separate whole hops.

        Parameters
        ----------
        audio : Tensor
            Mixture ``[B, 1, T]``, T a multiple of the hop.
        state : dict, optional
            From :meth:`initial_state` or the call before.
        controls : mapping, optional
            ``query`` ``[B, 6]``, ``score`` ``[B, 88]``, ``score_weight`` ``[B]``; their defaults when absent.

        Returns
        -------
        stems : Tensor
            ``[B, 2, 1, T]``: query and rest; their sum is ``audio`` one hop late.
        notes : dict
            ``onset``, ``frame``, ``velocity`` ``[B, 1, N, 88]``.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        query = audio.new_zeros(audio.shape[0], QUERY_SIZE) if controls is None else controls["query"]
        re, im, delayed, new_stft = self.stft(audio, substate(state, "stft"))
        magnitude = (re.square() + im.square()).sqrt()  # [B, 1, N, F]
        mixture = self.bands.merge(magnitude)  # [B, 1, N, bands]
        features = self.compress(mixture)
        levels, new_encoder = self.encoder(features, query, substate(state, "encoder"))
        seen, prior, new_templates = self._see(features, query, substate(state, "templates"))
        logits, new_transcriptor = self.transcriptor(levels[-1], seen, substate(state, "transcriptor"))
        posteriors = self.posteriors(logits, controls)
        maps, new_timbre = self.timbre_filter(levels, substate(state, "timbre_filter"))
        entangled = entangle(self.pitch_extractor(posteriors), maps)
        estimate, new_decoder = self.decoder(entangled, substate(state, "decoder"))
        ratio = self.bands.spread(self.ratio(estimate, prior, mixture))  # [B, 1, N, F]
        stem, new_istft = self.istft(ratio * re, ratio * im, substate(state, "istft"))
        stems = torch.stack([stem, delayed - stem], dim=1)  # [B, 2, 1, T]
        notes, frame = self._notes(posteriors, ratio * magnitude, state["frame"])
        children = {
            "stft": new_stft,
            "encoder": new_encoder,
            "templates": new_templates,
            "transcriptor": new_transcriptor,
            "timbre_filter": new_timbre,
            "decoder": new_decoder,
            "istft": new_istft,
        }
        new = {key: value for name, child in children.items() for key, value in prefixed(name, child).items()}
        return stems, notes, {**new, "frame": frame}

    def _notes(self, posteriors: Tensor, magnitude: Tensor, before: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Frame, onset and velocity ``[B, 1, N, 88]``, and the frame to remember ``[B, 88]``.

        An onset is the rise of a posterior since the frame before. The velocity is the level of the stem, from 0
        at -60 dB to 1 at the level of a full-scale sine, faded out where no note is likely.
        """
        frame = posteriors[:, :PITCHES].transpose(1, 2)  # [B, N, 88]
        past = torch.cat([before.unsqueeze(1), frame[:, :-1]], dim=1)
        power = magnitude.square().sum(-1, keepdim=True) / self.noise_bins  # [B, 1, N, 1]
        level = (1 + torch.log10(power + 1e-6) / 6).clamp(0.0, 1.0)
        velocity = level * (4 * frame.unsqueeze(1)).clamp(0.0, 1.0)
        onset = torch.relu(frame - past).unsqueeze(1)
        return {"onset": onset, "frame": frame.unsqueeze(1), "velocity": velocity}, frame[:, -1]

    def training_outputs(
        self, audio: Tensor, recordings: Tensor, second: Tensor | None = None, classes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the losses are made from; see :mod:`models.msi.losses`.

        Parameters
        ----------
        audio : Tensor
            Mixtures X ``[B, T]``.
        recordings : Tensor
            ``[B, S, 2, Tq]``: two recordings each of S instruments, the first of them the target's.
        second : Tensor, optional
            For MSI-DIS: the mixture X' ``[B, T]`` that the timbre is taken from.
        classes : Tensor, optional
            For the synthesis loss: the target's true classes ``[B, N]``. It costs as much as the rest, and is
            computed for the first half of the batch.

        Returns
        -------
        dict
            ``queries`` ``[B, S, 2, 6]``, ``logits`` ``[B, P, N]``, ``mask`` or (compressed) ``magnitude``
            ``[B, 1, N, bands]`` according to the config, and, with ``classes``, ``synthesis``
            ``[ceil(B / 2), 1, N, bands]``: the true notes with the timbre averaged over the target's second
            recording.
        """
        features = self.recording_features(recordings.flatten(0, 2))  # [B S 2, 1, Nq, bands]
        queries = self.embed(features).unflatten(0, recordings.shape[:3])  # [B, S, 2, 6]
        query = queries[:, 0, 0]
        mixture = self.features(audio)
        levels, _ = self.encoder(mixture, query)
        seen, prior, _ = self._see(mixture, query)
        logits, _ = self.transcriptor(levels[-1], seen)
        if second is not None:
            levels, _ = self.encoder(self.features(second), query)
        maps, _ = self.timbre_filter(levels)
        decoded, _ = self.decoder(entangle(self.pitch_extractor(torch.softmax(logits, dim=1)), maps))
        outputs = {"queries": queries, "logits": logits}
        if self.config.mask:
            outputs["mask"] = self.ratio(decoded, prior, self.expand(mixture))
        else:  # not clipped to the mixture: where it is, nothing would be learnt
            outputs["magnitude"] = decoded
        if classes is not None:
            half = -(-len(audio) // 2)
            own = features.unflatten(0, recordings.shape[:3])[:half, 0, 1]  # [B / 2, 1, Nq, bands]
            still = [x.unsqueeze(2) for x in self.timbre(own, query[:half])]  # [B / 2, C, 1, F]
            decoded, _ = self.decoder(entangle(self.pitch_extractor(one_hot(classes[:half])), still))
            outputs["synthesis"] = decoded[:, :1]
        return outputs

    def template_outputs(self, audio: Tensor, recordings: Tensor) -> dict[str, Tensor]:
        """As :meth:`training_outputs`, of query network and templates alone: a fraction of the work.

        Without templates it gives ``queries`` only; without a mask in the config no ``mask``.
        """
        queries = self.embed(self.recording_features(recordings.flatten(0, 2))).unflatten(0, recordings.shape[:3])
        outputs = {"queries": queries}
        seen, prior, _ = self._see(self.features(audio), queries[:, 0, 0])
        if seen is not None:
            outputs["logits"] = self.transcriptor.of_templates(seen)
        if prior is not None:
            outputs["mask"] = torch.sigmoid(prior)
        return outputs


class SynthStep(StreamingModule):
    """Notes and an enrolled timbre to magnitudes, frame by frame: the decoder of a :class:`StreamingMSI`.

    Parameters
    ----------
    model : StreamingMSI
        Shares its weights.
    """

    def __init__(self, model: StreamingMSI) -> None:
        super().__init__()
        self.pitch_extractor, self.decoder = model.pitch_extractor, model.decoder
        self.bands, self.shapes = model.bands, model.shapes
        self.expand = model.expand

    def forward(self, notes: Tensor, timbre: list[Tensor], state: State | None = None) -> tuple[Tensor, State]:
        """Render frames.

        Parameters
        ----------
        notes : Tensor
            ``[B, N, 88]`` in [0, 1], sounding now; one at a time, chords share.
        timbre : list of Tensor
            ``[B, C, F]`` per level, of :meth:`StreamingMSI.timbre`.
        state : dict, optional

        Returns
        -------
        magnitude : Tensor
            ``[B, N, F]``, linear, 1 for a sine of amplitude 1.
        state : dict
        """
        state = self.checked_state(state, notes.shape[0])
        classes = torch.cat([notes, 1 - notes.amax(2, keepdim=True)], dim=2)  # [B, N, P]
        classes = (classes / classes.sum(2, keepdim=True)).transpose(1, 2)  # [B, P, N]
        entangled = entangle(self.pitch_extractor(classes), [x.unsqueeze(2) for x in timbre])
        estimate, new = self.decoder(entangled, substate(state, "decoder"))
        return self.bands.spread(self.expand(estimate[:, 0])), prefixed("decoder", new)


def one_hot(classes: Tensor) -> Tensor:
    """Turn classes ``[B, N]`` into posteriors ``[B, P, N]`` that are sure of them."""
    return torch.nn.functional.one_hot(classes, CLASSES).transpose(1, 2).float()
