"""Pair statistics: what a candidate's value and a value of the user's history told together, strictly before.

An impression of candidate value c whose history holds v in k events counts the pair (c, v) k times. Nothing
here knows whether two ID spaces are the same: what belongs together is found from what happened together.

    n  counts, of all     k  those of impressions with a known label     p  those of impressions with label 1
    n(c, v) of the pair    n(c) = Σ_v n(c, v)    n(v) = Σ_c n(c, v)    n = Σ_c n(c)         (k and p likewise)

    base(c)    = (p(c) + prior · p / k) / (k(c) + prior)              p / k = 0.5 before the first label
    rate(c, v) = (p(c, v) + prior · base(c)) / (k(c, v) + prior)
    lift(c, v) = rate(c, v) / base(c)                                 1 where base(c) is 0
    ppmi(c, v) = max(0, log((n(c, v) + prior) / (n(c) · n(v) / n + prior)))
    count(c, v) = n(c, v)

The rows are read once, block after block in time: a block's pairs are sorted and summed up to each row's
clock, and added to the counts of all blocks before. So memory is that of the counts and of one block.

Letters: N rows, A questions (row, value of its candidate), P pairs (question, value of its history).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.past.keys import Keys, distinct, encode_keys, nullable, stable_order, value_hashes
from features.past.pair_counts import CountsBefore, PairCounts, Stream
from features.past.past import mean_or_half
from features.past.value_bags import Histories, ValueBags, histories_of
from features.read.known_clock import LABEL, known_column
from features.spec import Pair

_BLOCK = 2**20  # pairs that are looked at together, at least one clock


@dataclass(frozen=True)
class PairColumns:
    """The outputs of a pair, and what was counted on the way."""

    columns: pl.DataFrame
    counters: dict[str, int]


def pair_columns(rows: pl.DataFrame, name: str, pair: Pair, events: pl.DataFrame | None) -> PairColumns:
    """Compute the statistics of one pair for every impression from the impressions strictly before it.

    Over the events of a row's history (and the values of its candidate, if several) `mean`, `sum` and `max`
    are taken of the value of each; `decayed` is the sum weighted by 2^(−age / half_life). A candidate without
    a value has no outputs, a history without a value no mean and no max. A label counts from when it is
    known, and so does a field of an event.

    Where more than `max_pairs` pairs (c, v) are possible, the pairs share `max_pairs` counts by a hash.

    Args:
        rows: impressions of all splits in any order, with `__user`, `__clock`, `__time` (s), `__label` (0/1).
        name: the pair's name in the spec.
        pair: which fields, and which outputs.
        events: of the domain in any order, with the same reserved columns but the label; lists without times
            in the order of their store; None where the history is a column of the rows.

    Returns:
        Columns `pair.<name>.<output>` float64 in the order of `rows`; and where counts are shared
        `pair.<name>.possible_pairs`, `pair.<name>.pairs` that were looked up, and of these
        `pair.<name>.shared_counts` whose count another pair had first.

    Raises:
        ConfigError: a column is missing.

    Example:
        >>> rows = pl.DataFrame({"ad": ["x", "x"], "tags": [["a", "b"], ["b"]], "__clock": [0, 1]})
        >>> rows = rows.with_columns(__user=0, __time=pl.col("__clock"), __label=pl.Series([1, 0]))
        >>> pair = Pair(candidate="ad", column="tags", outputs=["count_sum", "rate_mean"], prior=1.0)
        >>> pair_columns(rows, "tag", pair, None).columns.rows()
        [(0.0, 0.5), (1.0, 1.0)]
    """
    what, order = f"pair {name!r}", stable_order(rows["__clock"].to_numpy())
    wanted = [c for c in rows.columns if c.startswith("__") or c in (pair.candidate, pair.column)]
    rows = rows.select(wanted)[order]
    (asked,) = encode_keys(rows, by=[[pair.candidate]], separator=pair.separator, what=what, ordered=True)
    histories = histories_of(rows, events, pair, what)
    candidates, hashes = int(asked.code.max(initial=0)) + 1, None
    if candidates * histories.values > pair.max_pairs:
        hashes = _hashes(rows, events, pair, what)
    counts = PairCounts(candidates, histories.values, pair.max_pairs, hashes)
    log = _Log.of(rows, asked, histories, counts, pair)
    outputs: dict[str, np.ndarray] = {output: np.empty(len(rows)) for output in pair.outputs}
    some = np.zeros(len(rows), dtype=bool)
    for shown, told in log.blocks():
        part = np.arange(shown.start, shown.stop)
        for output, values in log.outputs_of(shown, told, some).items():
            outputs[output][part] = values
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    present = asked.present(len(rows))
    valid = {o: present & some if o.endswith(("_mean", "_max")) else present for o in outputs}
    columns = [nullable(f"pair.{name}.{o}", v[back], valid[o][back]) for o, v in outputs.items()]
    return PairColumns(pl.DataFrame(columns), {f"pair.{name}.{k}": v for k, v in log.counts.counters.items()})


def _hashes(
    rows: pl.DataFrame, events: pl.DataFrame | None, pair: Pair, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the candidate's values and of the history's, by code."""
    table, field = (rows, pair.column) if events is None else (events, pair.event)
    assert field is not None
    both = (rows, pair.candidate), (table, field)
    one, other = (value_hashes(t, c, separator=pair.separator, what=what) for t, c in both)
    return one, other


