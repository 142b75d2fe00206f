"""The totals of every counter, from one day to the next: what a day's rows begin with, and what they add.

Of a counter without a window the totals of each key are kept. Of one with a window each key's sums are kept
by the second in which they leave it, as long as some later row may still count them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.past.carried import NEVER, Carried, CarriedSums
from features.past.counters import counter_columns
from features.past.totals import all_totals, key_names, key_totals, leaving_totals, one_type
from features.read.fraction import exact_times, span_of
from features.spec import Counter

TIME = "time"


@dataclass(frozen=True)
class CounterTotals:
    """What some days add up to.

    Attributes:
        keys: of `key_totals`, or of `leaving_totals` where the counter has a window; sorted by key.
        every: of `all_totals`.
    """

    keys: pl.DataFrame
    every: Mapping[str, int]

    def carried(self, counter: Counter, per_second: int) -> Carried:
        """As the next day's rows need them, of whose units (`exact_times`) so many are a second."""
        parts = {int(unit): np.array([v]) for unit, v in self.every.items() if unit != "known"}
        all_rows = CarriedSums(parts, np.array([self.every.get("known", 0)]))
        names = key_names(self.keys)
        if counter.window is None:
            return Carried(self.keys.select(names), _numbers(self.keys), all_rows)
        window = span_of(counter.window, per_second)
        inside = _inside(self.keys, window, per_second)
        keys = pl.concat([inside.select(names), self.keys.select(names)])
        gone = {c: v for c, v in _numbers(self.keys).items() if c != TIME}
        totals = {**_numbers(inside), "oldest": np.full(inside.height, NEVER)}  # all of them leave
        return Carried(keys, totals, all_rows, self.keys[TIME].to_numpy(), gone, window, per_second)

    def plus(self, rows: pl.DataFrame, name: str, counter: Counter) -> CounterTotals:
        """With the rows of a day, which lie after all of these."""
        measure = key_totals if counter.window is None else leaving_totals
        keys = _added([self.keys, measure(rows, name, counter)])
        own = all_totals(rows, name, counter)
        return CounterTotals(keys, {u: self.every.get(u, 0) + own.get(u, 0) for u in {**self.every, **own}})

    def after(self, end: int, per_second: int) -> CounterTotals:
        """Without what leaves the window for all rows that are later than second `end`."""
        if TIME not in self.keys.columns:
            return self
        return CounterTotals(self.keys.filter(pl.col(TIME) // per_second > end), self.every)


class CountingOn:
    """Computes the counters of a day on top of the days before, and keeps what the next day needs.

    Args:
        before: counter → totals of the days before; none on the first day.
    """

    def __init__(self, before: Mapping[str, CounterTotals]) -> None:
        self._before = before
        self.totals: dict[str, CounterTotals] = {}

    def columns(
        self, rows: pl.DataFrame, name: str, counter: Counter, events: pl.DataFrame | None
    ) -> pl.DataFrame:
        """As `counter_columns` of all days together."""
        before = self._before.get(name)
        carried = None if before is None else before.carried(counter, exact_times(rows)[1])
        if before is None:
            measure = key_totals if counter.window is None else leaving_totals
            self.totals[name] = CounterTotals(
                _added([measure(rows, name, counter)]), all_totals(rows, name, counter)
            )
        else:
            self.totals[name] = before.plus(rows, name, counter)
        return counter_columns(rows, name, counter, events, carried=carried)


def _numbers(totals: pl.DataFrame) -> dict[str, np.ndarray]:
    return {c: totals[c].to_numpy() for c in totals.columns if c not in key_names(totals)}


def _inside(leaving: pl.DataFrame, window: int, per_second: int) -> pl.DataFrame:
    """What each key has in its window, of what leaves it later."""
    names = key_names(leaving)
    summed = [c for c in leaving.columns if c not in (*names, TIME)]
    return leaving.group_by(names).agg(
        ((pl.col(TIME).min() - window) // per_second).alias("first"),
        ((pl.col(TIME).max() - window) // per_second).alias("last"),
        *(pl.col(c).sum() for c in summed),
    )


def _added(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """The totals of all frames by key (and time), sorted: the same values give the same bytes."""
    every = one_type(frames)
    by = [c for c in every.columns if c in (*key_names(every), TIME)]
    how = {"first": pl.col("first").min(), "last": pl.col("last").max()}
    rest = [how.get(c, pl.col(c).sum()) for c in sorted(set(every.columns) - set(by))]
    return every.group_by(by).agg(rest).sort(by)
