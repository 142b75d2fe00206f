"""Times within a second, of logs that tell them: what windows and ages compare.

`__time` is in whole seconds. Where the tables' ticks are finer, rows and events have `__fraction` too, the
nanoseconds from that second to where their tick begins.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from features.errors import DataError

FRACTION = "__fraction"
_NANO = 10**9
_LAST = 2**63 // _NANO - 1  # the second up to which nanoseconds since 1970 fit 64 bits


def fractions(starts: pl.Series, *, per_second: int, shortest: int) -> list[pl.Series]:
    """The column `__fraction`, of a log that has one.

    Args:
        starts: int64, where ticks begin.
        per_second: of their units.
        shortest: units of the shortest tick of all tables; of whole seconds there is no fraction.

    Example:
        >>> [c.to_list() for c in fractions(pl.Series([20_900, 21_000]), per_second=1000, shortest=1)]
        [[900000000, 0]]
    """
    if not shortest % per_second:
        return []
    return [(starts % per_second * (_NANO // per_second)).alias(FRACTION)]


def per_second_of(*, per_second: int, shortest: int) -> int:
    """How many of the units of `exact_times` are a second, in a log of such ticks."""
    return _NANO if shortest % per_second else 1


def exact_times(frame: pl.DataFrame) -> tuple[np.ndarray, int]:
    """The times (N,) of rows, and how many of their units are a second: seconds, or nanoseconds.

    Raises:
        DataError: times within seconds so late that nanoseconds since 1970 do not fit 64 bits.
    """
    seconds = frame["__time"].to_numpy()
    if FRACTION not in frame.columns:
        return seconds, 1
    if len(seconds) and max(-int(seconds.min()), int(seconds.max())) > _LAST:
        raise DataError(
            f"times finer than a second must lie between 1677 and 2262, got {seconds.min()} to "
            f"{seconds.max()} seconds since 1970; correct them, or declare a tick of a second"
        )
    return seconds * _NANO + frame[FRACTION].to_numpy(), _NANO


def span_of(seconds: float, per_second: int) -> int:
    """A duration in these units, rounded down.

    Example:
        >>> span_of(1.5, 1), span_of(1.5, 10**9)
        (1, 1500000000)
    """
    return math.floor(seconds * per_second)
