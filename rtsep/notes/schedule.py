"""When each note message goes out: due times, a rate limit, and what goes first when there is too much.

Pure logic: every method takes the time. The messages of one note (stem and pitch) keep the order in which they came,
so that an end can never overtake its beginning; among different notes ends go before beginnings, beginnings before
bends, bends before pressure.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from rtsep.errors import UsageError, suggest
from rtsep.notes.messages import NoteMessage

LATE_S = 0.005
"""A note-on that goes out more than this after its time counts as late; many ends are only known after theirs."""


@dataclass(frozen=True)
class RateLimit:
    """A token bucket: `rate` messages a second on average, up to `burst` at once."""

    rate: float
    burst: int


RATES = {
    # JACK keeps the messages of a period in a small buffer and drops what does not fit without saying so.
    "virtual": RateLimit(1000.0, 256),
    # 31250 baud: ten bits a byte, three bytes a message.
    "din": RateLimit(1040.0, 8),
}


def rate_limit(name: str) -> RateLimit:
    """Return the limit of that name, ``virtual`` or ``din``; UsageError otherwise."""
    if name not in RATES:
        raise UsageError(f"No MIDI rate {name!r}; there are {', '.join(RATES)}.{suggest(name, RATES)}")
    return RATES[name]


class TokenBucket:
    """Counts messages against a `RateLimit`; not thread-safe."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit, self._tokens, self._at = limit, float(limit.burst), now

    def wait_s(self, now: float) -> float:
        """Return seconds until a message may go out; 0.0 when one may now."""
        self._tokens = min(self._limit.burst, self._tokens + max(0.0, now - self._at) * self._limit.rate)
        self._at = max(self._at, now)
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) / self._limit.rate

    def spend(self, messages: int) -> None:
        """Take what went out; one event may spend more than there is, which delays the next."""
        self._tokens -= messages


Key = tuple[int, int]


