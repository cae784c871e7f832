"""Controls by name and label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtsep.contract import ModelInfo
from rtsep.controls import checked_values, find_control, named_values
from rtsep.errors import UsageError
from rtsep.zoo.registry import read_info
from tests.contract.documents import full_info
from tests.support.condition_graphs import make_condition_model


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return read_info(make_condition_model(tmp_path_factory.mktemp("model") / "condition.onnx"))


def flat(values: Any) -> list[float]:
    return [float(value) for value in np.ravel(values)]


def test_values_come_whole_or_by_label_and_the_last_one_wins(info: ModelInfo) -> None:
    assert flat(named_values(info, [("condition", (0, 0.25, 1, 0.5))])["condition"]) == [0, 0.25, 1, 0.5]
    given = [("condition.vocals", (0.0,)), ("condition.bass", (0.5,)), ("condition.bass", (0.25,))]
    assert flat(named_values(info, given)["condition"]) == [1, 0.25, 1, 0]
    assert flat(named_values(info, [("condition.vocals", (0.0,)), ("condition", (0, 0, 0, 1))])["condition"]) == [
        0, 0, 0, 1,
    ]  # fmt: skip
    assert named_values(info, []) == {}


def test_values_of_a_matrix_are_given_flattened() -> None:
    info = full_info()
    assert named_values(info, [("query", (1, 0, 0, 0, 0, 0.5))])["query"].tolist() == [[1, 0, 0], [0, 0, 0.5]]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (("conditon", (1.0,)), "has no control 'conditon'; Did you mean 'condition'"),
        (("conditon.vocals", (1.0,)), "has no control 'conditon'; Did you mean 'condition'"),
        (("condition.vocal", (1.0,)), "no label 'vocal'; Did you mean 'vocals'"),
        (("condition.vocals", (1.0, 0.0)), "condition.vocals takes one value; got 2"),
        (("condition", (1.0, 0.0)), r"takes 4 values \(drums, bass, other, vocals\); got 2"),
        (("condition.vocals", (1.5,)), "got 1.5; allowed is 0.0 to 1.0"),
        (("condition.vocals", (float("nan"),)), "got nan"),
    ],
)
def test_what_does_not_fit_is_named(info: ModelInfo, assignment: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        named_values(info, [assignment])


def test_checked_values_say_the_labels_with_the_shape(info: ModelInfo) -> None:
    with pytest.raises(UsageError, match=r"shape \[4\] \(drums, bass, other, vocals\); got values of shape \[3\]"):
        checked_values(find_control(info, "condition"), [1, 1, 1])
