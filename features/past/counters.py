"""Point-in-time counters over impressions or events: how often, with label 1 how often, since when.

Letters: N rows of requests, M rows of the past, P pairs (row, distinct value of the key in it).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from features.past.as_of import AsOfJoin, as_of_join, happened, sums_of
from features.past.carried import Carried
from features.past.keys import nullable
from features.spec import Counter


def counter_columns(
    rows: pl.DataFrame,
    name: str,
    counter: Counter,
    events: pl.DataFrame | None = None,
    *,
    carried: Carried | None = None,
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
        carried: what earlier rows than these add, where the rows are a part of a log that is cut in time.

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
    join = as_of_join(rows, name, counter, events, carried)
    found = _outputs(join, name, counter)
    has_key = join.keys.present(len(rows))
    seen = has_key & (found["count"] > 0)
    valid = {"since_last": seen, "since_first": seen}
    return pl.DataFrame(
        [nullable(f"count.{name}.{o}", found[o], valid.get(o, has_key)) for o in counter.outputs]
    )


def _outputs(join: AsOfJoin, name: str, counter: Counter) -> dict[str, np.ndarray]:
    """The count and what else is asked for, (N,)."""
    before, size, wanted = happened(join), len(join.rows), set(counter.outputs)
    past, start, end, carried = before.past, before.start, before.end, join.carried
    found = {"count": join.total(before.counts() + carried.count)}
    if wanted & {"positives", "rate", "residual"}:
        sums = sums_of(join, before, name, counter, running="rate" in wanted)
        found["positives"] = sums.positives
        if sums.running is not None:
            found["rate"] = smoothed_rate(sums.positives, sums.known, sums.running, counter.prior)
        if sums.excess is not None and sums.compared is not None:
            found["residual"] = smoothed_residual(sums.excess, sums.compared, counter.prior)
    time = join.rows["__time"].to_numpy()[join.keys.row]
    # The stand-ins for "never" lose against every other value of the row's list.
    if "since_last" in wanted:
        last = np.where(carried.count > 0, time - carried.last, np.iinfo(np.int64).max)
        some = np.flatnonzero(end > start)
        last[some] = time[some] - past.time[end[some] - 1] // past.per_second
        found["since_last"] = join.keys.per_row(np.minimum, last, size)
    if "since_first" in wanted:
        first = np.full(len(time), -1)
        some = np.flatnonzero(end > start)
        first[some] = time[some] - past.time[start[some]] // past.per_second
        first = np.where(carried.count > 0, time - carried.first, first)
        found["since_first"] = join.keys.per_row(np.maximum, first, size)
    return found


def smoothed_rate(positives: np.ndarray, known: np.ndarray, running: np.ndarray, prior: float) -> np.ndarray:
    """(positives + prior · running) / (known + prior)."""
    rate: np.ndarray = (positives + prior * running) / (known + prior)
    return rate


def smoothed_residual(excess: np.ndarray, compared: np.ndarray, prior: float) -> np.ndarray:
    """excess / (compared + prior)."""
    residual: np.ndarray = excess / (compared + prior)
    return residual
