"""The recurrence of GRUs for training on a CPU, compiled where a C++ compiler is at hand.

``torch.nn.GRU`` on a CPU goes through every step with a dozen operations, and through each of them again for the
gradient, the weights' included. Here one call goes through all steps, rows split among threads, and the gradients of
the weights are one product over all steps: as cuDNN does it on a GPU. What the band-split system gains by it is in
``docs/models/bandsplit.md``.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_SOURCE = Path(__file__).with_name("gru.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread", "-w")
_LANES = 16


def _compile(*options: str) -> ctypes.CDLL | None:
    """Return the compiled recurrence, or None without a compiler or when it does not compile."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rtsep-gru-") as folder:
        target = Path(folder, "gru.so")
        command = [compiler, *_FLAGS, *options, "-o", str(target), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{_SOURCE.name} does not compile:\n{done.stderr[-2000:]}", flush=True)
            return None
        return ctypes.CDLL(str(target))


@functools.cache
def _library(bfloat16: bool) -> ctypes.CDLL | None:
    if not bfloat16:
        return _compile()
    flags = Path("/proc/cpuinfo")
    known = flags.exists() and "avx512_bf16" in flags.read_text()
    return _compile("-DBFLOAT16", "-mavx512bf16", "-mavx512bw") if known else None


def is_available(bfloat16: bool = False) -> bool:
    """Tell whether the recurrence can be compiled here, and whether the processor multiplies bfloat16 numbers."""
    return _library(bfloat16) is not None


def _call(name: str, bfloat16: bool, tensors: tuple[Tensor | None, ...], *integers: int) -> None:
    library = _library(bfloat16)
    assert library is not None
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    sizes = [ctypes.c_int(value) for value in (*integers, torch.get_num_threads())]
    getattr(library, name)(*pointers, *sizes)


class _Recurrence(torch.autograd.Function):
    """One direction of a GRU: ``x`` [T, R, I], ``hidden`` [R, H] -> ``y`` [T, R, H]."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        hidden: Tensor,
        w_in: Tensor,
        w: Tensor,
        b_in: Tensor,
        b: Tensor,
        reverse: bool,
        number: torch.dtype,
    ) -> Tensor:
        assert x.dtype == hidden.dtype == w.dtype == b.dtype == torch.float32  # the compiled code takes them as that
        (steps, rows, _), size = x.shape, w.shape[1]
        flat, w_in = x.reshape(-1, x.shape[-1]).to(number), w_in.to(number)
        gates = torch.addmm(b_in.to(number), flat, w_in.t())
        hidden, w = hidden.contiguous(), w.contiguous()
        states = gates.new_empty(steps + 1, rows, size)
        states[-1 if reverse else 0] = hidden
        in_time = states[:-1] if reverse else states[1:]
        y = in_time if number == torch.float32 else x.new_empty(steps, rows, size)
        kept = gates.new_empty(steps, rows, 4 * size) if any(ctx.needs_input_grad) else None
        arrays = (gates, hidden, w, b.contiguous(), y, states, kept)
        _call("gru_forward", number == torch.bfloat16, arrays, steps, rows, size, reverse)
        ctx.save_for_backward(flat, w_in, w, states, kept)
        ctx.reverse = reverse
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        flat, w_in, w, states, kept = ctx.saved_tensors
        steps, rows, size = dy.shape
        to_input = states.new_empty(steps * rows, 3 * size)
        to_hidden = torch.empty_like(to_input)
        d_hidden = dy.new_zeros(rows, size)
        d_bias = dy.new_zeros(torch.get_num_threads(), 4, size)
        arrays = (dy.float().contiguous(), states, kept, w, to_input, to_hidden, d_hidden, d_bias)
        _call("gru_backward", states.dtype == torch.bfloat16, arrays, steps, rows, size, ctx.reverse)
        before = (states[1:] if ctx.reverse else states[:-1]).reshape(-1, size)
        dx = (to_input @ w_in).reshape(steps, rows, -1).float() if ctx.needs_input_grad[0] else None
        d_w_in, d_w = (to_input.t() @ flat).float(), (to_hidden.t() @ before).float()
        d_bias = d_bias.sum(0)  # r, z, n of the input, n of the state
        return dx, d_hidden, d_w_in, d_w, d_bias[:3].flatten(), d_bias[[0, 1, 3]].flatten(), None, None


def run_gru(
    rnn: nn.GRU, x: Tensor, hidden: Tensor | None = None, number: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Do what a one-layer ``rnn(x, hidden)`` does.

    Parameters
    ----------
    rnn : nn.GRU
        One layer with biases, in one direction or both, time first, float32, on the CPU, H a multiple of 16.
    x : Tensor
        ``[T, R, I]``.
    hidden : Tensor, optional
        ``[directions, R, H]``; zeros by default.
    number : torch.dtype
        Of the large arrays and of the factors of all products: ``torch.float32``, or ``torch.bfloat16`` where
        :func:`is_available` says so. Sums, the state and all gradients that come out are float32 either way.

    Returns
    -------
    y : Tensor
        ``[T, R, directions H]``.
    last : Tensor
        ``[directions, R, H]``.
    """
    directions = 2 if rnn.bidirectional else 1
    x = x.float()  # mixed precision may have made it smaller
    if hidden is None:
        hidden = x.new_zeros(directions, x.shape[1], rnn.hidden_size)
    parts = []
    for direction in range(directions):
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
        weights = [getattr(rnn, name + "_reverse" * direction) for name in names]
        with torch.autocast("cpu", enabled=False):
            parts.append(_Recurrence.apply(x, hidden[direction].float(), *weights, bool(direction), number))
    last = torch.stack([part[-1 if direction == 0 else 0] for direction, part in enumerate(parts)])
    return parts[0] if directions == 1 else torch.cat(parts, dim=-1), last


class CompiledGRU(nn.GRU):
    """``nn.GRU`` with the same weights, whose sequences on a CPU go through the compiled recurrence."""

    number = torch.float32

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """As ``nn.GRU``; on a GPU it is ``nn.GRU``."""
        if input.device.type != "cpu":
            y, last = super().forward(input, hx)
            return y, last
        return run_gru(self, input, hx, self.number if self.training else torch.float32)


class _BfloatGRU(CompiledGRU):
    number = torch.bfloat16


def compile_grus(model: nn.Module, bfloat16: bool = False) -> int:
    """Let the GRUs of a model that :func:`run_gru` can do use it, weights and names unchanged; return their number.

    None on machines without a compiler. For training only: such a model cannot be exported.

    Parameters
    ----------
    model : nn.Module
    bfloat16 : bool
        Mixed precision, where the processor has it.
    """
    if not is_available():
        return 0
    kind = _BfloatGRU if bfloat16 and is_available(bfloat16=True) else CompiledGRU
    changed = 0
    for module in model.modules():
        plain = type(module) is nn.GRU and module.num_layers == 1 and module.bias and not module.batch_first
        if plain and module.hidden_size % _LANES == 0:
            module.__class__ = kind
            changed += 1
    return changed
