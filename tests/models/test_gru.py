"""The compiled recurrence gives what torch.nn.GRU gives, and the same gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.training.gru import CompiledGRU, compile_grus, is_available, run_gru

pytestmark = pytest.mark.skipif(not is_available(), reason="needs a C++ compiler: apt install g++")

SIZES = [  # inputs, hidden, steps, rows, in both directions; rows of every remainder and of several tiles
    (16, 16, 5, 1, True),
    (24, 48, 7, 101, True),
    (64, 64, 30, 13, False),
    (5, 128, 9, 4, False),
    (8, 32, 1, 139, True),
]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def gradients(
    rnn: nn.GRU, x: torch.Tensor, hidden: torch.Tensor, number: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """Return outputs and gradients, by torch's own GRU without a number."""
    x, hidden = x.clone().requires_grad_(), hidden.clone().requires_grad_()
    rnn.zero_grad()
    y, last = rnn(x, hidden) if number is None else run_gru(rnn, x, hidden, number)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().add(last.square().sum()).backward()
    found = {"y": y.detach(), "last": last.detach(), "x": x.grad, "hidden": hidden.grad}
    return found | {name: parameter.grad.clone() for name, parameter in rnn.named_parameters()}


def example(inputs: int, size: int, steps: int, rows: int, both: bool) -> tuple[nn.GRU, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    rnn = nn.GRU(inputs, size, bidirectional=both)
    return rnn, torch.randn(steps, rows, inputs), torch.randn(1 + both, rows, size)


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_torchs_gru(sizes: tuple[int, int, int, int, bool], threads: int) -> None:
    expected, found = (gradients(*example(*sizes), number) for number in (None, torch.float32))
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=2e-5 * float(values.abs().max()), msg=name)


@pytest.mark.skipif(not is_available(bfloat16=True), reason="the processor does not multiply bfloat16 numbers")
@pytest.mark.parametrize("sizes", SIZES)
def test_mixed_precision_is_near_it(sizes: tuple[int, int, int, int, bool], threads: int) -> None:
    expected, found = (gradients(*example(*sizes), number) for number in (None, torch.bfloat16))
    for name, values in expected.items():
        assert found[name].dtype == torch.float32, name
        assert (found[name] - values).norm() < 0.01 * values.norm(), name


def test_large_values_stay_finite() -> None:
    rnn, x, hidden = example(16, 16, 6, 9, False)
    found = gradients(rnn, 1e6 * x, hidden, torch.float32)
    assert all(values.isfinite().all() for values in found.values())


def test_without_an_initial_state_it_begins_with_zeros() -> None:
    rnn, x, _ = example(16, 32, 6, 9, True)
    y, last = run_gru(rnn, x)
    expected, expected_last = rnn(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(last, expected_last)


def test_smaller_numbers_from_mixed_precision_are_taken() -> None:
    rnn, x, hidden = example(16, 32, 6, 300, True)
    x, hidden = x.bfloat16(), hidden.bfloat16()
    for state in (None, hidden):
        y, last = run_gru(rnn, x, state)
        expected, expected_last = rnn(x.float(), None if state is None else state.float())
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(last, expected_last)


def test_a_model_keeps_its_weights_and_those_that_do_not_fit_stay() -> None:
    others = {"odd": nn.GRU(8, 20), "deep": nn.GRU(8, 16, 2), "batch": nn.GRU(8, 16, batch_first=True)}
    model = nn.ModuleDict({"fits": nn.GRU(8, 16), **others})
    names, x = list(model.state_dict()), torch.randn(3, 2, 8)
    expected = model["fits"](x)[0]
    assert compile_grus(model, bfloat16=True) == 1
    assert [name for name, module in model.items() if isinstance(module, CompiledGRU)] == ["fits"]
    assert list(model.state_dict()) == names
    model.eval()  # scored in float32, as it will be exported
    torch.testing.assert_close(model["fits"](x)[0], expected)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        y = model["fits"](x)[0]
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=0, atol=0.02)
