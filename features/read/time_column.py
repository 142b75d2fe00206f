"""A time column of a table: its name, and what the spec says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from features.errors import DataError
from features.known import Known
from features.read.locate import locate


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


def refuse(frame: pl.DataFrame, values: pl.Series, wrong: pl.Series, must: str, remedy: str) -> None:
    """Raise if any row is wrong, with where it is and what it holds."""
    if wrong.any():
        came = values.filter(wrong).head(3).to_list()
        raise DataError(f"{must}, but {locate(frame, wrong)} hold {came}; {remedy}")
