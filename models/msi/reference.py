"""MSI as published: the offline reference form, with upstream's architecture, padding and front end.

"A unified model for zero-shot music source separation, transcription and synthesis" (Lin, Kong, Jiang, Xia,
ISMIR 2021), section 3. MSI and MSI-DIS are one architecture and differ in how they are trained
(:mod:`models.msi.losses`). The baselines of the paper are the same network with parts left out.

Axes: B batch, C channels, N frames, F bins, P classes of pitch. Time lies before frequency: ``[B, C, N, F]``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

CHANNELS = (2, 4, 8, 16, 32, 64)
TRANSCRIPTOR_CHANNELS = (128, 256)
QUERY_CHANNELS = (2, 4)
BINS = 1024  # the Nyquist bin is left out
QUERY_SIZE = 6
LOWEST_MIDI, HIGHEST_MIDI = 21, 108
PITCHES = HIGHEST_MIDI - LOWEST_MIDI + 1
SILENCE = PITCHES  # the last of the classes; class k below it is MIDI note 21 + k
CLASSES = PITCHES + 1
SAMPLERATE, WINDOW, HOP = 16000, 2048, 160
MOMENTUM = 0.01

Variant = Literal["MSI", "MSS", "AMT", "MSS-AMT"]


class ConvBlock(nn.Module):
    """3 x 3 convolution without bias, batch norm, ReLU; one frame of look-ahead."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, N, F]`` to ``[B, outputs, N, F]``."""
        return torch.relu(self.bn(self.conv(x)))


class DeepConvBlock(nn.Module):
    """Two convolutions, the second with as many channels as the first puts out."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(inputs, outputs)
        self.conv2 = ConvBlock(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, N, F]`` to ``[B, outputs, N, F]``."""
        return self.conv2(self.conv1(x))


class UpBlock(nn.Module):
    """Transposed convolution to twice the bins, then a convolution over it and the skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=(1, 2), bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=MOMENTUM)
        self.conv_block = ConvBlock(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map ``[B, inputs, N, F]`` and the skip ``[B, outputs, N, 2 F]`` to the shape of the skip."""
        x = torch.relu(self.bn(self.conv(x)))  # [B, outputs, N + 2, 2 F + 1]
        return self.conv_block(torch.cat([x[:, :, 1:-1, :-1], skip], dim=1))


class Pointwise(nn.Module):
    """Convolution of kernel 1 over ``[B, inputs, N]``; ``conv`` is what upstream calls its weights."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, N]`` to ``[B, outputs, N]``."""
        return self.conv(x)


class FiLM(nn.Module):
    """Scale and offset for every channel and every bin, linear in the query (after Perez et al., AAAI 2018).

    Parameters
    ----------
    query : int
        Size of the query vector.
    channels, bins : int
        Of what is modulated; the modulation is constant over time.
    """

    def __init__(self, query: int, channels: int, bins: int) -> None:
        super().__init__()
        self.shape = (channels, 1, bins)
        self.gamma = Pointwise(query, channels * bins)
        self.beta = Pointwise(query, channels * bins)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """Modulate ``[B, C, N, F]`` by ``[B, query]``; no 1 is added to the scale."""
        query = query.unsqueeze(-1)  # [B, query, 1]
        gamma = self.gamma(query).reshape(-1, *self.shape)  # [B, C, 1, F]
        beta = self.beta(query).reshape(-1, *self.shape)
        return x * gamma + beta


