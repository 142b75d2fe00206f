"""Impressions → requests: which rows belong together, in which order, and whether they agree."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.read.clock import CLOCK
from features.read.ids import key_values
from features.read.labels import drop_duplicates
from features.read.locate import ROW
from features.spec import Impressions


def number_requests(rows: pl.DataFrame, shown: Impressions) -> tuple[pl.DataFrame, int]:
    """Sort the rows by (clock, user, request, position), treat duplicates, number the requests in that order.

    A request is what has one request ID, or, without such a column, one user and one clock. Without a
    position the rows of a request are in the order of their items: the order of the input must not matter.

    Args:
        rows: with `__row`, `__user`, `__item` and `__clock`.
        shown: the columns' names, and the rule for duplicates.

    Returns:
        The rows with `__request` (int64, from 0, rising), and the number of repeated rows.

    Raises:
        DataError: a request of several users or times, duplicates, or context columns that vary.
    """
    given = []
    if shown.request is not None:
        given = ["__request"]
        rows = rows.with_columns(
            key_values(rows[shown.request], what=f"request {shown.request!r}").alias(given[0])
        )
        _check_one(rows, "__user", shown, "user")
        _check_one(rows, CLOCK, shown, "time (and order)")
    position = [shown.position] if shown.position is not None else []
    rows = rows.sort([CLOCK, "__user", *given, *position, "__item", ROW])
    same = ["__user", "__item", CLOCK, *given]
    rows, repeated = drop_duplicates(rows, same, shown.dedup, what=f"table {shown.table!r}")
    changed = pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in ["__user", CLOCK, *given])
    rows = rows.with_columns(changed.fill_null(False).cum_sum().cast(pl.Int64).alias("__request"))
    for column in shown.context:
        _check_constant(rows, column, shown)
    return rows, repeated


def _check_one(rows: pl.DataFrame, column: str, shown: Impressions, what: str) -> None:
    """All rows of a request ID must agree in a column without missing values."""
    spread = rows.group_by("__request").agg((pl.col(column).min() != pl.col(column).max()).alias("wrong"))
    wrong = spread.filter("wrong")["__request"].sort()
    if len(wrong):
        raise DataError(
            f"table {shown.table!r}: the rows of a request must have one {what}, but {len(wrong)} requests "
            f"have several: {shown.request} {wrong.head(5).to_list()}; correct the IDs, or delete "
            "impressions.request"
        )


def _check_constant(rows: pl.DataFrame, column: str, shown: Impressions) -> None:
    """A context column must not change inside a request."""
    inside = pl.col("__request") == pl.col("__request").shift(1)
    wrong = (
        rows.filter(inside & pl.col(column).ne_missing(pl.col(column).shift(1)))["__request"].unique().sort()
    )
    if not len(wrong):
        return
    first = rows.filter(pl.col("__request") == wrong[0])
    name = shown.request or shown.user
    raise DataError(
        f"table {shown.table!r}: context column {column!r} must be the same in all rows of a request, but "
        f"varies in {len(wrong)} requests; the first is {name} {first[name][0]!r} at {shown.time} "
        f"{first[shown.time][0]!r} with {first[column].head(5).to_list()}; take it out of impressions.context"
    )
