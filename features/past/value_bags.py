"""Histories as bags: each value of a row's earlier events once, with how often it occurs there.

Letters: N rows, E events, F pairs (event, value of the field), B entries of bags (row, value).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from features.past.keys import Keys, encode_keys, stable_order
from features.past.past import Past
from features.read.fraction import exact_times, span_of
from features.read.known_clock import known_column
from features.spec import Pair


@dataclass(frozen=True)
class ValueBags:
    """The values of the histories of some rows.

    Attributes:
        size: int64 (rows,) number of distinct values of each.
        value: int64 (B,) codes, those of one row after those of another.
        count: int64 (B,) events that hold the value.
        decayed: float64 (B,) Σ 2^(−age / half_life) over these events.
    """

    size: np.ndarray
    value: np.ndarray
    count: np.ndarray
    decayed: np.ndarray

    def of(self, bag: np.ndarray) -> ValueBags:
        """The bags (A,) of these numbers, any of them more than once."""
        size, first = self.size[bag], (np.cumsum(self.size) - self.size)[bag]
        at = _ranges(first, size)
        return ValueBags(size, self.value[at], self.count[at], self.decayed[at])


@dataclass(frozen=True)
class Histories:
    """Where the history of each row lies, and what its events hold.

    Attributes:
        start, end: int64 (N,) positions among the events, oldest first.
        group: int64 (N,) equal for rows that have one history.
        clock: int64 (N,) of the rows.
        time: int64 (N,) of the rows, as of `exact_times`.
        first: int64 (E + 1,) where the values of each event begin.
        value: int64 (F,) codes below `values`.
        known: int64 (F,) clock at which each is known; None: that of its event.
        event_time: int64 (E,), likewise.
        per_second: how many of these units are a second.
        values: number of codes.
        half_life: s.
    """

    start: np.ndarray
    end: np.ndarray
    group: np.ndarray
    clock: np.ndarray
    time: np.ndarray
    first: np.ndarray
    value: np.ndarray
    known: np.ndarray | None
    event_time: np.ndarray
    per_second: int
    values: int
    half_life: float

    def bags(self, rows: np.ndarray) -> ValueBags:
        """The bags of some rows (indices), each history looked at once."""
        _, one, bag = np.unique(self.group[rows], return_index=True, return_inverse=True)
        asked = rows[one]
        length = self.end[asked] - self.start[asked]
        owner, event = np.repeat(np.arange(len(asked)), length), _ranges(self.start[asked], length)
        many = self.first[event + 1] - self.first[event]
        at, owner, event = _ranges(self.first[event], many), np.repeat(owner, many), np.repeat(event, many)
        if self.known is not None:
            told = self.known[at] < self.clock[asked][owner]
            at, owner, event = at[told], owner[told], event[told]
        age = (self.event_time[event] - self.time[asked][owner]) / self.per_second
        weight = np.exp2(age / self.half_life)
        return _collected(len(asked), owner, self.value[at], weight, self.values).of(bag)


def _collected(bags: int, owner: np.ndarray, value: np.ndarray, weight: np.ndarray, values: int) -> ValueBags:
    """Equal values of one owner together; sums in the order of the events, whatever lies around them."""
    key = owner * values + value
    order = stable_order(key)
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
    count = np.diff(np.append(starts, len(key)))
    decayed = np.add.reduceat(weight[order], starts) if len(starts) else weight
    size = np.bincount(key[starts] // values, minlength=bags)
    return ValueBags(size, key[starts] % values, count, decayed)


def histories_of(rows: pl.DataFrame, events: pl.DataFrame | None, pair: Pair, what: str) -> Histories:
    """Find the history of every row.

    Args:
        rows: impressions sorted by clock.
        events: of the pair's domain, in the order of their store; None where the history is a column.
        pair: whose history.
        what: who asks, for messages.

    Raises:
        ConfigError: a column is missing.
    """
    size, table = len(rows), rows if events is None else events
    field = pair.column if events is None else pair.event
    assert field is not None
    (keys,) = encode_keys(table, by=[[field]], separator=pair.separator, what=what, ordered=True)
    if events is None:
        start = np.arange(size, dtype=np.int64)
        end, group, order = start + 1, start, start
    elif f"__start.{pair.domain}" in rows.columns:
        start, end = (rows[f"__{part}.{pair.domain}"].to_numpy() for part in ("start", "end"))
        start, group, order = _newest(start, end, pair), np.arange(size), np.arange(len(events))
    else:
        start, end, group, order = _earlier(rows, events, pair, what)
    first, at = _by_position(keys, order)
    late, clock, (time, per_second) = known_column(field), rows["__clock"].to_numpy(), exact_times(rows)
    own = table[late].to_numpy() if late in table.columns else None
    timed = "__time" in table.columns
    return Histories(
        start,
        end,
        group,
        clock,
        time,
        first,
        keys.code[at],
        None if own is None else own[keys.row[at]],
        exact_times(table)[0][order] if timed else np.zeros(len(table), dtype=np.int64),
        per_second,
        int(keys.code.max(initial=0)) + 1,
        pair.half_life,
    )


def _earlier(
    rows: pl.DataFrame, events: pl.DataFrame, pair: Pair, what: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Start and end (N,) of the events strictly before each row, groups (N,), and the events' order (E,)."""
    user, owner = encode_keys(rows, events, by=[["__user"], ["__user"]], what=what)
    (moment,) = encode_keys(rows, by=[["__user", "__clock"]], what=what)
    clock, (time, per_second) = rows["__clock"].to_numpy(), exact_times(rows)
    history = Past(owner.code, clock=events["__clock"].to_numpy(), time=exact_times(events)[0])
    start, end = history.before(user.code, clock)
    if pair.older is not None:
        end = np.clip(history.since(user.code, time - span_of(pair.older, per_second)), start, end)
    if pair.within is not None:
        start = np.clip(history.since(user.code, time - span_of(pair.within, per_second)), start, end)
    return _newest(start, end, pair), end, moment.code, np.arange(len(events))[history.order]


def _newest(start: np.ndarray, end: np.ndarray, pair: Pair) -> np.ndarray:
    """Where the newest `last` events start."""
    return start if pair.last is None else np.maximum(start, end - pair.last)


def _by_position(keys: Keys, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of the event at each position begin (E + 1,), and which pairs (F,) they are."""
    many = np.bincount(keys.row, minlength=len(order))
    begin = np.cumsum(many) - many
    first = np.concatenate([[0], np.cumsum(many[order])])
    return first, _ranges(begin[order], many[order])


def _ranges(first: np.ndarray, size: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, … (size[0] numbers), then those of the next.

    Example:
        >>> _ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    return np.repeat(first - (np.cumsum(size) - size), size) + np.arange(size.sum())
