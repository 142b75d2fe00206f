"""Columns of several values: lists, vectors, and texts in which values stand between separators."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import polars as pl

from features.errors import DataError

TEXT = (pl.String, pl.Categorical, pl.Enum)
_log = logging.getLogger(__name__)


def as_list(column: pl.Series) -> pl.Series:
    """Lists of one length as lists; anything else as it is."""
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def trimmed(parts: pl.Series) -> pl.Series:
    """Texts without the blanks around them, which stand beside separators as in `a, b`."""
    return parts.str.strip_chars() if parts.str.contains(r"\s").any() else parts


def split(column: pl.Series, separator: str | None) -> pl.Series:
    """A key column with the parts of its texts as lists, trimmed and without empty ones.

    Example:
        >>> split(pl.Series(["a, b", "b,,"]), ",").to_list()
        [['a', 'b'], ['b']]
    """
    column = as_list(column)
    if separator is None or not isinstance(column.dtype, TEXT):
        return column
    text = column.cast(pl.String)
    blank = bool(text.str.contains(r"\s").any())
    if not text.str.contains(separator, literal=True).any():
        text = text.str.strip_chars() if blank else text
        return text.to_frame().select(pl.when(pl.first() != "").then(pl.first())).to_series()
    part = pl.element().str.strip_chars() if blank else pl.element()
    part = pl.element().filter(pl.element() != "") if not blank else part.filter(part != "")
    return text.to_frame().select(pl.first().str.split(separator).list.eval(part)).to_series()


def warn_of_brackets(parts: pl.Series, *, what: str) -> None:
    """Say if the parts of a text look like pieces of a JSON list."""
    wrong = parts.str.contains(r"""^[\[\{]|[\]\}]$|^".*"$""")
    if wrong.any():
        _log.warning(
            "%s: values between separators begin or end with brackets or quotes, such as %s; if the texts "
            "are JSON lists, set format: json instead of a separator",
            what,
            parts.filter(wrong).unique().sort().head(3).to_list(),
        )


def vectors(column: pl.Series, *, what: str) -> pl.Series:
    """Lists of numbers of one length as vectors; a missing list is a missing vector.

    Raises:
        DataError: lists of different lengths, or of something else than numbers.
    """
    if not isinstance(column.dtype, pl.List):
        return column
    inner = column.dtype.inner
    if inner == pl.String:  # of JSON
        numbers = column.cast(pl.List(pl.Float64), strict=False)
        if numbers.explode().null_count() > column.explode().null_count():
            raise DataError(
                f"{what}: a vector must hold numbers, got others, such as {column.drop_nulls()[0].to_list()}"
            )
        column, inner = numbers, pl.Float64()
    if not (inner.is_numeric() or inner in (pl.Null, pl.Boolean)):
        raise DataError(f"{what}: a vector must be a list of numbers, got {column.dtype}; use an ID feature")
    inner = pl.Float64() if inner == pl.Null else inner
    return column.cast(pl.List(inner)).list.to_array(one_width(widths_of(column), what=what))


def widths_of(column: pl.Series) -> list[int]:
    """The smallest and the largest length of some lists; nothing where all are missing."""
    found = column.list.len().drop_nulls().to_numpy()
    return [int(found.min()), int(found.max())] if len(found) else []


def one_width(widths: Sequence[int], *, what: str) -> int:
    """The one length of all lists, 1 where there is none.

    Raises:
        DataError: there are several.
    """
    low, high = min(widths, default=1), max(widths, default=1)
    if low != high:
        raise DataError(
            f"{what}: lists of a dense feature must have one length, got {low} to {high}; pad them, or use "
            "an ID feature with a table"
        )
    return low


def as_wide(frame: pl.DataFrame, widths: Mapping[str, int]) -> pl.DataFrame:
    """Vectors of a piece of a table as long as those of the other pieces, where all of it are missing."""
    short = [
        (c, dtype.inner, widths[c])
        for c, dtype in frame.schema.items()
        if c in widths and isinstance(dtype, pl.Array) and dtype.size != widths[c]
    ]
    return frame.with_columns(pl.lit(None, pl.Array(inner, width)).alias(c) for c, inner, width in short)
