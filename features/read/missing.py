"""Missing is one thing: null, NaN, NaT and declared spellings become null the moment a table is read.

An infinite number counts as missing too and is counted; of an ID or a time it is an error, raised by their
own readers. A text that looks like a missing value but was not declared stays what it is, with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import polars as pl

LOOKS_MISSING = [
    "", "NULL", "Null", "null", "NaN", "nan", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "None",
    "NaT", "\\N", "nil", "(null)", "[null]", "undefined",
]  # fmt: skip
_TEXT = (pl.String, pl.Categorical, pl.Enum)
# No-break blanks, soft hyphens, blanks of no width, marks of direction, and the mark that begins a file.
_INVISIBLE = r"[\u{a0}\u{ad}\u{200b}\u{200e}\u{200f}\u{2060}\u{feff}]"
_log = logging.getLogger(__name__)


def without_nan(schema: pl.Schema, columns: Collection[str]) -> list[pl.Expr]:
    """Expressions that select the columns with NaN as null, also inside lists."""
    return [_without_nan(pl.col(name), schema[name]) for name in columns]


def _without_nan(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return column.fill_nan(None)
    if isinstance(dtype, pl.List) and dtype.inner.is_float():
        return column.list.eval(pl.element().fill_nan(None))
    if isinstance(dtype, pl.Array) and dtype.inner.is_float():
        return column.arr.eval(pl.element().fill_nan(None))
    return column


def without_infinite(
    frame: pl.DataFrame, counters: dict[str, int], *, keep: Collection[str], name: str, what: str
) -> pl.DataFrame:
    """Infinite numbers as null.

    Args:
        frame: rows of a table.
        counters: gets `infinite.<name>.<column>`.
        keep: IDs and times, whose readers refuse infinite values.
        name: what the rows are called in counters.
        what: the table, for the warning.
    """
    finite = []
    for column in frame.columns:
        values = frame[column]
        if column in keep or not values.dtype.is_float() or not (wrong := values.is_infinite()).any():
            continue
        counters[f"infinite.{name}.{column}"] = count = int(wrong.sum())
        _log.warning(
            "%s: column %r is infinite in %s of %s rows; these values are missing",
            what, column, f"{count:,}", f"{frame.height:,}",
        )  # fmt: skip
        finite.append(pl.when(pl.col(column).is_finite()).then(pl.col(column)).alias(column))
    return frame.with_columns(finite) if finite else frame


def with_declared_nulls(columns: dict[str, pl.DataType], nulls: list[str]) -> Iterator[pl.Expr]:
    """Expressions that make the declared spellings null in every text column and in lists of texts."""
    for name, dtype in columns.items() if nulls else ():
        if isinstance(dtype, _TEXT):
            text = pl.col(name).cast(pl.String)
            yield pl.when(~text.is_in(nulls)).then(text).alias(name)
        elif isinstance(dtype, pl.List) and isinstance(dtype.inner, _TEXT):
            element = pl.element().cast(pl.String)
            yield pl.col(name).list.eval(pl.when(~element.is_in(nulls)).then(element))


def warn_of_suspects(frame: pl.DataFrame, *, what: str) -> None:
    """Say which text columns hold values that look like missing ones."""
    for column in frame.columns:
        values = frame[column]
        if column.startswith("__") or not isinstance(values.dtype, _TEXT):
            continue
        found = values.filter(_suspect(values))
        if len(found):
            spellings = found.cast(pl.String).unique().sort().to_list()
            _log.warning(
                "%s: column %r holds %s in %s of %s rows, which look like missing values but are values; if "
                "they are missing, add nulls: %s to the table",
                what,
                column,
                spellings,
                f"{len(found):,}",
                f"{len(values):,}",
                spellings,
            )


def warn_of_spellings(frame: pl.DataFrame, keys: Collection[str], *, what: str) -> None:
    """Say which text keys are spelled so that they hardly meet the same key elsewhere: ` a`, or 7.0 for 7."""
    for column in (c for c in keys if c in frame.columns and frame[c].dtype == pl.String):
        values = frame[column]
        blank = values.str.starts_with(" ") | values.str.ends_with(" ")
        _warn_of_keys(values, blank, "with blanks around them", "they are IDs of their own", what)
        if (wide := values.str.len_bytes() != values.str.len_chars()).any():
            hidden = wide & values.str.contains(_INVISIBLE)
            _warn_of_keys(values, hidden, "with invisible characters", "they are IDs of their own", what)
        float_ = values.str.ends_with(".0")
        if float_.any():
            float_ = values.str.contains(r"^\d+\.0$")
            remedy = f"they are not the IDs without .0, unless types: {{{column}: int}} is in the table"
            _warn_of_keys(values, float_, "like whole numbers that were written as floats", remedy, what)


def _warn_of_keys(values: pl.Series, found: pl.Series, how: str, remedy: str, what: str) -> None:
    some = values.filter(found)
    if len(some):
        _log.warning(
            "%s: column %r holds texts %s in %s of %s rows, such as %s; %s",
            what,
            values.name,
            how,
            f"{len(some):,}",
            f"{len(values):,}",
            ascii(some[0]) if how.endswith("characters") else repr(some[0]),
            remedy,
        )


def _suspect(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return values.is_in(LOOKS_MISSING).fill_null(False)
    return values.cast(pl.String).is_in(LOOKS_MISSING).fill_null(False)
