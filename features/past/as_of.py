"""Rows of requests beside the rows of the past that have their keys: what counters count and add up.

Letters: N rows of requests, M rows of the past, P pairs (row, distinct value of the key in it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from features.errors import ConfigError
from features.past.carried import NOTHING, Carried, CarriedPairs, CarriedSums, added
from features.past.exact import number_of, parts_of
from features.past.keys import Keys, encode_keys
from features.past.known import KnownPast
from features.past.past import Past, mean_or_half
from features.read.fraction import exact_times, span_of
from features.read.known_clock import LABEL, OUTCOME, known_column
from features.read.numbers import numeric
from features.spec import Counter

# Columns of a past some rows of which are handed on from earlier ranges of time, to that in which their value
# is known: whether what was carried holds the row in the count of its key, and its value in the mean of all.
COUNTED, AVERAGED = "__counted", "__averaged"


@dataclass(frozen=True)
class AsOfJoin:
    """The rows of the requests, and the rows of the past that each is joined with by its keys and its clock.

    Attributes:
        rows: (N,) impressions.
        past_rows: (M,) the same, or events.
        keys: of the rows; P of them.
        past_keys: of the rows of the past.
        since: int64 (P,), the oldest time that counts (`exact_times`); None for all.
        past_clock: int64 (M,) when each row of the past and its key were known.
        carried: what lies before all of these rows, per pair.
    """

    rows: pl.DataFrame
    past_rows: pl.DataFrame
    keys: Keys
    past_keys: Keys
    since: np.ndarray | None
    past_clock: np.ndarray
    carried: CarriedPairs

    @property
    def clock(self) -> np.ndarray:
        """Clock (P,) of each pair's request."""
        return self.rows["__clock"].to_numpy()[self.keys.row]

    def total(self, pairs: np.ndarray) -> np.ndarray:
        """Sums (N,) of numbers of the pairs."""
        return self.keys.per_row(np.add, pairs, len(self.rows))

    def past(self, clock: np.ndarray, left_out: np.ndarray | None = None) -> Past:
        """The pairs of the past, each with the clock (M,) of its row; without rows that are left out (M,)."""
        row, code = self.past_keys.row, self.past_keys.code
        if left_out is not None and left_out.any():
            row, code = row[~left_out[row]], code[~left_out[row]]
        time, per_second = exact_times(self.past_rows)
        return Past(code, clock=clock[row], time=time[row], per_second=per_second)

    def known(self, clock: np.ndarray, left_out: np.ndarray | None = None) -> KnownPast:
        """The pairs of the past that were known strictly before each request, at `clock` (M,)."""
        return KnownPast.of(self.past(clock, left_out), self.keys.code, self.clock, since=self.since)

    def flag(self, name: str) -> np.ndarray:
        """A column of flags (M,) of the past, False where it is not there."""
        if name not in self.past_rows.columns:
            return np.zeros(len(self.past_rows), dtype=bool)
        return self.past_rows[name].to_numpy()


def as_of_join(
    rows: pl.DataFrame,
    name: str,
    counter: Counter,
    events: pl.DataFrame | None,
    carried: Carried | None = None,
) -> AsOfJoin:
    """Join the rows with the events, or with themselves, by the keys of a counter.

    Raises:
        ConfigError: a column is missing, two columns of several values, or since_* of a key known later.
    """
    what = f"counter {name!r}"
    tables, by = [rows], [counter.by]
    if events is not None:
        tables, by = [*tables, events], [*by, counter.event_by]
    if carried is not None:
        tables, by = [*tables, carried.keys], [*by, carried.keys.columns]
    keys, *others = encode_keys(*tables, by=by, separator=counter.separator, what=what)
    happened = keys if events is None else others[0]
    times, per_second = exact_times(rows)
    time = times[keys.row]
    since = None if counter.window is None else time - span_of(counter.window, per_second)
    table = rows if events is None else events
    late = [c for c in map(known_column, counter.event_by) if c in table.columns]
    if late and {"since_last", "since_first"} & set(counter.outputs):
        raise ConfigError(f"{what}: {counter.event_by} is known later, so since_* is undefined; drop it")
    key_clock = table.select(pl.max_horizontal("__clock", *late)).to_series().to_numpy()
    before = NOTHING if carried is None else carried.of(keys, others[-1], time)
    return AsOfJoin(rows, table, keys, happened, since, key_clock, before)


def happened(join: AsOfJoin) -> KnownPast:
    """All rows strictly before each request."""
    if join.past_rows is not join.rows:
        return join.known(join.past_clock, join.flag(COUNTED))
    past = join.past(join.past_clock)
    start, end = past.before_own()
    if join.since is not None:
        start = np.clip(past.since(join.keys.code, join.since), start, end)
    return KnownPast(past, start, end)


