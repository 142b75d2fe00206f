"""How long ago a moment of the user or item table was, at the time of the request."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from features.read.clock import TIME
from features.read.fraction import FRACTION
from features.read.moments import moment_column, within_column


def with_ages(rows: pl.DataFrame, ages: Mapping[str, str], counters: dict[str, int]) -> pl.DataFrame:
    """The rows with their ages instead of the moments that these start from.

        age = second of the request − second of the moment, in whole seconds as `since_*` of counters

    The age of a moment that is missing is missing, and of one later than the request, which nobody can have
    known then: also of one later within the same second, where either is told that finely.

    Args:
        rows: impressions, with `__time`, the moments (`features.read.moments`) and, in a log that tells it,
            `__fraction`.
        ages: of the spec: name → column of the user or item table.
        counters: gets `age.<name>.later_than_request`, the rows whose moment was still to come.

    Returns:
        The rows with `age.<name>`, float64 seconds from 0 on.

    Example:
        >>> rows = pl.DataFrame({"__time": [50, 50, 50], "__moment.item.made": [20, 51, None]})
        >>> rows = rows.with_columns(pl.lit(0).alias("__within.item.made"))
        >>> counters: dict[str, int] = {}
        >>> with_ages(rows, {"item": "item.made"}, counters)["age.item"].to_list(), counters
        ([30.0, None, None], {'age.item.later_than_request': 1})
    """
    within, found = pl.col(FRACTION) if FRACTION in rows.columns else pl.lit(0), []
    for name, column in ages.items():
        age = pl.col(TIME) - pl.col(moment_column(column))
        later = (age < 0) | ((age == 0) & (within < pl.col(within_column(column))))
        counters[f"age.{name}.later_than_request"] = int(rows.select(later.sum()).item())
        found.append(pl.when(~later).then(age).cast(pl.Float64).alias(f"age.{name}"))
    used = {of(column) for column in ages.values() for of in (moment_column, within_column)}
    return rows.with_columns(found).drop(used)
