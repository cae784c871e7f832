"""The mapping of state by module path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.streaming.base import State, StreamingModule, check_keys, prefixed, substate


class Delay(StreamingModule):
    """One sample late."""

    latency = 1

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"last": (1,)}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.checked_state(state, x.shape[0])
        line = torch.cat([state["last"], x], dim=-1)  # [B, 1 + T]
        return line[:, :-1], {"last": line[:, -1:]}


class TwoDelays(StreamingModule):
    """Two delays, one of them inside a module without state."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Delay()
        self.inner = nn.ModuleDict({"second": Delay()})

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.checked_state(state, x.shape[0])
        x, first = self.first(x, substate(state, "first"))
        x, second = self.inner["second"](x, substate(state, "inner.second"))
        return x, {**prefixed("first", first), **prefixed("inner.second", second)}


def test_keys_are_module_paths_in_module_order() -> None:
    assert list(TwoDelays().state_shapes()) == ["first.last", "inner.second.last"]
    assert list(TwoDelays().initial_state(3)) == ["first.last", "inner.second.last"]


def test_nested_state_goes_where_its_path_says() -> None:
    module = TwoDelays()
    state = {"first.last": torch.tensor([[1.0]]), "inner.second.last": torch.tensor([[2.0]])}
    y, after = module(torch.tensor([[5.0, 6.0, 7.0]]), state)
    assert y.tolist() == [[2.0, 1.0, 5.0]]
    assert after["first.last"].item() == 7.0
    assert after["inner.second.last"].item() == 6.0


def test_substate_takes_whole_names_only() -> None:
    state = {"rnn.hidden": torch.ones(1), "rnn2.hidden": torch.zeros(1), "rnn": torch.zeros(1)}
    assert list(substate(state, "rnn")) == ["hidden"]
    assert substate(prefixed("a", {"b.c": torch.ones(1)}), "a").keys() == {"b.c"}


def test_initial_state_follows_the_modules_type() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    holder = TwoDelays()
    holder.add_module("weights", module)
    assert holder.double().initial_state(1)["first.last"].dtype == torch.float64
    assert Delay().initial_state(2)["last"].dtype == torch.float32


def test_both_kinds_of_wrong_keys_are_named_together() -> None:
    with pytest.raises(KeyError, match=r"Delay: .*missing \['last'\], unknown \['lost'\].*initial_state"):
        check_keys("Delay", ["lost"], ["last"])
    check_keys("Delay", ["b", "a"], ["a", "b"])  # order is free


def test_the_given_mapping_is_not_handed_on() -> None:
    state = {"last": torch.zeros(1, 1)}
    assert Delay().checked_state(state, 1) is not state
