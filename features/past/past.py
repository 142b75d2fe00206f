"""What lies strictly before: pairs sorted so that one search finds the past of a key.

Counters and match features ask the same question, how a key occurred before a request, and answer it with the
same three things: pairs sorted by (key, clock), a start and an end. No history is ever copied.

Letters: P pairs that are searched, Q questions.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from features.past.keys import distinct, stable_order
from features.past.since import sums_since

_ROOM = 2**62  # composite keys stay below


class Past:
    """Pairs sorted by (key, clock), to be searched for the part strictly before a clock.

    Pairs of one key and one clock stay in the order in which they came, which is that of the event store: so
    which of them is the newest depends neither on later pairs nor on those of other keys.

    Args:
        code: int64 (P,) dense code of each pair's key.
        clock: int64 (P,) order in time; equal clocks are simultaneous.
        time: int64 (P,) in units of which `per_second` are a second; never falls while the clock rises, if
            `since` is asked for.

    Example:
        >>> past = Past(np.array([0, 0, 1]), clock=np.array([5, 7, 5]), time=np.array([50, 70, 50]))
        >>> start, end = past.before(np.array([0, 0, 1]), np.array([7, 8, 5]))
        >>> (end - start).tolist()
        [1, 2, 0]
    """

    def __init__(self, code: np.ndarray, *, clock: np.ndarray, time: np.ndarray, per_second: int = 1) -> None:
        self.per_second = per_second
        self._room = _ROOM // (int(code.max(initial=0)) + 1)
        self._clocks = _Scale(clock, self._room)
        key = code * self._clocks.width + self._clocks.rank(clock)
        # An event store comes sorted: a look is a tenth of a sort, and the arrays are not copied.
        self.order = slice(None) if (key[1:] >= key[:-1]).all() else stable_order(key)
        self._by_clock = key[self.order]
        self.code, self.clock, self.time = code[self.order], clock[self.order], time[self.order]

    def __len__(self) -> int:
        return len(self.code)

    def before(self, code: np.ndarray, clock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions [start, end) of the pairs of each key `code` (Q,) with a clock below `clock` (Q,)."""
        end = np.searchsorted(self._by_clock, code * self._clocks.width + self._clocks.rank(clock))
        return self._starts(code, end), end

    def before_own(self) -> tuple[np.ndarray, np.ndarray]:
        """`before` for the pairs themselves, (P,) each, without a search."""
        end, start = np.empty(len(self), dtype=np.int64), np.empty(len(self), dtype=np.int64)
        end[self.order] = _first_of_run(self._by_clock)
        start[self.order] = self._first
        return start, end

    def since(self, code: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Position (Q,) of the key's first pair of at least the given time; its end if there is none."""
        scale, by_time = self._by_time
        return np.searchsorted(by_time, code * scale.width + scale.rank(time))

    @cached_property
    def in_time_order(self) -> bool:
        """Whether the time of a key's pairs never falls, as `since` needs it."""
        later = np.diff(self.time) >= 0
        return bool((later | (self.code[1:] != self.code[:-1])).all())

    def counts_since(
        self, code: np.ndarray, time: np.ndarray, start: np.ndarray, end: np.ndarray
    ) -> np.ndarray:
        """How many pairs (Q,) of [start, end), a range of one key, have at least the given time."""
        if self.in_time_order:
            return end - np.clip(self.since(code, time), start, end)
        return sums_since(self.time, np.ones(len(self), dtype=np.int64), start, end, time)

    @cached_property
    def latest(self) -> np.ndarray:
        """The latest time (P,) among a key's pairs up to each sorted pair."""
        return self.time if self.in_time_order else self.highest(self.time)

    def highest(self, values: np.ndarray) -> np.ndarray:
        """The largest of `values` (P,), in sorted order, among a key's pairs up to each."""
        if not len(values):
            return values
        low, key = int(values.min()), np.cumsum(self._first == np.arange(len(self)))
        room = int(values.max()) - low + 1
        if room > _ROOM // (int(key[-1]) + 1):
            known = distinct(values)
            return known[self.highest(np.searchsorted(known, values))]
        return np.maximum.accumulate(values - low + key * room) - key * room + low

    def sums(self, values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Sums (Q,) over [start, end) of `values` (P,) in the order the pairs came in; exact for integers."""
        dtype = np.float64 if values.dtype.kind == "f" else np.int64
        total = np.concatenate([np.zeros(1, dtype=dtype), np.cumsum(values[self.order], dtype=dtype)])
        return total[end] - total[start]

    def decayed(self, half_life: float) -> np.ndarray:
        """Sums (P,) of 2^(−age / half_life) over a key's pairs up to each sorted pair, at their `latest`.

        Age and half-life are in seconds.

        Recursive doubling: after step s a sum covers the last 2^s pairs of its key, so the cost is
        O(P log longest) whatever the number of questions, and nothing overflows.
        """
        position = np.arange(len(self)) - self._first
        total = (
            np.ones(len(self))
            if self.in_time_order
            else np.exp2((self.time - self.latest) / self.per_second / half_life)
        )
        step, late = 1, np.flatnonzero(position >= 1)
        while len(late):
            age = (self.latest[late] - self.latest[late - step]) / self.per_second
            total[late] += total[late - step] * np.exp2(-age / half_life)
            step *= 2
            late = late[position[late] >= step]
        return total

    @cached_property
    def _first(self) -> np.ndarray:
        """Position (P,) of the first pair with the same key."""
        return _first_of_run(self.code)

    @cached_property
    def _by_time(self) -> tuple[_Scale, np.ndarray]:
        """The sorted pairs' composite of key and time, and its scale."""
        scale = _Scale(self.time, self._room)
        return scale, self.code * scale.width + scale.rank(self.time)

    def _starts(self, code: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Where the pairs of each key that lie before `end` start; `end` if there are none."""
        if not len(self):
            return end
        last = np.maximum(end - 1, 0)
        return np.where((end > 0) & (self.code[last] == code), self._first[last], end)


class _Scale:
    """Maps integers to ranks in [0, width) that keep their order, so that key · width + rank is a sort key.

    A value between known ones gets the rank of the next larger known one; beyond all it is width − 1.
    """

    def __init__(self, values: np.ndarray, room: int) -> None:
        self._low, self._high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        self.width = self._high - self._low + 2
        self._known = None
        if self.width > room:
            self._known = distinct(values)
            self.width = len(self._known) + 1

    def rank(self, values: np.ndarray) -> np.ndarray:
        if self._known is not None:
            return np.searchsorted(self._known, values)
        return np.clip(values, self._low, self._high + 1) - self._low


def running_rate(past: Past, outcome: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Share (Q,) of outcome 1 among the first `end` pairs; 0.5 where there are none.

    Args:
        past: all pairs under one key.
        outcome: int8 or bool (P,), 0 or 1, in the order the pairs came in.
        end: int64 (Q,) number of pairs strictly before.

    Example:
        >>> past = Past(np.zeros(3, dtype=int), clock=np.array([3, 4, 4]), time=np.array([3, 4, 4]))
        >>> running_rate(past, np.array([1, 0, 1]), past.before_own()[1]).tolist()
        [0.5, 1.0, 1.0]
    """
    return mean_or_half(past.sums(outcome, np.zeros_like(end), end), end)


def mean_or_half(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count (Q,); 0.5 where there is nothing."""
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def _first_of_run(values: np.ndarray) -> np.ndarray:
    """Position (P,) where the run of equal values that each belongs to begins."""
    index = np.arange(len(values))
    new = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return np.maximum.accumulate(np.where(new, index, 0))
