"""Texts → values of the kind that their readers need; what does not convert is an error that says where."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from features.read.iso import parse_format, parse_iso
from features.read.json_lists import json_lists
from features.read.numbers import floats_of, ints_of
from features.read.roles import Kind

_FLAGS = {"true": True, "false": False, "1": True, "0": False}
TYPES: dict[Kind, pl.DataType] = {
    "text": pl.String(),
    "moment": pl.String(),  # told by the whole column: features/read/times.py
    "int": pl.Int64(),
    "whole": pl.Int64(),
    "float": pl.Float64(),
    "flag": pl.Float64(),
    "bool": pl.Boolean(),
    "time": pl.Datetime("us"),
    "json": pl.List(pl.String()),
}
MUST: dict[Kind, str] = {
    "int": "a whole number of 64 bits",
    "whole": "a whole number, since the column is both a category and a number,",
    "float": "a number",
    "flag": "0 or 1, or true or false, or a number",
    "bool": "true or false",
    "time": "an ISO 8601 time",
    "json": "a list in JSON",
}


def convert(text: pl.Series, kind: Kind, *, time_format: str | None = None) -> tuple[pl.Series, pl.Series]:
    """Texts as values of a kind, and which of them are no such value.

    Args:
        text: null is missing, and so is an empty text where a number is wanted.
        kind: of `roles.kind_of`.
        time_format: of the table, for kind time.

    Returns:
        Values of `TYPES[kind]`; bool.

    Example:
        >>> values, wrong = convert(pl.Series(["1", "x", None]), "float")
        >>> values.to_list(), wrong.to_list()
        ([1.0, None, None], [False, True, False])
    """
    if kind in ("text", "moment"):
        return text, pl.repeat(False, len(text), eager=True)
    if kind == "time":
        values = (parse_iso(text) if time_format is None else parse_format(text, time_format))[0]
        values = values.cast(pl.Datetime("us"))
    elif kind == "bool":
        known = text.str.strip_chars().str.to_lowercase()
        values = known.replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)
    else:
        values = _CONVERT[kind](text)
    if values.null_count() == text.null_count():
        return values, pl.repeat(False, len(text), eager=True)
    wrong = values.is_null() & (text.str.strip_chars() != "").fill_null(False)
    return values, wrong


def remedy(column: str, value: str, kind: Kind) -> str:
    """What to do about a text that is no value of its kind."""
    if value == column:
        return "that line repeats the header: delete it"
    if kind == "flag":
        return "set at_least or equals for the label"
    if kind == "whole":
        return f"say which it is: types: {{{column}: text}} or {{{column}: int}} in the table"
    if kind in ("float", "int") and any(c.isdigit() for c in value):
        return "write plain numbers such as 1234.5, or, of lists, set types to json in the table"
    if len(value) > 40:
        return "correct it, or say what the column holds under types in the table"
    return (
        f"if it means missing, add nulls: [{value!r}] to the table; else correct it, or say what the column "
        "holds under types in the table"
    )


def _canonical(text: pl.Series) -> pl.Series:
    """Whole numbers that are written in one way only: 007 as a number would be the category 7."""
    whole = text.str.strip_chars()
    numbers = whole.cast(pl.Int64, strict=False)
    return numbers.set((numbers.cast(pl.String) != whole).fill_null(False), None)


_CONVERT: dict[Kind, Callable[[pl.Series], pl.Series]] = {
    "int": ints_of,
    "whole": _canonical,
    "float": floats_of,
    "flag": floats_of,
    "json": json_lists,
}
