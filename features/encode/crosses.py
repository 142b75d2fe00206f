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

from features.read.computed_reads import cross_part

PART_KINDS = ("Int64", "Boolean", "String")
PartTypes = dict[str, dict[str, str]]  # cross → column → type
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
    parts = {name: [cross_part(rows[c], name, c) for c in columns] for name, columns in crosses.items()}
    return rows.with_columns(cross_of(own).alias(f"cross.{name}") for name, own in parts.items())


def part_types(rows: pl.DataFrame, crosses: Mapping[str, Sequence[str]]) -> PartTypes:
    """The type of each column of each cross: Int64 or Boolean, or String where a value may be any text.

    Example:
        >>> rows = pl.DataFrame({"a": [1.0, None], "b": [True, False], "c": ["x", "y"]})
        >>> part_types(rows, {"all": ["a", "b", "c"]})
        {'all': {'a': 'Int64', 'b': 'Boolean', 'c': 'String'}}
    """
    return {
        name: {c: _type(cross_part(rows[c], name, c), rows[c]) for c in own} for name, own in crosses.items()
    }


def _type(keys: pl.Series, values: pl.Series) -> str:
    if values.dtype == pl.Boolean:
        return "Boolean"
    return "Int64" if keys.dtype == pl.Int64 and values.dtype != pl.Null else "String"


def common_types(parts: Sequence[PartTypes]) -> PartTypes:
    """The types in several parts of a log; a column of two types is read as text.

    Example:
        >>> common_types([{"all": {"a": "Int64", "b": "Int64"}}, {"all": {"a": "Int64", "b": "Boolean"}}])
        {'all': {'a': 'Int64', 'b': 'String'}}
    """

    def one(name: str, column: str) -> str:
        found = {part.get(name, {}).get(column) for part in parts}
        return (found.pop() if len(found) == 1 else None) or "String"

    return {name: {column: one(name, column) for column in own} for name, own in parts[0].items()}


def cross_of(parts: Sequence[pl.Series]) -> pl.Series:
    """The texts of combinations of IDs, as `features.read.ids.key_values` tells them."""
    texts = pl.DataFrame([part.cast(pl.String).alias(str(i)) for i, part in enumerate(parts)])
    escaped = pl.all().str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
    there = pl.any_horizontal(pl.all().is_not_null())
    joined = pl.concat_str(escaped.fill_null(_MISSING), separator="|")
    return texts.select(pl.when(there).then(joined)).to_series()
