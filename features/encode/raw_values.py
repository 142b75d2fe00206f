"""Plain values of one raw column as a Polars series or numbers, of the type that it has in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

_MUST = {
    "Float64": "a number",
    "Int64": "a whole number of 64 bits",
    "String": "a text",
    "Boolean": "true or false",
}


class WrongValue(ValueError):
    """What must hold for each owner; the first value for which it does not."""

    def __init__(self, must: str, got: Any) -> None:
        super().__init__(f"must hold for each {must}, or null where it is missing, got {got!r:.80}")


def series(values: Sequence[Any], dtype: str | None, *, lists: bool) -> pl.Series:
    """The values of an ID column.

    Args:
        values: one per owner; None is missing.
        dtype: Int64, String, Float64 or Boolean: what the column's values are; None: as they come, all alike.
        lists: each owner has several.

    Raises:
        WrongValue: a value of another type. Whole numbers pass as texts, since a table that holds both keeps
            numbers as texts.

    Example:
        >>> series([["a"], None], "String", lists=True).to_list()
        [['a'], None]
    """
    if lists:
        for value in values:
            if not (value is None or isinstance(value, list)):
                raise WrongValue("a list", value)
    dtype = dtype or _type_of([v for part in values for v in part or []] if lists else values)
    convert = _CONVERT[dtype]
    if lists:
        found = [None if part is None else [convert(v) for v in part] for part in values]
        return pl.Series(found, dtype=pl.List(getattr(pl, dtype)))
    return pl.Series([convert(v) for v in values], dtype=getattr(pl, dtype))


def numbers(values: Sequence[Any]) -> np.ndarray:
    """float64 numbers, NaN where one is missing.

    Raises:
        WrongValue: no number.

    Example:
        >>> numbers([1, None, 2.5]).tolist()
        [1.0, nan, 2.5]
    """
    return np.array([np.nan if v is None else _number(v) for v in values], dtype=np.float64)


def vectors(values: Sequence[Any], width: int) -> np.ndarray:
    """float64 (owners, width) of a column whose values are vectors; a missing one is NaN throughout.

    Raises:
        WrongValue: no list of so many numbers.
    """
    rows = []
    for value in values:
        if value is not None and not (isinstance(value, list) and len(value) == width):
            raise WrongValue(f"a list of {width} numbers", value)
        rows.append(np.full(width, np.nan) if value is None else numbers(value))
    return np.stack(rows)


def _type_of(values: Sequence[Any]) -> str:
    return "String" if any(isinstance(v, str) for v in values) else "Int64"


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if not isinstance(value, str | list):
            return float(value)
    except OverflowError:
        pass
    raise WrongValue(_MUST["Float64"], value)


def _whole(value: Any) -> int | None:
    """NaN is missing, as in `features.read.ids.key_values`."""
    if value is None or value != value:
        return None
    if isinstance(value, bool | str | list) or not -(2**63) <= value < 2**63 or value != int(value):
        raise WrongValue(_MUST["Int64"], value)
    return int(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):  # as in `features.read.ids.key_values`
        return str(value).lower()
    try:
        whole = _whole(value)
    except WrongValue:
        raise WrongValue(_MUST["String"], value) from None
    return None if whole is None else str(whole)


def _flag(value: Any) -> bool | None:
    """True and false, or the texts that they are as IDs."""
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise WrongValue(_MUST["Boolean"], value)


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "Float64": _number,
    "Int64": _whole,
    "String": _text,
    "Boolean": _flag,
}
