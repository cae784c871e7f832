"""The tracker of one voice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtsep.errors import UsageError
from rtsep.notes.tracker import TrackedEvent
from rtsep.notes.transcriber_info import DIAL
from rtsep.notes.voice import Spoken, VoiceSettings, VoiceTracker

NOTES = tuple(range(50, 74))
LOOK = (1, 4, 12)
LOUD = -20.0


def tracker_at(position: str = "normal", **changed: float) -> VoiceTracker:
    from dataclasses import replace

    tuned = replace(VoiceSettings.for_position(position), **changed)  # type: ignore[arg-type]
    return VoiceTracker(NOTES, LOOK, DIAL.index(position), tuned)


def said(onset: np.ndarray, frame: np.ndarray, pitch: np.ndarray | None, now: int) -> list[Spoken]:
    """What the positions of a dial say in a step, were they all of one mind."""
    nothing, spoken = np.zeros(len(NOTES)), []
    for ahead in LOOK:
        k = now - ahead
        if 0 <= k < len(onset):
            heard = 0.0 if pitch is None else float(pitch[k])
            spoken.append((onset[k], frame[k], 0.5 * frame[k], heard))
        else:
            spoken.append((nothing, nothing, nothing, 0.0))
    return spoken


def run(
    tracker: VoiceTracker,
    onset: np.ndarray,
    frame: np.ndarray,
    pitch: np.ndarray | None = None,
    level: np.ndarray | None = None,
) -> list[tuple[TrackedEvent, int]]:
    """Events, their moments as frames of the sound, and the step in which each was given out."""
    late = LOOK[tracker._lookaheads.index(tracker._late)]
    found = []
    for now in range(len(onset) + 30):
        loud = LOUD if level is None or now >= len(level) else float(level[now])
        for e in tracker.push(said(onset, frame, pitch, now), loud):
            found.append((TrackedEvent(e.kind, e.pitch, e.velocity, e.moment - late), now))
    return found


def held(frames: int, *notes: tuple[int, int, int]) -> np.ndarray:
    frame = np.zeros((frames, len(NOTES)))
    for first, last, note in notes:
        frame[first:last, NOTES.index(note)] = 0.95
    return frame


def struck(frames: int, *at: tuple[int, int]) -> np.ndarray:
    onset = np.zeros((frames, len(NOTES)))
    for k, note in at:
        onset[k - 1 : k + 2, NOTES.index(note)] = (0.4, 0.9, 0.4)
    return onset


def promised(tracker: VoiceTracker) -> int:
    """Frames from a beginning until it is given out, at most."""
    return tracker.delay_frames + LOOK[tracker._lookaheads.index(tracker._late)]


@pytest.mark.parametrize("position", DIAL)
def test_struck_notes_are_given_out_in_time_and_repeated_ones_apart(position: str) -> None:
    onset, frame = struck(140, (20, 60), (60, 60), (90, 64)), held(140, (20, 90, 60), (90, 120, 64))
    tracker = tracker_at(position)
    events = run(tracker, onset, frame)
    given = [(e.pitch, e.moment, now) for e, now in events if e.kind == "on"]
    ons = [(pitch, pytest.approx(moment, abs=0.01), now) for pitch, moment, now in given]
    assert [(pitch, moment) for pitch, moment, _ in ons] == [(60, 20.5), (60, 60.5), (64, 90.5)]
    assert all(now + 1 - moment <= promised(tracker) for (_, moment, now) in given)
    assert [round(e.moment) for e, _ in events if e.kind == "off"] == [60, 90, 120]


@pytest.mark.parametrize("position", DIAL)
def test_a_note_that_is_slid_into_begins_once_within_the_window(position: str) -> None:
    frame = held(160, (20, 80, 60), (80, 140, 63))
    tracker = tracker_at(position)
    events = run(tracker, np.zeros_like(frame), frame)
    ons = [(e.pitch, e.moment, now) for e, now in events if e.kind == "on"]
    assert [pitch for pitch, *_ in ons] == [60, 63]
    for (_, moment, now), begin in zip(ons, (20, 80), strict=True):
        assert moment == pytest.approx(begin, abs=2)
        assert now + 1 - moment <= promised(tracker)


@pytest.mark.parametrize("position", DIAL)
def test_vibrato_is_one_note(position: str) -> None:
    pitch = 60 + 0.7 * np.sin(2 * np.pi * 5.5 * np.arange(200) / 100)
    frame = held(200, (20, 180, 60))
    events = run(tracker_at(position), struck(200, (20, 60)), frame, np.where(frame.max(1) > 0, pitch, 0))
    assert [(e.kind, e.pitch) for e, _ in events] == [("on", 60), ("off", 60)]


def test_a_dip_in_level_parts_notes_of_one_pitch() -> None:
    frame, level = held(160, (20, 140, 60)), np.full(160, LOUD)
    assert sum(e.kind == "on" for e, _ in run(tracker_at("quality"), np.zeros_like(frame), frame, level=level)) == 1
    level[78:82] = LOUD - 25
    assert sum(e.kind == "on" for e, _ in run(tracker_at("quality"), np.zeros_like(frame), frame, level=level)) == 2


def test_longest_note_ends_and_stays_ended() -> None:
    frame = held(300, (20, 280, 60))
    events = run(tracker_at("normal", longest_frames=50), struck(300, (20, 60)), frame)
    assert [(e.kind, round(e.moment)) for e, _ in events] == [("on", 20), ("off", 70)]


def test_what_was_released_is_not_taken_up_again_but_by_an_attack() -> None:
    onset, frame = struck(200, (20, 60), (120, 60)), held(200, (20, 180, 60))
    tracker = tracker_at("normal")
    events: list[TrackedEvent] = []
    for now in range(200):
        events += tracker.push(said(onset, frame, None, now), LOUD)
        if now == 60:
            events += tracker.release()
            assert tracker.sounding == ()
    assert [(e.kind, round(e.moment - 4)) for e in events] == [("on", 20), ("off", 57), ("on", 120), ("off", 180)]


def test_noise_that_is_no_tone_gives_nothing() -> None:
    rng = np.random.default_rng(3)
    onset, frame = 0.15 * rng.random((400, len(NOTES))), 0.3 * rng.random((400, len(NOTES)))
    for position in DIAL:
        assert run(tracker_at(position), onset, frame) == []


@pytest.mark.parametrize(
    "wrong",
    [{"even": 0.0}, {"window_frames": 0}, {"forget": 1.5}, {"note": -1.0}, {"note": math.nan}, {"quiet_frames": -1}],
)
def test_refuses_values_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        VoiceSettings(**wrong)  # type: ignore[arg-type]


def test_refuses_a_dial_that_does_not_ascend() -> None:
    for look, position in (((4, 1), 0), ((1, 4), 2), ((-1, 4), 0)):
        with pytest.raises(UsageError):
            VoiceTracker(NOTES, look, position, VoiceSettings())


posteriors = arrays(np.float64, (2, 50, len(NOTES)), elements=st.sampled_from([0.0, 0.0, 0.3, 0.7, 0.95, float("nan")]))


@settings(max_examples=100, deadline=None)
@given(
    posteriors,
    arrays(np.float64, 50, elements=st.sampled_from([0.0, 50.0, 60.4, 73.5, 90.0, float("nan"), float("inf")])),
    arrays(np.float64, 50, elements=st.sampled_from([-120.0, -40.0, -10.0, float("nan"), -math.inf])),
    st.sampled_from(DIAL),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_every_note_ends_once_in_order_and_one_sounds(
    data: np.ndarray, pitch: np.ndarray, level: np.ndarray, position: str, releases: list[int]
) -> None:
    tracker = tracker_at(position, longest_frames=15, shortest_frames=2, note=2.0)
    window = tracker.settings.window_frames
    events: list[TrackedEvent] = []
    for now in range(65):
        given = tracker.push(said(*data, pitch, now), float(level[now]) if now < 50 else -120.0)
        for e in given:  # nothing is said later than the window allows, or earlier than it can be known
            at = e.moment - tracker._late
            if e.kind == "on":
                assert at <= now + 1
                assert now - at <= window + 3
        events += given
        if now in releases:
            events += tracker.release()
            assert tracker.sounding == ()
        assert len(tracker.sounding) <= 1
    events += tracker.release()
    sounding: int | None = None
    last = -math.inf
    for e in events:
        assert e.moment >= last
        last = e.moment
        if e.kind == "on":
            assert sounding is None
            assert e.pitch in NOTES
            assert 1 <= e.velocity <= 127
            sounding = e.pitch
        else:
            assert e.pitch == sounding
            sounding = None
    assert sounding is None
