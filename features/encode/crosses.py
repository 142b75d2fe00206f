"""Crosses: one category for each combination of the values of several columns.

    segment  category       cross
    loyal    7              loyal|7
    null     7              \\N|7          what is missing is one of the values
    null     null           null
    a|b      c              a\\|b|c        two combinations are never one text

A linear model learns of a cross what it cannot learn of its columns; a deep one learns it from fewer rows.
Source: the wide part of Wide & Deep (arXiv 1606.07792).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from features.errors import DataError
from features.read.ids import key_values

_MISSING = "\\N"  # no value becomes it: their own backslashes are doubled


def with_crosses(rows: pl.DataFrame, crosses: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """The rows with `cross.<name>`, a text, for each cross of the spec.

    Args:
        rows: impressions with the columns of the crosses, one value each.
        crosses: name → columns.

    Raises:
        DataError: a column of lists, or of values that identify nothing.

    Example:
        >>> rows = pl.DataFrame({"page": ["home", None, None], "item.section": [2, 2, None]})
        >>> with_crosses(rows, {"spot": ["page", "item.section"]})["cross.spot"].to_list()
        ['home|2', '\\\\N|2', None]
    """
    found = []
    for name, columns in crosses.items():
        for column in columns:
            if isinstance(rows[column].dtype, pl.List | pl.Array):
                raise DataError(
                    f"cross {name!r}: column {column!r} must hold one value a row, got {rows[column].dtype}; "
                    "derive a single value"
                )
        parts = [key_values(rows[c], what=f"cross {name!r}, column {c!r}") for c in columns]
        found.append(cross_of(parts).alias(f"cross.{name}"))
    return rows.with_columns(found)


def cross_of(parts: Sequence[pl.Series]) -> pl.Series:
    """The texts of combinations of IDs, as `features.read.ids.key_values` tells them."""
    texts = pl.DataFrame([part.cast(pl.String).alias(str(i)) for i, part in enumerate(parts)])
    escaped = pl.all().str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
    there = pl.any_horizontal(pl.all().is_not_null())
    joined = pl.concat_str(escaped.fill_null(_MISSING), separator="|")
    return texts.select(pl.when(there).then(joined)).to_series()
