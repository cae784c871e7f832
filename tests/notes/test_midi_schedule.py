"""The schedule: in time, within the rate, never an end before its beginning, never a lost end."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.errors import UsageError
from rtsep.notes.ledger import Ledger
from rtsep.notes.messages import NoteMessage, StripMidi
from rtsep.notes.schedule import RateLimit, Scheduler, rate_limit

FREE = RateLimit(1e6, 1_000_000)


def on(due: float, pitch: int = 60, stem: int = 0) -> NoteMessage:
    return NoteMessage(due, stem, "on", pitch)


def off(due: float, pitch: int = 60, stem: int = 0) -> NoteMessage:
    return NoteMessage(due, stem, "off", pitch)


def bend(due: float, semitones: float, stem: int = 0) -> NoteMessage:
    return NoteMessage(due, stem, "bend", 60, bend=semitones)


def drain(scheduler: Scheduler, now: float, cost: int = 1) -> list[NoteMessage]:
    found = []
    while (message := scheduler.next(now)) is not None:
        scheduler.spent(cost)
        found.append(message)
    return found


def run(scheduler: Scheduler, until: float, now: float = 0.0) -> list[tuple[float, NoteMessage]]:
    """Follow `wake_at` from now on, as the port process does."""
    found = []
    while (wake := scheduler.wake_at(now)) is not None and wake <= until:
        assert wake >= now
        now = max(wake, now + 1e-6)  # a clock never stands still
        while (message := scheduler.next(now)) is not None:
            scheduler.spent(1)
            found.append((now, message))
    return found


def test_nothing_goes_out_before_its_time() -> None:
    scheduler = Scheduler(FREE, 0.0)
    first, second = on(1.0), on(1.5, 62)
    scheduler.add(second)
    scheduler.add(first)
    assert scheduler.wake_at(0.2) == 1.0
    assert drain(scheduler, 0.999) == []
    assert drain(scheduler, 1.0) == [first]
    assert scheduler.wake_at(1.1) == 1.5
    assert drain(scheduler, 1.6) == [second]
    assert scheduler.wake_at(2.0) is None
    assert scheduler.late == 1  # by 100 ms
    assert len(scheduler) == 0


def test_ends_go_before_beginnings_and_those_before_bends() -> None:
    scheduler = Scheduler(FREE, 0.0)
    pressed = NoteMessage(0.9, 0, "pressure", 60, 5)
    messages = [pressed, bend(0.9, 1.0), on(0.91, 64), off(0.95, 60), off(0.95, 62)]
    for message in messages:
        scheduler.add(message)
    assert drain(scheduler, 1.0) == [messages[3], messages[4], messages[2], messages[1], messages[0]]


def test_a_note_keeps_its_own_order_whatever_its_times_say() -> None:
    scheduler = Scheduler(FREE, 0.0)
    sent = [on(1.0), off(0.5), on(0.7), off(1.2)]
    for message in sent:
        scheduler.add(message)
    assert drain(scheduler, 1.1) == sent[:3]
    assert drain(scheduler, 1.2) == sent[3:]


def test_what_comes_much_too_late_is_not_begun() -> None:
    scheduler = Scheduler(FREE, 0.0, late_limit_s=0.25)
    for message in (on(1.0), off(1.1), on(1.2, 62), bend(1.0, 1.0)):
        scheduler.add(message)
    # The end of the dropped note goes on: the ledger knows whether it ends anything.
    assert drain(scheduler, 1.4) == [on(1.2, 62), off(1.1)]
    assert scheduler.dropped == 2


def test_the_bucket_is_a_rate_and_a_burst() -> None:
    scheduler = Scheduler(RateLimit(100.0, 10), 0.0, late_limit_s=10)
    for pitch in range(60):
        scheduler.add(on(0.0, pitch))
    assert len(drain(scheduler, 0.0)) == 10
    assert scheduler.next(0.005) is None
    assert scheduler.wake_at(0.005) == pytest.approx(0.01)
    assert len(drain(scheduler, 0.01)) == 1
    assert len(drain(scheduler, 0.11)) == 10
    scheduler.add(on(0.2, 100))
    assert len(drain(scheduler, 9.0, cost=5)) == 2  # one may overdraw it


def test_at_overload_note_ons_give_way_and_note_offs_do_not() -> None:
    scheduler = Scheduler(RateLimit(100.0, 4), 0.0, late_limit_s=0.05)
    for pitch in range(100):
        scheduler.add(on(0.0, pitch))
        scheduler.add(off(0.001, pitch))
    found = [message for _, message in run(scheduler, 5.0)]
    begun = [message.pitch for message in found if message.kind == "on"]
    ended = [message.pitch for message in found if message.kind == "off"]
    assert len(begun) + scheduler.dropped == 100
    assert 0 < len(begun) < 20
    assert sorted(ended) == list(range(100))


def test_bends_are_thinned_and_the_newest_wins() -> None:
    scheduler = Scheduler(FREE, 0.0)
    for k in range(1000):
        scheduler.add(bend(k / 1000, k / 1000))
    found = run(scheduler, 2.0)
    assert 90 <= len(found) <= 101
    assert all(b - a >= 0.01 - 1e-9 for (a, _), (b, _) in itertools.pairwise(found))
    assert found[-1][1].bend == 0.999
    assert scheduler.coalesced == 1000 - len(found)


def test_cancel_forgets_one_stem_or_all() -> None:
    scheduler = Scheduler(FREE, 0.0, late_limit_s=10)
    for stem in (0, 1):
        for message in (on(0.5, 60, stem), on(2.0, 61, stem), bend(0.5, 1.0, stem), bend(2.0, 1.0, stem)):
            scheduler.add(message)
    assert scheduler.next(0.6) == on(0.5, 60, 0)
    scheduler.cancel(0)
    assert {m.stem for m in drain(scheduler, 3.0)} == {1}
    scheduler.add(on(4.0))
    scheduler.cancel()
    assert scheduler.wake_at(0.0) is None
    assert len(scheduler) == 0


def test_too_many_are_dropped_but_no_end_is() -> None:
    scheduler = Scheduler(FREE, 0.0, capacity=10)
    taken = [scheduler.add(on(1.0, pitch)) for pitch in range(20)]
    assert taken == [True] * 10 + [False] * 10
    assert all(scheduler.add(off(2.0, pitch)) for pitch in range(20))
    assert scheduler.dropped == 10


def test_rates_have_names() -> None:
    assert rate_limit("din").rate == 1040
    with pytest.raises(UsageError, match="there are virtual, din"):
        rate_limit("usb")


MESSAGES = st.builds(
    lambda due, stem, kind, pitch, value: NoteMessage(due, stem, kind, pitch, 64, value),
    st.floats(0, 0.5),
    st.integers(0, 2),
    st.sampled_from(["on", "on", "off", "off", "bend", "pressure"]),
    st.integers(60, 64),
    st.floats(-2, 2),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.1), MESSAGES), max_size=80), st.integers(20, 2000), st.integers(1, 30))
def test_whatever_comes_nothing_hangs_and_the_rate_holds(
    arrivals: list[tuple[float, NoteMessage]], rate: int, burst: int
) -> None:
    strips = [StripMidi("a", 1), StripMidi("b", 2, mono=True), StripMidi("c", 10, polyphony=2)]
    scheduler, ledger = Scheduler(RateLimit(rate, burst), 0.0), Ledger(strips)
    now, times = 0.0, []
    order: dict[tuple[int, int], list[NoteMessage]] = defaultdict(list)
    given: dict[tuple[int, int], list[NoteMessage]] = defaultdict(list)
    most = 1

    def emit(until: float) -> None:
        nonlocal now, most
        while True:
            while (message := scheduler.next(now)) is not None:
                assert message.due_s <= now
                out = ledger.messages(message)
                most = max(most, len(out))
                scheduler.spent(len(out))
                times.extend([now] * len(out))
                if message.kind in ("on", "off"):
                    order[message.stem, message.pitch].append(message)
            wake = scheduler.wake_at(now)
            if wake is None or wake > until:
                now = max(now, until)
                return
            now = max(wake, now + 1e-6)

    open_notes: set[tuple[int, int]] = set()
    for gap, message in arrivals:
        emit(now + gap)
        key = (message.stem, message.pitch)
        scheduler.add(message)
        if message.kind in ("on", "off"):
            given[key].append(message)
            (open_notes.add if message.kind == "on" else open_notes.discard)(key)
    for stem, pitch in sorted(open_notes):
        end = off(now, pitch, stem)
        scheduler.add(end)
        given[stem, pitch].append(end)
    emit(now + 100.0)
    assert ledger.sounding() == {}
    assert len(scheduler) == 0
    for key, messages in given.items():
        # Every end arrived, in order, among the beginnings that were not dropped.
        ends = [m for m in messages if m.kind == "off"]
        assert [m for m in order[key] if m.kind == "off"] == ends
        iterator = iter(messages)
        assert all(any(m is g for g in iterator) for m in order[key])
    for first in range(len(times)):
        for last in range(first, len(times)):
            allowed = burst + rate * (times[last] - times[first]) + most + 1e-3
            assert last - first + 1 <= allowed
