"""Instruments as faders of a model's condition, beside the mixer's own strips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import ModelInfo
from rtsep.controls import checked_values, find_control, named_values
from rtsep.errors import UsageError
from rtsep.mixer.settings import GAIN_MIN_DB, MixerSettings

CONDITION = "condition"
"""Control whose labelled elements say how much of each instrument is in `SELECTED`."""
SELECTED, REST = "selected", "rest"


class ConditionFaders:
    """Mute, solo and gain of instruments as the condition of a model that has one network for all of them.

    Such a model (`fits`) gives the stems ``selected`` and ``rest``, and its control ``condition`` has one labelled
    element per instrument.

    Parameters
    ----------
    info : ModelInfo
    base : sequence of float, optional
        Condition at faders at 0 dB; the control's default when left out.

    Attributes
    ----------
    settings : MixerSettings
        Of the instruments. Pan has no effect: the instruments are no stems of their own.
    """

    def __init__(self, info: ModelInfo, base: Sequence[float] | NDArray[Any] | None = None) -> None:
        self.control = find_control(info, CONDITION)
        self.settings = MixerSettings(self.control.labels)
        self._base = np.array(self.control.default if base is None else base, np.float64)

    @staticmethod
    def fits(info: ModelInfo) -> bool:
        """Whether a model is of this kind."""
        return tuple(info.stems) == (SELECTED, REST) and any(
            control.name == CONDITION and control.labels and len(control.shape) == 1 for control in info.controls
        )

    def values(self) -> list[float]:
        """The condition: the base times the linear gain, 0 where muted or not soloed, within the control's range."""
        settings = self.settings
        gain = np.where(settings.gain_db <= GAIN_MIN_DB, 0.0, 10.0 ** (settings.gain_db / 20.0))
        gain[settings.mute > 0] = 0.0
        if settings.solo.any():
            gain[settings.solo == 0] = 0.0
        condition = np.clip(self._base * gain, self.control.minimum, self.control.maximum)
        return [float(value) for value in condition]


@dataclass(frozen=True)
class MixPlan:
    """What a command's mixing options mean for one model.

    Attributes
    ----------
    controls : dict
        For `Engine` and `separate`.
    mute, solo, gain, pan
        For the mixer: names of stems.
    faders : ConditionFaders or None
        None when the model's stems are the instruments themselves.
    """

    controls: dict[str, NDArray[np.float32]]
    mute: tuple[str, ...]
    solo: tuple[str, ...]
    gain: dict[str, float]
    pan: dict[str, float]
    faders: ConditionFaders | None = None


def plan_mix(
    info: ModelInfo,
    *,
    control: Iterable[tuple[str, Sequence[float]]] = (),
    mute: Sequence[str] = (),
    solo: Sequence[str] = (),
    gain: Mapping[str, float] | None = None,
    pan: Mapping[str, float] | None = None,
) -> MixPlan:
    """Share mixing options between the mixer and the condition of a model.

    For most models everything goes to the mixer. For one that `ConditionFaders` fits, names of instruments set the
    condition and the mixer plays ``selected`` alone, unless an option names ``selected`` or ``rest``.

    Raises
    ------
    UsageError
        As `named_values`; a gain out of range.
    StemNotFoundError
        A name that is neither a stem nor an instrument.
    """
    gain, pan = dict(gain or {}), dict(pan or {})
    controls = named_values(info, control)
    if not ConditionFaders.fits(info):
        return MixPlan(controls, tuple(mute), tuple(solo), gain, pan)
    faders = ConditionFaders(info, controls.get(CONDITION))

    def of_stems(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in info.stems)

    def of_instruments(names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in info.stems]

    faders.settings.apply(
        mute=of_instruments(mute),
        solo=of_instruments(solo),
        gain={name: gain[name] for name in of_instruments(gain)},
    )
    for name in of_instruments(pan):
        faders.settings.index(name)  # says so when it is not even an instrument
        raise UsageError(
            f"{name!r} cannot be panned: {info.name} gives {' and '.join(info.stems)}, and instruments are only "
            "faders of it."
        )
    controls[CONDITION] = checked_values(faders.control, faders.values())
    named = (*of_stems(mute), *of_stems(solo), *of_stems(gain))
    return MixPlan(
        controls,
        of_stems(mute),
        of_stems(solo) if named else (SELECTED,),
        {name: gain[name] for name in of_stems(gain)},
        pan,
        faders,
    )
