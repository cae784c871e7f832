"""Every streaming layer as a case that the properties common to all of them are checked on.

A case is counted in units: the smallest step the layer takes (a sample, a stride, a hop, a frame). Inputs and
outputs are cut along their time axes at whole units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.openunmix.streaming import StreamingOpenUnmix, StreamingOpenUnmixConfig
from models.openunmix.wiener import RecursiveWiener
from models.streaming.base import State, StreamingModule
from models.streaming.conv import CausalConv1d, CausalConv2d, CausalConvTranspose1d
from models.streaming.rnn import StreamingGRU, StreamingLSTM
from models.streaming.stft import StreamingISTFT, StreamingSTFT


@dataclass(frozen=True)
class Axis:
    """One tensor's shape without its time axis, and where and how fast time runs in it."""

    shape: tuple[int, ...]  # B first; 0 stands at the time axis
    per_unit: int = 1

    @property
    def time(self) -> int:
        return self.shape.index(0)

    def sized(self, units: int) -> tuple[int, ...]:
        return tuple(units * self.per_unit if size == 0 else size for size in self.shape)

    def cut(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x.narrow(self.time, start * self.per_unit, (stop - start) * self.per_unit)


@dataclass(frozen=True)
class Case:
    """A layer, its inputs and outputs, and the shapes its state must have (batch of 2 first)."""

    name: str
    build: Callable[[], StreamingModule]
    inputs: tuple[Axis, ...]
    outputs: tuple[Axis, ...]
    state: dict[str, tuple[int, ...]]

    def module(self, dtype: torch.dtype = torch.float64) -> StreamingModule:
        """Build it in evaluation mode with weights and statistics that are not special."""
        generator = torch.Generator().manual_seed(7)
        module = self.build().to(dtype).eval()
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if not value.is_floating_point():
                    continue
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(dtype)
                value.copy_(0.5 + noise.abs() if name.endswith(("running_var", "scale")) else 0.3 * noise)
        return module

    def example(self, units: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            torch.randn(axis.sized(units), generator=generator, dtype=torch.float64).to(dtype) for axis in self.inputs
        )


@torch.no_grad()
def call(module: Any, inputs: Sequence[Tensor], state: State | None) -> tuple[tuple[Tensor, ...], State]:
    """Call a layer that may have several inputs and outputs."""
    *outputs, state = module(*inputs, state)
    return tuple(outputs), state


def call_in_chunks(
    case: Case, module: Any, inputs: Sequence[Tensor], sizes: Sequence[int], state: State | None = None
) -> tuple[tuple[Tensor, ...], State]:
    """Call a layer on successive chunks of ``sizes`` units, and join what comes out."""
    pieces, start = [], 0
    for size in sizes:
        chunk = [axis.cut(x, start, start + size) for axis, x in zip(case.inputs, inputs, strict=True)]
        outputs, state = call(module, chunk, state)
        pieces.append(outputs)
        start += size
    joined = tuple(
        torch.cat(parts, dim=axis.time) for axis, parts in zip(case.outputs, zip(*pieces, strict=True), strict=True)
    )
    assert state is not None
    return joined, state


def _convolutions() -> list[Case]:
    def conv1d(name: str, state: int, **sizes: int) -> Case:
        stride = sizes.get("stride", 1)
        return Case(
            f"conv1d {name}",
            lambda: CausalConv1d(4, 6, **sizes),
            (Axis((2, 4, 0), stride),),
            (Axis((2, 6, 0)),),
            {"past": (2, 4, state)} if state else {},
        )

    def conv2d(name: str, state: int, bins_out: int, **sizes: Any) -> Case:
        return Case(
            f"conv2d {name}",
            lambda: CausalConv2d(2, 4, bins=9, **sizes),
            (Axis((2, 2, 0, 9)),),
            (Axis((2, 4, 0, bins_out)),),
            {"past": (2, 2, state, 9)} if state else {},
        )

    def transposed(name: str, state: int, stride: int, **sizes: Any) -> Case:
        return Case(
            f"transposed {name}",
            lambda: CausalConvTranspose1d(4, 6, stride=stride, **sizes),
            (Axis((2, 4, 0)),),
            (Axis((2, 6, 0), stride),),
            {"tail": (2, 6, state)} if state else {},
        )

    return [
        conv1d("plain", 2, kernel=3),
        conv1d("pointwise", 0, kernel=1),
        conv1d("strided", 5, kernel=9, stride=4),
        conv1d("stride equal to kernel", 0, kernel=4, stride=4),
        conv1d("dilated, grouped", 8, kernel=3, dilation=4, groups=2),
        conv1d("dilated, strided", 6, kernel=4, dilation=3, stride=4),
        conv2d("plain", 2, 9),
        conv2d("one frame", 0, 9, kernel=(1, 5)),
        conv2d("dilated, strided in bins, grouped", 6, 5, kernel=(3, 3), dilation=(3, 2), stride=2, groups=2),
        transposed("overlapping", 4, 4, kernel=8),
        transposed("without overlap", 0, 4, kernel=4),
        transposed("long tail, grouped, no bias", 8, 3, kernel=11, groups=2, bias=False),
    ]


def _fourier() -> list[Case]:
    cases = []
    for window, hop, implementation in ((64, 16, "fft"), (64, 16, "factored"), (32, 16, "factored")):

        def stft(window: int = window, hop: int = hop, implementation: str = implementation) -> StreamingSTFT:
            module = StreamingSTFT(window, hop, channels=2)
            module.dft.implementation = implementation  # type: ignore[assignment]
            return module

        frames = Axis((2, 2, 0, window // 2 + 1))
        samples = Axis((2, 2, 0), hop)
        cases += [
            Case(
                f"stft {window}/{hop} {implementation}",
                stft,
                (samples,),
                (frames, frames, samples),
                {"history": (2, 2, window - hop)},
            ),
            Case(
                f"istft {window}/{hop} {implementation}",
                lambda stft=stft: StreamingISTFT(stft(), streams=2),  # type: ignore[misc]
                (frames, frames),
                (samples,),
                {"tail": (2, 2, hop)},
            ),
        ]
    return cases


def _openunmix(rnn: str, channels: int) -> Case:
    config = StreamingOpenUnmixConfig(
        window=64, hop=16, edges=(8, 16, 32), hidden=12, layers=2, rnn=rnn, channels=channels
    )
    recurrent = {"rnn.hidden": (2, 2, 12)} | ({"rnn.cell": (2, 2, 12)} if rnn == "lstm" else {})
    return Case(
        f"openunmix {rnn} {channels} ch",
        lambda: StreamingOpenUnmix(config),
        (Axis((2, channels, 0), 16),),
        (Axis((2, 4, channels, 0), 16),),
        {"stft.history": (2, channels, 48), "istft.tail": (2, 4 * channels, 16)} | recurrent,
    )


CASES = [
    *_convolutions(),
    Case(
        "gru",
        lambda: StreamingGRU(5, 6, layers=2, dropout=0.3),
        (Axis((2, 0, 5)),),
        (Axis((2, 0, 6)),),
        {"hidden": (2, 2, 6)},
    ),
    Case(
        "lstm",
        lambda: StreamingLSTM(5, 6, layers=2, dropout=0.3),
        (Axis((2, 0, 5)),),
        (Axis((2, 0, 6)),),
        {"hidden": (2, 2, 6), "cell": (2, 2, 6)},
    ),
    *_fourier(),
    Case(
        "recursive wiener",
        lambda: RecursiveWiener(3, 5, memory_frames=8.0),
        (Axis((2, 3, 2, 0, 5)), Axis((2, 3, 2, 0, 5)), Axis((2, 2, 0, 5)), Axis((2, 2, 0, 5))),
        (Axis((2, 3, 2, 0, 5)), Axis((2, 3, 2, 0, 5))),
        {"covariance": (2, 3, 4, 5)},
    ),
    _openunmix("gru", 2),
    _openunmix("lstm", 1),
]