class Scheduler:
    """Note messages by due time.

    Parameters
    ----------
    limit : RateLimit
    now : float
        Seconds; the clock the due times are of.
    late_limit_s : float
        A note-on later than this is dropped, and its note-off then ends nothing.
    bend_interval_s : float
        Least time between two bends (or pressures) of one group; those between are replaced by the newest.
    capacity : int
        Messages waiting; beyond it everything but note-offs is dropped and counted.
    group : function of NoteMessage, optional
        What shares a bend: the channel. By stem when left out.

    Attributes
    ----------
    late, dropped, coalesced : int
        Note-ons that went out late; note-ons, bends and pressures that never did; those replaced by a newer one.
    """

    def __init__(
        self,
        limit: RateLimit,
        now: float,
        *,
        late_limit_s: float = 0.25,
        bend_interval_s: float = 0.01,
        capacity: int = 8192,
        group: Callable[[NoteMessage], Hashable] | None = None,
    ) -> None:
        self.bucket = TokenBucket(limit, now)
        self.late = self.dropped = self.coalesced = 0
        self._late_limit_s, self._bend_interval_s, self._capacity = late_limit_s, bend_interval_s, capacity
        self._group = group or (lambda message: message.stem)
        self._number = 0
        self._heap: list[tuple[float, int, NoteMessage]] = []
        self._waiting: Counter[Key] = Counter()
        self._latest: dict[Key, float] = {}
        self._ready: dict[Key, deque[tuple[float, int, NoteMessage]]] = {}
        self._offs: list[tuple[float, int, Key]] = []
        self._ons: list[tuple[float, int, Key]] = []
        self._changes: dict[str, dict[Hashable, tuple[float, NoteMessage]]] = {"bend": {}, "pressure": {}}
        self._changed_at: dict[tuple[str, Hashable], float] = {}

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self._heap) + sum(map(len, self._ready.values())) + sum(map(len, self._changes.values()))

    def add(self, message: NoteMessage) -> bool:
        """Take a message; False when it was dropped because too many wait. A note-off is always taken."""
        if message.kind != "off" and len(self._heap) >= self._capacity:
            self.dropped += 1
            return False
        due = message.due_s
        if message.kind in ("on", "off"):
            key = (message.stem, message.pitch)
            due = max(due, self._latest.get(key, due))
            self._latest[key] = due
            self._waiting[key] += 1
        self._number += 1
        heapq.heappush(self._heap, (due, self._number, message))
        return True

    def next(self, now: float) -> NoteMessage | None:
        """Return the message that should go out now, or None. Call `spent` with what it became."""
        self._collect(now)
        if self.bucket.wait_s(now) > 0:
            return None
        if self._offs:
            return self._advance(heapq.heappop(self._offs)[2])
        while self._ons:
            entry = heapq.heappop(self._ons)
            if now - entry[0] <= self._late_limit_s:
                self.late += now - entry[0] > LATE_S
                return self._advance(entry[2])
            self.dropped += 1
            self._advance(entry[2])
        return self._take_change(now)

    def spent(self, messages: int) -> None:
        """Say how many MIDI messages the last one became; 0 is fine."""
        self.bucket.spend(messages)

    def wake_at(self, now: float) -> float | None:
        """Return when `next` may have something, or None when nothing waits."""
        times = [self._heap[0][0]] if self._heap else []
        if self._offs or self._ons:
            times.append(now + self.bucket.wait_s(now))
        for kind, waiting in self._changes.items():
            for group in waiting:
                times.append(max(self._may_change_at(kind, group), now + self.bucket.wait_s(now)))
        return max(now, min(times)) if times else None

    def cancel(self, stem: int | None = None) -> None:
        """Forget everything of a stem, or of all: what sounds is ended by someone else."""
        self._heap = [entry for entry in self._heap if stem is not None and entry[2].stem != stem]
        heapq.heapify(self._heap)
        self._ready = {key: events for key, events in self._ready.items() if stem is not None and key[0] != stem}
        for name in ("_offs", "_ons"):
            lane = [entry for entry in getattr(self, name) if entry[2] in self._ready]
            heapq.heapify(lane)
            setattr(self, name, lane)
        for waiting in self._changes.values():
            for group in [g for g, (_, m) in waiting.items() if stem is None or m.stem == stem]:
                del waiting[group]
        self._changed_at.clear()
        for key in [key for key in self._waiting if stem is None or key[0] == stem]:
            del self._waiting[key]
            self._latest.pop(key, None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _collect(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            due, number, message = heapq.heappop(self._heap)
            if message.kind in ("on", "off"):
                key = (message.stem, message.pitch)
                events = self._ready.setdefault(key, deque())
                events.append((due, number, message))
                if len(events) == 1:
                    self._offer(key)
            else:
                waiting, group = self._changes[message.kind], self._group(message)
                self.coalesced += group in waiting
                waiting[group] = (due, message)

    def _offer(self, key: Key) -> None:
        """Put the first event of a note where it waits for its turn."""
        due, number, message = self._ready[key][0]
        heapq.heappush(self._offs if message.kind == "off" else self._ons, (due, number, key))

    def _advance(self, key: Key) -> NoteMessage:
        """Take the first event of a note and offer the one behind it."""
        events = self._ready[key]
        message = events.popleft()[2]
        if events:
            self._offer(key)
        else:
            del self._ready[key]
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key], self._latest[key]
        return message

    def _may_change_at(self, kind: str, group: Hashable) -> float:
        return self._changed_at.get((kind, group), -1e12) + self._bend_interval_s

    def _take_change(self, now: float) -> NoteMessage | None:
        for kind, waiting in self._changes.items():
            for group, (due, message) in sorted(waiting.items(), key=lambda item: item[1][0]):
                if now < self._may_change_at(kind, group):
                    continue
                del waiting[group]
                if now - due > self._late_limit_s:
                    self.dropped += 1
                    continue
                self._changed_at[kind, group] = now
                return message
        return None
