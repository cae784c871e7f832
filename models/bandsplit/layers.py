"""Parts of the band-split system: from bins to bands and back, and the recurrent layers between.

Axes: N frames, B batch, K bands, D values per band, F bins, S stems that have masks, C channels. Between the layers
everything is one matrix ``[N B K, D]``: a step of a GRU over time is one contiguous piece of it with the bands as rows,
every linear layer is one product, and the single hop of the exported graph needs hardly a change of shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule, prefixed, substate

Groups = tuple[tuple[int, int], ...]


class GroupedLinear(nn.Module):
    """A linear layer per band, for groups of bands of equal sizes: one batched product per group.

    Padding all bands to the widest instead was measured to take half of the time of a whole model.

    Parameters
    ----------
    inputs, outputs : tuple of int
        Sizes per band, one per group.
    counts : tuple of int
        Bands per group.
    shared : bool
        One matrix per group, as a convolution has; the biases stay apart.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], counts: tuple[int, ...], shared: bool
    ) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size, out, count in zip(inputs, outputs, counts, strict=True):
            weight = torch.empty(1 if shared else count, size, out).uniform_(-1, 1) * (3 / size) ** 0.5
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, out)))

    def group(self, index: int, x: Tensor) -> Tensor:
        """Map the bands of one group, ``[count, M, inputs]`` -> ``[count, M, outputs]``.

        The single frame (M = 1) comes without the bias: whoever joins the groups adds it to all of them at once.
        """
        weight, bias = self.weights[index], self.biases[index]
        if x.shape[1] == 1:
            return torch.matmul(x, weight[0] if weight.shape[0] == 1 else weight)
        if weight.shape[0] == 1:
            return torch.matmul(x, weight[0]) + bias
        return torch.baddbmm(bias, x, weight)


class RowGRU(StreamingModule):
    """One GRU over time for all rows of a frame; state ``hidden`` ``[B, rows, H]``.

    Parameters
    ----------
    inputs, hidden : int
    rows : int
        Per frame: the bands that share the layer, or 1.
    """

    def __init__(self, inputs: int, hidden: int, rows: int) -> None:
        super().__init__()
        self.hidden, self.rows = hidden, rows
        self.rnn = nn.GRU(inputs, hidden)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"hidden": (self.rows, self.hidden)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``[N B rows, I]`` to ``[N B rows, H]``; the state says what B is."""
        hidden = state["hidden"]  # [B, rows, H]
        batch = hidden.shape[0]
        if batch == 1:  # no changes of shape in the exported graph
            y, last = self.rnn(x.unflatten(0, (-1, self.rows)), hidden)
        else:
            y, last = self.rnn(x.unflatten(0, (-1, batch * self.rows)), hidden.reshape(1, -1, self.hidden))
            last = last.reshape(batch, self.rows, self.hidden)
        return y.reshape(-1, self.hidden), {"hidden": last}


class TimeLayer(StreamingModule):
    """What a band was: a GRU over time whose weights all bands share."""

    def __init__(self, width: int, hidden: int, bands: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gru = RowGRU(width, hidden, bands)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what is to be added to ``x`` ``[N B K, D]``."""
        y, new = self.gru(self.norm(x), substate(state, "gru"))
        return self.out(y), prefixed("gru", new)


