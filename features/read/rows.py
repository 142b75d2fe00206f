"""The columns of a raw table in memory, with what is missing made one and the same."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import polars as pl

from features.read.lists import vectors
from features.read.locate import FILE, LINE, ROW
from features.read.missing import warn_of_spellings, warn_of_suspects, without_infinite, without_nan
from features.read.scan import collect
from features.read.where import holds

_log = logging.getLogger(__name__)


def read_columns(
    table: pl.LazyFrame,
    columns: Sequence[str],
    counters: dict[str, int],
    *,
    where: dict[str, list[Any]] | None = None,
    keys: Collection[str],
    times: Collection[str] = (),
    dense: Collection[str] = (),
    name: str,
    what: str,
) -> pl.DataFrame:
    """Read columns of a table, and the file and line of each row where they are known.

    Args:
        table: of `open_tables`.
        columns: its columns.
        counters: gets how many values were infinite.
        where: column → values: only rows that hold one of them.
        keys: the IDs; infinite values of these and of the times are for their readers to refuse.
        times: the columns of times.
        dense: columns of numbers, whose lists are vectors.
        name: what the rows are called in counters.
        what: the table, for messages.

    Raises:
        ConfigError: a value under `where` that its column cannot hold.
        DataError: the table cannot be read.
    """
    schema = table.collect_schema()
    place = [c for c in (ROW, FILE, LINE) if c in schema]
    kept = table
    for column, values in (where or {}).items():
        kept = kept.filter(holds(column, schema[column], values, what=what))
    frame = collect(kept.select([*without_nan(schema, columns), *place]), what=what)
    if where and not frame.height:
        _tell_of_nothing(table, where, what)
    lists = [c for c in dense if c in frame.columns and isinstance(frame[c].dtype, pl.List)]
    frame = frame.with_columns(vectors(frame[c], what=f"{what}: column {c!r}") for c in lists)
    frame = without_infinite(frame, counters, keep={*keys, *times}, name=name, what=what)
    warn_of_suspects(frame, what=what)
    warn_of_spellings(frame, keys, what=what)
    return frame


def _tell_of_nothing(table: pl.LazyFrame, where: dict[str, list[Any]], what: str) -> None:
    """Say that a condition holds nowhere, and what there is instead."""
    for column, values in where.items():
        there = collect(table.select(pl.col(column).unique().sort().head(6)), what=what).to_series().to_list()
        _log.warning("%s: no row holds %s in column %r, which holds %s", what, values, column, there)
