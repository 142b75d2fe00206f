"""A time column of a table: its name, and what the spec says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from features.errors import DataError
from features.known import Known
from features.read.locate import locate, table_name
from features.source import Source


@dataclass(frozen=True)
class TimeColumn:
    """The time column of one table, and what the table is called in messages.

    Attributes:
        column: its name.
        what: the table and the column, for messages.
        is_event: whether its rows are over at the end of their tick, rather than begin at its start.
        tick: seconds, if the spec declares it.
        known: column of values that are known only later → when.
        form: a declared format of texts, or the unit of numbers; None: ISO 8601, or the spec's unit.
        zone: of times that name none; None: UTC.
    """

    column: str
    what: str
    is_event: bool = False
    tick: float | None = None
    known: Mapping[str, Known] = field(default_factory=dict)
    form: str | None = None
    zone: str | None = None


def as_declared(source: Source, table: str, column: str, *, tick: float | None) -> TimeColumn:
    """A time column in the form and the zone that the spec declares for its table."""
    raw = source.tables.get(table)
    told = raw is not None and raw.types.get(column) != "time"  # else it is converted already
    return TimeColumn(
        column,
        f"{table_name(source, table)}, column {column!r}",
        tick=tick,
        form=raw.time_format if raw is not None and told else None,
        zone=raw.time_zone if raw is not None else None,
    )


def refuse(frame: pl.DataFrame, values: pl.Series, wrong: pl.Series, must: str, remedy: str) -> None:
    """Raise if any row is wrong, with where it is and what it holds."""
    if wrong.any():
        came = values.filter(wrong).head(3).to_list()
        raise DataError(f"{must}, but {locate(frame, wrong)} hold {came}; {remedy}")