@dataclass
class _Log:
    """The rows in time order, and the counts of all blocks so far."""

    asked: Keys  # (A,) of the candidate
    histories: Histories
    clock: np.ndarray  # (N,) rank, of the rows
    label: np.ndarray  # (N,) 0 or 1
    told: np.ndarray | None  # (N,) rank at which each label is known; None: that of its row
    by_told: np.ndarray  # (N,) the rows in the order in which their labels are known
    counts: PairCounts
    pair: Pair

    @classmethod
    def of(
        cls, rows: pl.DataFrame, asked: Keys, histories: Histories, counts: PairCounts, pair: Pair
    ) -> _Log:
        clock, late = rows["__clock"].to_numpy(), known_column(LABEL)
        told = np.maximum(clock, rows[late].to_numpy()) if late in rows.columns else None
        # Ranks: a key beside a clock must fit 64 bits.
        every = distinct(clock if told is None else np.concatenate([clock, told]))
        clock = np.searchsorted(every, clock)
        told = None if told is None else np.searchsorted(every, told)
        by_told = np.arange(len(rows)) if told is None else stable_order(told)
        label = rows[LABEL].to_numpy().astype(np.int64)
        return cls(asked, histories, clock, label, told, by_told, counts, pair)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Consecutive rows, never a part of one clock, and the rows whose labels become known meanwhile."""
        load = np.bincount(self.asked.row, minlength=len(self.clock)) * (
            1 + self.histories.end - self.histories.start
        )
        block = np.cumsum(load) // _BLOCK
        cuts = np.flatnonzero(np.concatenate([[True], block[1:] != block[:-1]])[: len(block)])
        cuts = np.unique(np.searchsorted(self.clock, self.clock[cuts]))  # back to the first row of the clock
        ends = np.append(cuts, len(self.clock))[1:]
        known = self.clock if self.told is None else self.told[self.by_told]
        before = 0
        for low, high in zip(cuts.tolist(), ends.tolist(), strict=True):
            last = len(known) if high == len(self.clock) else int(np.searchsorted(known, self.clock[high]))
            yield slice(low, high), np.sort(self.by_told[before:last])
            before = last

    def outputs_of(self, rows: slice, told: np.ndarray, some: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of a block of rows, whose own counts are added; `some`: which have a pair."""
        ask, bags, shown = self._stream(np.arange(rows.start, rows.stop), self.clock)
        late = None if self.told is None else self._stream(told, self.told)[2]
        counted = self.counts.block(shown, late)
        size, row = rows.stop - rows.start, np.repeat(self.asked.row[ask] - rows.start, bags.size)
        total = np.bincount(row, bags.count, minlength=size)
        some[rows] = total > 0
        found: dict[str, np.ndarray] = {}
        for output in self.pair.outputs:
            kind, _, how = output.partition("_")
            value = _VALUES[kind](counted, self.pair.prior)
            found[output] = _aggregated(how, value, row, bags, total)
        return found

    def _stream(self, rows: np.ndarray, clock: np.ndarray) -> tuple[np.ndarray, ValueBags, Stream]:
        """The questions of some rows, their bags, and both as what is counted at a clock."""
        here = np.zeros(len(self.clock), dtype=bool)
        here[rows] = True
        ask = np.flatnonzero(here[self.asked.row])
        row = self.asked.row[ask]
        bags = self.histories.bags(rows).of(np.searchsorted(rows, row))
        return ask, bags, Stream(self.asked.code[ask], bags, clock[row], self.label[row])


def _aggregated(
    how: str, value: np.ndarray, row: np.ndarray, bags: ValueBags, total: np.ndarray
) -> np.ndarray:
    """One number per row of the values (P,) of its pairs."""
    size = len(total)
    if how == "max":
        most = np.full(size, -np.inf)
        np.maximum.at(most, row, value)
        return np.where(total > 0, most, 0.0)
    weight = bags.decayed if how == "decayed" else bags.count
    sums = np.bincount(row, value * weight, minlength=size)
    return sums / np.maximum(total, 1) if how == "mean" else sums


def _base(counted: CountsBefore, prior: float) -> np.ndarray:
    """The rate (P,) of the candidate's value."""
    own, every = counted.candidate, counted.every
    base: np.ndarray = own.positive + prior * mean_or_half(every.positive, every.known)
    return base / (own.known + prior)


def _rate(counted: CountsBefore, prior: float) -> np.ndarray:
    rate: np.ndarray = counted.pair.positive + prior * _base(counted, prior)
    return rate / (counted.pair.known + prior)


def _lift(counted: CountsBefore, prior: float) -> np.ndarray:
    base = _base(counted, prior)
    return np.where(base > 0, _rate(counted, prior) / np.where(base > 0, base, 1.0), 1.0)


def _count(counted: CountsBefore, prior: float) -> np.ndarray:
    return counted.pair.shown.astype(np.float64)


def _ppmi(counted: CountsBefore, prior: float) -> np.ndarray:
    own, value, every = counted.candidate.shown, counted.value.shown, counted.every.shown
    by_chance = own / np.maximum(every, 1) * value
    return np.maximum(np.log((counted.pair.shown + prior) / (by_chance + prior)), 0.0)


_VALUES = {"rate": _rate, "lift": _lift, "count": _count, "ppmi": _ppmi}
