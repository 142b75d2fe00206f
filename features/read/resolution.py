"""How finely a table logs its times: the length of a tick, the span that one logged value may stand for.

A click at 10.9 s that is logged in whole seconds as 10 happened somewhere in [10, 11). Only the end of that
tick is surely past.
"""

from __future__ import annotations

import math

import polars as pl

from features.errors import DataError

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_COARSE = (86_400, 3600, 60, 1)  # seconds: what logs are rounded to
_SURE = 9.0  # times are taken for rounded if chance would round them all once in 10^9 logs
_SAMPLE = 1000


def tick_length(values: pl.Series, unit: str, *, declared: float | None = None, what: str) -> int:
    """The length of a tick of a time column, in its unit.

    What is declared counts. Else it is the coarsest of day, hour, minute and second of which all values are
    whole multiples, if chance does not explain that, and one unit otherwise.

    Args:
        values: int64 times since 1970.
        unit: their unit.
        declared: seconds, of the spec.
        what: the column, for the error message.

    Raises:
        DataError: the declared tick is finer than the unit, or no whole number of units.

    Example:
        >>> tick_length(pl.Series([5_000, 7_000, 9_000, 12_000]), "ms", what="clicks")
        1000
        >>> tick_length(pl.Series([5_000, 7_001, 9_000, 12_000]), "ms", what="clicks")
        1
    """
    if declared is not None:
        return _declared(declared, unit, what)
    for seconds in _COARSE:
        length = seconds * PER_SECOND[unit]
        if length > 1 and _all_multiples(values.head(_SAMPLE), length) and _all_multiples(values, length):
            distinct = values.head(_SAMPLE).n_unique()
            if distinct * math.log10(length) >= _SURE:
                return length
    return 1


def _declared(seconds: float, unit: str, what: str) -> int:
    length = seconds * PER_SECOND[unit]
    if length < 1 or abs(length - round(length)) > 1e-6 * length:
        raise DataError(
            f"{what}: tick must be a whole number of the column's unit ({unit}), got {seconds} s; correct it"
        )
    return round(length)


def _all_multiples(values: pl.Series, length: int) -> bool:
    return len(values) > 0 and bool((values % length == 0).all())
