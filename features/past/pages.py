"""Page features: a column of the candidate compared with the other rows of its request."""

from __future__ import annotations

import polars as pl

from features.errors import ConfigError
from features.spec import Page


def page_columns(rows: pl.DataFrame, name: str, page: Page, *, position: str | None) -> pl.DataFrame:
    """Compute one page feature for every impression.

        rank = (rows with a smaller value) + (other rows with the same value) / 2
        ratio_mean = value / mean        ratio_min = value / min
        above = Σ value over rows at a smaller position

    A missing value has no rank or ratio and counts as 0 in `above`; a ratio to 0 is missing. Mean and
    minimum are over the whole page, the row itself included. `size` is the number of rows of the request.

    Args:
        rows: impressions in any order, with `__request` and the page's column (numeric or boolean).
        name: the page feature's name in the spec.
        page: which column, and which outputs.
        position: the column that holds the order inside the request; needed for `above`.

    Returns:
        Columns `page.<name>.<output>` in the order of `rows`: size int64, others float64.

    Raises:
        ConfigError: the column is missing or not numeric, or `above` without a position.

    Example:
        >>> rows = pl.DataFrame({"__request": [1, 1, 1], "price": [10, 30, 20]})
        >>> page_columns(rows, "price", Page(column="price"), position=None).rows()
        [(0.0, 0.5), (2.0, 1.5), (1.0, 1.0)]
    """
    _check(rows, name, page, position)
    value = pl.col(page.column).cast(pl.Float64).fill_nan(None)
    outputs = {
        "value": value,
        "rank": (value.rank("average") - 1).over("__request"),
        "ratio_mean": _ratio(value, value.mean().over("__request")),
        "ratio_min": _ratio(value, value.min().over("__request")),
        "size": pl.len().over("__request").cast(pl.Int64),
    }
    if position is not None and "above" in page.outputs:
        outputs["above"] = _above(rows, value, position)
    return rows.select(outputs[output].alias(f"page.{name}.{output}") for output in page.outputs)


def _check(rows: pl.DataFrame, name: str, page: Page, position: str | None) -> None:
    """Refuse what cannot be compared."""
    if "above" in page.outputs and position is None:
        remedy = "set impressions.position or drop the output"
        raise ConfigError(f"page {name!r}: output above needs the order of the rows; {remedy}")
    if page.column not in rows.columns:
        known = sorted(rows.columns)
        raise ConfigError(f"page {name!r} reads {page.column!r}, which is not there; the columns are {known}")
    dtype = rows[page.column].dtype
    if not (dtype.is_numeric() or dtype == pl.Boolean):
        raise ConfigError(f"page {name!r}: column {page.column!r} must be numeric, got {dtype}; name another")


def _ratio(value: pl.Expr, reference: pl.Expr) -> pl.Expr:
    """value / reference, null where the reference is 0."""
    return pl.when(reference != 0).then(value / reference)


def _above(rows: pl.DataFrame, value: pl.Expr, position: str) -> pl.Expr:
    """Sum over the rows of the request at a smaller position; rows at one position do not see each other."""
    sums = rows.group_by("__request", position).agg(value.sum().alias("sum")).drop_nulls(position)
    above = sums.sort("__request", position).select(
        "__request", position, above=pl.col("sum").cum_sum().over("__request") - pl.col("sum")
    )
    keys = ["__request", position]
    return pl.lit(rows.select(keys).join(above, on=keys, how="left", maintain_order="left")["above"])
