"""What an ID is, by one function for users, items, entities, vocabularies, counters and matches.

An ID is a whole number or a text, and a number meets its own digits: 7 in one table is "7" in another, but
never "007". Numbers that may have lost digits are refused: they would name somebody else.
"""

from __future__ import annotations

import polars as pl

from features.errors import DataError

# Above it a float skips whole numbers: two IDs may have become one.
_EXACT: dict[type[pl.DataType], int] = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}
_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Date)


def key_values(values: pl.Series, *, what: str) -> pl.Series:
    """A column of IDs as int64, or as text where it holds any text or a number beyond int64; NaN is missing.

    Args:
        values: integers, texts, booleans, dates, categories; floats and decimals that are whole.
        what: the column, for the error message.

    Raises:
        DataError: values that identify nothing: fractions, rounded numbers, lists.

    Example:
        >>> key_values(pl.Series([2.0, None]), what="item").to_list()
        [2, None]
        >>> key_values(pl.Series([2**63, 5], dtype=pl.UInt64), what="item").to_list()
        ['9223372036854775808', '5']
    """
    dtype = values.dtype
    if isinstance(dtype, _TEXT) or dtype == pl.Boolean:
        return values.cast(pl.String)
    if isinstance(dtype, pl.Datetime):
        return _moments(values, dtype)
    if dtype == pl.Binary:
        return texts_of(values, what=what)
    if dtype.is_float():
        return _whole_floats(values, what)
    if dtype.is_decimal():
        return _whole_decimals(values, what)
    if not (dtype.is_integer() or dtype == pl.Null):
        raise DataError(f"{what}: an ID must be a number or a text, got {dtype}; convert the column")
    return _narrow(values)


def common_keys(columns: list[pl.Series]) -> list[pl.Series]:
    """Key columns of `key_values` as one type: int64 if all are, else text."""
    if len({c.dtype for c in columns}) <= 1:
        return columns
    return [c.cast(pl.String) for c in columns]


def texts_of(values: pl.Series, *, what: str) -> pl.Series:
    """Bytes as the UTF-8 text that they hold.

    Raises:
        DataError: bytes that are no text.
    """
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(
            f"{what}: bytes must be UTF-8 text, got others, such as {_first_binary(values)!r:.80}; write the "
            "column as text, in hexadecimal for example"
        ) from None


def _first_binary(values: pl.Series) -> bytes:
    for value in values.drop_nulls():
        try:
            value.decode()
        except UnicodeDecodeError:
            return bytes(value)
    return b""


def _moments(values: pl.Series, dtype: pl.Datetime) -> pl.Series:
    """Datetimes as one text whatever their unit, those with a zone in UTC."""
    zone = "" if dtype.time_zone is None else "+00:00"
    values = values.dt.convert_time_zone("UTC") if zone else values
    return values.dt.strftime(f"%Y-%m-%d %H:%M:%S%.f{zone}")


def _narrow(values: pl.Series) -> pl.Series:
    """Integers as int64 if all fit, else as their digits."""
    if values.dtype in (pl.UInt64, pl.Int128, pl.UInt128):
        whole = values.cast(pl.Int64, strict=False)
        return whole if whole.null_count() == values.null_count() else values.cast(pl.String)
    return values.cast(pl.Int64)


def _whole_floats(values: pl.Series, what: str) -> pl.Series:
    """Floats that are whole and exact."""
    values, limit = values.fill_nan(None), _EXACT[type(values.dtype)]
    wrong = values.is_infinite() | (values != values.round())
    if wrong.any():
        raise DataError(
            f"{what}: an ID must be a whole number or a text, got {values.dtype} with fractions, such as "
            f"{values.filter(wrong)[0]}; use a quantile or log table or a dense feature, or derive a text"
        )
    if (large := values.abs() >= limit).any():
        raise DataError(
            f"{what}: an ID of {limit:,} or more cannot be told from its neighbours as {values.dtype}, got "
            f"{values.filter(large)[0]:.0f}; write the column as integers or text, from before it became "
            "float"
        )
    return values.cast(pl.Int64)


def _whole_decimals(values: pl.Series, what: str) -> pl.Series:
    """Decimals without a fraction."""
    text = values.cast(pl.String)
    if isinstance(values.dtype, pl.Decimal) and values.dtype.scale:
        text = text.str.strip_chars_end("0").str.strip_chars_end(".")
        if (wrong := text.str.contains(".", literal=True)).any():
            raise DataError(
                f"{what}: an ID must be a whole number or a text, got {values.dtype} with fractions, such as "
                f"{values.filter(wrong)[0]}; write the column as text, or use a quantile or log table"
            )
    whole = text.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == text.null_count() else text
