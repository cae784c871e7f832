"""The latency sum: the closed form against a brute-force device, and the report."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import UsageError
from rtsep.latency import adaptation_samples, plan_latency


def smallest_queue(block: int, length: Fraction) -> int:
    """Walk through callbacks and return the least shift at which no callback ever finds too little output.

    A callback at frame ``n`` takes output positions ``n .. n + block - 1``; what the chain can have given by then comes
    from the hops that lie wholly before ``n``.
    """
    worst = 0
    for number in range(math.lcm(block, math.ceil(length) * length.denominator) // block + 2 * block + 4):
        captured = number * block
        hops = math.floor(captured / length)
        given_samples = math.floor(hops * length)
        worst = max(worst, captured + block - given_samples)
    return worst


@pytest.mark.parametrize("block", [1, 2, 3, 7, 32, 48, 64, 100, 128, 147, 160, 256, 441, 480])
@pytest.mark.parametrize("hop", [1, 2, 5, 64, 96, 128, 240, 256, 441, 512])
def test_adaptation_is_what_a_brute_force_device_needs(block: int, hop: int) -> None:
    assert block + adaptation_samples(block, hop) == smallest_queue(block, Fraction(hop))


@given(st.integers(1, 200), st.integers(1, 60), st.sampled_from([(48000, 44100), (96000, 44100), (22050, 48000)]))
def test_the_queue_of_a_resampled_hop_is_never_too_short(block: int, hop: int, rates: tuple[int, int]) -> None:
    device, model = rates
    plan = plan_latency(samplerate=device, model_samplerate=model, block=block, hop=hop, model_latency=0, slack_hops=0)
    needed = smallest_queue(block, Fraction(hop * device, model))
    assert needed <= plan.queue_samples <= needed + 2 + math.gcd(block, hop) + block


@pytest.mark.parametrize(("block", "hop"), [(0, 5), (5, 0), (-1, 5)])
def test_sizes_below_one_are_refused(block: int, hop: int) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        adaptation_samples(block, hop)


def test_the_report_is_the_sum_of_its_parts() -> None:
    plan = plan_latency(
        samplerate=44100, block=256, hop=1024, model_latency=3072, slack_hops=1, device_in=256, device_out=30
    )
    report = plan.report
    samples = {part.name: part.samples for part in report.parts}
    assert samples == {
        "device in": 256,
        "resampler in": 0,
        "adaptation": 768,
        "model": 3072,
        "worker slack": 1024,
        "resampler out": 0,
        "plugins": 0,
        "device out": 286,
    }
    assert report.total_samples == 5406
    assert report.total_ms == pytest.approx(5406 / 44.1)
    assert report.stream_samples == 5406 - 256 - 30
    assert report["adaptation"].why == "hop 1024 - gcd(256, 1024)"
    lines = report.lines()
    assert len(lines) == len(report.parts) + 2
    assert lines[-1].split() == ["total", "5406", "122.6"]
    document = json.loads(json.dumps(report.to_dict()))
    assert document["total_samples"] == 5406
    assert sum(part["samples"] for part in document["parts"]) == 5406


def test_resampled_parts_count_at_their_own_rate() -> None:
    plan = plan_latency(
        samplerate=48000,
        model_samplerate=44100,
        block=128,
        hop=441,
        model_latency=100,
        resampler_in=341,
        resampler_out=20,
    )
    assert plan.content_samples == 480 + 20
    assert plan.report.total_samples == 128 + (480 - 32) + 480 + 500
    assert plan.report["model"].samplerate == 44100


def test_a_fraction_of_a_sample_is_refused() -> None:
    with pytest.raises(UsageError, match="whole number"):
        plan_latency(samplerate=48000, model_samplerate=44100, block=128, hop=441, model_latency=100)


def test_blocks_that_vary_count_on_no_common_divisor() -> None:
    plan = plan_latency(samplerate=48000, block=128, hop=512, model_latency=0, block_varies=True)
    assert plan.report["adaptation"].samples == 511


def test_slack_adds_whole_hops() -> None:
    plans = [plan_latency(samplerate=48000, block=64, hop=512, model_latency=0, slack_hops=n) for n in (0, 1, 3)]
    assert [plan.queue_samples - plans[0].queue_samples for plan in plans] == [0, 512, 1536]
    with pytest.raises(UsageError, match="slack_hops"):
        plan_latency(samplerate=48000, block=64, hop=512, model_latency=0, slack_hops=-1)
