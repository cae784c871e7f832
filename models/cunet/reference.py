"""The published Conditioned U-Net and its plain U-Net, exactly: layers, padding, parameter counts, front end.

From Meseguer-Brocal and Peeters, "Conditioned-U-Net" (ISMIR 2019); the U-Net is that of Jansson et al. (ISMIR 2017).
Mono at 8192 Hz, STFT 1024/256, patches of 512 bins and 128 frames (4 s). A patch is seen whole, so this form is
offline; the live one is in :mod:`models.cunet.streaming`.

Left out of upstream's inference: the rescaling of the estimate with level, minimum and maximum of the *true* stem,
which no one has outside a test, and the rescaling of the written file. The mask is applied to the mixture itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.cunet.film import BATCH_NORM_EPSILON, CONDITIONS, CONTROL_WIDTHS, ControlNetwork, Variant, checked_variant

LABELS = ("bass", "drums", "rest", "vocals")
"""Order of upstream's condition."""


@dataclass(frozen=True)
class ReferenceConfig:
    """Sizes of a :class:`CUNet`; the defaults are the published ones.

    Attributes
    ----------
    variant : str
        ``"standard"`` (no condition) or FiLM and control network: ``"simple_dense"``, ``"complex_dense"``,
        ``"simple_cnn"``, ``"complex_cnn"``.
    filters : tuple of int
        Channels of the encoder blocks.
    control_widths : tuple of int
        Hidden layers of the control network; those published for the variant when empty.
    frames : int
        N of a patch.
    """

    variant: Variant = "simple_dense"
    filters: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    control_widths: tuple[int, ...] = ()
    frames: int = 128
    window: int = 1024
    hop: int = 256
    samplerate: int = 8192

    def __post_init__(self) -> None:
        checked_variant(self.variant)
        if self.control_widths and len(self.control_widths) != 3:
            raise ValueError(f"control_widths must be three widths, or none, got {self.control_widths}.")
        step = 2 ** len(self.filters)
        for name, size in (("window / 2", self.window // 2), ("frames", self.frames)):
            if size % step:
                raise ValueError(f"{name} must be a multiple of {step}, one halving per filter, got {size}.")

    @property
    def bins(self) -> int:
        """F of a patch: without the Nyquist bin."""
        return self.window // 2


class CUNet(nn.Module):
    """Masks of patches.

    Parameters
    ----------
    config : ReferenceConfig
    """

    dropout_blocks = (1, 2, 3)  # of the decoder

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        filters = config.filters
        self.control: ControlNetwork | None = None
        if config.variant != "standard":
            widths = config.control_widths or CONTROL_WIDTHS[config.variant]
            self.control = ControlNetwork(config.variant, filters, (widths[0], widths[1], widths[2]))
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 5, 2) for a, b in zip((1, *filters), filters, strict=False))
        self.encoder_norms = nn.ModuleList(_norm(width) for width in filters)
        outputs = (*filters[-2::-1], 1)
        inputs = (filters[-1], *(2 * width for width in outputs[:-1]))
        self.decoder = nn.ModuleList(nn.ConvTranspose2d(a, b, 5, 2) for a, b in zip(inputs, outputs, strict=True))
        self.decoder_norms = nn.ModuleList(_norm(width) for width in outputs)
        self.dropout = nn.Dropout(0.5)
        for layer in (*self.encoder, *self.decoder):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, magnitude: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return masks.

        Parameters
        ----------
        magnitude : Tensor
            Normalised, ``[B, 1, F, N]``; F and N multiples of ``2 ** len(filters)``.
        condition : Tensor, optional
            ``[B, 4]``, in the order of :data:`LABELS`; None for the standard U-Net and only for it.

        Returns
        -------
        Tensor
            ``[B, 1, F, N]``, 0 to 1.

        Raises
        ------
        ValueError
            A condition is missing or has no use.
        """
        if (condition is None) != (self.control is None):
            raise ValueError(
                f"variant {self.config.variant!r} takes {'no condition' if self.control is None else 'a condition'}."
            )
        films = self.control(condition) if self.control is not None and condition is not None else []
        x, skips = magnitude, []
        for index, (conv, norm) in enumerate(zip(self.encoder, self.encoder_norms, strict=True)):
            # Keras' "same" for stride 2 and an even size pads less in front than behind.
            x = norm(conv(nn.functional.pad(x, (1, 2, 1, 2))))
            if films:
                scale, shift = (film[:, :, None, None] for film in films[index])  # [B, 1 | C, 1, 1]
                x = x * scale + shift
            x = nn.functional.leaky_relu(x, 0.2)
            skips.append(x)
        skips.pop()
        last = len(self.decoder) - 1
        for index, (conv, norm) in enumerate(zip(self.decoder, self.decoder_norms, strict=True)):
            if index:
                x = torch.cat([x, skips.pop()], dim=1)
            x = norm(conv(x)[..., 1:-2, 1:-2])
            if index in self.dropout_blocks:
                x = self.dropout(x)
            x = torch.sigmoid(x) if index == last else torch.relu(x)
        return x


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, BATCH_NORM_EPSILON, momentum=0.1)


def keras_parameters(model: nn.Module) -> int:
    """Parameters as Keras counts them: with the moving statistics of batch normalisation."""
    statistics = sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(p.numel() for p in model.parameters()) + statistics


class ReferenceSeparator(nn.Module):
    """Whole recordings through a :class:`CUNet`, patch by patch.

    Parameters
    ----------
    network : CUNet
        In evaluation mode.
    patches_at_once : int
        Bounds the memory.
    """

    def __init__(self, network: CUNet, patches_at_once: int = 8) -> None:
        super().__init__()
        self.network, self.patches_at_once = network, patches_at_once
        self.samplerate = network.config.samplerate
        self.register_buffer("window", torch.hann_window(network.config.window), persistent=False)

    @torch.no_grad()
    def separate(self, audio: Tensor, condition: Sequence[float] | Tensor | None = None) -> Tensor:
        """Return what the condition selects.

        Parameters
        ----------
        audio : Tensor
            Mono ``[T]`` at ``samplerate``, longer than half a window.
        condition : sequence of four floats, optional
            In the order of :data:`LABELS`, 0 to 1; none for the standard U-Net.

        Returns
        -------
        Tensor
            ``[T]``, with the phase of the mixture.

        Raises
        ------
        ValueError
            Audio that is no mono clip or too short, or a condition of another size or range.
        """
        config = self.network.config
        if audio.ndim != 1 or audio.shape[0] <= config.window // 2:
            raise ValueError(
                f"audio must be mono [T] at {config.samplerate} Hz with more than {config.window // 2} samples, "
                f"got {list(audio.shape)}."
            )
        vector = None if condition is None else _checked_condition(condition).to(audio)
        spectrum = torch.stft(
            audio, config.window, config.hop, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )  # [F + 1, N]
        masks = self.masks(normalise_complex(spectrum)[:-1].abs(), vector)
        masks = torch.cat([masks, masks[-1:]])  # the Nyquist bin is treated as its neighbour
        return torch.istft(masks * spectrum, config.window, config.hop, window=self.window, length=audio.shape[0])

    def masks(self, magnitude: Tensor, condition: Tensor | None) -> Tensor:
        """Masks ``[F, N]`` of normalised magnitudes ``[F, N]``, in patches without overlap; the last is padded."""
        count, size = magnitude.shape[1], self.network.config.frames
        padded = nn.functional.pad(magnitude, (0, -count % size))
        patches = padded.unflatten(1, (-1, size)).permute(1, 0, 2).unsqueeze(1)  # [P, 1, F, frames]
        pieces = []
        for group in patches.split(self.patches_at_once):
            conditions = None if condition is None else condition.expand(group.shape[0], -1)
            pieces.append(self.network(group, conditions)[:, 0])  # [p, F, frames]
        return torch.cat(pieces).permute(1, 0, 2).flatten(1)[:, :count]


def normalise_complex(spectrum: Tensor) -> Tensor:
    """Shift and scale a complex spectrum as upstream's data does, by its least and greatest element.

    Complex numbers are ordered as NumPy does, by real part and then imaginary part. Silence stays as it is.
    """
    pairs = torch.view_as_real(spectrum.flatten())  # [M, 2]

    def extreme(largest: bool) -> Tensor:
        bound = pairs[:, 0].max() if largest else pairs[:, 0].min()
        ties = pairs[pairs[:, 0] == bound]
        return torch.complex(bound, ties[:, 1].max() if largest else ties[:, 1].min())

    lowest, highest = extreme(False), extreme(True)
    span = highest - lowest
    return spectrum if float(span.abs()) == 0.0 else (spectrum - lowest) / span


def _checked_condition(condition: Sequence[float] | Tensor) -> Tensor:
    vector = torch.as_tensor(condition, dtype=torch.float32)
    if tuple(vector.shape) != (CONDITIONS,) or not bool(((vector >= 0) & (vector <= 1)).all()):
        raise ValueError(f"condition must be four values 0 to 1 for {', '.join(LABELS)}, got {vector.tolist()}.")
    return vector
