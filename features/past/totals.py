"""The totals of a piece of the log by key, as the pieces after it need them (features/past/carried.py)."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.past.as_of import counted_values, needs_values, numbers
from features.past.exact import parts_of
from features.past.keys import key_pairs
from features.read.clock import TIME
from features.read.fraction import exact_times, span_of
from features.read.ids import common_keys
from features.spec import Counter


def key_totals(rows: pl.DataFrame, name: str, counter: Counter) -> pl.DataFrame:
    """Totals of each key in some impressions, or in events that a counter is over.

    Args:
        rows: with the columns that the counter reads.
        name: the counter's name in the spec.
        counter: what to count by, and which outputs.

    Returns:
        One row per key: its columns `key0`, `key1`, … as IDs, and int64 count, first, last, and of value and
        excess `known` and the parts of the sums.
    """
    pairs = _pairs(rows, name, counter, rows[TIME].to_numpy())
    keys = key_names(pairs)
    summed = [c for c in pairs.columns if c not in (*keys, "time")]
    return pairs.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("time").min().alias("first"),
        pl.col("time").max().alias("last"),
        *(pl.col(c).sum() for c in summed),
    )


def leaving_totals(rows: pl.DataFrame, name: str, counter: Counter) -> pl.DataFrame:
    """What of some impressions leaves the counter's window, by key and `time`: it counts no later.

    Returns:
        The columns of the key, `time` (as of `exact_times`), and count and sums as of `key_totals`.
    """
    assert counter.window is not None
    times, per_second = exact_times(rows)
    pairs = _pairs(rows, name, counter, times).with_columns(
        pl.col("time") + span_of(counter.window, per_second)
    )
    keys = [*key_names(pairs), "time"]
    summed = [c for c in pairs.columns if c not in keys]
    return pairs.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("count"), *(pl.col(c).sum() for c in summed)
    )


def all_totals(rows: pl.DataFrame, name: str, counter: Counter) -> dict[str, int]:
    """The totals of the values of all rows: `known`, and each unit's part of the sum."""
    if not needs_values(counter):
        return {}
    value, _ = counted_values(rows, name, counter)
    there = np.isfinite(value)
    parts = parts_of(value[there], what=f"counter {name!r}")
    return {"known": int(there.sum())} | {str(unit): int(part.sum()) for unit, part in parts.items()}


def one_type(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Totals one below the other: keys of one type, and 0 where one has no such part of a sum."""
    for key in key_names(frames[0]):
        columns = common_keys([f[key] for f in frames])
        frames = [f.with_columns(c.alias(key)) for f, c in zip(frames, columns, strict=True)]
    together = pl.concat(frames, how="diagonal")
    times = ("first", "last", "oldest")
    sums = [c for c in together.columns if c not in (*key_names(together), *times)]
    return together.with_columns(pl.col(c).fill_null(0) for c in sums)


def key_names(totals: pl.DataFrame) -> list[str]:
    """The columns of the key."""
    return [c for c in totals.columns if c.startswith("key")]


def _pairs(rows: pl.DataFrame, name: str, counter: Counter, times: np.ndarray) -> pl.DataFrame:
    """The pairs (row, key) as columns of the key, `time`, and what is added up."""
    pairs = key_pairs(rows, counter.event_by, separator=counter.separator, what=f"counter {name!r}")
    row = pairs["row"].to_numpy()
    summed = {c: v[row] for c, v in _summed(rows, name, counter).items()}
    columns = {"time": times[row], **summed}
    return pairs.drop("row").with_columns(pl.Series(c, v) for c, v in columns.items())


def _summed(rows: pl.DataFrame, name: str, counter: Counter) -> dict[str, np.ndarray]:
    """The columns (N,) to add up."""
    if not needs_values(counter):
        return {}
    value, _ = counted_values(rows, name, counter)
    found = _parts("value", value, name)
    if counter.against is not None:
        found |= _parts("excess", value - numbers(rows, counter.against, name), name)
    return found


def _parts(kind: str, values: np.ndarray, name: str) -> dict[str, np.ndarray]:
    there = np.isfinite(values)
    filled = values if there.all() else np.where(there, values, 0.0)
    parts = {f"{kind}{u}": part for u, part in parts_of(filled, what=f"counter {name!r}").items()}
    return {f"{kind}known": there.astype(np.int64)} | parts
