"""The tracker: properties for any posteriors, and what it does with a few written ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from rtsep.errors import UsageError
from rtsep.query.notes import Note, NoteEvent, NoteTracker, TrackerSettings, pair

Roll = NDArray[np.float64]


def track(
    frame: Roll, onset: Roll | None = None, velocity: Roll | None = None, *, monophonic: bool = False, **settings: float
) -> list[NoteEvent]:
    """Push ``[N, P]`` posteriors; without onsets, those of MSI: the rise of the frame posterior."""
    tracker = NoteTracker(60, TrackerSettings(**settings), monophonic=monophonic)  # type: ignore[arg-type]
    rise = np.maximum(np.diff(frame, axis=0, prepend=np.zeros((1, frame.shape[1]))), 0)
    events = []
    for row in zip(
        rise if onset is None else onset, frame, np.full_like(frame, 0.5) if velocity is None else velocity, strict=True
    ):
        events += tracker.push(*row)
    return [*events, *tracker.finish()]


def one(levels: Sequence[float], pitch: int = 0, pitches: int = 3) -> Roll:
    """Posteriors in which one pitch has these levels."""
    roll = np.zeros((len(levels), pitches))
    roll[:, pitch] = levels
    return roll


def spans(events: Sequence[NoteEvent]) -> list[tuple[int, int, int]]:
    """(pitch, first frame, frame after the last) by beginning."""
    return [(n.pitch, round(n.start_s), round(n.end_s)) for n in pair(events, float, 1e9)]


ROLLS = st.integers(1, 40).flatmap(
    lambda frames: st.tuples(
        *(arrays(np.float64, (frames, 4), elements=st.sampled_from([0, 0.2, 0.4, 0.5, 0.9, 1.0])) for _ in range(2))
    )
)


@given(ROLLS, st.booleans(), st.integers(1, 4), st.integers(1, 4))
def test_every_note_begins_and_ends_once_without_overlap(
    rolls: tuple[Roll, Roll], monophonic: bool, minimum: int, release: int
) -> None:
    events = track(rolls[0], rolls[1], monophonic=monophonic, minimum_frames=minimum, release_frames=release)
    sounding: dict[int, int] = {}
    ended: dict[int, int] = {}
    for event in events:
        assert 0 <= event.frame <= len(rolls[0])
        if event.kind == "on":
            assert event.pitch not in sounding
            assert event.frame >= ended.get(event.pitch, 0)
            assert 1 <= event.velocity <= 127
            sounding[event.pitch] = event.frame
            if monophonic:
                assert len(sounding) == 1
                assert event.frame >= max(ended.values(), default=0)
        else:
            assert event.frame >= sounding.pop(event.pitch) + minimum
            ended[event.pitch] = event.frame
    assert not sounding


@given(ROLLS, st.booleans())
def test_the_future_does_not_change_what_was_given_out(rolls: tuple[Roll, Roll], monophonic: bool) -> None:
    frame, onset = rolls
    whole = NoteTracker(60, monophonic=monophonic)
    by_frame = [whole.push(*row, row[0]) for row in zip(onset, frame, strict=True)]
    half = NoteTracker(60, monophonic=monophonic)
    again = [half.push(*row, row[0]) for row in list(zip(onset, frame, strict=True))[: len(frame) // 2]]
    assert by_frame[: len(again)] == again


def test_a_note_is_where_its_posterior_is() -> None:
    roll = one([0, 0, 0.6, 0.9, 0.9, 0.9, 0.4, 0.35, 0.1, 0, 0, 0], pitch=1)
    velocity = np.zeros_like(roll)
    velocity[3, 1] = 0.8
    events = track(roll, velocity=velocity)
    assert events == [NoteEvent("on", 61, 102, 2), NoteEvent("off", 61, 0, 8)]


def test_short_flashes_and_weak_ones_are_no_notes() -> None:
    assert track(one([0, 1, 1, 1, 0, 0, 0, 0])) == []
    assert track(one([0.45] * 20)) == []
    assert spans(track(one([0, 1, 1, 1, 0, 0, 0, 0]), minimum_frames=3)) == [(60, 1, 4)]


def test_short_gaps_are_bridged_and_long_ones_end_the_note() -> None:
    assert spans(track(one([1] * 6 + [0, 0] + [0.45, 0.6] * 3, pitch=2), onset=np.zeros((14, 3)))) == [(62, 0, 14)]
    assert spans(track(one([1] * 6 + [0, 0, 0] + [1] * 6))) == [(60, 0, 6), (60, 9, 15)]


def test_a_struck_note_begins_anew() -> None:
    onset = one([1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    assert spans(track(one([1] * 12), onset=onset)) == [(60, 0, 6), (60, 6, 12)]
    # The gap before the second stroke belongs to no note.
    assert spans(track(one([1] * 6 + [0.1, 0.1] + [1] * 6))) == [(60, 0, 6), (60, 8, 14)]


def test_monophonic_takes_the_largest_and_never_two() -> None:
    roll = one([0.9] * 6 + [0.4] * 8) + one([0.0] * 6 + [0.6] * 8, pitch=1)
    assert spans(track(roll)) == [(60, 0, 14), (61, 6, 14)]
    assert spans(track(roll, monophonic=True)) == [(60, 0, 6), (61, 6, 14)]
    flash = one([0.9] * 6 + [0.2] * 2 + [0.9] * 6) + one([0.0] * 6 + [0.8] * 2 + [0.0] * 6, pitch=1)
    assert spans(track(flash, onset=np.zeros_like(flash), monophonic=True)) == [(60, 0, 14)]


def test_the_last_note_ends_with_the_audio_and_the_tracker_starts_anew() -> None:
    tracker = NoteTracker(60)
    for _ in range(2):
        events = [event for _ in range(9) for event in tracker.push(np.zeros(1), np.ones(1), np.ones(1))]
        assert [*events, *tracker.finish()] == [NoteEvent("on", 60, 127, 0), NoteEvent("off", 60, 0, 9)]


def test_nan_is_silence() -> None:
    assert track(one([np.nan] * 9)) == []


def test_pairs_are_cut_to_the_audio() -> None:
    events = [
        NoteEvent("on", 60, 90, 2), NoteEvent("off", 60, 0, 4), NoteEvent("on", 61, 80, 8), NoteEvent("off", 61, 0, 12),
        NoteEvent("on", 62, 70, 30), NoteEvent("off", 62, 0, 40),
    ]  # fmt: skip
    notes = pair(events, lambda frame: (frame - 3) / 10, 0.8)
    assert notes == [Note(0.0, 0.1, 60, 90), Note(0.5, 0.8, 61, 80)]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"on": 0.2}, "off <= on"),
        ({"off": 0.0}, "off <= on"),
        ({"on": 1.5}, "on <= 1"),
        ({"onset": 0.0}, "onset threshold"),
        ({"minimum_frames": 0}, "minimum_frames must be 1 or more; got 0"),
        ({"release_frames": -1}, "release_frames"),
    ],
)
def test_impossible_settings(settings: dict[str, float], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        TrackerSettings(**settings)  # type: ignore[arg-type]
