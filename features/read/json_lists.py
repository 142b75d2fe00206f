"""Texts that hold lists as JSON → lists of texts."""

from __future__ import annotations

import json
from typing import Any

import polars as pl


def json_lists(text: pl.Series) -> pl.Series:
    """Lists of the elements as texts, null where a text is no JSON list of plain values.

    Numbers keep their digits: 1.10 stays 1.10.

    Example:
        >>> json_lists(pl.Series(['["a", "b"]', "[1, null]", "a"])).to_list()
        [['a', 'b'], ['1', None], None]
    """
    distinct = text.unique(maintain_order=True)
    parsed = pl.Series([_parse(t) for t in distinct], dtype=pl.List(pl.String))
    book = pl.DataFrame({"text": distinct, "list": parsed})
    return text.to_frame("text").join(book, on="text", how="left", maintain_order="left")["list"]


def _parse(text: str | None) -> list[str | None] | None:
    if text is None:
        return None
    try:
        found = json.loads(text, parse_float=str, parse_int=str, parse_constant=_constant)
        text.encode() if "\\" not in text else json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # among them half of a surrogate pair, which is no text
        return None
    if not isinstance(found, list) or any(isinstance(v, list | dict) for v in found):
        return None
    return [_text(v) for v in found]


def _constant(name: str) -> None:
    """NaN is missing; an infinite number is no ID and no JSON."""
    if name != "NaN":
        raise ValueError(name)


def _text(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else value
