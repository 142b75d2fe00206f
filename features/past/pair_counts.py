"""The counts of pairs (candidate value, history value), added up block after block in time.

Letters: A questions (row, candidate value), P pairs (question, history value), K keys of any of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.past.keys import mixed
from features.past.past import Past
from features.past.value_bags import ValueBags


@dataclass(frozen=True)
class Stream:
    """Questions, and what they count from a clock on.

    Attributes:
        candidate: int64 (A,) codes.
        bags: the history of each question.
        clock: int64 (A,) ranks.
        label: int64 (A,) 0 or 1.
    """

    candidate: np.ndarray
    bags: ValueBags
    clock: np.ndarray
    label: np.ndarray

    @cached_property
    def question(self) -> np.ndarray:
        """The question (P,) of each pair."""
        return np.repeat(np.arange(len(self.candidate)), self.bags.size)

    def of_questions(self, key: np.ndarray) -> _Level:
        """A count per question of the events in its history."""
        events = np.concatenate([[0], np.cumsum(self.bags.count)])
        end = np.cumsum(self.bags.size)
        total = events[end] - events[end - self.bags.size]
        return _Level(key, self.clock, total, total * self.label)

    def of_pairs(self, key: np.ndarray) -> _Level:
        """A count per pair."""
        count, question = self.bags.count, self.question
        return _Level(key, self.clock[question], count, count * self.label[question])


@dataclass(frozen=True)
class _Level:
    """Keys int64 (K,), the clock from which each counts, its events, and those of them with label 1."""

    key: np.ndarray
    clock: np.ndarray
    events: np.ndarray
    positive: np.ndarray


@dataclass(frozen=True)
class EventCount:
    """What was counted of a key strictly before, int64 (K,).

    Attributes:
        shown: n, of all impressions.
        known: k, of those with a known label.
        positive: p, of those with label 1.
    """

    shown: np.ndarray
    known: np.ndarray
    positive: np.ndarray

    def of(self, question: np.ndarray) -> EventCount:
        """The counts of the question of each pair (P,)."""
        return EventCount(self.shown[question], self.known[question], self.positive[question])


@dataclass(frozen=True)
class CountsBefore:
    """What was counted strictly before each pair's question, (P,) each."""

    pair: EventCount
    candidate: EventCount
    value: EventCount  # its labels are those at the time of the row
    every: EventCount


class PairCounts:
    """Counts of pairs, of candidate values, of history values and of all, of the blocks so far.

    Args:
        candidates: number of candidate values.
        values: number of history values.
        most: counts of pairs that are kept; where more pairs are possible, they share these by a hash.
        hashes: where they do, uint64 of each candidate value and of each history value. Of the values and not
            of their codes, so that which pairs share a count does not depend on further values.
    """

    def __init__(
        self, candidates: int, values: int, most: int, hashes: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        self._values, self._possible, self._hashes = values, candidates * values, hashes
        self._slots = min(most, self._possible)
        self._pair, self._every = _Sums(self._slots), _Sums(1)
        self._candidate, self._value = _Sums(candidates), _Sums(values)
        is_shared = self._possible > most
        self._owner = np.full(most, -1, dtype=np.int64) if is_shared else None
        self._asked = self._taken = 0

    @property
    def counters(self) -> dict[str, int]:
        """Where pairs share counts: how many are possible, were looked up, have another's count."""
        if self._owner is None:
            return {}
        return {"possible_pairs": self._possible, "pairs": self._asked, "shared_counts": self._taken}

    def block(self, shown: Stream, told: Stream | None) -> CountsBefore:
        """What was counted strictly before each question of a block; then add the block.

        Args:
            shown: the questions, in time order; they count as shown from their own clock on.
            told: whose labels become known during the block; None: those of `shown`, at once.
        """
        slot = self._slot(shown, count=True)
        late = None if told is None else told.of_pairs(self._slot(told))
        pair = self._pair.block(shown.of_pairs(slot), late)
        late = None if told is None else told.of_questions(told.candidate)
        candidate = self._candidate.block(shown.of_questions(shown.candidate), late)
        late = None if told is None else told.of_questions(np.zeros_like(told.candidate))
        every = self._every.block(shown.of_questions(np.zeros_like(shown.candidate)), late)
        value = self._value.block(shown.of_pairs(shown.bags.value), None)
        return CountsBefore(pair, candidate.of(shown.question), value, every.of(shown.question))

    def _slot(self, stream: Stream, *, count: bool = False) -> np.ndarray:
        """Which count (P,) each pair has."""
        pair = stream.candidate[stream.question] * self._values + stream.bags.value
        if self._owner is None:
            return pair
        assert self._hashes is not None
        candidate, value = self._hashes
        both = candidate[stream.candidate][stream.question] + mixed(value[stream.bags.value])
        slot = (mixed(both) % np.uint64(self._slots)).astype(np.int64)
        if count:
            new = np.flatnonzero(self._owner[slot] < 0)[::-1]
            self._owner[slot[new]] = pair[new]  # of equal ones the last that is written: the first in time
            self._asked += len(pair)
            self._taken += int((self._owner[slot] != pair).sum())
        return slot


class _Sums:
    """The sums of every key of all blocks so far."""

    def __init__(self, keys: int) -> None:
        self._shown, self._known, self._positive = (np.zeros(keys, dtype=np.int64) for _ in range(3))

    def block(self, shown: _Level, told: _Level | None) -> EventCount:
        """The sums strictly before each key (K,) of a block; then add the block."""
        past = Past(shown.key, clock=shown.clock, time=shown.clock)
        span, late = past.before_own(), past
        own = span
        if told is not None:
            late = Past(told.key, clock=told.clock, time=told.clock)
            span = late.before(shown.key, shown.clock)
        told = told or shown
        count = EventCount(
            self._shown[shown.key] + past.sums(shown.events, *own),
            self._known[shown.key] + late.sums(told.events, *span),
            self._positive[shown.key] + late.sums(told.positive, *span),
        )
        np.add.at(self._shown, shown.key, shown.events)
        np.add.at(self._known, told.key, told.events)
        np.add.at(self._positive, told.key, told.positive)
        return count
