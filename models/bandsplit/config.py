"""Sizes and options of the band-split system, checked when they are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class BandSplitConfig:
    """Sizes of a :class:`models.bandsplit.streaming.StreamingBandSplit`.

    Attributes
    ----------
    window, hop : int
        Samples. Algorithmic latency is ``(2 + lookahead) * hop``.
    groups : tuple of (int, int)
        From the lowest bin upwards: how many bands, of how many bins each. Bins above the last band share one gain
        per stem.
    width : int
        Values per band and frame between the layers.
    layers : int
        Each: GRU over time, GRU over the bands of the frame, GRU over time of all bands together.
    time_hidden : int
        GRU over time, one for all bands.
    band_hidden : int
        GRU over the bands of a frame, per direction; 0 leaves it out.
    global_hidden : int
        GRU over time that sees all bands; 0 leaves it out.
    global_every : int
        Every how many layers have that one; it costs more in training than its size says, as its rows are few.
    global_width : int
        Values that each band hands to it and takes back.
    mask_hidden : int
        Between the last layer and the masks.
    shared_bands : bool
        Bands of a group share their projections from bins and to masks, as a convolution would.
    level : bool
        The level of the frame is a feature; without it nothing depends on the level of the recording.
    filter_taps : int
        Frames of the complex filter that follows the masks, this frame's included; 0 leaves it out.
    filter_off : tuple of str
        Stems without that filter.
    bass_window, bass_bins : int
        A second, longer analysis of the lowest bins (from the first above 0 Hz) as features; 0 leaves it out.
    residual_taps, residual_stride, residual_basis : int
        Learnt filters on the waveform that give one stem what the frames are too long for, in samples, and how many;
        0 taps leave them out.
    residual_target : str
        The stem they give to.
    lookahead : int
        Frames that the masks wait for and see, 0 or more; not together with ``residual_taps``.
    dropout : float
        On what the layers add, in training only.
    channels : int
        Audio channels, 1 or 2.
    stems : tuple of str
        Of drums, bass, other and vocals, or ``accompaniment`` for all but the vocals.
    rest : str
        The stem that is the mixture without the others.
    samplerates : tuple of int
        Rates (Hz) it runs at without a resampler; training must have covered their ratio.
    """

    window: int = 2048
    hop: int = 512
    groups: tuple[tuple[int, int], ...] = ((12, 4), (8, 12), (6, 24), (5, 96))
    width: int = 64
    layers: int = 3
    time_hidden: int = 64
    band_hidden: int = 48
    global_hidden: int = 128
    global_every: int = 1
    global_width: int = 8
    mask_hidden: int = 64
    shared_bands: bool = False
    level: bool = True
    filter_taps: int = 0
    filter_off: tuple[str, ...] = ("bass",)
    bass_window: int = 0
    bass_bins: int = 24
    residual_taps: int = 0
    residual_stride: int = 64
    residual_basis: int = 32
    residual_target: str = "drums"
    lookahead: int = 0
    dropout: float = 0.0
    channels: int = 2
    stems: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    rest: str = "other"
    samplerates: tuple[int, ...] = (44100, 48000)

    def __post_init__(self) -> None:
        positive = ("hop", "width", "layers", "time_hidden", "global_width", "global_every", "mask_hidden", "bass_bins")
        for name in (*positive, "residual_stride", "residual_basis"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("band_hidden", "global_hidden", "filter_taps", "bass_window", "residual_taps", "lookahead"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if self.window < 2 * self.hop or self.window % 2:
            raise ValueError(f"window must be even and at least 2 * hop = {2 * self.hop}, got {self.window}.")
        if self.channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, got {self.channels}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        self._check_groups()
        self._check_stems()
        self._check_branches()

    def _check_groups(self) -> None:
        if not self.groups or any(len(group) != 2 or min(group) < 1 for group in self.groups):
            raise ValueError(f"groups must be pairs (bands, bins of each) of 1 or more, got {self.groups}.")
        if self.band_bins > self.window // 2:
            raise ValueError(
                f"groups cover {self.band_bins} bins; a window of {self.window} has {self.window // 2} below Nyquist."
            )

    def _check_stems(self) -> None:
        known = ("drums", "bass", "other", "vocals", "accompaniment")
        if unknown := [stem for stem in self.stems if stem not in known]:
            raise ValueError(f"stems must be of {', '.join(known)}, got {', '.join(unknown)}.")
        if len(self.stems) < 2 or len(set(self.stems)) != len(self.stems):
            raise ValueError(f"stems must be two or more, each once, got {self.stems}.")
        if self.rest not in self.stems:
            raise ValueError(f"rest must be one of the stems {', '.join(self.stems)}, got {self.rest!r}.")
        if "accompaniment" in self.stems and set(self.stems) != {"vocals", "accompaniment"}:
            raise ValueError("accompaniment is everything but the vocals: the stems beside it must be vocals alone.")
        if "accompaniment" not in self.stems and len(self.stems) < 4 and self.rest != "other":
            raise ValueError(f"with the stems {', '.join(self.stems)} the rest must be other, got {self.rest!r}.")

    def _check_branches(self) -> None:
        if self.filter_taps == 1:
            raise ValueError("filter_taps must be 0 or at least 2: the mask is the first tap.")
        if self.bass_window and self.bass_window <= self.window:
            raise ValueError(f"bass_window must be longer than the window {self.window}, got {self.bass_window}.")
        if self.bass_window and self.bass_bins > self.bass_window // 2:
            raise ValueError(f"bass_bins must be at most bass_window / 2, got {self.bass_bins}.")
        if self.residual_taps and self.lookahead:
            raise ValueError(f"residual_taps must be 0 with a lookahead of {self.lookahead}, got {self.residual_taps}.")
        if self.residual_taps:
            overlap = self.residual_taps - self.residual_stride
            if not 0 <= overlap <= self.hop or self.hop % self.residual_stride:
                raise ValueError(
                    f"residual_stride must divide the hop {self.hop}, and residual_taps exceed it by at most a hop; "
                    f"got {self.residual_stride} and {self.residual_taps}."
                )
            if self.residual_target not in self.estimated:
                raise ValueError(
                    f"residual_target must be one of the estimated stems {', '.join(self.estimated)}, "
                    f"got {self.residual_target!r}."
                )

    @property
    def bins(self) -> int:
        """F."""
        return self.window // 2 + 1

    @property
    def bands(self) -> int:
        """K."""
        return sum(count for count, _ in self.groups)

    @property
    def band_bins(self) -> int:
        """Bins that lie in bands."""
        return sum(count * width for count, width in self.groups)

    @property
    def estimated(self) -> tuple[str, ...]:
        """Stems that have masks: all but the rest."""
        return tuple(stem for stem in self.stems if stem != self.rest)

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> BandSplitConfig:
        """Build from plain JSON/TOML values; unknown keys raise ``TypeError``."""

        def plain(value: object) -> object:
            return tuple(plain(item) for item in value) if isinstance(value, list | tuple) else value

        return cls(**{key: plain(value) for key, value in values.items()})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)
