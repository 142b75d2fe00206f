"""Which rows hold one of the values that a spec names, whatever the column's type."""

from __future__ import annotations

from typing import Any

import polars as pl

from features.errors import ConfigError

_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Date, pl.Datetime)


def holds(column: str, dtype: pl.DataType, values: list[Any], *, what: str) -> pl.Expr:
    """Whether a column holds one of the values; a value of null means: missing.

    A number meets its own digits, so that 1 and "1" name the same rows.

    Raises:
        ConfigError: a value that no row of the column's type can hold.
    """
    own = pl.col(column)
    wanted = [v for v in values if v is not None]
    found = own.cast(pl.String).is_in([]) if not wanted else _holds(column, dtype, wanted, what)
    found = found.fill_null(False)
    return found | own.is_null() if len(wanted) < len(values) else found


def _holds(column: str, dtype: pl.DataType, wanted: list[Any], what: str) -> pl.Expr:
    own = pl.col(column)
    if isinstance(dtype, _TEXT):
        texts = [w for value in wanted for w in spellings(value)]
        return own.cast(pl.String).is_in(texts)
    if dtype == pl.Boolean:
        return own.is_in([_flag(v, column, what) for v in wanted])
    if dtype.is_numeric():
        numbers = [_number(v, column, dtype, what) for v in wanted]
        if dtype.is_integer():  # exactly, beyond what a float tells apart
            return own.cast(pl.Int64, strict=False).is_in(_whole(numbers).implode())
        return own.cast(pl.Float64).is_in([as_stored(float(n), dtype) for n in numbers])
    if dtype == pl.Null:
        return own.is_not_null()
    raise ConfigError(
        f"{what}: where needs a column of numbers or texts, {column!r} is {dtype}; name another"
    )


def as_stored(number: float, dtype: pl.DataType) -> float:
    """A number of the spec as a column of the type holds it: 0.7 in 32 bits is 0.699999988.

    Example:
        >>> as_stored(0.7, pl.Float32()) == 0.7, as_stored(0.7, pl.Float64()) == 0.7
        (False, True)
    """
    return float(pl.Series([number]).cast(dtype)[0]) if dtype in (pl.Float32, pl.Float16) else number


def _whole(numbers: list[float | int]) -> pl.Series:
    """Those of the numbers that an integer can be."""
    whole = [int(n) for n in numbers if abs(n) < 2**63 and n == int(n)]
    return pl.Series(whole, dtype=pl.Int64)


def spellings(value: Any) -> list[str]:
    """The texts that mean a value in a column of texts."""
    if isinstance(value, bool):
        return ["true", "True", "TRUE"] if value else ["false", "False", "FALSE"]
    return [str(value)]


def _flag(value: Any, column: str, what: str) -> bool:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return str(value).lower() == "true"
    raise ConfigError(
        f"{what}: column {column!r} is boolean and holds true or false, never {value!r}; correct it"
    )


def _number(value: Any, column: str, dtype: pl.DataType, what: str) -> float | int:
    try:
        if not isinstance(value, bool):
            return int(value) if str(value).lstrip("-").isdecimal() else float(value)
    except ValueError:
        pass
    raise ConfigError(f"{what}: column {column!r} is {dtype} and never holds {value!r}; correct the value")
