"""Losses on stems.

* :func:`windowed_snr_loss` and :func:`band_snr_loss`, which the shipped models were trained with;
* the losses of "On loss functions and evaluation metrics for music source separation" (Gusó, Pons, Pascual and
  Serrà, ICASSP 2022, arXiv:2202.07968) by name: :func:`list_losses`, :func:`get_loss`, on :class:`Estimates`.

How well each of them trains a small model is in ``docs/losses.md``.
"""

# The registry is filled by the modules that hold the losses.
from models.losses import classification, distances, learned, ratios, upstream  # noqa: F401
from models.losses.estimates import Estimates, apply_head, stem_spectra
from models.losses.registry import Loss, get_loss, list_losses
from models.losses.snr import band_snr_loss, windowed_snr_loss

__all__ = [
    "Estimates",
    "Loss",
    "apply_head",
    "band_snr_loss",
    "get_loss",
    "list_losses",
    "stem_spectra",
    "windowed_snr_loss",
]
