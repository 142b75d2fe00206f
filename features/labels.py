"""The 0/1 label of every impression, and what happens to impressions that occur twice."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.spec import Label

ROW = "__row"


def label_of(values: pl.Series, label: Label, *, what: str) -> pl.Series:
    """Make the label of every row.

    Args:
        values: the label column.
        label: the rule; without one the values must already be 0 or 1 (or false and true).
        what: the table, for the error message.

    Returns:
        int8, 0 or 1.

    Raises:
        DataError: a missing value, one that is neither 0 nor 1, or a type that the rule cannot compare.

    Example:
        >>> label_of(pl.Series([5, 2]), Label(column="rating", at_least=4), what="ratings").to_list()
        [1, 0]
    """
    what = f"{what}: label {label.column!r}"
    if values.dtype.is_float():
        values = values.fill_nan(None)
    _refuse(values, values.is_null(), f"{what} must not be missing", "drop these rows")
    if label.at_least is not None:
        _check_type(values.dtype.is_numeric(), what, "a number for at_least", values)
        return (values >= label.at_least).cast(pl.Int8)
    if label.equals is not None:
        text = isinstance(label.equals, str)
        matches = values.dtype in (pl.String, pl.Categorical, pl.Enum) if text else values.dtype.is_numeric()
        _check_type(matches, what, f"of the type of equals ({label.equals!r})", values)
        return ((values.cast(pl.String) if text else values) == label.equals).cast(pl.Int8)
    _check_type(values.dtype.is_numeric() or values.dtype == pl.Boolean, what, "0 or 1 as a number", values)
    if values.dtype != pl.Boolean:
        _refuse(values, (values != 0) & (values != 1), f"{what} must be 0 or 1", "set at_least or equals")
    return values.cast(pl.Int8)


def drop_duplicates(rows: pl.DataFrame, by: list[str], rule: str, *, what: str) -> tuple[pl.DataFrame, int]:
    """Deal with impressions that agree in `by` (user, item, clock, request).

    Args:
        rows: impressions with `__row`, the number of the input row.
        by: the columns that identify an impression.
        rule: `Impressions.dedup`.
        what: the table, for the error message.

    Returns:
        The rows, and how many of them repeat an earlier one (dropped with keep_first).

    Raises:
        DataError: there are repeated rows and the rule is error.
    """
    repeated = ~rows.select(pl.struct(by).is_first_distinct()).to_series()
    count = int(repeated.sum())
    if count and rule == "error":
        first = rows.filter(repeated)[ROW].head(5).to_list()
        raise DataError(
            f"{what}: a request shows an item to a user once, but {count} rows repeat an earlier one, the first are "
            f"rows {first}; set impressions.dedup to keep_first or allow"
        )
    return (rows.filter(~repeated), count) if count and rule == "keep_first" else (rows, count)


def _refuse(values: pl.Series, wrong: pl.Series, must: str, remedy: str) -> None:
    """Raise if any row is wrong, with the count and the first five rows."""
    if count := int(wrong.sum()):
        rows = wrong.arg_true().head(5).to_list()
        came = values.gather(rows).to_list()
        raise DataError(f"{must}, {count} of {values.len()} rows are not: rows {rows} hold {came}; {remedy}")


def _check_type(fits: bool, what: str, wanted: str, values: pl.Series) -> None:
    if not fits:
        came = values.head(5).to_list()
        raise DataError(
            f"{what} must be {wanted}, got {values.dtype}: rows 0 … hold {came}; convert the column"
        )
