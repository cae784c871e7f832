"""Losses by name, as a training config has them."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from torch import Tensor, nn

from models.losses.estimates import Estimates

DOMAINS = ("mask", "frequency", "time", "learned")


class Loss(nn.Module):
    """A loss on :class:`Estimates`; the lower the better.

    Attributes
    ----------
    name : str
        In the registry.
    domain : str
        One of :data:`DOMAINS`; losses of ``"time"`` need waveforms and the synthesis.
    head : str
        How the last layer's outputs should become masks for it, see :func:`models.losses.estimates.apply_head`.
    """

    name: str
    domain: str
    head: str

    def forward(self, estimates: Estimates) -> Tensor:
        """Return the scalar to minimise."""
        raise NotImplementedError


class FunctionLoss(Loss):
    """A loss without parameters."""

    def __init__(self, function: Callable[[Estimates], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.__doc__ = function.__doc__

    def forward(self, estimates: Estimates) -> Tensor:
        """Return the scalar to minimise."""
        return self.function(estimates)


_BUILDERS: dict[str, tuple[Callable[[int], Loss], str, str]] = {}


def register(name: str, domain: str, head: str = "relu") -> Callable[[Callable[[Estimates], Tensor]], object]:
    """Put the decorated function of :class:`Estimates` into the registry."""

    def add(function: Callable[[Estimates], Tensor]) -> Callable[[Estimates], Tensor]:
        _BUILDERS[name] = (lambda stems: FunctionLoss(function), domain, head)
        return function

    return add


def register_class(name: str, domain: str, head: str = "relu") -> Callable[[type[Loss]], type[Loss]]:
    """Put the decorated class, which is built with the number of stems, into the registry."""

    def add(loss: type[Loss]) -> type[Loss]:
        _BUILDERS[name] = (loss, domain, head)
        return loss

    return add


def list_losses() -> list[str]:
    """Return the names of all losses, sorted."""
    return sorted(_BUILDERS)


def get_loss(name: str, stems: int = 4) -> Loss:
    """Build a loss.

    Parameters
    ----------
    name : str
        One of :func:`list_losses`.
    stems : int
        How many stems the model separates; only losses with networks of their own depend on it.

    Raises
    ------
    ValueError
        There is none of that name; the message has close matches and all names.
    """
    if name not in _BUILDERS:
        close = difflib.get_close_matches(name, _BUILDERS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"there is no loss {name!r}.{hint} There are {', '.join(list_losses())}.")
    build, domain, head = _BUILDERS[name]
    loss = build(stems)
    loss.name, loss.domain, loss.head = name, domain, head
    return loss