class BandLayer(nn.Module):
    """What the other bands of this frame are: a GRU over the bands, upwards and downwards."""

    def __init__(self, width: int, hidden: int, bands: int) -> None:
        super().__init__()
        self.bands, self.values = bands, 2 * hidden
        self.norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width, hidden, bidirectional=True)
        self.out = nn.Linear(2 * hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be added to ``x`` ``[N B K, D]``."""
        y = self.norm(x)
        if x.shape[0] == self.bands:  # a single frame
            y = self.gru(y.unsqueeze(1))[0].reshape(-1, self.values)
        else:
            y = self.gru(y.unflatten(0, (-1, self.bands)).transpose(0, 1))[0].transpose(0, 1).reshape(-1, self.values)
        added: Tensor = self.out(y)
        return added


class GlobalLayer(StreamingModule):
    """What all was: one GRU over time that every band tells a few values and hears a few from."""

    def __init__(self, width: int, hidden: int, bands: int, told: int) -> None:
        super().__init__()
        self.told = told
        self.norm = nn.LayerNorm(width)
        self.tell = nn.Linear(width, told)
        self.into = nn.Linear(bands * told, hidden)
        self.gru = RowGRU(hidden, hidden, 1)
        self.back = nn.Linear(hidden, bands * told)
        self.hear = nn.Linear(told, width)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what is to be added to ``x`` ``[N B K, D]``."""
        told = self.tell(self.norm(x)).reshape(-1, self.into.in_features)  # [N B, K told]
        y, new = self.gru(torch.relu(self.into(told)), substate(state, "gru"))
        heard = torch.relu(self.back(y)).reshape(-1, self.told)  # [N B K, told]
        return self.hear(heard), prefixed("gru", new)


class Layer(StreamingModule):
    """The three kinds of recurrence one after the other, each added to what it was given."""

    def __init__(self, width: int, bands: int, hidden: tuple[int, int, int], told: int, dropout: float) -> None:
        super().__init__()
        time_hidden, band_hidden, global_hidden = hidden
        self.time = TimeLayer(width, time_hidden, bands)
        self.all = GlobalLayer(width, global_hidden, bands, told) if global_hidden else None
        self.band = BandLayer(width, band_hidden, bands) if band_hidden else None
        self.dropout = nn.Dropout(dropout)

    def start_as_nothing(self) -> None:
        """Let the layer add nothing at first, so that it can follow what is trained already."""
        ends = [self.time.out]
        ends += [self.all.hear] if self.all is not None else []
        ends += [self.band.out] if self.band is not None else []
        for end in ends:
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map ``[N B K, D]`` to the same shape."""
        y, new = self.time(x, substate(state, "time"))
        x, new = x + self.dropout(y), prefixed("time", new)
        if self.all is not None:
            y, changed = self.all(x, substate(state, "all"))
            x = x + self.dropout(y)
            new |= prefixed("all", changed)
        if self.band is not None:
            x = x + self.dropout(self.band(x))
        return x, new


class BandEncoder(nn.Module):
    """Bins of a frame as values per band, without statistics over time.

    Per bin: real and imaginary part against the root mean square of its band in this frame, and the logarithm of the
    power against the mean of the whole frame, for left, right, middle and side (in most records the voice is in the
    middle, which a linear layer could not find in the others' logarithms).

    Parameters
    ----------
    groups : tuple of (int, int)
    width : int
        D.
    channels : int
    shared, level : bool
        See :class:`models.bandsplit.config.BandSplitConfig`.
    """

    floor = 1e-12  # power; far below the rounding of 16-bit audio, so that a fade-out ends in zeros and not in noise
    depth = 1e6  # the logarithm levels off 60 dB below the mean

    def __init__(self, groups: Groups, width: int, channels: int, shared: bool, level: bool) -> None:
        super().__init__()
        self.groups, self.channels, self.width = groups, channels, width
        mix = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, -0.5]]) if channels == 2 else torch.ones(1, 1)
        self.views = len(mix)
        values = 2 * channels + self.views  # per bin
        counts, widths = zip(*groups, strict=True)
        self.project = GroupedLinear(tuple(values * w for w in widths), (width,) * len(groups), counts, shared)
        self.level = nn.Linear(1, width, bias=False) if level else None

        band = torch.repeat_interleave(
            torch.arange(sum(counts)), torch.tensor([w for count, w in groups for _ in range(count)])
        )
        member = nn.functional.one_hot(band).float()  # [F, K]
        average = torch.cat([member / member.sum(0), torch.full((len(band), 1), 1 / len(band))], dim=1)
        # Products with small constant matrices: what they replace is a dozen small operations per group.
        self.register_buffer("mix", mix, persistent=False)
        # From the mean power of the views to that of the channels, per band and of the frame, [F, K + 1].
        self.register_buffer("average", average * (self.views / mix.square().sum()), persistent=False)
        self.register_buffer("spread", member.t().repeat(1, 2).contiguous(), persistent=False)  # [K, 2 F]

    def forward(self, re: Tensor, im: Tensor) -> Tensor:
        """Map the bins of the bands ``[N, B, C, F]`` to ``[N B K, D]``."""
        frames = re.shape[0] * re.shape[1]
        bins = re.shape[-1]
        x = torch.cat([re, im], dim=-1).reshape(frames, self.channels, 2 * bins)
        # Sums and differences are taken before squaring, which would leave rounding in a silent side.
        views = torch.matmul(self.mix, x)  # [M, V, 2 F]
        square_re, square_im = views.square().split(bins, dim=-1)
        power = square_re + square_im  # [M, V, F]
        energy = torch.matmul(power.mean(1), self.average)  # [M, K + 1]
        mean = energy[:, -1:] + self.floor  # [M, 1]
        scale = torch.matmul(torch.rsqrt(energy[:, :-1] + 1e-6 * mean), self.spread)  # [M, 2 F]
        logs = 0.125 * torch.log(1.0 + power * (self.depth / mean).unsqueeze(-1))  # [M, V, F]
        scaled = (x * scale.unsqueeze(1)).reshape(frames, 2 * self.channels, bins)
        features = torch.cat([scaled, logs], dim=1)  # [M, values, F]
        parts = []
        for index, part in enumerate(features.split([count * w for count, w in self.groups], dim=-1)):
            count, w = self.groups[index]
            part = part.reshape(frames, -1, count, w).permute(2, 0, 1, 3).reshape(count, frames, -1)
            parts.append(self.project.group(index, part))  # [k, M, D]
        y = torch.cat(parts)  # [K, M, D]
        if frames == 1:
            y = y + torch.cat(list(self.project.biases))
        if self.level is not None:
            y = y + self.level(0.5 * torch.log10(mean + self.floor) + 3.0)
        return y.transpose(0, 1).reshape(-1, self.width)


class MaskDecoder(nn.Module):
    """Values per band as complex masks ``sigmoid(g) (a + i b)`` per bin; ``g`` is the channels' common gate.

    The gate makes silence of a stem as easy as a bounded mask would; ``a`` and ``b`` are not bounded. It starts from
    equal shares. Bins above the last band take one gain per stem from it.

    Parameters
    ----------
    groups : tuple of (int, int)
    width, hidden : int
        D, and the values of the layer between.
    stems, channels : int
        S and C.
    filters : int
        Further values per bin: see :class:`models.bandsplit.branches.DeepFilter`.
    shared : bool
        See :class:`models.bandsplit.config.BandSplitConfig`.
    """

    def __init__(
        self, groups: Groups, width: int, hidden: int, stems: int, channels: int, filters: int, shared: bool
    ) -> None:
        super().__init__()
        self.groups, self.stems, self.channels = groups, stems, channels
        self.sizes = [stems, stems * channels, stems * channels, filters]
        self.values = sum(self.sizes)
        self.counts, self.widths = zip(*groups, strict=True)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        outputs = tuple(self.values * w for w in self.widths)
        self.project = GroupedLinear((hidden,) * len(groups), outputs, self.counts, shared)
        self.top = nn.Linear(hidden, stems)
        with torch.no_grad():
            self.top.bias.fill_(-math.log(stems))  # sigmoid: 1 / (S + 1)
            # Half a gate of twice the share: every stem starts as its share of the mixture.
            for weight, bias in zip(self.project.weights, self.project.biases, strict=True):
                weight.mul_(0.3)
                bias.unflatten(-1, (self.values, -1))[..., stems : stems * (1 + channels), :] = 2.0 / (stems + 1)

    def forward(self, x: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``[N B K, D]`` to masks and multiply the mixture by them.

        Parameters
        ----------
        x : Tensor
            ``[N B K, D]``.
        re, im : Tensor
            Bins of the mixture ``[N, B, C, F]``, also those above the last band.

        Returns
        -------
        re, im : Tensor
            Bins of the stems, ``[N, B, S, C, F]``.
        filters : Tensor
            Further values of the bins that lie in bands, ``[N, B, filters, bins in bands]``.
        """
        lead, shape = re.shape[:2], (*re.shape[:2], self.stems, self.channels, -1)
        y = nn.functional.silu(self.hidden(self.norm(x)))
        y = y.reshape(re.shape[0] * re.shape[1], -1, y.shape[-1]).transpose(0, 1).contiguous()  # [K, M, H]
        parts = []
        for index, part in enumerate(y.split(list(self.counts))):
            parts.append(self._by_value(self.project.group(index, part), self.widths[index]))
        values = torch.cat(parts, dim=-1)  # [M, values, bins in bands]
        if values.shape[0] == 1:
            biases = zip(self.project.biases, self.widths, strict=True)
            values = values + torch.cat([self._by_value(bias, w) for bias, w in biases], dim=-1)
        covered = values.shape[-1]
        gates, a, b, filters = values.split(self.sizes, dim=1)
        gates = torch.sigmoid(gates).reshape(*lead, self.stems, 1, covered)
        a, b = a.reshape(shape), b.reshape(shape)
        low_re, top_re = re.unsqueeze(2).split([covered, re.shape[-1] - covered], dim=-1)
        low_im, top_im = im.unsqueeze(2).split([covered, re.shape[-1] - covered], dim=-1)
        gain = torch.sigmoid(self.top(y[-1])).reshape(*lead, self.stems, 1, 1)
        stem_re = torch.cat([gates * (a * low_re - b * low_im), gain * top_re], dim=-1)
        stem_im = torch.cat([gates * (a * low_im + b * low_re), gain * top_im], dim=-1)
        return stem_re, stem_im, filters.reshape(*lead, -1, covered)

    def _by_value(self, x: Tensor, width: int) -> Tensor:
        """``[k, M, values w]`` -> ``[M, values, k w]``."""
        x = x.unflatten(-1, (self.values, width)).permute(1, 2, 0, 3)  # [M, values, k, w]
        return x.reshape(x.shape[0], self.values, -1)
