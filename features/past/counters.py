"""Point-in-time counters over impressions: how often shown, how often with label 1, since when.

Letters: N rows, P pairs (row, distinct value of the key in it).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from features.errors import ConfigError, DataError
from features.past.keys import Keys, encode_keys, nullable
from features.past.past import Past, running_rate
from features.spec import Counter


def counter_columns(rows: pl.DataFrame, name: str, counter: Counter) -> pl.DataFrame:
    """Compute one counter for every impression from the impressions strictly before it.

        rate = (positives + prior · running) / (count + prior)

    `running` is the rate of all impressions strictly before, 0.5 before the first: a smoothed rate starts
    there and leaves it as evidence comes in. Strictly before means a smaller clock, so simultaneous rows do
    not count. Over the values of a list, count and positives are summed and since_last and since_first are
    the smallest and the largest. A row with a missing key has no outputs; one with a new key has count 0
    and no since_*. With `value`, that column stands in the label's place: rate is its smoothed mean,
    positives its sum. residual = Σ (label − against) / (count + prior).

    Args:
        rows: impressions of all splits in any order, with `__clock`, `__time` (s), `__label` (0/1).
        name: the counter's name in the spec.
        counter: what to count by, and which outputs.

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
    (keys,) = encode_keys(rows, by=[counter.by], separator=counter.separator, what=f"counter {name!r}")
    value = _numbers(rows, counter.value, name) if counter.value else rows["__label"].to_numpy()
    surplus = value - _numbers(rows, counter.against, name) if counter.against else value
    tally = _tally(rows, keys, counter, value=value, surplus=surplus)
    if "rate" in counter.outputs:
        tally["rate"] = _rate(rows, tally, value, counter.prior)
    has_key = keys.present(len(rows))
    seen = has_key & (tally["count"] > 0)
    valid = {"since_last": seen, "since_first": seen}
    return pl.DataFrame(
        [nullable(f"count.{name}.{o}", tally[o], valid.get(o, has_key)) for o in counter.outputs]
    )


def _numbers(rows: pl.DataFrame, column: str, counter: str) -> np.ndarray:
    """A numeric column without gaps, float64 (N,)."""
    if column not in rows.columns:
        raise ConfigError(
            f"counter {counter!r} reads {column!r}, which is not there; declare that counter before this one"
        )
    series = rows[column]
    if not series.dtype.is_numeric() or series.null_count():
        raise DataError(
            f"counter {counter!r}: {column!r} must be a number in every row, got {series.dtype} with "
            f"{series.null_count()} missing; choose another column"
        )
    return series.cast(pl.Float64).to_numpy()


def _tally(
    rows: pl.DataFrame, keys: Keys, counter: Counter, *, value: np.ndarray, surplus: np.ndarray
) -> dict[str, np.ndarray]:
    """The count and what else is asked for, but the rate, (N,)."""
    time = rows["__time"].to_numpy()[keys.row]
    past = Past(keys.code, clock=rows["__clock"].to_numpy()[keys.row], time=time)
    start, end = past.before_own()
    if counter.window is not None:
        start = np.clip(past.since(keys.code, time - int(counter.window)), start, end)

    def total(pairs: np.ndarray) -> np.ndarray:
        return keys.per_row(np.add, pairs, len(rows))

    tally, wanted = {"count": total(end - start)}, set(counter.outputs)
    if wanted & {"positives", "rate"}:
        tally["positives"] = total(past.sums(value[keys.row], start, end))
    if "residual" in wanted:
        excess = total(past.sums(surplus[keys.row], start, end))
        tally["residual"] = excess / (tally["count"] + counter.prior)
    # The stand-ins for "never" lose against every other value of the row's list.
    if "since_last" in wanted:
        last = np.where(end > start, time - past.time[end - 1], np.iinfo(np.int64).max)
        tally["since_last"] = keys.per_row(np.minimum, last, len(rows))
    if "since_first" in wanted:
        first = np.where(end > start, time - past.time[np.minimum(start, len(past) - 1)], -1)
        tally["since_first"] = keys.per_row(np.maximum, first, len(rows))
    return tally


def _rate(rows: pl.DataFrame, tally: dict[str, np.ndarray], value: np.ndarray, prior: float) -> np.ndarray:
    """The smoothed rate, float64 (N,)."""
    every = Past(
        np.zeros(len(rows), dtype=np.int64), clock=rows["__clock"].to_numpy(), time=rows["__time"].to_numpy()
    )
    running = running_rate(every, value, every.before_own()[1])
    return (tally["positives"] + prior * running) / (tally["count"] + prior)
