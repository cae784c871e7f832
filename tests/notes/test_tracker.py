"""The tracker of transcribers' posteriors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtsep.errors import UsageError
from rtsep.notes.tracker import CONFIRM_FRAMES, StemTracker, StemTrackerSettings, TrackedEvent

NOTES = tuple(range(60, 90))


def run(tracker: StemTracker, onset: np.ndarray, frame: np.ndarray | None = None) -> list[TrackedEvent]:
    frame = onset if frame is None else frame
    return [event for o, f in zip(onset, frame, strict=True) for event in tracker.push(o, f, 0.5 * o)]


def bump(frames: int, at: int, row: int = 0, height: float = 0.9, rows: int = len(NOTES)) -> np.ndarray:
    onset = np.zeros((frames, rows))
    onset[at - 1, row], onset[at, row], onset[at + 1, row] = 0.5 * height, height, 0.5 * height
    return onset


def held(frames: int, begin: int, end: int, row: int = 0, rows: int = len(NOTES)) -> np.ndarray:
    frame = np.zeros((frames, rows))
    frame[begin:end, row] = 0.9
    return frame


def test_note_begins_at_the_peak_and_ends_where_its_frames_end() -> None:
    events = run(StemTracker(NOTES, StemTrackerSettings()), bump(40, 10), held(40, 10, 25))
    assert [(e.kind, e.pitch, e.moment) for e in events] == [("on", 60, 10.5), ("off", 60, 25)]


def test_note_on_is_given_out_right_after_the_peak() -> None:
    tracker = StemTracker(NOTES, StemTrackerSettings())
    given_at = [t for t, o in enumerate(bump(40, 10)) if any(e.kind == "on" for e in tracker.push(o, o, o))]
    assert given_at == [10 + CONFIRM_FRAMES]


def test_second_stroke_needs_rearming_and_distance() -> None:
    onset = np.maximum(bump(60, 10), bump(60, 30))
    events = run(StemTracker(NOTES, StemTrackerSettings()), onset, held(60, 10, 50))
    assert [(e.kind, e.moment) for e in events] == [("on", 10.5), ("off", 30.5), ("on", 30.5), ("off", 50)]
    flat = np.zeros((60, len(NOTES)))
    flat[10:40, 0] = 0.9  # never falls: one note only
    assert [e.kind for e in run(StemTracker(NOTES, StemTrackerSettings()), flat, held(60, 10, 50))] == ["on", "off"]


@pytest.mark.parametrize("distance", [1, 12, 19])
def test_weaker_neighbour_or_overtone_is_left_out(distance: int) -> None:
    weak = bump(40, 10, row=distance, height=0.52)
    onset = np.maximum(bump(40, 10, height=0.99), weak)
    loose = StemTrackerSettings(neighbour=0.6, overtone=0.6)
    assert {e.pitch for e in run(StemTracker(NOTES, loose), onset)} == {60}
    strict = StemTrackerSettings(neighbour=0.0, overtone=0.0)
    assert {e.pitch for e in run(StemTracker(NOTES, strict), onset)} == {60, 60 + distance}


def test_weaker_octave_below_is_left_out() -> None:
    onset = np.maximum(bump(40, 10, row=12, height=0.99), bump(40, 10, height=0.52))
    heard = run(StemTracker(NOTES, StemTrackerSettings(undertone=0.6, overtone=0.0)), onset)
    assert {e.pitch for e in heard} == {72}
    assert {e.pitch for e in run(StemTracker(NOTES, StemTrackerSettings(overtone=0.0)), onset)} == {60, 72}


def test_monophonic_change_of_pitch_without_onset() -> None:
    s = StemTrackerSettings(polyphony=1, soft_frames=8, glide_frames=5)
    frame = held(60, 10, 30) + held(60, 30, 50, row=2)
    events = run(StemTracker(NOTES, s), bump(60, 10), frame)
    assert [(e.kind, e.pitch) for e in events] == [("on", 60), ("off", 60), ("on", 62), ("off", 62)]
    assert events[2].moment == 30


def test_longest_note_ends_and_stays_ended() -> None:
    s = StemTrackerSettings(longest_frames=20)
    events = run(StemTracker(NOTES, s), bump(80, 5), held(80, 5, 80))
    assert [(e.kind, e.moment) for e in events] == [("on", 5.5), ("off", 25)]


def test_drums_end_by_their_gate() -> None:
    s = StemTrackerSettings(gate_frames=5, neighbour=0.0, overtone=0.0)
    events = run(StemTracker((36, 38, 42), s), bump(40, 10, rows=3), np.zeros((40, 3)))
    assert [(e.kind, e.pitch, e.moment) for e in events] == [("on", 36, 10.5), ("off", 36, 15)]


def test_velocity_follows_the_stems_own_level() -> None:
    tracker = StemTracker(NOTES, StemTrackerSettings())
    loud = [e.velocity for e in run(tracker, bump(30, 10)) if e.kind == "on"]
    quiet = StemTracker(NOTES, StemTrackerSettings())
    onset = bump(30, 10)
    faint = [e.velocity for o in onset for e in quiet.push(o, o, 0.05 * o) if e.kind == "on"]
    assert loud == faint == [round(127 * 0.85)]


@pytest.mark.parametrize(
    "wrong", [{"off": 0.6}, {"onset": 0.0}, {"polyphony": 0}, {"overtone": 1.5}, {"hold_frames": -1}]
)
def test_refuses_values_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        StemTrackerSettings(**wrong)  # type: ignore[arg-type]


posteriors = arrays(np.float64, (2, 40, 14), elements=st.sampled_from([0.0, 0.2, 0.35, 0.5, 0.7, 0.95, float("nan")]))


@settings(max_examples=150, deadline=None)
@given(
    posteriors,
    st.sampled_from([1, 2, 12]),
    st.integers(0, 6),
    st.sampled_from([0, 5]),
    st.lists(st.integers(0, 39), max_size=3),
)
def test_every_note_ends_once_and_in_order(
    data: np.ndarray, polyphony: int, soft: int, gate: int, releases: list[int]
) -> None:
    s = StemTrackerSettings(polyphony=polyphony, soft_frames=soft, gate_frames=gate, longest_frames=15)
    tracker = StemTracker(tuple(range(50, 64)), s)
    events: list[TrackedEvent] = []
    for t, (onset, frame) in enumerate(zip(*data, strict=True)):
        events += tracker.push(onset, frame, frame)
        if t in releases:
            events += tracker.release()
            assert not tracker.sounding
        assert len(tracker.sounding) <= polyphony
    events += tracker.release()
    began: dict[int, float] = {}
    for event in events:
        if event.kind == "on":
            assert event.pitch not in began
            assert 1 <= event.velocity <= 127
            began[event.pitch] = event.moment
            assert len(began) <= polyphony
        else:
            assert event.moment >= began.pop(event.pitch)
    assert not began


@settings(max_examples=60, deadline=None)
@given(posteriors, st.integers(5, 35))
def test_the_future_beyond_the_confirmation_changes_no_beginning(data: np.ndarray, cut: int) -> None:
    s = StemTrackerSettings()
    other = data.copy()
    other[:, cut:] = 0.0

    def onsets(posterior: np.ndarray) -> list[tuple[float, int]]:
        found = run(StemTracker(tuple(range(50, 64)), s), *posterior)
        return [(e.moment, e.pitch) for e in found if e.kind == "on" and e.moment + CONFIRM_FRAMES < cut]

    assert onsets(data) == onsets(other)
