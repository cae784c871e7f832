"""A busy machine gets a cheaper model, and the better one back when there is room."""

from __future__ import annotations

import time
from pathlib import Path

from rtsep.audio.backends import DummyConfig
from rtsep.engine import Engine
from rtsep.engine.tiers import TierKeeper, TierPolicy
from tests.support.graphs import make_delay_model


def moves(policy: TierPolicy, windows: list[tuple[float, int]]) -> list[int]:
    """Positions on the ladder after each window, when every move succeeds."""
    at = []
    for load, late in windows:
        step = policy.decide(load, late)
        if step:
            policy.moved(step)
        at.append(policy.at)
    return at


def test_two_bad_seconds_lead_down_and_one_does_not() -> None:
    assert moves(TierPolicy([4, 1]), [(0.9, 0), (0.3, 0), (0.3, 5), (0.3, 0)]) == [0, 0, 0, 0]
    assert moves(TierPolicy([4, 1]), [(0.9, 0), (0.3, 3), (0.2, 0)]) == [0, 1, 1]
    assert moves(TierPolicy([4]), [(2.0, 80)] * 5) == [0] * 5  # nowhere to go


def test_up_again_when_the_better_one_would_have_room_and_later_after_a_relapse() -> None:
    policy = TierPolicy([4, 1])
    busy, calm = [(0.9, 0)] * 2, [(0.1, 0)]
    assert moves(policy, busy + calm * 10)[-2:] == [1, 0]
    assert moves(policy, [(0.2, 0)] * 12 + busy)[-1] == 1  # a second time, soon after
    assert moves(policy, calm * 19)[-1] == 1
    assert moves(policy, calm)[-1] == 0
    # 0.13 here would be 0.52 of the better one.
    assert moves(TierPolicy([4, 1]), busy + [(0.13, 0)] * 100)[-1] == 1


def test_a_machine_that_cannot_hold_a_model_gets_the_cheaper_one(tmp_path: Path) -> None:
    gains = (0.5, 0.25, 0.125, 0.125)
    heavy = make_delay_model(tmp_path / "heavy.onnx", hop=256, latency=256, gains=gains, ballast=90)
    light = make_delay_model(tmp_path / "light.onnx", hop=512, latency=700, gains=gains)
    said: list[str] = []
    with Engine(heavy, backend=DummyConfig(source="sine")) as engine:
        with TierKeeper(engine, [str(heavy), str(light)], [1.0, 0.02], said.append) as keeper:
            deadline = time.monotonic() + 30.0
            while engine.info.hop_samples != 512 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert engine.info.hop_samples == 512
        assert keeper.policy.at == 1
        assert "busy" in said[-1]
        late, hops = engine.stats().late_hops, engine.stats().hops
        deadline = time.monotonic() + 10.0
        while engine.stats().hops < hops + 50 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.stats().late_hops - late <= 5
