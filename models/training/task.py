"""One system's side of a training run."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import IterableDataset


class Task(Protocol):
    """What :mod:`models.train` asks of a system; built as ``Task(document, config)``.

    ``document`` is the whole training file as a dictionary, ``config`` its ``[train]`` table
    (:class:`models.train.TrainConfig`).

    Attributes
    ----------
    model : nn.Module
        The streaming model; the trainer moves it to its device.
    data_lines : list of str
        One line per source, for logs and model cards.
    sample_seconds : float
        Audio in one sample of the dataset.
    forward_methods : tuple of str, optional
        Methods of the model, besides its ``forward``, that :meth:`loss` calls.
    facts : dict, optional
        More for the checkpoint; plain values.
    loss_object : nn.Module or None, optional
        Holds what a loss learns or remembers itself, to resume from.
    chosen_weights : method, optional
        ``chosen_weights(weights, config)`` returns what of a checkpoint's weights, made by a model of another
        ``config``, the model can start from.
    """

    model: nn.Module
    data_lines: list[str]
    sample_seconds: float

    def prepare(self) -> None:
        """Set what is measured rather than learnt, such as input statistics; once, at a start from nothing."""
        ...

    def dataset(self, seed: int) -> IterableDataset[Any]:
        """Return an endless stream of samples, a function of the seed and of the data worker's number."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the scalar to minimise.

        Parameters
        ----------
        model : nn.Module
            ``self.model``, or a wrapper around it that averages gradients over processes: call this one.
        batch : Tensor or sequence of Tensor
            Collated samples on the model's device.
        """
        ...

    def validate(self) -> dict[str, float]:
        """Return ``"score"`` (higher is better) and named figures; called with averaged weights in evaluation mode."""
        ...
