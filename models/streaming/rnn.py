"""Recurrent layers with explicit state, batch first in every tensor."""

from __future__ import annotations

from torch import Tensor, nn

from models.streaming.base import State, StreamingModule


class StreamingGRU(StreamingModule):
    """Unidirectional GRU over frames ``[B, N, F]``; state ``hidden`` ``[B, layers, H]``.

    Parameters
    ----------
    inputs, hidden, layers : int
        As in :class:`torch.nn.GRU`, whose parameter names it keeps under ``rnn``.
    dropout : float
        Between layers, in training only.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.rnn = nn.GRU(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"hidden": (self.layers, self.hidden)}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return outputs ``[B, N, H]`` and the state after the last frame."""
        state = self.checked_state(state, x.shape[0])
        y, hidden = self.rnn(x, state["hidden"].transpose(0, 1).contiguous())
        return y, {"hidden": hidden.transpose(0, 1)}


class StreamingLSTM(StreamingModule):
    """Unidirectional LSTM over frames ``[B, N, F]``; states ``hidden`` and ``cell`` ``[B, layers, H]``.

    Kept for upstream Open-Unmix shapes; new designs use the GRU, whose state is bounded (an LSTM's cell
    was seen to grow without limit in long streams).
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.rnn = nn.LSTM(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"hidden": (self.layers, self.hidden), "cell": (self.layers, self.hidden)}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return outputs ``[B, N, H]`` and the state after the last frame."""
        state = self.checked_state(state, x.shape[0])
        before = tuple(state[name].transpose(0, 1).contiguous() for name in ("hidden", "cell"))
        y, (hidden, cell) = self.rnn(x, before)
        return y, {"hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}


def recurrent(kind: str, inputs: int, hidden: int, layers: int, dropout: float) -> StreamingModule:
    """Return a :class:`StreamingGRU` for ``"gru"`` or a :class:`StreamingLSTM` for ``"lstm"``."""
    kinds = {"gru": StreamingGRU, "lstm": StreamingLSTM}
    if kind not in kinds:
        raise ValueError(f"rnn must be one of {sorted(kinds)}, got {kind!r}.")
    layer: StreamingModule = kinds[kind](inputs, hidden, layers, dropout)
    return layer
