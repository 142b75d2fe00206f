"""The clock of a moment: what `ctr prepare` calls past of an impression then, whatever the clock is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.read.clock import CLOCK, TIME
from features.read.clock_at import clock_at
from features.read.log import Log, read_log
from features.read.moment import SECOND
from features.sources.of_spec import open_spec
from features.spec import Spec, parse_spec
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    Tables,
    changed,
    rating_tables,
    shop_tables,
    write_tables,
)

MILLI = SECOND // 1000


def read(folder: Path, spec: dict[str, Any], tables: Tables) -> tuple[Spec, Log]:
    write_tables(folder, tables)
    full, lazy = open_spec(parse_spec(spec), folder, {})
    return full, read_log(full, lazy)


def past(log: Log, domain: str | None, clock: int) -> list[int]:
    return sorted(log.frame(domain).filter(pl.col(CLOCK) < clock)[TIME].to_list())


@pytest.mark.parametrize("order", [True, False])
def test_whole_seconds_with_and_without_an_order(order: bool, tmp_path: Path) -> None:
    """With an order, nothing of the moment's own second is past, whoever came first in it."""
    spec = changed(RATINGS_SPEC)
    if not order:
        del spec["order"]
    full, log = read(tmp_path, spec, rating_tables(rows=120))
    times = log.rows[TIME].unique().sort().to_list()
    for time in (times[0] - 1, *times, times[-1] + 1):
        for moment in (time * SECOND, time * SECOND + SECOND // 2):
            clock, second = clock_at(full, log, moment)
            assert second == time
            for domain in (None, "ratings"):
                every = log.frame(domain)[TIME].to_list()
                assert past(log, domain, clock) == sorted(t for t in every if t < time)


def test_milliseconds(tmp_path: Path) -> None:
    tables = shop_tables(20)
    full, log = read(tmp_path, SHOP_SPEC, tables)
    for moment in tables["shown"]["at"].unique().to_list():
        for shift in (-1, 0, 1):
            clock, second = clock_at(full, log, (moment + shift) * MILLI)
            assert (clock, second) == (moment + shift, (moment + shift) // 1000)


@pytest.mark.parametrize("order", [[], ["at"]])
def test_an_event_of_a_longer_tick_is_past_when_that_is_over(order: list[str], tmp_path: Path) -> None:
    tables = shop_tables(20)
    whole = {"shown": tables["shown"].with_columns(pl.col("at") // 1000)}
    whole["events"] = tables["events"].with_columns(pl.col("at") // 3_600_000 * 3600)
    spec = changed(SHOP_SPEC, domains__view__tick="1h", domains__cart__tick="1h", order=order)
    full, log = read(tmp_path, spec, whole)
    assert log.ticks["view"] == 3600 and log.ticks[None] == 1
    for hour in log.events["view"][TIME].unique().to_list():
        for time in (hour, hour + 3599, hour + 3600, hour + 3601):
            clock, _ = clock_at(full, log, time * SECOND)
            every = log.events["view"][TIME].to_list()
            assert past(log, "view", clock) == sorted(t for t in every if t + 3600 <= time)
