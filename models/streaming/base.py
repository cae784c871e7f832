"""State of streaming modules: explicit, functional, a flat mapping by module path.

A streaming module is called as ``y, state = module(x, state)``. Called without a state it starts from
:meth:`StreamingModule.initial_state`, so that one forward serves the whole clip and the single hop.
The keys of a state (``"rnn.hidden"``) become the tensor names of the exported graph
(``state_in/rnn.hidden`` -> ``state_out/rnn.hidden``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def substate(state: Mapping[str, Tensor], name: str) -> State:
    """Return the part of ``state`` that belongs to the child ``name``, with its prefix removed."""
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def prefixed(name: str, state: Mapping[str, Tensor]) -> State:
    """Return ``state`` with every key put under the child ``name``."""
    return {f"{name}.{key}": value for key, value in state.items()}


class StreamingModule(nn.Module):
    """Base of all modules that carry state from hop to hop.

    Attributes
    ----------
    latency : int
        Delay of the output against the input, in steps of the output (samples for whatever gives audio,
        frames for layers between frames), not counting the buffering of one hop.
    """

    latency: int = 0

    def own_state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes, without the batch axis, of the tensors this module itself carries."""
        return {}

    def initial_state(self, batch: int = 1) -> State:
        """Return zeros for every state tensor of this module and of the streaming modules in it.

        Parameters
        ----------
        batch : int
            Size of the first axis of every tensor.
        """
        reference = next(self.parameters(), None)
        if reference is None:
            reference = next((b for b in self.buffers() if b.is_floating_point()), torch.zeros(()))
        kind = {"device": reference.device, "dtype": reference.dtype}
        return {key: torch.zeros(batch, *shape, **kind) for key, shape in self.state_shapes().items()}

    def checked_state(self, state: Mapping[str, Tensor] | None, batch: int) -> State:
        """Return ``state``, or a fresh one for ``None``; keys and shapes must match exactly.

        Raises
        ------
        KeyError
            A key is missing or unknown.
        ValueError
            A tensor has another shape than this module carries for this batch.
        """
        if state is None:
            return self.initial_state(batch)
        shapes = self.state_shapes()
        check_keys(type(self).__name__, state.keys(), shapes.keys())
        for key, shape in shapes.items():
            if tuple(state[key].shape) != (batch, *shape):
                raise ValueError(
                    f"{type(self).__name__}: state '{key}' must be {[batch, *shape]}, got {list(state[key].shape)}; "
                    f"start from initial_state({batch})."
                )
        return dict(state)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes, without the batch axis, of the whole state, in the order of the modules."""
        return {
            f"{path}.{name}" if path else name: shape
            for path, module in self.named_modules()
            if isinstance(module, StreamingModule)
            for name, shape in module.own_state_shapes().items()
        }


def check_keys(owner: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Raise ``KeyError`` naming the keys that are missing or unknown."""
    got, expected = set(got), set(expected)
    if got != expected:
        raise KeyError(
            f"{owner}: state keys do not match: missing {sorted(expected - got)}, "
            f"unknown {sorted(got - expected)}; start from initial_state(batch)."
        )
