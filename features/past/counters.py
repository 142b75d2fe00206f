"""Point-in-time counters over impressions or events: how often, with label 1 how often, since when.

Letters: N rows of requests, M rows of the past, P pairs (row, distinct value of the key in it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from features.errors import ConfigError
from features.past.keys import Keys, encode_keys, nullable
from features.past.known import KnownPast
from features.past.past import Past, running_rate
from features.read.known_clock import LABEL, OUTCOME, known_column
from features.read.numbers import numeric
from features.spec import Counter


def counter_columns(
    rows: pl.DataFrame, name: str, counter: Counter, events: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Compute one counter for every impression from the impressions, or events, strictly before it.

        rate = (positives + prior · running) / (known + prior)
        residual = Σ (label − against) / (known + prior)

    `running` is the rate of all rows strictly before, 0.5 before the first: a smoothed rate starts there and
    leaves it as evidence comes in. Strictly before means a smaller clock, so simultaneous rows do not count.
    `known` are the rows whose label was known strictly before: without a rule in the spec all, and else those
    of which it then was; the others count in `count` and `since_*` alone, as do rows with a missing value.
    Over the values of a list, count and positives are summed and since_last and since_first are the smallest
    and the largest. A row with a missing key has no outputs; one with a new key has count 0 and no since_*.
    With `value`, that column stands in the label's place: rate is its smoothed mean, positives its sum.

    Args:
        rows: impressions of all splits in any order, with `__clock`, `__time` (s), `__label` (0/1).
        name: the counter's name in the spec.
        counter: what to count by, and which outputs.
        events: with `over`, the domain's events in any order, with `__clock`, `__time` and, if it declares an
            outcome, `__outcome`, which stands in the label's place.

    Returns:
        Columns `count.<name>.<output>` in the order of `rows`: count and positives int64, rate float64,
        since_last and since_first int64 seconds.

    Raises:
        ConfigError: a column is missing, or two columns of several values.

    Example:
        >>> rows = pl.DataFrame({"item": [7, 7, 7], "__clock": [0, 1, 1], "__time": [0, 9, 9]})
        >>> rows = rows.with_columns(__label=pl.Series([1, 0, 1]))
        >>> counter_columns(rows, "item", Counter(by=["item"], outputs=["count", "positives"])).rows()
        [(0, 0), (1, 1), (1, 1)]
    """
    join = _as_of_join(rows, name, counter, events)
    found = _outputs(join, name, counter)
    has_key = join.keys.present(len(rows))
    seen = has_key & (found["count"] > 0)
    valid = {"since_last": seen, "since_first": seen}
    return pl.DataFrame(
        [nullable(f"count.{name}.{o}", found[o], valid.get(o, has_key)) for o in counter.outputs]
    )


@dataclass(frozen=True)
class _AsOfJoin:
    """The rows of the requests, and the rows of the past that each is joined with by its keys and its clock.

    Attributes:
        rows: (N,) impressions.
        past_rows: (M,) the same, or events.
        keys: of the rows; P of them.
        past_keys: of the rows of the past.
        since: int64 (P,) seconds, the oldest that counts; None for all.
        past_clock: int64 (M,) when each row of the past and its key were known.
    """

    rows: pl.DataFrame
    past_rows: pl.DataFrame
    keys: Keys
    past_keys: Keys
    since: np.ndarray | None
    past_clock: np.ndarray

    @property
    def clock(self) -> np.ndarray:
        """Clock (P,) of each pair's request."""
        return self.rows["__clock"].to_numpy()[self.keys.row]

    def total(self, pairs: np.ndarray) -> np.ndarray:
        """Sums (N,) of numbers of the pairs."""
        return self.keys.per_row(np.add, pairs, len(self.rows))

    def past(self, clock: np.ndarray) -> Past:
        """The pairs of the past, each with the clock (M,) of its row."""
        row = self.past_keys.row
        return Past(self.past_keys.code, clock=clock[row], time=self.past_rows["__time"].to_numpy()[row])

    def known(self, clock: np.ndarray) -> KnownPast:
        """The pairs of the past that were known strictly before each request, at `clock` (M,)."""
        return KnownPast.of(self.past(clock), self.keys.code, self.clock, since=self.since)


def _as_of_join(rows: pl.DataFrame, name: str, counter: Counter, events: pl.DataFrame | None) -> _AsOfJoin:
    what = f"counter {name!r}"
    if events is None:
        (keys,) = encode_keys(rows, by=[counter.by], separator=counter.separator, what=what)
        happened = keys
    else:
        by = [counter.by, counter.event_by]
        keys, happened = encode_keys(rows, events, by=by, separator=counter.separator, what=what)
    time = rows["__time"].to_numpy()[keys.row]
    since = None if counter.window is None else time - int(counter.window)
    table = rows if events is None else events
    late = [c for c in map(known_column, counter.event_by) if c in table.columns]
    if late and {"since_last", "since_first"} & set(counter.outputs):
        raise ConfigError(f"{what}: {counter.event_by} is known later, so since_* is undefined; drop it")
    key_clock = table.select(pl.max_horizontal("__clock", *late)).to_series().to_numpy()
    return _AsOfJoin(rows, table, keys, happened, since, key_clock)


