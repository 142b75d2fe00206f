"""How long ago a moment of the user or item table was, at the time of the request."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from features.read.clock import TIME
from features.read.moments import moment_column


def with_ages(rows: pl.DataFrame, ages: Mapping[str, str], counters: dict[str, int]) -> pl.DataFrame:
    """The rows with their ages instead of the moments that these start from.

        age = time of the request − moment, in whole seconds as `since_*` of counters

    The age of a moment that is missing is missing, and of one later than the request, which nobody can have
    known then.

    Args:
        rows: impressions, with `__time` and the moments (`features.read.moments`).
        ages: of the spec: name → column of the user or item table.
        counters: gets `age.<name>.later_than_request`, the rows whose moment was still to come.

    Returns:
        The rows with `age.<name>`, float64 seconds from 0 on.

    Example:
        >>> rows = pl.DataFrame({"__time": [50, 50, 50], "__moment.item.made": [20, 51, None]})
        >>> counters: dict[str, int] = {}
        >>> with_ages(rows, {"item": "item.made"}, counters)["age.item"].to_list(), counters
        ([30.0, None, None], {'age.item.later_than_request': 1})
    """
    moments = {name: moment_column(column) for name, column in ages.items()}
    since = {name: pl.col(TIME) - pl.col(moment) for name, moment in moments.items()}
    for name, age in since.items():
        counters[f"age.{name}.later_than_request"] = int(rows.select((age < 0).sum()).item())
    known = [pl.when(age >= 0).then(age).cast(pl.Float64).alias(f"age.{n}") for n, age in since.items()]
    return rows.with_columns(known).drop(set(moments.values()))
