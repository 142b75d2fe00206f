"""The 0/1 label of every impression, and what happens to impressions that occur twice."""

from __future__ import annotations

import logging

import polars as pl

from features.errors import DataError
from features.read.lists import TEXT
from features.read.locate import locate
from features.read.where import as_stored, holds
from features.spec import Label

_log = logging.getLogger(__name__)


def label_of(rows: pl.DataFrame, label: Label, *, what: str) -> pl.Series:
    """Make the label of every row.

    Args:
        rows: impressions with the label column.
        label: the rule; without one the values must already be 0 or 1 (or false and true).
        what: the table, for the error message.

    Returns:
        int8, 0 or 1.

    Raises:
        DataError: a missing value, one that is neither 0 nor 1, or a type that the rule cannot compare.

    Example:
        >>> rows = pl.DataFrame({"rating": [5, 2]})
        >>> label_of(rows, Label(column="rating", at_least=4), what="ratings").to_list()
        [1, 0]
    """
    values, what = rows[label.column], f"{what}: label {label.column!r}"
    stored = values.dtype
    if values.dtype.is_float() or values.dtype.is_decimal():
        values = values.cast(pl.Float64).fill_nan(None)
    _refuse(rows, values, values.is_null(), f"{what} must not be missing", "drop these rows")
    if label.at_least is not None:
        _check_type(values.dtype.is_numeric(), what, "a number for at_least", values)
        return (values >= as_stored(label.at_least, stored)).cast(pl.Int8)
    if label.equals is not None:
        if isinstance(label.equals, bool) and values.dtype.is_numeric():
            must = f"{what} must be 0 or 1 to equal {label.equals}"
            _refuse(rows, values, (values != 0) & (values != 1), must, "correct the rule")
            return (values == int(label.equals)).cast(pl.Int8)
        return _equal(rows[label.column].fill_nan(None) if stored.is_float() else values, label.equals, what)
    _check_type(values.dtype.is_numeric() or values.dtype == pl.Boolean, what, "0 or 1 as a number", values)
    if values.dtype != pl.Boolean:
        _refuse(
            rows, values, (values != 0) & (values != 1), f"{what} must be 0 or 1", "set at_least or equals"
        )
    return values.cast(pl.Int8)


def _equal(values: pl.Series, wanted: float | int | str | bool, what: str) -> pl.Series:
    """1 where the value is the wanted one; a spelling that differs in case or blanks alone is an error."""
    condition = holds(values.name, values.dtype, [wanted], what=what)
    found = values.to_frame().select(condition.cast(pl.Int8)).to_series()
    if len(found) and not found.sum() and isinstance(values.dtype, TEXT):
        came = values.cast(pl.String).unique(maintain_order=True)
        near = came.filter(came.str.strip_chars().str.to_lowercase() == str(wanted).strip().lower())
        if len(near):
            raise DataError(
                f"{what} equals {wanted!r} in no row, but is {near[0]!r} in some; write equals: {near[0]!r}"
            )
        _log.warning("%s equals %r in no row; its values are %s", what, wanted, came.head(5).to_list())
    return found


def drop_duplicates(rows: pl.DataFrame, by: list[str], rule: str, *, what: str) -> tuple[pl.DataFrame, int]:
    """Deal with impressions that agree in `by` (user, item, clock, request).

    Args:
        rows: impressions.
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
        raise DataError(
            f"{what}: a request shows an item to a user once, but {locate(rows, repeated)} repeat an earlier "
            "row; set impressions.dedup to keep_first or allow"
        )
    return (rows.filter(~repeated), count) if count and rule == "keep_first" else (rows, count)


def _refuse(rows: pl.DataFrame, values: pl.Series, wrong: pl.Series, must: str, remedy: str) -> None:
    """Raise if any row is wrong, with the count, the first five rows and what they hold."""
    if wrong.any():
        came = values.filter(wrong).head(5).to_list()
        raise DataError(f"{must}, but {locate(rows, wrong)} hold {came}; {remedy}")


def _check_type(fits: bool, what: str, wanted: str, values: pl.Series) -> None:
    if not fits:
        came = values.unique(maintain_order=True).head(5).to_list()
        raise DataError(
            f"{what} must be {wanted}, got {values.dtype}: values such as {came}; convert the column, or "
            "correct the rule (at_least or equals)"
        )
