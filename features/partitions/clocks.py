"""The clocks of a batch of raw rows, by what the survey found of all times."""

from __future__ import annotations

from typing import Any

import polars as pl

from features.errors import DataError
from features.partitions.job import Preparation
from features.read.clock import CLOCK, TIME, known_time, spread
from features.read.event_labels import LONG_AGO
from features.read.fraction import fractions
from features.read.known_clock import known_clocks
from features.read.listed import timed_domains
from features.read.log import time_column
from features.read.targets import without_young
from features.read.time_column import TimeColumn
from features.read.times import check_range, read_times, whole_numbers


def with_clock(
    frame: pl.DataFrame, job: Preparation, domain: str | None, bounds: tuple[float, float] | None
) -> pl.DataFrame:
    """A batch with `__clock`, `__time` and the clocks at which values are known later.

    Labels of impressions that are too young for them are gone.

    Raises:
        DataError: a time that is missing, unreadable or out of bounds.
    """
    facts = job.facts["clock"]
    own, time = facts["tables"][domain or ""], time_column(job.spec, job.role(domain))
    values = _ticks(frame, job, own, time)
    if bounds is not None:
        check_range(values, own["unit"], frame, time, bounds)
    starts, length = values * own["scale"], own["length"] * own["scale"]
    known = known_clocks(
        frame,
        time.known,
        end=starts + length,
        ends_at={value: _known_ends(frame, job, time, value, k) for value, k in own["known"].items()},
        per_second=facts["per_second"],
        what=time.what,
    )
    late = length - facts["shortest"] if time.is_event else 0
    clocks = (starts + late).alias(CLOCK), (starts // facts["per_second"]).alias(TIME)
    within = fractions(starts, per_second=facts["per_second"], shortest=facts["shortest"])
    frame = frame.with_columns(*clocks, *within, *known)
    return frame if domain else without_young(frame, job.spec.impressions, TIME, end=facts["last"])


def newest_events(job: Preparation) -> dict[str, int]:
    """The last clock of each domain's events, of a log without an order."""
    clock, found = job.facts["clock"], {}
    for name in timed_domains(job.spec):
        own = clock["tables"][name]
        over = own["length"] * own["scale"] - clock["shortest"]
        found[name] = LONG_AGO if own["latest"] is None else own["latest"] * own["scale"] + over
    return found


def _ticks(frame: pl.DataFrame, job: Preparation, own: dict[str, Any], time: TimeColumn) -> pl.Series:
    """The times in the unit that all of them have."""
    values, unit = whole_numbers(frame, read_times(frame, time), time, job.spec.time_unit)
    if unit != own["unit"] and frame.height:
        raise DataError(f"{time.what}: times changed while they were read; run ctr prepare again")
    return values


def _known_ends(
    frame: pl.DataFrame, job: Preparation, time: TimeColumn, value: str, own: dict[str, Any]
) -> pl.Series:
    """The end of the tick at which each value is known, null where the log does not tell."""
    column = time.known[value].known_at
    assert column is not None
    told = frame[column].is_not_null()
    ticks = _ticks(frame.filter(told), job, own, known_time(time, column))
    return spread((ticks + own["length"]) * own["scale"], told)
