"""Moments in the tables of users and items, such as when an item was made: where the ages of a spec begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import polars as pl

from features.read.clock import spread, time_bounds
from features.read.columns import origin
from features.read.resolution import PER_SECOND
from features.read.time_column import as_declared
from features.read.times import check_range, read_times, whole_numbers
from features.spec import Spec

Side = Literal["user", "item"]
_DAY = 86_400.0


def moment_column(column: str) -> str:
    """The reserved column of the seconds since 1970 of a column of moments.

    Example:
        >>> moment_column("item.created")
        '__moment.item.created'
    """
    return f"__moment.{column}"


def within_column(column: str) -> str:
    """The reserved column of the nanoseconds from that second to the moment."""
    return f"__within.{column}"


def moment_names(spec: Spec, what: Side) -> list[str]:
    """The columns of the user or item table that ages read, each once, in its names."""
    named = (name for kind, name in map(origin, spec.ages.values()) if kind == what)
    return list(dict.fromkeys(named))


def moment_columns(spec: Spec, what: Side) -> list[str]:
    """The reserved columns of these."""
    return [
        of(f"{what}.{name}") for name in moment_names(spec, what) for of in (moment_column, within_column)
    ]


def moments_of(table: pl.DataFrame, spec: Spec, what: Side) -> Iterator[pl.Series]:
    """The reserved columns of a table's moments: int64 seconds and nanoseconds within; null where missing.

    A date is the moment at which it begins.

    Args:
        table: rows of the user or item table; infinite numbers are left for here to refuse.
        spec: without patterns.
        what: whose table it is.

    Raises:
        DataError: a time that is of no usable type, in mixed units, out of bounds or not as declared.
    """
    for name in moment_names(spec, what):
        told = table[name].is_not_null()
        values, size, _ = _moments(table.filter(told), spec, what, name)
        within = values % size * (PER_SECOND["ns"] // size)
        yield spread(values // size, told).alias(moment_column(f"{what}.{name}"))
        yield spread(within, told).alias(within_column(f"{what}.{name}"))


def moment_forms(table: pl.DataFrame, spec: Spec, what: Side) -> dict[str, str]:
    """The unit that the numbers of each column were taken for, or "datetime"; not of those without values.

    Raises:
        DataError: as `moments_of`.
    """
    frames = {n: table.filter(table[n].is_not_null()) for n in moment_names(spec, what)}
    return {name: _moments(f, spec, what, name)[2] for name, f in frames.items() if f.height}


def _moments(table: pl.DataFrame, spec: Spec, what: Side, name: str) -> tuple[pl.Series, int, str]:
    """The moments since 1970, how many of their units are a second, and what numbers were taken for."""
    entity = spec.user if what == "user" else spec.item
    assert entity is not None  # else `needed_columns` refused the age
    # Days beside moments are no matter here: with a tick of a day they are not refused.
    time = as_declared(spec.source, entity.table, name, tick=_DAY)
    moments = read_times(table, time)
    values, unit = whole_numbers(table, moments, time, spec.time_unit)
    if (bounds := time_bounds(spec.time_range)) is not None:
        check_range(values, unit, table, time, bounds)
    return values, PER_SECOND[unit], "datetime" if moments.dtype.is_temporal() else unit
