"""Controls of a model: checked values, and values by name and label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.contract import ControlSpec, ModelInfo
from rtsep.errors import UsageError, suggest

Values = float | Sequence[float] | NDArray[Any]


def find_control(info: ModelInfo, name: str) -> ControlSpec:
    """Return a model's control; UsageError with the names there are when it has none of that name."""
    controls = {control.name: control for control in info.controls}
    try:
        return controls[name]
    except KeyError:
        have = ", ".join(controls) or "none"
        raise UsageError(
            f"The model {info.name} has no control {name!r};{suggest(name, controls)} it has: {have}."
        ) from None


def checked_values(control: ControlSpec, values: Values) -> NDArray[np.float32]:
    """Return values for a control.

    Raises
    ------
    UsageError
        Another shape than the control's, or a value that is not a number or out of range.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Control {control.name!r} needs numbers; got {values!r}.") from error
    if array.shape != control.shape:
        order = f" ({', '.join(control.labels)})" if control.labels else ""
        raise UsageError(
            f"Control {control.name!r} has the shape {list(control.shape)}{order}; got values of shape "
            f"{list(array.shape)}."
        )
    # Written so that NaN is refused too.
    inside = (array >= control.minimum) & (array <= control.maximum)
    if not inside.all():
        wrong = float(array[~inside].flat[0]) if array.shape else float(array)
        raise UsageError(
            f"Control {control.name!r} got {wrong}; allowed is {control.minimum} to {control.maximum} "
            f"({control.meaning})."
        )
    return array.astype(np.float32)


def checked_controls(info: ModelInfo, values: Mapping[str, Values]) -> dict[str, NDArray[np.float32]]:
    """Return several controls' values by name. Raises UsageError as `find_control` and `checked_values`."""
    return {name: checked_values(find_control(info, name), given) for name, given in values.items()}


def named_values(info: ModelInfo, assignments: Iterable[tuple[str, Sequence[float]]]) -> dict[str, NDArray[np.float32]]:
    """Turn what ``--control`` says into values by control.

    Parameters
    ----------
    assignments : iterable of (str, sequence of float)
        ``NAME`` with all values of the control, flattened, or ``NAME.LABEL`` with one; later ones win. Elements nobody
        names keep the control's default.

    Raises
    ------
    UsageError
        No such control or label, or values that `checked_values` refuses.
    """
    names = {control.name for control in info.controls}
    flat: dict[str, list[float]] = {}
    for target, given in assignments:
        name, dot, label = (target, "", "") if target in names else target.rpartition(".")
        control = find_control(info, name or target)
        values = flat.setdefault(control.name, list(control.default))
        if not dot:
            if len(given) != len(values):
                order = f" ({', '.join(control.labels)})" if control.labels else ""
                raise UsageError(f"Control {control.name!r} takes {len(values)} values{order}; got {len(given)}.")
            values[:] = given
        elif label not in control.labels:
            have = ", ".join(control.labels) or "none"
            raise UsageError(
                f"Control {control.name!r} has no label {label!r};{suggest(label, control.labels)} it has: {have}."
            )
        elif len(given) != 1:
            raise UsageError(f"{target} takes one value; got {len(given)}.")
        else:
            values[control.labels.index(label)] = given[0]
    return {
        name: checked_values(control, np.reshape(flat[name], control.shape))
        for name in flat
        for control in [find_control(info, name)]
    }


class LastControls:
    """What the controls of a running model were set to last: the engine process keeps it to itself.

    Parameters
    ----------
    given : mapping of str to values
        What the model started with; the others have their defaults.
    """

    def __init__(self, given: Mapping[str, Values]) -> None:
        self._given, self._last = dict(given), dict[str, NDArray[np.float32]]()

    def put(self, name: str, values: NDArray[np.float32]) -> None:
        """Remember checked values."""
        self._last[name] = values

    def values(self, name: str, info: Callable[[], ModelInfo]) -> NDArray[np.float32]:
        """Return a copy of a control's values; `info` is asked for the defaults. UsageError as `checked_values`."""
        last = self._last
        if name not in last:
            control = find_control(info(), name)
            first = self._given.get(name, np.reshape(control.default, control.shape))
            last.setdefault(name, checked_values(control, first))
        return last[name].copy()
