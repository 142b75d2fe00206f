"""Time: which unit a column is in, and the clock that says what lies strictly before what.

Without `order` the clock is the time itself, in the finest unit of any table; with it, the dense rank
of (time, *order) over impressions and events together. Where tables log their times to different ticks, the
time of an impression is the start of its tick and that of an event the end: strictly before then means that
the event was over before the impression can have begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import polars as pl

from features.errors import ConfigError, DataError
from features.known import Known
from features.read.known_clock import known_clocks, known_ranks
from features.read.locate import locate
from features.read.resolution import PER_SECOND, tick_length

CLOCK, TIME = "__clock", "__time"
Name = TypeVar("Name", str, str | None)  # of a table
_LIMITS = {"s": 10**11, "ms": 10**14, "us": 10**17}  # |time| below it is in this unit: up to the year 5138


@dataclass(frozen=True)
class TimeColumn:
    """The time column of one table, and what the table is called in messages.

    Attributes:
        column: its name.
        what: table and column, for messages.
        is_event: whether its rows are over at the end of their tick, rather than begin at its start.
        tick: seconds, if the spec declares it.
        known: column of values that are known only later → when.
    """

    column: str
    what: str
    is_event: bool = False
    tick: float | None = None
    known: Mapping[str, Known] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticks:
    """The times of a column: whole numbers of a unit since 1970-01-01 UTC, and the length of a tick in it."""

    values: pl.Series
    unit: str
    length: int = 1

    def starts(self, per_second: int) -> pl.Series:
        """Where the ticks begin, in so many units a second."""
        return self.values * (per_second // PER_SECOND[self.unit])

    def span(self, per_second: int) -> int:
        """The length of a tick, in so many units a second."""
        return self.length * (per_second // PER_SECOND[self.unit])

    @property
    def seconds(self) -> float:
        """The length of a tick in seconds."""
        return self.length / PER_SECOND[self.unit]


def add_clocks(
    frames: Mapping[Name, pl.DataFrame], times: Mapping[Name, TimeColumn], *, unit: str, order: list[str]
) -> tuple[dict[Name, pl.DataFrame], dict[Name, float]]:
    """Give every frame `__clock` (int64) and `__time` (int64 seconds).

        clock = start of the tick                                        (impressions)
        clock = start of the tick + its length − the shortest length     (events)

    An event is over at start + length, and an impression begins at its start. All of these are multiples of
    the shortest length (else it counts as one unit), so that `clock of event < clock of impression` says
    that the one was over before the other began, and clocks of one length are the times themselves.

    Args:
        frames: impressions and the events of every domain.
        times: the time column of each.
        unit: of `Spec.time_unit`.
        order: tie-breaking columns, which every frame has.

    Returns:
        The frames, and the length of each one's tick in seconds.

    Raises:
        DataError: a time that is missing, of no usable type, or in mixed units; a missing order value.
    """
    ticks: dict[Name, Ticks] = {name: to_ticks(frame, times[name], unit) for name, frame in frames.items()}
    known_at: dict[Name, dict[str, Ticks]] = {n: _known_at(f, times[n], unit) for n, f in frames.items()}
    every = [*ticks.values(), *(t for columns in known_at.values() for t in columns.values())]
    per_second = max(PER_SECOND[t.unit] for t in every)
    starts = {name: t.starts(per_second) for name, t in ticks.items()}
    lengths = {name: t.span(per_second) for name, t in ticks.items()}
    shortest = _shortest(starts, lengths)
    clocked = {}
    for name, frame in frames.items():
        clock = starts[name] + (lengths[name] - shortest if times[name].is_event else 0)
        known = known_clocks(
            frame,
            times[name].known,
            end=starts[name] + lengths[name],
            ends_at={v: t.starts(per_second) + t.span(per_second) for v, t in known_at[name].items()},
            per_second=per_second,
            what=times[name].what,
        )
        clocked[name] = frame.with_columns(
            clock.alias(CLOCK), (starts[name] // per_second).alias(TIME), *known
        )
    seconds = {name: t.seconds for name, t in ticks.items()}
    return (_ranked(clocked, times, order) if order else clocked), seconds


def _known_at(frame: pl.DataFrame, time: TimeColumn, unit: str) -> dict[str, Ticks]:
    """Column of values → the times at which they are known, null where the log does not tell."""
    found = {}
    for value, rule in time.known.items():
        if rule.known_at is not None:
            told = frame[rule.known_at].is_not_null()
            what = f"{time.what.rpartition(' column ')[0]} column {rule.known_at!r}"
            ticks = to_ticks(frame.filter(told), TimeColumn(rule.known_at, what), unit)
            index = (told.cast(pl.Int64).cum_sum() - 1).set(~told, None)
            found[value] = replace(ticks, values=ticks.values.gather(index))
    return found


def _shortest(starts: Mapping[Name, pl.Series], lengths: Mapping[Name, int]) -> int:
    """The shortest tick if all times are multiples of it, else 1; tables without rows do not count."""
    shortest = min((lengths[name] for name, values in starts.items() if len(values)), default=1)
    return shortest if all((values % shortest == 0).all() for values in starts.values()) else 1


def to_ticks(frame: pl.DataFrame, time: TimeColumn, unit: str) -> Ticks:
    """Whole numbers since 1970-01-01 UTC, their unit, and the length of a tick.

    Args:
        frame: has the time column: integers, floats, dates or datetimes.
        time: which column.
        unit: the unit, "datetime", or "auto" to tell it by magnitude.

    Example:
        >>> frame = pl.DataFrame({"at": [1_700_000_000_000]})
        >>> to_ticks(frame, TimeColumn("at", "clicks"), "auto").unit
        'ms'
    """
    if frame[time.column].dtype == pl.Date and time.tick is None:
        time = replace(time, tick=86_400.0)
    values, found = _whole_numbers(frame, time, unit)
    return Ticks(values, found, tick_length(values, found, declared=time.tick, what=time.what))


def _whole_numbers(frame: pl.DataFrame, time: TimeColumn, unit: str) -> tuple[pl.Series, str]:
    values, what = frame[time.column], time.what
    if values.null_count():
        where = locate(frame, values.is_null())
        raise DataError(f"{what}: every row needs a time, {where} have none; drop or fill them")
    if isinstance(values.dtype, pl.Datetime):
        return values.to_physical().cast(pl.Int64), values.dtype.time_unit or "us"
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us")).to_physical() // 10**6, "s"
    if unit == "datetime" or not values.dtype.is_numeric():
        wanted = "a datetime" if unit == "datetime" else "a number or a datetime"
        raise DataError(f"{what}: time must be {wanted}, got {values.dtype}; convert it, or set time_unit")
    if values.dtype.is_float() and not values.is_finite().all():
        where = locate(frame, ~values.is_finite())
        raise DataError(f"{what}: time must be finite, {where} are not; drop these rows")
    unit = _one_unit(frame, values, what) if unit == "auto" else _check_unit(frame, values, unit, what)
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


def _one_unit(frame: pl.DataFrame, values: pl.Series, what: str) -> str:
    """The unit of all values by their magnitude; different magnitudes are refused."""
    size = values.abs()
    units = {u for v in (size.min(), size.max()) if v is not None and (u := _unit_of(float(str(v))))}
    if len(units) > 1:
        small = size < _LIMITS[min(units, key=PER_SECOND.__getitem__)]
        low, high = values.filter(small)[0], values.filter(~small)[0]
        raise DataError(
            f"{what}: times must be in one unit, but {locate(frame, small)} hold {_unit_of(low)} ({low}) and "
            f"{locate(frame, ~small)} hold {_unit_of(high)} ({high}); convert the file that differs, or set "
            "time_unit if all are in one"
        )
    return units.pop() if units else "s"


def _check_unit(frame: pl.DataFrame, values: pl.Series, unit: str, what: str) -> str:
    """The declared unit, unless values are so large that they must be in a finer one."""
    if unit in _LIMITS and (large := values.abs() >= _LIMITS[unit]).any():
        value = values.filter(large)[0]
        raise DataError(
            f"{what}: time_unit is {unit}, but {locate(frame, large)} hold {_unit_of(value)} ({value}); "
            "convert the file, or correct time_unit"
        )
    return unit


def _ranked(
    frames: dict[Name, pl.DataFrame], times: Mapping[Name, TimeColumn], order: list[str]
) -> dict[Name, pl.DataFrame]:
    """Replace the clock by the dense rank of (clock, *order) over all frames."""
    for name, frame in frames.items():
        for column in order:
            if (missing := frame[column].is_null()).any():
                raise DataError(
                    f"{times[name].what}: order column {column!r} must not be missing, "
                    f"{locate(frame, missing)} lack it; fill it or drop these rows"
                )
    by = [CLOCK, *order]
    try:
        every = pl.concat([f.select(by) for f in frames.values()], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the order columns {order} must have one type in all tables: {error}") from None
    ranks = _dense_rank(every, by)
    ends = np.cumsum([f.height for f in frames.values()])[:-1]
    parts, clock = np.split(ranks, ends), every[CLOCK].to_numpy()
    return {
        name: frame.with_columns(pl.Series(CLOCK, rank), *known_ranks(frame, clock, ranks))
        for (name, frame), rank in zip(frames.items(), parts, strict=True)
    }


def _dense_rank(frame: pl.DataFrame, by: list[str]) -> np.ndarray:
    """Rank from 0, int64; a sort is three times as fast as ranking structs."""
    ordered = frame.with_row_index("__index").sort(by)
    if not frame.height:
        return np.empty(0, dtype=np.int64)
    changed = ordered.select(pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in by).fill_null(False))
    ranks = np.empty(frame.height, dtype=np.int64)
    ranks[ordered["__index"].to_numpy()] = np.cumsum(changed.to_series().to_numpy())
    return ranks