class QueryNet(nn.Module):
    """What an instrument sounds like, from a recording of it: a vector in [-1, 1] (paper, section 3.1).

    Looks ahead and pools over time, which is no harm: it runs once, when a query is enrolled.
    """

    def __init__(self, bins: int = BINS, channels: tuple[int, ...] = QUERY_CHANNELS, size: int = QUERY_SIZE) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(1, momentum=MOMENTUM)
        self.layers = nn.ModuleList(ConvBlock(i, o) for i, o in zip((1, *channels), channels, strict=False))
        self.align = 2 ** len(channels)
        self.bottom = Pointwise(channels[-1] * (bins // self.align), size)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``[B, 1, N, F]``, N at least 4, to queries ``[B, size]``."""
        x = self.bn0(x[:, :, : x.shape[2] // self.align * self.align])
        for layer in self.layers:
            x = avg_pool2d(layer(x), 2)
        x = x.transpose(2, 3).flatten(1, 2)  # [B, C F / 4, N / 4]
        return torch.tanh(self.bottom(x)).mean(-1)


class Encoder(nn.Module):
    """Features and query to the bottleneck and one skip connection per level."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(1, momentum=MOMENTUM)
        pairs = list(zip((1, *CHANNELS), CHANNELS, strict=False))
        self.layers = nn.ModuleList(DeepConvBlock(i, o) for i, o in pairs)
        self.film_layers = nn.ModuleList(FiLM(QUERY_SIZE, o, BINS >> level) for level, (_, o) in enumerate(pairs))

    def forward(self, x: Tensor, query: Tensor) -> list[Tensor]:
        """Map ``[B, 1, N, F]`` and ``[B, query]`` to the levels ``[B, C, N, F / 2^level]``, finest first."""
        levels: list[Tensor] = []
        x = self.bn0(x)
        for layer, film in zip(self.layers, self.film_layers, strict=True):
            x = avg_pool2d(levels[-1], (1, 2)) if levels else x
            levels.append(film(layer(x), query))
        return levels


class Transcriptor(nn.Module):
    """Logits of the note that sounds, one class a frame: monophonic for each query."""

    def __init__(self) -> None:
        super().__init__()
        widths = (CHANNELS[-1], *TRANSCRIPTOR_CHANNELS)
        self.layers = nn.ModuleList(DeepConvBlock(i, o) for i, o in itertools.pairwise(widths))
        bins = BINS >> (len(CHANNELS) - 1 + len(TRANSCRIPTOR_CHANNELS))
        self.bottom = Pointwise(widths[-1] * bins, CLASSES)

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Map ``[B, C, N, F]`` to ``[B, P, N]``."""
        x = bottleneck
        for layer in self.layers:
            x = avg_pool2d(layer(x), (1, 2))
        return self.bottom(x.transpose(2, 3).flatten(1, 2))  # [B, C F, N] -> [B, P, N]


class PitchExtractor(nn.Module):
    """A table with a vector per class of pitch for each level; posteriors mix its rows (paper, section 3.3).

    Parameters
    ----------
    shapes : sequence of (C, F)
        Of the levels.
    """

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.shapes = shapes
        self.layers = nn.ModuleList(Pointwise(CLASSES, 2 * c * f, bias=False) for c, f in shapes)

    def forward(self, posteriors: Tensor) -> list[Tensor]:
        """Map ``[B, P, N]`` to ``[B, 2 C, N, F]`` per level."""
        return [
            layer(posteriors).unflatten(1, (2 * c, f)).transpose(2, 3)
            for layer, (c, f) in zip(self.layers, self.shapes, strict=True)
        ]


class TimbreFilter(nn.Module):
    """One convolution per level that keeps what is not pitch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvBlock(c, c) for c in CHANNELS)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Filter ``[B, C, N, F]`` of each level."""
        return [layer(x) for layer, x in zip(self.layers, levels, strict=True)]


def entangle(pitch: list[Tensor], timbre: list[Tensor]) -> list[Tensor]:
    """Scale and shift timbre ``[B, C, N, F]`` by pitch ``[B, 2 C, N, F]``, level by level."""
    parts = [p.chunk(2, dim=1) for p in pitch]
    return [gamma * t + beta for (gamma, beta), t in zip(parts, timbre, strict=True)]


class Decoder(nn.Module):
    """Levels back to one magnitude per bin; a regression without mask, which may come out negative."""

    def __init__(self) -> None:
        super().__init__()
        down = CHANNELS[::-1]
        self.layers = nn.ModuleList(UpBlock(i, o) for i, o in itertools.pairwise(down))
        self.bottom = nn.Conv2d(CHANNELS[0], 1, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map the levels, finest first, to ``[B, 1, N, F]``."""
        x = levels[-1]
        for layer, skip in zip(self.layers, levels[-2::-1], strict=True):
            x = layer(x, skip)
        return self.bottom(x)


@dataclass(frozen=True)
class Separated:
    """What :meth:`ReferenceMSI.separate` returns.

    Attributes
    ----------
    audio : Tensor
        ``[B, T]``, with the phase of the mixture.
    posteriors : Tensor or None
        ``[B, P, N]``; None for a variant without transcriptor and for a given score.
    """

    audio: Tensor
    posteriors: Tensor | None


class ReferenceMSI(nn.Module):
    """Query, separation, transcription and synthesis of mono audio at 16 kHz, offline.

    Parameters
    ----------
    variant : str
        ``"MSI"`` (MSI-DIS has the same weights), or one of the paper's baselines, which lack parts: ``"MSS"``
        separates only, ``"AMT"`` transcribes only, ``"MSS-AMT"`` does both from the same encoder.
    """

    def __init__(self, variant: Variant = "MSI") -> None:
        super().__init__()
        if variant not in get_args(Variant):
            raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}.")
        self.variant = variant
        self.query_net = QueryNet()
        self.encoder = Encoder()
        self.transcriptor = Transcriptor() if variant != "MSS" else None
        self.decoder = Decoder() if variant != "AMT" else None
        shapes = [(c, BINS >> level) for level, c in enumerate(CHANNELS)]
        self.pitch_extractor = PitchExtractor(shapes) if variant == "MSI" else None
        self.timbre_filter = TimbreFilter() if variant == "MSI" else None
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def stft(self, audio: Tensor) -> Tensor:
        """Complex bins ``[B, N, F + 1]`` of ``[B, T]``, T above 1024; N is T // 160 + 1."""
        spectrum = torch.stft(audio, WINDOW, HOP, window=self.window, center=True, return_complex=True)
        return spectrum.transpose(1, 2)

    def features(self, audio: Tensor) -> Tensor:
        """Linear magnitudes ``[B, 1, N, F]`` of ``[B, T]``, Nyquist left out."""
        return self.stft(audio).abs()[:, None, :, :BINS]

    def embed(self, audio: Tensor) -> Tensor:
        """Query ``[B, 6]`` of recordings ``[B, T]``."""
        return self.query_net(self.features(audio))

    def posteriors(self, features: Tensor, query: Tensor) -> Tensor:
        """Posteriors ``[B, P, N]`` of the note of the queried instrument in ``[B, 1, N, F]``."""
        if self.transcriptor is None:
            raise ValueError(f"variant {self.variant!r} does not transcribe; load an MSI, AMT or MSS-AMT checkpoint.")
        return torch.softmax(self.transcriptor(self.encoder(features, query)[-1]), dim=1)

    def magnitude(self, features: Tensor, query: Tensor, notes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Regress the magnitude of the queried instrument.

        Parameters
        ----------
        features : Tensor
            ``[B, 1, N, F]``. What its timbre is taken from; without ``notes`` its pitch as well.
        query : Tensor
            ``[B, 6]``.
        notes : Tensor, optional
            A score that replaces the transcription, ``[B, P, N]``, each frame summing to one.

        Returns
        -------
        magnitude : Tensor
            ``[B, 1, N, F]``, possibly negative.
        posteriors : Tensor or None
            ``[B, P, N]``, those used.

        Raises
        ------
        ValueError
            The variant lacks the part, or the shape of ``notes`` is another.
        """
        if self.decoder is None:
            raise ValueError(f"variant {self.variant!r} does not separate; load an MSI, MSS or MSS-AMT checkpoint.")
        levels = self.encoder(features, query)
        if self.pitch_extractor is None or self.timbre_filter is None:
            if notes is not None:
                raise ValueError(f"variant {self.variant!r} takes no score; load an MSI or MSI-DIS checkpoint.")
            logits = None if self.transcriptor is None else self.transcriptor(levels[-1])
            return self.decoder(levels), None if logits is None else torch.softmax(logits, dim=1)
        assert self.transcriptor is not None
        if notes is None:
            notes = torch.softmax(self.transcriptor(levels[-1]), dim=1)
        elif notes.shape != (features.shape[0], CLASSES, features.shape[2]):
            wanted = (features.shape[0], CLASSES, features.shape[2])
            raise ValueError(f"notes must be [B, {CLASSES}, N] = {wanted}, got {tuple(notes.shape)}.")
        return self.decoder(entangle(self.pitch_extractor(notes), self.timbre_filter(levels))), notes

    def separate(self, audio: Tensor, query: Tensor, notes: Tensor | None = None) -> Separated:
        """Extract the queried instrument from ``[B, T]``, whole clip at once.

        Parameters
        ----------
        audio : Tensor
            ``[B, T]``, T above 1024.
        query, notes
            As in :meth:`magnitude`; N is T // 160 + 1.
        """
        spectrum = self.stft(audio)  # [B, N, F + 1]
        magnitude, posteriors = self.magnitude(spectrum.abs()[:, None, :, :BINS], query, notes)
        magnitude = pad(magnitude[:, 0].clamp_min(0.0), (0, 1))  # [B, N, F + 1]
        estimate = torch.polar(magnitude, spectrum.angle()).transpose(1, 2)
        out = torch.istft(estimate, WINDOW, HOP, window=self.window, center=True, length=audio.shape[-1])
        return Separated(out, None if notes is not None else posteriors)

    def transcribe(self, audio: Tensor, query: Tensor) -> Tensor:
        """Class of every frame ``[B, N]`` of ``[B, T]``: MIDI note minus 21, or 88 for silence."""
        return self.posteriors(self.features(audio), query).argmax(dim=1)
