"""What holds for every streaming layer: causality, chunk invariance, strict and complete state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.streaming.cases import CASES, Case, call, call_in_chunks

every_layer = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
with_state = pytest.mark.parametrize(
    "case", [case for case in CASES if case.state], ids=[case.name for case in CASES if case.state]
)
UNITS = 12


@every_layer
@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8), seed=st.integers(0, 2**16))
def test_any_cut_gives_the_same_output_and_state(case: Case, sizes: list[int], seed: int) -> None:
    module = case.module()
    inputs = case.example(sum(sizes), seed)
    whole, state = call(module, inputs, None)
    cut, cut_state = call_in_chunks(case, module, inputs, sizes)
    for expected, got in zip(whole, cut, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert cut_state.keys() == state.keys()
    for key in state:
        torch.testing.assert_close(cut_state[key], state[key], rtol=1e-9, atol=1e-9)


@every_layer
def test_hops_of_single_precision_stay_with_the_whole_clip(case: Case) -> None:
    module = case.module(torch.float32)
    inputs = case.example(40, seed=3, dtype=torch.float32)
    whole, _ = call(module, inputs, None)
    cut, _ = call_in_chunks(case, module, inputs, [1] * 40)
    for expected, got in zip(whole, cut, strict=True):
        assert got.dtype == torch.float32
        scale = float(expected.abs().max())
        assert float((got - expected).abs().max()) <= 1e-4 * scale


@every_layer
@settings(max_examples=8, deadline=None)
@given(now=st.integers(0, UNITS - 1), seed=st.integers(0, 2**16))
def test_the_future_never_changes_the_past(case: Case, now: int, seed: int) -> None:
    module = case.module(torch.float32)
    inputs = case.example(UNITS, seed, torch.float32)
    other = [x.clone() for x in inputs]
    for axis, x in zip(case.inputs, other, strict=True):
        axis.cut(x, now, UNITS).mul_(-50.0)
    before, _ = call(module, inputs, None)
    after, _ = call(module, other, None)
    for axis, a, b in zip(case.outputs, before, after, strict=True):
        assert torch.equal(axis.cut(a, 0, now), axis.cut(b, 0, now))  # bit for bit
    # Otherwise a layer that ignores its input would pass.
    assert any(
        not torch.equal(axis.cut(a, now, UNITS), axis.cut(b, now, UNITS))
        for axis, a, b in zip(case.outputs, before, after, strict=True)
    )


@every_layer
def test_state_has_the_documented_shapes_and_keeps_them(case: Case) -> None:
    module = case.module(torch.float32)
    state = module.initial_state(2)
    assert {key: tuple(value.shape) for key, value in state.items()} == case.state
    assert list(module.state_shapes()) == list(state)
    assert all(value.dtype == torch.float32 and not value.any() for value in state.values())
    outputs, after = call(module, case.example(3, seed=1, dtype=torch.float32), state)
    assert [tuple(y.shape) for y in outputs] == [axis.sized(3) for axis in case.outputs]
    assert {key: tuple(value.shape) for key, value in after.items()} == case.state
    assert {value.dtype for value in after.values()} <= {torch.float32}


@every_layer
def test_no_state_is_the_initial_state_and_reset_returns_to_it(case: Case) -> None:
    module = case.module()
    inputs = case.example(4, seed=5)
    fresh, state = call(module, inputs, None)
    explicit, _ = call(module, inputs, module.initial_state(2))
    continued, _ = call(module, inputs, state)
    reset, _ = call(module, inputs, module.initial_state(2))
    for a, b, c in zip(fresh, explicit, reset, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)  # nothing is remembered outside the state
    changed = any(not torch.equal(a, b) for a, b in zip(fresh, continued, strict=True))
    assert changed == bool(case.state)


@with_state
def test_a_step_leaves_the_state_it_was_given_alone(case: Case) -> None:
    module = case.module()
    _, state = call(module, case.example(3, seed=1), None)
    before = {key: value.clone() for key, value in state.items()}
    inputs = case.example(3, seed=2)
    kept = [x.clone() for x in inputs]
    call(module, inputs, state)
    assert all(torch.equal(before[key], state[key]) for key in before)
    assert all(torch.equal(a, b) for a, b in zip(kept, inputs, strict=True))


@with_state
def test_a_missing_key_of_the_state_is_named(case: Case) -> None:
    module = case.module()
    for key in case.state:
        state = module.initial_state(2)
        del state[key]
        with pytest.raises(KeyError, match=f"missing \\['{key}'\\]"):
            call(module, case.example(1, seed=0), state)


@every_layer
def test_an_unknown_key_of_the_state_is_named(case: Case) -> None:
    module = case.module()
    state = {**module.initial_state(2), "stray": torch.zeros(2, 1)}
    with pytest.raises(KeyError, match=r"unknown \['stray'\]"):
        call(module, case.example(1, seed=0), state)


@every_layer
def test_items_of_a_batch_do_not_meet(case: Case) -> None:
    module = case.module()
    inputs = case.example(5, seed=9)
    both, _ = call(module, inputs, None)
    second, _ = call(module, [x[1:] for x in inputs], None)
    for a, b in zip(both, second, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-9, atol=1e-9)
