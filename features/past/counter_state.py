"""The state of counters at one moment: what was counted of every key strictly before it.

    table   one row per key: count, known, positives, excess, compared, first, last
    ask     any row of keys → the counter's outputs, as `counter_columns` has them for an impression then

Over the values of a list the sums of its keys are added and the times compared, so one row per key is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.past.as_of import AsOfJoin, as_of_join, happened, sums_of
from features.past.counters import counter_columns, smoothed_rate, smoothed_residual
from features.read.fraction import FRACTION
from features.read.ids import key_values
from features.read.lists import split
from features.read.log import Log
from features.spec import Counter, Spec

SUMS = ("count", "known", "positives", "excess", "compared")


@dataclass(frozen=True)
class CounterState:
    """One counter at one moment.

    Attributes:
        counter: of the spec.
        running: mean of all labels or values known strictly before, 0.5 before the first.
        types: Int64 or String of each column of the key.
        table: the key's columns by position ("0", "1", …), the sums, and the times (s) of the first and the
            last row that counts; keys without any are left out.
    """

    counter: Counter
    running: float
    types: tuple[str, ...]
    table: pl.DataFrame

    def at(self, time: int) -> dict[str, np.ndarray]:
        """The outputs (K,) of each key alone at a time (s)."""
        return outputs_of(self.counter, self.running, {n: self.table[n].to_numpy() for n in NUMBERS}, time)


NUMBERS = (*SUMS, "first", "last")


def outputs_of(
    counter: Counter, running: float, sums: Mapping[str, np.ndarray], time: int
) -> dict[str, np.ndarray]:
    """The outputs of a counter from the sums over a row's keys; ages of keys without a count mean nothing."""
    found = {
        "count": sums["count"],
        "positives": sums["positives"],
        "rate": smoothed_rate(sums["positives"], sums["known"], np.array(running), counter.prior),
        "residual": smoothed_residual(sums["excess"], sums["compared"], counter.prior),
        "since_last": time - sums["last"],
        "since_first": time - sums["first"],
    }
    return {output: found[output] for output in counter.outputs}


def counter_states(
    spec: Spec, log: Log, *, clock: int, time: int, within: int = 0
) -> Iterator[tuple[str, CounterState]]:
    """The state of every counter of a spec strictly before a clock.

    Args:
        spec: without patterns.
        log: as it was read; the columns of counters that others read are added to it.
        clock: of an impression at that moment.
        time: of the same, s.
        within: nanoseconds from that second to the moment.
    """
    for name, counter in spec.counters.items():
        past = log.rows if counter.over is None else log.events[counter.over]
        yield name, counter_state(past, name, counter, clock=clock, time=time, within=within)
        read = [c for other in spec.counters.values() for c in (*other.by, other.value, other.against)]
        if any(column is not None and column.startswith(f"count.{name}.") for column in read):
            events = None if counter.over is None else past
            log.rows = log.rows.hstack(counter_columns(log.rows, name, counter, events))


def counter_state(
    past: pl.DataFrame, name: str, counter: Counter, *, clock: int, time: int, within: int = 0
) -> CounterState:
    """The state of one counter strictly before a clock.

    Args:
        past: impressions, or the events of the domain that the counter is over, as of `counter_columns`.
        name: the counter's name in the spec.
        counter: what to count.
        clock: of an impression at that moment.
        time: of the same, s.
        within: nanoseconds from that second to the moment, which windows need of a log that tells them.

    Example:
        >>> past = pl.DataFrame({"item": [7, 7, 8], "__clock": [0, 1, 2], "__time": [0, 9, 9]})
        >>> past = past.with_columns(__label=pl.Series([1, 0, 1]))
        >>> state = counter_state(past, "item", Counter(by=["item"]), clock=2, time=9)
        >>> state.running, state.table.select("0", "count", "positives", "last").rows()
        (0.5, [(7, 2, 1.0, 9)])
    """
    past = past.filter(pl.col("__clock") < clock)  # so that the state is the same whatever came later
    keys = _distinct_keys(past, counter, what=f"counter {name!r}")
    types = tuple(str(keys[column].dtype) for column in keys.columns)
    at = {"__clock": clock, "__time": time} | ({FRACTION: within} if FRACTION in past.columns else {})
    questions = _asked_at(keys.rename(dict(zip(keys.columns, counter.by, strict=True))), at)
    join = as_of_join(pl.concat([questions, _of_no_key(questions, at)]), name, counter, past)
    found, running = _sums(join, name, counter)
    table = keys.hstack(pl.DataFrame({n: values[:-1] for n, values in found.items()}))
    return CounterState(counter, running, types, table.filter(pl.col("count") > 0))


def _asked_at(keys: pl.DataFrame, at: Mapping[str, int]) -> pl.DataFrame:
    return keys.with_columns(pl.lit(value, pl.Int64).alias(column) for column, value in at.items())


def _of_no_key(questions: pl.DataFrame, at: Mapping[str, int]) -> pl.DataFrame:
    """One more question, which tells the running mean."""
    none = pl.DataFrame([pl.Series(n, [None], dtype=t) for n, t in questions.schema.items()])
    return _asked_at(none, at)


def _distinct_keys(past: pl.DataFrame, counter: Counter, *, what: str) -> pl.DataFrame:
    """Every key of the past once, its columns named by position."""
    columns = [split(past[name], counter.separator) for name in counter.event_by]
    frame = pl.DataFrame([column.alias(str(i)) for i, column in enumerate(columns)])
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.List):
            frame = frame.explode(name, empty_as_null=False, keep_nulls=False)
    return (
        frame.select(key_values(frame[n], what=what).alias(n) for n in frame.columns)
        .drop_nulls()
        .unique(maintain_order=True)
    )


def _sums(join: AsOfJoin, name: str, counter: Counter) -> tuple[dict[str, np.ndarray], float]:
    """The sums and times (N,) of the questions, and the running mean."""
    before, size = happened(join), len(join.rows)
    start, end, time = before.start, before.end, before.past.time // before.past.per_second
    labels = bool({"positives", "rate", "residual"} & set(counter.outputs))
    sums = sums_of(join, before, name, counter, running=True) if labels else None
    zero, running = np.zeros(size), 0.5
    if sums is not None and sums.running is not None:
        running = float(sums.running[-1])
    some = np.flatnonzero(end > start)
    first, last = np.zeros((2, len(start)), dtype=np.int64)
    first[some], last[some] = time[start[some]], time[end[some] - 1]
    found = {
        "count": join.total(before.counts()),
        "known": zero if sums is None else sums.known,
        "positives": zero if sums is None else sums.positives,
        "excess": zero if sums is None or sums.excess is None else sums.excess,
        "compared": zero if sums is None or sums.compared is None else sums.compared,
        "first": join.keys.per_row(np.maximum, first, size),
        "last": join.keys.per_row(np.maximum, last, size),
    }
    types = {"positives": np.float64, "excess": np.float64}
    return {n: values.astype(types.get(n, np.int64)) for n, values in found.items()}, running
