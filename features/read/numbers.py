"""Numbers: what reads as one, in texts as in columns."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.errors import DataError

_FLAGS = {"true": 1.0, "false": 0.0, "True": 1.0, "False": 0.0, "TRUE": 1.0, "FALSE": 0.0}


def numeric(values: pl.Series, *, what: str) -> np.ndarray:
    """Numbers as float64, missing ones as NaN.

    Raises:
        DataError: a column of something else.
    """
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"{what} must be numeric, got {values.dtype}; convert it, or use a vocabulary")
    return values.cast(pl.Float64).fill_null(np.nan).to_numpy()


def floats_of(text: pl.Series) -> pl.Series:
    """Texts as float64; true and false are 1 and 0, an empty text is missing, what is no number becomes null.

    Example:
        >>> floats_of(pl.Series(["1", " 2.5", "true", "", "x"])).to_list()
        [1.0, 2.5, 1.0, None, None]
    """
    numbers = text.str.strip_chars().cast(pl.Float64, strict=False)
    if numbers.null_count() > text.null_count():
        flags = text.str.strip_chars().replace_strict(_FLAGS, default=None, return_dtype=pl.Float64)
        numbers = numbers.fill_null(flags)
    return numbers


def ints_of(text: pl.Series) -> pl.Series:
    """Texts as int64, whole floats such as 3.0 included; what is no whole number of 64 bits becomes null."""
    text = text.str.strip_chars()
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() > text.null_count():
        numbers = numbers.fill_null(text.str.extract(r"^([+-]?\d+)\.0*$").cast(pl.Int64, strict=False))
    return numbers
