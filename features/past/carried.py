"""What earlier rows add to a counter, where a log is cut in time and its pieces are counted one by one.

Of every key that occurs in a piece the totals of all earlier pieces are handed on; the piece adds its own.

Letters: P pairs (row, key) of a piece, C keys that were carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.past.exact import UNITS, SumParts
from features.past.keys import Keys
from features.past.past import Past

NEVER = np.iinfo(np.int64).max  # a time that does not come
_ZERO = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True)
class CarriedSums:
    """Sums of values, in parts (features/past/exact.py), and how many there were: per pair (P,), or (1,)."""

    parts: SumParts = field(default_factory=dict)
    known: np.ndarray = field(default_factory=lambda: _ZERO)


@dataclass(frozen=True)
class CarriedPairs:
    """Totals of the earlier rows of each pair's key (P,); of `every` the totals of all keys (1,).

    Attributes:
        count: earlier rows.
        first, last: times of the first and last of them, seconds; anything where there are none.
        value: what the counter adds up.
        excess: the same less what was expected.
        every: what the counter adds up, of all rows whatever their key.
    """

    count: np.ndarray = field(default_factory=lambda: _ZERO)
    first: np.ndarray = field(default_factory=lambda: _ZERO)
    last: np.ndarray = field(default_factory=lambda: _ZERO)
    value: CarriedSums = field(default_factory=CarriedSums)
    excess: CarriedSums = field(default_factory=CarriedSums)
    every: CarriedSums = field(default_factory=CarriedSums)


NOTHING = CarriedPairs()


@dataclass(frozen=True)
class Carried:
    """The totals of earlier pieces.

    Attributes:
        keys: (C + G,) the columns of each key, in the order of the counter's `by`.
        totals: (C,) of the first keys what `CarriedPairs` names, columns as of `key_totals`.
        every: what all rows together added up.
        gone_time: (G,) of the other keys: later than this time (`exact_times`) they leave the window.
        gone: (G,) what leaves it then, columns as of `totals`.
        window: in the same units; with it `totals` has `oldest`, the second of each key's first row that
            stays in it.
        per_second: how many of these units are a second.
    """

    keys: pl.DataFrame
    totals: Mapping[str, np.ndarray]
    every: CarriedSums
    gone_time: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    gone: Mapping[str, np.ndarray] = field(default_factory=dict)
    window: int = 0
    per_second: int = 1

    def of(self, pairs: Keys, own: Keys, time: np.ndarray) -> CarriedPairs:
        """The totals of each pair's key.

        Args:
            pairs: of the rows.
            own: of `keys`, with codes that agree with those of the pairs.
            time: int64 (P,) of each pair's row, as of `exact_times`.
        """
        size = 1 + max(pairs.code.max(initial=0), own.code.max(initial=0))
        there = own.row < self.keys.height - len(self.gone_time)
        code, at = own.code[there], own.row[there]
        leaving = own.row[~there] - (self.keys.height - len(self.gone_time))
        when = self.gone_time[leaving]
        past = Past(own.code[~there], clock=when, time=when)
        start, end = past.before(pairs.code, time)

        def spread(name: str) -> np.ndarray:
            of_code = np.zeros(size, dtype=np.int64)
            of_code[code] = self.totals[name][at]
            found = of_code[pairs.code]
            return found - past.sums(self.gone[name][leaving], start, end) if name in self.gone else found

        def sums(what: str) -> CarriedSums:
            names = {unit: f"{what}{unit}" for unit in UNITS if f"{what}{unit}" in self.totals}
            known = spread(f"{what}known") if f"{what}known" in self.totals else _ZERO
            return CarriedSums({unit: spread(name) for unit, name in names.items()}, known)

        def oldest() -> np.ndarray:
            """The time of the first row that is still in the window."""
            stop = past.before(pairs.code, np.full(len(time), NEVER))[1]
            left = np.append(past.time, 0)[np.minimum(end, len(past))] - self.window
            left //= self.per_second
            return np.where(end < stop, left, spread("oldest"))

        count, first, last = (spread(name) for name in ("count", "first", "last"))
        first = oldest() if "oldest" in self.totals else first
        return CarriedPairs(count, first, last, sums("value"), sums("excess"), self.every)


def added(parts: SumParts, more: Mapping[int, np.ndarray]) -> SumParts:
    """The sums of two numbers in parts."""
    return {u: parts.get(u, _ZERO) + more.get(u, _ZERO) for u in parts.keys() | more.keys()}
