"""Instruments as faders of a condition, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtsep.contract import ModelInfo
from rtsep.errors import StemNotFoundError, UsageError
from rtsep.mixer.faders import ConditionFaders, plan_mix
from rtsep.zoo.registry import read_info
from tests.support.condition_graphs import make_condition_model
from tests.support.graphs import make_delay_model


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return read_info(make_condition_model(tmp_path_factory.mktemp("model") / "condition.onnx"))


def flat(values: Any) -> list[float]:
    return [float(value) for value in np.ravel(values)]


def test_mixing_options_of_instruments_become_the_condition(info: ModelInfo) -> None:
    def condition(**options: Any) -> list[float]:
        plan = plan_mix(info, **options)
        assert plan.solo == ("selected",)
        assert (plan.mute, plan.gain) == ((), {})
        return flat(plan.controls["condition"])

    assert condition() == [1, 1, 1, 1]
    assert condition(mute=["vocals"]) == [1, 1, 1, 0]
    assert condition(solo=["bass"]) == [0, 1, 0, 0]
    assert condition(solo=["bass", "vocals"], mute=["vocals"]) == [0, 1, 0, 0]
    assert condition(gain={"drums": -20.0, "bass": 6.0, "other": -120.0}) == pytest.approx([0.1, 1, 0, 1])
    assert condition(control=[("condition", (0.5, 0.5, 0.5, 0.5))], gain={"bass": 6.0206}) == pytest.approx(
        [0.5, 1, 0.5, 0.5], abs=1e-5
    )


def test_options_that_name_the_stems_go_to_the_mixer(info: ModelInfo) -> None:
    plan = plan_mix(info, gain={"rest": -6.0, "vocals": -20.0}, pan={"selected": -1.0})
    assert (plan.solo, plan.gain, plan.pan) == ((), {"rest": -6.0}, {"selected": -1.0})
    assert flat(plan.controls["condition"]) == pytest.approx([1, 1, 1, 0.1])
    assert plan_mix(info, solo=["rest"], mute=["bass"]).solo == ("rest",)


def test_unknown_names_and_pans_of_instruments_are_refused(info: ModelInfo) -> None:
    with pytest.raises(StemNotFoundError, match="Did you mean 'vocals'"):
        plan_mix(info, mute=["vocal"])
    with pytest.raises(UsageError, match="'vocals' cannot be panned"):
        plan_mix(info, pan={"vocals": 0.5})
    with pytest.raises(StemNotFoundError):
        plan_mix(info, pan={"guitar": 0.5})


def test_models_of_other_kinds_keep_all_options(tmp_path: Path) -> None:
    info = read_info(make_delay_model(tmp_path / "delay.onnx", control=True))
    assert not ConditionFaders.fits(info)
    plan = plan_mix(info, control=[("level", (0.5,))], mute=["vocals"], solo=["drums"], gain={"bass": 3.0})
    assert (plan.mute, plan.solo, plan.gain, plan.faders) == (("vocals",), ("drums",), {"bass": 3.0}, None)
    assert plan.controls["level"].shape == ()
    assert float(plan.controls["level"]) == 0.5
    unlabelled = make_condition_model(
        tmp_path / "unlabelled.onnx",
        controls=[
            {"name": "condition", "shape": [4], "default": [1] * 4, "minimum": 0, "maximum": 1, "meaning": "m",
             "labels": []}
        ],
    )  # fmt: skip
    assert not ConditionFaders.fits(read_info(unlabelled))
