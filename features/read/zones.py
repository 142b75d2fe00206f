"""Zones of times: converted to UTC where they are named or declared; both kinds in one column need a word."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeVar

import polars as pl

from features.errors import ConfigError
from features.read.iso import parse_iso
from features.read.time_column import TimeColumn, refuse

T = TypeVar("T")
_log = logging.getLogger(__name__)


def warn_of_zones(frames: Mapping[T, pl.DataFrame], times: Mapping[T, TimeColumn]) -> None:
    """Say if the times of some tables name a zone and those of others do not: these are taken for UTC."""
    told = {name: _names_zone(frame[times[name].column], times[name]) for name, frame in frames.items()}
    bare = [times[name].what for name, zone in told.items() if zone is False]
    if bare and True in told.values():
        _log.warning(
            "times of some tables name a zone, but not those of %s, which are taken for UTC; set time_zone "
            "in the table, be it to UTC, to say what they are",
            ", ".join(dict.fromkeys(bare)),
        )


def _names_zone(values: pl.Series, time: TimeColumn) -> bool | None:
    """Whether times name their zone, by the first of them; None for numbers and other forms."""
    if isinstance(values.dtype, pl.Datetime):
        return values.dtype.time_zone is not None or time.zone is not None
    if values.dtype == pl.String and time.form is None and len(values):
        moment, zoned = parse_iso(values.head(1))
        return None if moment[0] is None else bool(zoned[0]) or time.zone is not None
    return None


def one_zone(
    frame: pl.DataFrame, text: pl.Series, moments: pl.Series, zoned: pl.Series, time: TimeColumn
) -> pl.Series:
    """All in UTC: those with a zone are, those without wait for `_in_utc`, and both together need a word."""
    if zoned.all() and len(zoned):
        return moments.dt.replace_time_zone("UTC")
    if not zoned.any():
        return moments
    if time.zone is None:
        must = f"{time.what}: either all times name a zone or none"
        refuse(frame, text, ~zoned, must, "set time_zone in the table: the zone of those that name none")
    local = in_utc(frame.filter(~zoned), moments.filter(~zoned), time)
    return moments.scatter((~zoned).arg_true(), local).dt.replace_time_zone("UTC")


def in_utc(frame: pl.DataFrame, values: pl.Series, time: TimeColumn) -> pl.Series:
    """Datetimes in UTC; those without a zone are in the declared one, else in UTC."""
    assert isinstance(values.dtype, pl.Datetime)
    if values.dtype.time_zone is not None or time.zone in (None, "UTC"):
        return values
    try:
        local = values.dt.replace_time_zone(time.zone, ambiguous="null", non_existent="null")
    except pl.exceptions.PolarsError:
        raise ConfigError(
            f"{time.what}: time_zone must be a name of the IANA list, such as Europe/Berlin, got "
            f"{time.zone!r}"
        ) from None
    must = f"{time.what}: a time must exist once in {time.zone}, not when clocks are turned"
    refuse(frame, values, local.is_null(), must, "write the times in UTC")
    return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def days_of(frame: pl.DataFrame, days: pl.Series, time: TimeColumn) -> pl.Series:
    """Days as dates, coarser than any datetime; with a declared zone, the moment they begin there."""
    return days if time.zone in (None, "UTC") else in_utc(frame, days.cast(pl.Datetime("us")), time)
