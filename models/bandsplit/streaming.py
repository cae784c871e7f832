"""Our own system: a streaming band-split network.

"Music Source Separation With Band-Split RNN" (Luo and Yu, TASLP 2023) gave the idea: small recurrent layers, the same
for all bands of the spectrum, follow each over time and compare them with each other. What differs, and why:

* the STFT is causal, inside the model, with asymmetric windows (latency 2 hops instead of a whole window);
* bands come in groups of equal widths, so that the way from bins to bands and to masks is a batched product per group;
* GRU instead of LSTM, whose state cannot grow, in one direction over time, in both over the bands of the one frame;
* a third GRU sees all bands at once: what it remembers is common to them (StemgenRT has such a layer too);
* nothing is normalised over time: levels are relative to the present frame;
* one body for all stems; the last stem is what the others leave of the mixture, so that they add up to it exactly;
* optional: a complex filter over past frames, a longer analysis for the bass, and filters on the waveform for the drums
  (:mod:`models.bandsplit.branches`); some frames of look-ahead (:mod:`models.bandsplit.lookahead`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.bandsplit.branches import BassAnalysis, DeepFilter, WaveformResidual
from models.bandsplit.config import BandSplitConfig
from models.bandsplit.layers import BandEncoder, Layer, MaskDecoder
from models.bandsplit.lookahead import LookAhead
from models.streaming.base import State, StreamingModule, prefixed, substate
from models.streaming.stft import StreamingISTFT, StreamingSTFT


class StreamingBandSplit(StreamingModule):
    """Mixture hops in, stem hops out, one hop and the look-ahead late.

    Parameters
    ----------
    config : BandSplitConfig
    """

    def __init__(self, config: BandSplitConfig) -> None:
        super().__init__()
        self.config = config
        self.stems, self.channels, self.samplerates = config.stems, config.channels, config.samplerates
        self.hop_samples, self.latency = config.hop, config.hop * (1 + config.lookahead)
        self.residual_stem: str | None = config.rest
        estimated = len(config.estimated)
        self.stft = StreamingSTFT(config.window, config.hop, config.channels)
        self.encode = BandEncoder(config.groups, config.width, config.channels, config.shared_bands, config.level)
        self.layers = nn.ModuleList()
        for index in range(config.layers):
            self.layers.append(_layer(config, everything=(index + 1) % config.global_every == 0))
        self.ahead = None
        if config.lookahead:
            sizes = (config.bands, config.channels, config.bins, config.hop)
            self.ahead = LookAhead(config.lookahead, config.width, _layer(config, everything=False), *sizes)
        filtered = [index for index, stem in enumerate(config.estimated) if stem not in config.filter_off]
        self.filtered = filtered
        self.filter = None
        if config.filter_taps and filtered:
            self.filter = DeepFilter(config.filter_taps, len(filtered), config.channels, config.band_bins)
        self.decode = MaskDecoder(
            config.groups,
            config.width,
            config.mask_hidden,
            estimated,
            config.channels,
            self.filter.values if self.filter is not None else 0,
            config.shared_bands,
        )
        self.bass = None
        if config.bass_window:
            self.bass = BassAnalysis(
                config.bass_window, config.hop, config.bass_bins, config.channels, config.width, low_bands(config)
            )
        self.residual = None
        if config.residual_taps:
            taps, stride, basis = config.residual_taps, config.residual_stride, config.residual_basis
            self.residual = WaveformResidual(config.hop, taps, stride, basis, config.channels, config.width)
        self.istft = StreamingISTFT(self.stft, estimated * config.channels)

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
            ``[B, S, C, T]``; their sum is ``audio`` one hop and the look-ahead late.
        state : dict
        """
        state = self.checked_state(state, audio.shape[0])
        re, im, delayed, changed = self.stft(audio, substate(state, "stft"))
        new = prefixed("stft", changed)
        re, im = re.permute(2, 0, 1, 3), im.permute(2, 0, 1, 3)  # [N, B, C, F]
        covered = self.config.band_bins
        x = self.encode(re[..., :covered], im[..., :covered])  # [N B K, D]
        if self.bass is not None:
            low, changed = self.bass(audio, substate(state, "bass"))  # [N B, low bands, D]
            bands = x.reshape(low.shape[0], -1, low.shape[2])
            bands = torch.cat([bands[:, : low.shape[1]] + low, bands[:, low.shape[1] :]], dim=1)
            x = bands.reshape(x.shape)
            new |= prefixed("bass", changed)
        for index, layer in enumerate(self.layers):
            x, changed = layer(x, substate(state, f"layers.{index}"))
            new |= prefixed(f"layers.{index}", changed)
        if self.ahead is not None:
            x, re, im, delayed, changed = self.ahead(x, re, im, delayed, substate(state, "ahead"))
            new |= prefixed("ahead", changed)
        stem_re, stem_im, changed = self._masked(x, re, im, state)
        new |= changed
        estimates, changed = self.istft(stem_re, stem_im, substate(state, "istft"))
        new |= prefixed("istft", changed)
        estimates = estimates.unflatten(1, (-1, self.channels))  # [B, S, C, T]
        if self.residual is not None:
            added, changed = self.residual(
                audio, x.unflatten(0, (-1, self.config.bands)).mean(1), substate(state, "residual")
            )
            target = self.config.estimated.index(self.config.residual_target)
            improved = estimates[:, target : target + 1] + added.unsqueeze(1)
            estimates = torch.cat([estimates[:, :target], improved, estimates[:, target + 1 :]], dim=1)
            new |= prefixed("residual", changed)
        rest = (delayed - estimates.sum(1)).unsqueeze(1)
        place = self.stems.index(self.config.rest)
        return torch.cat([estimates[:, :place], rest, estimates[:, place:]], dim=1), new

    def _masked(self, x: Tensor, re: Tensor, im: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return the bins of the estimated stems ``[B, S C, N, F]`` and the state of their filter."""
        stem_re, stem_im, values = self.decode(x, re, im)  # [N, B, S, C, F]
        new: State = {}
        if self.filter is not None:
            covered = self.config.band_bins
            add_re, add_im, changed = self.filter(
                re[..., :covered], im[..., :covered], values, substate(state, "filter")
            )
            new = prefixed("filter", changed)
            stem_re, stem_im = self._with_filter(stem_re, add_re), self._with_filter(stem_im, add_im)
        return stem_re.flatten(2, 3).permute(1, 2, 0, 3), stem_im.flatten(2, 3).permute(1, 2, 0, 3), new

    def _with_filter(self, stems: Tensor, added: Tensor) -> Tensor:
        """Add to the filtered stems what their filter gives in the bins that lie in bands."""
        added = nn.functional.pad(added, (0, stems.shape[-1] - added.shape[-1]))
        parts = list(stems.unbind(2))
        for position, index in enumerate(self.filtered):
            parts[index] = parts[index] + added[:, :, position]
        return torch.stack(parts, dim=2)


def _layer(config: BandSplitConfig, *, everything: bool) -> Layer:
    hidden = (config.time_hidden, config.band_hidden, config.global_hidden if everything else 0)
    return Layer(config.width, config.bands, hidden, config.global_width, config.dropout)


def low_bands(config: BandSplitConfig) -> int:
    """How many bands begin below the last bin of the longer analysis."""
    highest = config.bass_bins * config.window / config.bass_window  # in bins of the short window
    starts, start = [], 0
    for count, width in config.groups:
        starts += [start + index * width for index in range(count)]
        start += count * width
    return sum(first < highest for first in starts)
