"""What late hops coincided with."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtsep.audio.backends import DummyConfig
from rtsep.engine import Engine
from rtsep.engine.late import FIELDS, KEPT, HopWatch, LateHop, late_hops_from
from tests.support.graphs import make_delay_model

RATE, HOP = 48_000, 512
USUAL = LateHop(1, 48_000, 0.2, 2.6, 2.5, 2.4, 0, 10.7)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"took_ms": 30.0, "cpu_ms": 29.0}, "took 30.0 ms to compute, usually 2.5"),
        ({"took_ms": 30.0, "cpu_ms": 29.0, "page_faults": 700}, "took 30.0 ms to compute, usually 2.5, with 700 page"),
        ({"took_ms": 30.0, "cpu_ms": 3.0}, "its thread had to wait for 27.0 ms"),
        ({"begun_late_ms": 25.0}, "was begun 25.0 ms late"),
        ({"begun_late_ms": 25.0, "took_ms": 8.0, "cpu_ms": 8.0}, "was begun 25.0 ms late"),
        ({"begun_late_ms": 25.0, "after_others": True}, "was begun 25.0 ms late, after others"),
        ({"after_others": True}, "follows others"),
        ({}, "nothing else was slow"),
    ],
)
def test_the_reason_is_what_was_slow(what: dict[str, float], why: str) -> None:
    assert replace(USUAL, **what).why.startswith(why)  # type: ignore[arg-type]


def test_what_is_written_is_what_happened_and_the_last_ones_are_kept() -> None:
    records = np.zeros((KEPT, len(FIELDS)), np.int64)
    watch = HopWatch(records, RATE)
    assert late_hops_from(records, RATE) == []
    until = time.thread_time() + 0.03
    watch.begin(HOP, HOP / RATE)
    while time.thread_time() < until:
        pass
    watch.end(31_000_000)
    watch.late()
    time.sleep(0.2)  # beyond the time of the one hop that follows
    watch.begin(2 * HOP, HOP / RATE)
    watch.end(2_000_000)
    watch.late()
    first, second = late_hops_from(records, RATE)
    assert (first.number, first.at, first.took_ms, first.after_others) == (1, HOP, 31.0, False)
    assert 29.0 < first.cpu_ms < 1000.0
    assert (second.number, second.at, second.after_others) == (2, 2 * HOP, True)
    assert second.begun_late_ms > 180.0
    assert second.cpu_ms < 20.0
    for number in range(3, 2 * KEPT):
        watch.begin(number * HOP, HOP / RATE)
        watch.end(2_000_000)
        watch.late()
    assert [hop.number for hop in late_hops_from(records, RATE)] == [*range(KEPT, 2 * KEPT)]


def test_an_engine_tells_what_made_its_hops_late(tmp_path: Path) -> None:
    model = make_delay_model(tmp_path / "m.onnx", hop=HOP, latency=700)
    with Engine(model, backend=DummyConfig()) as engine:
        deadline = time.monotonic() + 30.0
        while engine.stats().hops < 50:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        before = {hop.number for hop in engine.late_hops()}
        engine.inject("worker", 0.3)
        while not any(hop.begun_late_ms > 200 for hop in engine.late_hops() if hop.number not in before):
            assert time.monotonic() < deadline, "the late hop was never told"
            time.sleep(0.02)
        assert engine.late_hops()[-1].to_dict()["why"]
        assert engine.late_hops()[-1].number <= engine.stats().late_hops
