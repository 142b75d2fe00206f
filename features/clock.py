"""Time: which unit a column is in, and the clock that says what lies strictly before what.

Without `order` the clock is the time itself, in the finest unit of any table; with it, the dense rank
of (time, *order) over impressions and events together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from features.errors import ConfigError, DataError

CLOCK, TIME = "__clock", "__time"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LIMITS = {"s": 10**11, "ms": 10**14, "us": 10**17}  # |time| below it is in this unit: up to the year 5138
_TICK = "__tick"


@dataclass(frozen=True)
class TimeColumn:
    """The time column of one table, and what the table is called in messages."""

    column: str
    what: str


def add_clocks(
    frames: dict[str, pl.DataFrame], times: dict[str, TimeColumn], *, unit: str, order: list[str]
) -> dict[str, pl.DataFrame]:
    """Give every frame `__clock` (int64) and `__time` (int64 seconds).

    Args:
        frames: impressions and the events of every domain, without missing times.
        times: the time column of each.
        unit: of `Spec.time_unit`.
        order: tie-breaking columns, which every frame has.

    Raises:
        DataError: a time that is missing, of no usable type, or in mixed units; a missing order value.
    """
    ticks, units = {}, {}
    for name, frame in frames.items():
        ticks[name], units[name] = to_ticks(frame[times[name].column], unit, what=times[name].what)
    per_second = max((PER_SECOND[u] for u in units.values()), default=1)
    for name, frame in frames.items():
        tick = ticks[name] * (per_second // PER_SECOND[units[name]])
        frames[name] = frame.with_columns(tick.alias(CLOCK), (tick // per_second).alias(TIME))
    return _ranked(frames, times, order) if order else frames


def to_ticks(values: pl.Series, unit: str, *, what: str) -> tuple[pl.Series, str]:
    """Whole numbers since 1970-01-01 UTC, and their unit.

    Args:
        values: integers, floats, dates or datetimes.
        unit: the unit, "datetime", or "auto" to tell it by magnitude.
        what: the table and column, for the error message.

    Example:
        >>> to_ticks(pl.Series([1_700_000_000_000]), "auto", what="clicks.time")[1]
        'ms'
    """
    if count := values.null_count():
        raise DataError(f"{what}: every row needs a time, {count} have none; drop these rows or fill them")
    if isinstance(values.dtype, pl.Datetime):
        return values.to_physical().cast(pl.Int64), values.dtype.time_unit or "us"
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us")).to_physical() // 10**6, "s"
    if unit == "datetime" or not values.dtype.is_numeric():
        wanted = "a datetime" if unit == "datetime" else "a number or a datetime"
        raise DataError(
            f"{what}: time must be {wanted}, got {values.dtype}; parse it before, or set time_unit"
        )
    if values.dtype.is_float() and not values.is_finite().all():
        raise DataError(f"{what}: time must be finite, got NaN or infinity; drop these rows")
    unit = _check_unit(values, unit, what)
    if values.dtype.is_float() and (values != values.round()).any():
        values, unit = (values * (10**6 // PER_SECOND[unit])).round(), "us"
    return values.cast(pl.Int64), unit


def seconds_of(value: int | float | str) -> float:
    """A time from a spec, in seconds since 1970: a number in any unit, or ISO 8601 (UTC if it names no zone).

    Example:
        >>> seconds_of("2024-01-02T00:00:00"), seconds_of(1704153600000)
        (1704153600.0, 1704153600.0)
    """
    if not isinstance(value, str):
        return value / PER_SECOND[_unit_of(float(value))]
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"a time must read like 2024-01-31 or 2024-01-31T12:00:00, got {value!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _unit_of(value: float) -> str:
    return next((u for u, limit in _LIMITS.items() if abs(value) < limit), "ns")


def _check_unit(values: pl.Series, unit: str, what: str) -> str:
    """The unit of all values; refuses values of different magnitude, or too large for a declared unit."""
    if values.len() == 0:
        return "s" if unit == "auto" else unit
    low, high = values.abs().min(), values.abs().max()
    found = _unit_of(high)  # type: ignore[arg-type]
    if unit == "auto":
        if _unit_of(low) != found:  # type: ignore[arg-type]
            raise DataError(
                f"{what}: times must be in one unit, got {low} ({_unit_of(low)}) and {high} ({found}); "  # type: ignore[arg-type]
                "convert the file that differs, or set time_unit if all are in one"
            )
        return found
    if PER_SECOND[found] > PER_SECOND[unit]:
        raise DataError(
            f"{what}: time_unit is {unit}, but {high} would be in {found}; correct the spec or the file"
        )
    return unit


def _ranked(
    frames: dict[str, pl.DataFrame], times: dict[str, TimeColumn], order: list[str]
) -> dict[str, pl.DataFrame]:
    """Replace the clock by the dense rank of (clock, *order) over all frames."""
    for name, frame in frames.items():
        if missing := [c for c in order if frame[c].null_count()]:
            raise DataError(
                f"{times[name].what}: order columns must not be missing, {missing} are in some rows"
            )
    by = [CLOCK, *order]
    try:
        every = pl.concat([f.select(by) for f in frames.values()], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the order columns {order} must have one type in all tables: {error}") from None
    ranks = _dense_rank(every, by)
    ends = np.cumsum([f.height for f in frames.values()])[:-1]
    parts = np.split(ranks, ends)
    return {n: f.with_columns(pl.Series(CLOCK, r)) for (n, f), r in zip(frames.items(), parts, strict=True)}


def _dense_rank(frame: pl.DataFrame, by: list[str]) -> np.ndarray:
    """Rank from 0, int64; a sort is three times as fast as ranking structs."""
    ordered = frame.with_row_index("__index").sort(by)
    if not frame.height:
        return np.empty(0, dtype=np.int64)
    changed = ordered.select(pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in by).fill_null(False))
    ranks = np.empty(frame.height, dtype=np.int64)
    ranks[ordered["__index"].to_numpy()] = np.cumsum(changed.to_series().to_numpy())
    return ranks
