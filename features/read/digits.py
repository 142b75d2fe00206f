"""Digits that are dates, such as 20240301 or 24030112: named, never read as numbers since 1970."""

from __future__ import annotations

import numpy as np
import polars as pl

# Digits → the forms that they may have.
_FORMS = {
    6: ("%Y%m", "%y%m%d"),
    8: ("%Y%m%d", "%y%m%d%H"),
    10: ("%Y%m%d%H", "%y%m%d%H%M"),
    12: ("%Y%m%d%H%M", "%y%m%d%H%M%S"),
    14: ("%Y%m%d%H%M%S",),
}
_RANGES = {"%y": (0, 99), "%m": (1, 12), "%d": (1, 31), "%H": (0, 23), "%M": (0, 59), "%S": (0, 59)}
_YEARS = (1970, 2100)


def dates_in_digits(values: pl.Series) -> str | None:
    """The form in which all values are dates, as in strftime; None if there is none.

    Example:
        >>> dates_in_digits(pl.Series([24030112, 24030113])), dates_in_digits(pl.Series([1709299999]))
        ('%y%m%d%H', None)
    """
    if values.dtype == pl.String:
        values = values.str.strip_chars().cast(pl.Int64, strict=False)
    elif not values.dtype.is_numeric():
        return None
    values = values.cast(pl.Float64) if not values.dtype.is_integer() else values
    values = values.drop_nulls()
    numbers = values.to_numpy()
    if not len(numbers) or numbers.min() < 10**5 or numbers.max() >= 10**15:
        return None
    whole = numbers.astype(np.int64)
    digits = len(str(whole.max()))
    if (numbers != whole).any() or len(str(whole.min())) != digits:
        return None
    return next((f for f in _FORMS.get(digits, ()) if _fits(whole, f)), None)


def _fits(numbers: np.ndarray, form: str) -> bool:
    """Whether every field of all numbers lies in its range, the last field first."""
    for code in reversed(form.replace("%", " %").split()):
        size, (low, high) = (10**4, _YEARS) if code == "%Y" else (100, _RANGES[code])
        field = numbers % size
        if (field < low).any() or (field > high).any():
            return False
        numbers = numbers // size
    return True