@dataclass(frozen=True)
class Sums:
    """What a counter adds up for each row of requests, of what was known strictly before it.

    Attributes:
        positives: float64 or int64 (N,), the labels or values.
        known: int64 (N,), how many they are.
        running: float64 (N,), the mean of those of all keys, 0.5 before the first; None if not asked for.
        excess: float64 (N,), label − against; None without `against`.
        compared: int64 (N,), of how many.
    """

    positives: np.ndarray
    known: np.ndarray
    running: np.ndarray | None = None
    excess: np.ndarray | None = None
    compared: np.ndarray | None = None


def sums_of(join: AsOfJoin, before: KnownPast, name: str, counter: Counter, *, running: bool) -> Sums:
    """Add up the labels or values that were known strictly before each row.

    Args:
        join: the rows and their past.
        before: of `happened`.
        name: the counter's name in the spec.
        counter: what to add up.
        running: whether the mean over all keys is asked for.

    Raises:
        ConfigError: a column is missing.
    """
    value, clock = counted_values(join.past_rows, name, counter)
    before = before if clock is None else join.known(np.maximum(clock, join.past_clock))
    what = f"counter {name!r}"

    def sums(values: np.ndarray, carried: CarriedSums) -> tuple[np.ndarray, np.ndarray]:
        """The sum of the values that are there, and how many they are."""
        there = np.isfinite(values)
        parts = parts_of(values if there.all() else np.where(there, values, 0.0), what=what)
        known = before.counts() if there.all() else before.sums(there[join.past_keys.row])
        pairs = {unit: before.sums(part[join.past_keys.row]) for unit, part in parts.items()}
        total = {unit: join.total(part) for unit, part in added(pairs, carried.parts).items()}
        return number_of(total, whole=values.dtype.kind != "f"), join.total(known + carried.known)

    positives, known = sums(value, join.carried.value)
    mean = _running(join, value, clock, what) if running else None
    if counter.against is None:
        return Sums(positives, known, mean)
    excess = value - numbers(join.past_rows, counter.against, name)
    return Sums(positives, known, mean, *sums(excess, join.carried.excess))


def _running(join: AsOfJoin, value: np.ndarray, clock: np.ndarray | None, what: str) -> np.ndarray:
    """The mean (N,) of all values known strictly before each row, 0.5 before the first."""
    at, there = join.rows["__clock"].to_numpy(), np.isfinite(value) & ~join.flag(AVERAGED)
    happened = join.past_rows["__clock"].to_numpy() if clock is None else clock
    zeros = np.zeros(int(there.sum()), dtype=np.int64)
    every = Past(zeros, clock=happened[there], time=join.past_rows["__time"].to_numpy()[there])
    if there.all() and clock is None and join.past_rows is join.rows:
        end = every.before_own()[1]
    else:
        _, end = every.before(np.zeros(len(at), dtype=np.int64), at)
    start = np.zeros_like(end)
    sums = {u: every.sums(p, start, end) for u, p in parts_of(value[there], what=what).items()}
    earlier = join.carried.every
    total = number_of(added(sums, earlier.parts), whole=value.dtype.kind != "f")
    return mean_or_half(total, end + earlier.known)


def needs_values(counter: Counter) -> bool:
    """Whether anything is added up, and not only counted."""
    return bool({"positives", "rate", "residual"} & set(counter.outputs))


def counted_values(table: pl.DataFrame, name: str, counter: Counter) -> tuple[np.ndarray, np.ndarray | None]:
    """What is summed up, (M,), and the clock at which each is known; None: that of its row."""
    label = LABEL if counter.over is None else OUTCOME
    column = counter.value or label
    if column == OUTCOME and OUTCOME not in table.columns:
        raise ConfigError(
            f"counter {name!r}: positives and rate over domain {counter.over!r} need its outcome or a value; "
            "give one of both, or count alone"
        )
    values = table[LABEL].to_numpy() if column == LABEL else numbers(table, column, name)
    clock = known_column(column)
    return values, table[clock].to_numpy() if clock in table.columns else None


def numbers(table: pl.DataFrame, column: str, counter: str) -> np.ndarray:
    """A numeric column, float64 (M,), NaN where it is missing."""
    if column not in table.columns:
        raise ConfigError(
            f"counter {counter!r} reads {column!r}, which is not there; declare that counter before this one"
        )
    return numeric(table[column], what=f"counter {counter!r}: {column!r}")