def _happened(join: _AsOfJoin) -> KnownPast:
    """All rows strictly before each request."""
    if join.past_rows is not join.rows:
        return join.known(join.past_clock)
    past = join.past(join.past_clock)
    start, end = past.before_own()
    if join.since is not None:
        start = np.clip(past.since(join.keys.code, join.since), start, end)
    return KnownPast(past, start, end)


def _outputs(join: _AsOfJoin, name: str, counter: Counter) -> dict[str, np.ndarray]:
    """The count and what else is asked for, (N,)."""
    before, size, wanted = _happened(join), len(join.rows), set(counter.outputs)
    past, start, end = before.past, before.start, before.end
    found = {"count": join.total(before.counts())}
    if wanted & {"positives", "rate", "residual"}:
        found |= _sums(join, before, name, counter)
    time = join.rows["__time"].to_numpy()[join.keys.row]
    # The stand-ins for "never" lose against every other value of the row's list.
    if "since_last" in wanted:
        last = np.full(len(time), np.iinfo(np.int64).max)
        some = np.flatnonzero(end > start)
        last[some] = time[some] - past.time[end[some] - 1]
        found["since_last"] = join.keys.per_row(np.minimum, last, size)
    if "since_first" in wanted:
        first = np.full(len(time), -1)
        some = np.flatnonzero(end > start)
        first[some] = time[some] - past.time[start[some]]
        found["since_first"] = join.keys.per_row(np.maximum, first, size)
    return found


def _sums(join: _AsOfJoin, before: KnownPast, name: str, counter: Counter) -> dict[str, np.ndarray]:
    """positives, rate and residual (N,), of the labels or values that were known strictly before."""
    value, clock = _values(join.past_rows, name, counter)
    before = before if clock is None else join.known(np.maximum(clock, join.past_clock))

    def sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sum of the values that are there, and how many they are."""
        there = np.isfinite(values)
        if there.all():
            return join.total(before.sums(values[join.past_keys.row])), join.total(before.counts())
        filled = np.where(there, values, 0.0)
        one, two = (join.total(before.sums(v[join.past_keys.row])) for v in (filled, there))
        return one, two

    positives, known = sums(value)
    found = {"positives": positives}
    if "rate" in counter.outputs:
        running = _running(join, value, clock)
        found["rate"] = (positives + counter.prior * running) / (known + counter.prior)
    if counter.against is not None:
        excess, known = sums(value - _numbers(join.past_rows, counter.against, name))
        found["residual"] = excess / (known + counter.prior)
    return found


def _running(join: _AsOfJoin, value: np.ndarray, clock: np.ndarray | None) -> np.ndarray:
    """The mean (N,) of all values known strictly before each row, 0.5 before the first."""
    at, there = join.rows["__clock"].to_numpy(), np.isfinite(value)
    happened = join.past_rows["__clock"].to_numpy() if clock is None else clock
    zeros = np.zeros(int(there.sum()), dtype=np.int64)
    every = Past(zeros, clock=happened[there], time=join.past_rows["__time"].to_numpy()[there])
    if there.all() and clock is None and join.past_rows is join.rows:
        return running_rate(every, value, every.before_own()[1])
    _, end = every.before(np.zeros(len(at), dtype=np.int64), at)
    return running_rate(every, value[there], end)


def _values(table: pl.DataFrame, name: str, counter: Counter) -> tuple[np.ndarray, np.ndarray | None]:
    """What is summed up, (M,), and the clock at which each is known; None: that of its row."""
    label = LABEL if counter.over is None else OUTCOME
    column = counter.value or label
    if column == OUTCOME and OUTCOME not in table.columns:
        raise ConfigError(
            f"counter {name!r}: positives and rate over domain {counter.over!r} need its outcome or a value; "
            "give one of both, or count alone"
        )
    values = table[LABEL].to_numpy() if column == LABEL else _numbers(table, column, name)
    clock = known_column(column)
    return values, table[clock].to_numpy() if clock in table.columns else None


def _numbers(table: pl.DataFrame, column: str, counter: str) -> np.ndarray:
    """A numeric column, float64 (M,), NaN where it is missing."""
    if column not in table.columns:
        raise ConfigError(
            f"counter {counter!r} reads {column!r}, which is not there; declare that counter before this one"
        )
    return numeric(table[column], what=f"counter {counter!r}: {column!r}")
