"""StreamingSession on real graphs: what a step computes, and what state and buffers do."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from rtsep.errors import UsageError
from rtsep.inference import StreamingSession
from tests.support.graphs import default_gains, make_delay_model

HOP = 128
Audio = NDArray[np.float32]


def noise(hops: int, channels: int = 2, hop: int = HOP, seed: int = 0) -> Audio:
    return np.random.default_rng(seed).standard_normal((channels, hops * hop)).astype(np.float32)


def hops_of(audio: Audio, hop: int = HOP) -> list[Audio]:
    return [np.ascontiguousarray(audio[:, i : i + hop]) for i in range(0, audio.shape[1], hop)]


def run(session: StreamingSession, audio: Audio) -> Audio:
    """Return all stems [S, C, T], copied hop by hop."""
    hops = hops_of(audio, session.info.hop_samples)
    return np.concatenate([session.step(hop).copy() for hop in hops], axis=-1)


@pytest.fixture
def full_model(tmp_path: Path) -> Path:
    """A model with every kind of tensor: states of several shapes, a control, notes, a symbolic batch."""
    return make_delay_model(
        tmp_path / "full.onnx", hop=HOP, latency=200, batch="B", control=True, notes=True, feedback=True, ballast=1
    )


@pytest.mark.parametrize("latency", [0, 1, HOP - 1, HOP, HOP + 1, 3 * HOP + 7])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_are_the_delayed_audio_times_the_gains(tmp_path: Path, latency: int, channels: int) -> None:
    path = make_delay_model(tmp_path / "m.onnx", hop=HOP, latency=latency, channels=channels)
    audio = noise(12, channels)
    with StreamingSession(path) as session:
        stems = run(session, audio)
    delayed = np.concatenate([np.zeros((channels, latency), np.float32), audio], axis=1)[:, : audio.shape[1]]
    for stem, gain in zip(stems, default_gains(4), strict=True):
        np.testing.assert_array_equal(stem, np.float32(gain) * delayed)
    np.testing.assert_array_equal(sum(stems), delayed)


def test_ping_pong_equals_a_plain_loop(full_model: Path) -> None:
    plain = onnxruntime.InferenceSession(full_model, providers=["CPUExecutionProvider"])
    names = [output.name for output in plain.get_outputs()]
    feed: dict[str, Any] = {
        node.name: np.zeros([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
        for node in plain.get_inputs()
    }
    feed["control/level"][:] = 1.0
    with StreamingSession(full_model) as session:
        assert session.notes is not None
        for hop in hops_of(noise(20)):
            feed["audio"] = hop[np.newaxis]
            expected = dict(zip(names, plain.run(names, feed), strict=True))
            feed.update({n.replace("state_out/", "state_in/"): v for n, v in expected.items() if "state_out/" in n})
            np.testing.assert_array_equal(session.step(hop), expected["stems"][0])
            for name in ("onset", "frame", "velocity"):
                np.testing.assert_array_equal(session.notes[name], expected[f"notes/{name}"][0])


def test_a_reset_session_equals_a_new_one_bit_for_bit(full_model: Path) -> None:
    audio = noise(9)
    with StreamingSession(full_model) as session, StreamingSession(full_model) as new:
        # An odd number of hops, so that the session is reset on the other parity than it opened with.
        run(session, noise(7, seed=1))
        session.reset()
        assert run(session, audio).tobytes() == run(new, audio).tobytes()


def test_the_past_is_heard_without_a_reset(full_model: Path) -> None:
    audio = noise(9)
    with StreamingSession(full_model) as session, StreamingSession(full_model) as new:
        run(session, noise(7, seed=1))
        assert run(session, audio).tobytes() != run(new, audio).tobytes()


def test_repeated_runs_are_identical_bit_for_bit(full_model: Path) -> None:
    audio = noise(15)
    runs = []
    for _ in range(3):
        with StreamingSession(full_model) as session:
            runs.append(run(session, audio).tobytes())
    assert len(set(runs)) == 1


@pytest.mark.parametrize("warmup_hops", [0, 1, 4])
def test_warming_up_leaves_no_trace(full_model: Path, warmup_hops: int) -> None:
    audio = noise(5)
    with StreamingSession(full_model, warmup_hops=warmup_hops) as session, StreamingSession(full_model) as new:
        assert run(session, audio).tobytes() == run(new, audio).tobytes()


def test_sessions_do_not_share_memory(full_model: Path) -> None:
    audio, other = noise(6), noise(6, seed=1)
    with StreamingSession(full_model) as one, StreamingSession(full_model) as two:
        expected = run(one, audio)
        one.reset()
        interleaved = []
        for hop, disturbance in zip(hops_of(audio), hops_of(other), strict=True):
            interleaved.append(one.step(hop).copy())
            two.step(disturbance)
    np.testing.assert_array_equal(np.concatenate(interleaved, axis=-1), expected)


def test_what_a_step_returned_stays_valid_through_the_next_step_and_a_reset(full_model: Path) -> None:
    with StreamingSession(full_model) as session:
        first, second, third, fourth = hops_of(noise(4))
        session.step(first)
        before = session.step(second)
        kept = before.copy()
        session.step(third)
        np.testing.assert_array_equal(before, kept)
        before = session.step(fourth)
        kept = before.copy()
        session.reset()
        np.testing.assert_array_equal(before, kept)
        session.step(first)
        np.testing.assert_array_equal(before, kept)


def test_the_input_may_be_reused_and_is_not_changed(full_model: Path) -> None:
    audio = noise(6)
    with StreamingSession(full_model) as session:
        expected = run(session, audio)
        session.reset()
        block = np.empty((2, HOP), np.float32)
        got = []
        for hop in hops_of(audio):
            block[:] = hop
            got.append(session.step(block).copy())
            np.testing.assert_array_equal(block, hop)
    np.testing.assert_array_equal(np.concatenate(got, axis=-1), expected)


def test_what_was_returned_may_be_fed_back(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "m.onnx", hop=HOP, latency=HOP)
    first, second = hops_of(noise(2))
    with StreamingSession(path) as session:
        session.step(first)
        stems = session.step(second)  # first, times the gains
        session.step(stems[3])
        np.testing.assert_array_equal(session.step(first)[3], np.float32(0.25) * first)


def test_a_step_allocates_nothing_the_size_of_a_hop(tmp_path: Path) -> None:
    hop = 4096
    path = make_delay_model(tmp_path / "m.onnx", hop=hop, latency=200, notes=True, feedback=True)
    with StreamingSession(path) as session:
        hops = hops_of(noise(20, hop=hop), hop)
        for hop in hops:
            session.step(hop)
        gc.collect()
        tracemalloc.start()
        try:
            session.step(hops[0])
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for hop in hops:
                session.step(hop)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # One hop of audio is 32 KiB, its stems are 128 KiB, and a mask of the audio would be 8 KiB; what is left
    # (views, scalars, an iterator of NumPy's) does not grow with the hop.
    assert peak - before < 6000
    assert after - before < 6000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_count_as_zero(full_model: Path, bad: float) -> None:
    audio = noise(6)
    audio[0, 3 * HOP + 5] = audio[1, 3 * HOP + 6] = 0.0
    with StreamingSession(full_model) as session:
        expected = run(session, audio)
        session.reset()
        audio[0, 3 * HOP + 5] = audio[1, 3 * HOP + 6] = bad
        np.testing.assert_array_equal(run(session, audio), expected)
        assert session.nonfinite_samples == 2
        assert session.recovered_hops == 0
        assert np.isnan(audio[0, 3 * HOP + 5]) or np.isinf(audio[0, 3 * HOP + 5])


def test_a_hop_too_large_for_the_model_does_not_poison_the_next(tmp_path: Path) -> None:
    path = make_delay_model(tmp_path / "m.onnx", hop=HOP, latency=0, notes=True, feedback=True)
    hops = hops_of(noise(6))
    loud = np.full((2, HOP), 3e38, np.float32)  # finite, and its square is not
    with StreamingSession(path) as session, StreamingSession(path) as new:
        session.step(hops[0])
        for index in range(1, 3):
            assert not session.step(loud).any()
            assert session.recovered_hops == index
            assert session.notes is not None
            assert not session.notes["onset"].any()
        for hop in hops:
            np.testing.assert_array_equal(session.step(hop), new.step(hop))
        assert session.recovered_hops == 2
        assert session.nonfinite_samples == 0


def test_notes(full_model: Path) -> None:
    with StreamingSession(full_model) as session:
        assert session.notes is not None
        assert {name: array.shape for name, array in session.notes.items()} == dict.fromkeys(
            ("onset", "frame", "velocity"), (1, 2, 4)
        )
        assert not session.notes["frame"].any()
        session.step(np.full((2, HOP), 0.5, np.float32))
        session.step(np.full((2, HOP), 0.5, np.float32))
        first = session.notes["frame"]
        # 128 of the first hop's samples are still in the delay line of 200, so 56 of 128 are .5 now.
        np.testing.assert_allclose(first, 0.5 * 56 / 128, rtol=1e-6)
        session.step(np.full((2, HOP), 0.5, np.float32))
        np.testing.assert_allclose(session.notes["frame"], 0.5, rtol=1e-6)
        np.testing.assert_allclose(first, 0.5 * 56 / 128, rtol=1e-6)
        session.reset()
        assert not session.notes["frame"].any()


def test_a_model_without_notes_has_none(tmp_path: Path) -> None:
    with StreamingSession(make_delay_model(tmp_path / "m.onnx", hop=HOP)) as session:
        session.step(noise(1))
        assert session.notes is None


def test_controls(full_model: Path) -> None:
    hop = noise(1)
    with StreamingSession(full_model) as session:
        assert session.control("level") == 1.0
        for _ in range(3):
            session.step(hop)
        plain = session.step(hop).copy()
        session.set_control("level", 0.5)
        assert session.control("level") == 0.5
        np.testing.assert_array_equal(session.step(hop), 0.5 * plain)
        assert session.control("level") == 0.5
        np.testing.assert_array_equal(session.step(hop), 0.5 * plain)
        session.reset()
        assert session.control("level") == 0.5
        session.set_control("level", 2)
        session.set_control("level", 0.0)
        assert not session.step(hop).any()


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("levels", 1.0, "has no control 'levels'; Did you mean 'level'"),
        ("level", 2.01, r"got 2\.01; allowed is 0\.0 to 2\.0"),
        ("level", -0.5, "allowed is 0.0 to 2.0"),
        ("level", float("nan"), "got nan"),
        ("level", [1.0, 1.0], r"has the shape \[\]; got values of shape \[2\]"),
        ("level", "loud", "needs numbers"),
    ],
)
def test_controls_refuse(full_model: Path, name: str, values: Any, message: str) -> None:
    with StreamingSession(full_model) as session:
        session.set_control("level", 0.25)
        with pytest.raises(UsageError, match=message):
            session.set_control(name, values)
        assert session.control("level") == 0.25


def test_a_control_the_model_does_not_have(tmp_path: Path) -> None:
    with (
        StreamingSession(make_delay_model(tmp_path / "m.onnx", hop=HOP)) as session,
        pytest.raises(UsageError, match="has no control 'level'; it has: none"),
    ):
        session.control("level")


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, HOP + 1), np.float32), r"got float32 \[2, 129\]"),
        (np.zeros((1, HOP), np.float32), r"got float32 \[1, 128\]"),
        (np.zeros((1, 2, HOP), np.float32), r"got float32 \[1, 2, 128\]"),
        (np.zeros((2, HOP)), r"got float64 \[2, 128\]"),
        (np.zeros((HOP, 2), np.float32).T, r"got non-contiguous float32 \[2, 128\]"),
        ([[0.0] * HOP] * 2, "got list"),
        (None, "got NoneType"),
    ],
)
def test_a_step_says_what_it_needs(full_model: Path, audio: Any, message: str) -> None:
    with StreamingSession(full_model) as session, pytest.raises(UsageError, match=message) as caught:
        session.step(audio)
    assert "C-contiguous float32 array [2, 128]" in str(caught.value)


def test_closing(full_model: Path) -> None:
    hop = noise(1)
    session = StreamingSession(full_model)
    with session as entered:
        assert entered is session
        stems = session.step(hop)
        kept = stems.copy()
    session.close()
    gc.collect()
    np.testing.assert_array_equal(stems, kept)
    for call in (
        lambda: session.step(hop),
        session.reset,
        lambda: session.set_control("level", 1.0),
        lambda: session.control("level"),
    ):
        with pytest.raises(UsageError, match=r"session of full\.onnx is closed"):
            call()


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_warmup_hops_is_checked(full_model: Path, value: Any) -> None:
    with pytest.raises(UsageError, match="warmup_hops is"):
        StreamingSession(full_model, warmup_hops=value)


def test_what_a_session_says_of_itself(full_model: Path) -> None:
    with StreamingSession(str(full_model), provider="cpu", threads=2) as session:
        assert session.path == full_model
        assert session.info.name == "test-delay"
        assert (session.provider_asked, session.provider, session.provider_note) == ("cpu", "cpu", None)
        assert session.threads == 2
        assert (session.nonfinite_samples, session.recovered_hops) == (0, 0)
