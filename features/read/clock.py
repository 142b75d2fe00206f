"""Time: which unit a column is in, and the clock that says what lies strictly before what.

Without `order` the clock is the time itself, in the finest unit of any table; with it, the dense rank
of (time, *order) over impressions and events together. Where tables log their times to different ticks, the
time of an impression is the start of its tick and that of an event the end: strictly before then means that
the event was over before the impression can have begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import polars as pl

from features.errors import ConfigError, DataError, first_line
from features.read.fraction import fractions
from features.read.ids import key_values
from features.read.known_clock import known_clocks, known_ranks
from features.read.locate import locate
from features.read.resolution import PER_SECOND, tick_length
from features.read.time_column import TimeColumn
from features.read.times import check_range, plausible_times, read_times, unit_of, whole_numbers

CLOCK, TIME = "__clock", "__time"
Name = TypeVar("Name", str, str | None)  # of a table


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


@dataclass(frozen=True)
class ClockScale:
    """What clocks without an `order` are counted in.

    Attributes:
        per_second: units a second.
        shortest: units of the shortest tick of all tables.
    """

    per_second: int
    shortest: int


def add_clocks(
    frames: Mapping[Name, pl.DataFrame],
    times: Mapping[Name, TimeColumn],
    *,
    unit: str,
    order: list[str],
    bounds: tuple[float, float] | None = None,
) -> tuple[dict[Name, pl.DataFrame], dict[Name, float], ClockScale]:
    """Give every frame `__clock` (int64), `__time` (int64 seconds) and, if times are finer, `__fraction`.

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
        bounds: the first second and the one after the last that a time may be; None for any.

    Returns:
        The frames, the length of each one's tick in seconds, and the scale of the clock.

    Raises:
        DataError: a time that is missing, of no usable type, or in mixed units; a missing order value.
    """
    ticks: dict[Name, Ticks] = {name: to_ticks(frame, times[name], unit) for name, frame in frames.items()}
    if bounds is not None:
        for name, found in ticks.items():
            check_range(found.values, found.unit, frames[name], times[name], bounds)
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
        within = fractions(starts[name], per_second=per_second, shortest=shortest)
        clocked[name] = frame.with_columns(
            clock.alias(CLOCK), (starts[name] // per_second).alias(TIME), *within, *known
        )
    seconds = {name: t.seconds for name, t in ticks.items()}
    scale = ClockScale(per_second, shortest)
    return (ranked(clocked, times, order) if order else clocked), seconds, scale


def _known_at(frame: pl.DataFrame, time: TimeColumn, unit: str) -> dict[str, Ticks]:
    """Column of values → the times at which they are known, null where the log does not tell."""
    found = {}
    for value, rule in time.known.items():
        if rule.known_at is not None:
            told = frame[rule.known_at].is_not_null()
            ticks = to_ticks(frame.filter(told), known_time(time, rule.known_at), unit)
            found[value] = replace(ticks, values=spread(ticks.values, told))
    return found


def known_time(time: TimeColumn, column: str) -> TimeColumn:
    """The column of the times at which some values are known, beside that of their rows."""
    what = f"{time.what.rpartition(' column ')[0]} column {column!r}"
    return replace(time, column=column, what=what, is_event=False, tick=None, known={})


def spread(values: pl.Series, there: pl.Series) -> pl.Series:
    """Values of those rows that are `there`, (bool), for all rows: null for the others."""
    return values.gather((there.cast(pl.Int64).cum_sum() - 1).set(~there, None))


def _shortest(starts: Mapping[Name, pl.Series], lengths: Mapping[Name, int]) -> int:
    """The shortest tick if all times are multiples of it, else 1; tables without rows do not count."""
    shortest = min((lengths[name] for name, values in starts.items() if len(values)), default=1)
    return shortest if all((values % shortest == 0).all() for values in starts.values()) else 1


def to_ticks(frame: pl.DataFrame, time: TimeColumn, unit: str) -> Ticks:
    """Whole numbers since 1970-01-01 UTC, their unit, and the length of a tick.

    Args:
        frame: has the time column: integers, floats, decimals, dates, datetimes or texts.
        time: which column.
        unit: the unit, "datetime", or "auto" to tell it by magnitude.

    Example:
        >>> frame = pl.DataFrame({"at": [1_700_000_000_000]})
        >>> to_ticks(frame, TimeColumn("at", "clicks"), "auto").unit
        'ms'
    """
    moments = read_times(frame, time)
    tick = 86_400.0 if moments.dtype == pl.Date and time.tick is None else time.tick
    values, found = whole_numbers(frame, moments, time, unit)
    if not frame.height:
        found = unit_of_nothing(found, tick)
    return Ticks(values, found, tick_length(values, found, declared=tick, what=time.what))


def unit_of_nothing(unit: str, tick: float | None) -> str:
    """The unit of a column without values, of which the declared tick (s) is a whole number."""
    if tick is None or tick * PER_SECOND[unit] >= 1:
        return unit
    return next((u for u, size in PER_SECOND.items() if tick * size >= 1), unit)


def seconds_of(value: int | float | str) -> float:
    """A time from a spec, in seconds since 1970: a number in any unit, or ISO 8601 (UTC if it names no zone).

    Example:
        >>> seconds_of("2024-01-02T00:00:00"), seconds_of(1704153600000)
        (1704153600.0, 1704153600.0)
    """
    if not isinstance(value, str):
        return value / PER_SECOND[unit_of(float(value))]
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"a time must read like 2024-01-31 or 2024-01-31T12:00:00, got {value!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def time_bounds(
    declared: str | tuple[float | int | str, float | int | str] | None,
) -> tuple[float, float] | None:
    """The first second that a log may hold, and the one after the last: 1990 to the end of next year."""
    if declared == "any":
        return None
    if declared is None:
        return plausible_times()
    low, high = (seconds_of(bound) for bound in declared)
    if low >= high:
        raise ConfigError(f"time_range must be [first, last] with first before last, got {list(declared)}")
    return low, high + 1


def ranked(
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
    frames = _exact_orders(frames, order, {name: time.what for name, time in times.items()})
    try:
        every = pl.concat([f.select(by) for f in frames.values()], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the order columns {order} must have one type in all tables: {first_line(error)}"
        ) from None
    ranks = _dense_rank(every, by)
    ends = np.cumsum([f.height for f in frames.values()])[:-1]
    parts, clock = np.split(ranks, ends), every[CLOCK].to_numpy()
    return {
        name: frame.with_columns(pl.Series(CLOCK, rank), *known_ranks(frame, clock, ranks))
        for (name, frame), rank in zip(frames.items(), parts, strict=True)
    }


def _exact_orders(
    frames: dict[Name, pl.DataFrame], order: list[str], what: Mapping[Name, str]
) -> dict[Name, pl.DataFrame]:
    """Floats beside integers become integers: as floats, large numbers would tie that do not."""
    for column in order:
        types = {name: frame[column].dtype for name, frame in frames.items()}
        if any(t.is_integer() for t in types.values()):
            for name in (n for n, t in types.items() if t.is_float() or t.is_decimal()):
                own = key_values(frames[name][column], what=f"{what[name]}: order column {column!r}")
                frames = {**frames, name: frames[name].with_columns(own.alias(column))}
    return frames


def _dense_rank(frame: pl.DataFrame, by: list[str]) -> np.ndarray:
    """Rank from 0, int64; a sort is three times as fast as ranking structs."""
    ordered = frame.with_row_index("__index").sort(by)
    if not frame.height:
        return np.empty(0, dtype=np.int64)
    changed = ordered.select(pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in by).fill_null(False))
    ranks = np.empty(frame.height, dtype=np.int64)
    ranks[ordered["__index"].to_numpy()] = np.cumsum(changed.to_series().to_numpy())
    return ranks
