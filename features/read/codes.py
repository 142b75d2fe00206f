"""Raw keys as values (int64 or string), and as dense codes 0, 1, 2, … in the order of the values."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.errors import DataError


def key_values(values: pl.Series, *, what: str) -> pl.Series:
    """A column of IDs as int64 or string; NaN is missing.

    Args:
        values: integers, strings, booleans, dates, categories, or floats that are whole.
        what: the column, for the error message.

    Raises:
        DataError: values that identify nothing: fractions, lists, or integers beyond int64.

    Example:
        >>> key_values(pl.Series([2.0, None]), what="item").to_list()
        [2, None]
    """
    dtype = values.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Date) or isinstance(dtype, pl.Datetime):
        return values.cast(pl.String)
    if dtype.is_float():
        values = values.fill_nan(None)
        if (values != values.round()).any():
            raise DataError(
                f"{what}: an ID must be a whole number or a string, got {dtype} with fractions; "
                "use a quantile or log table, or a dense feature"
            )
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"{what}: an ID must be a number or a string, got {dtype}; convert the column")
    try:
        return values.cast(pl.Int64)
    except pl.exceptions.InvalidOperationError:
        came = f"from {values.min()!r} to {values.max()!r}"
        raise DataError(f"{what}: an ID must fit int64, got values {came}; store it as a string") from None


def common_type(columns: list[pl.Series]) -> list[pl.Series]:
    """Key columns as one type: int64 if all are, else string."""
    if len({c.dtype for c in columns}) <= 1:
        return columns
    return [c.cast(pl.String) for c in columns]


def all_keys(columns: list[pl.Series]) -> pl.Series:
    """The sorted distinct values of key columns of one type, without missing ones."""
    return pl.concat([c.unique().rename("key") for c in columns]).unique().drop_nulls().sort()


def code_of(values: pl.Series, keys: pl.Series) -> np.ndarray:
    """The position of each value in `keys`, int64; −1 for missing and unknown ones."""
    values, keys = common_type([values, keys])
    book = pl.DataFrame({"key": keys}).with_row_index("code").with_columns(pl.col("code").cast(pl.Int64))
    found = pl.DataFrame({"key": values}).join(book, on="key", how="left", maintain_order="left")
    return found["code"].fill_null(-1).to_numpy()
