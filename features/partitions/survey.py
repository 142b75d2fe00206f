"""The first look at a log: what its clock, its keys and its balance are, before anything is moved.

A task reads times and keys of a share of one table; `facts_of` puts together what they found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.errors import DataError
from features.partitions.frames import read_frame, write_frame
from features.partitions.job import Preparation
from features.read.clock import CLOCK, TIME
from features.read.codes import all_keys
from features.read.ids import common_keys, key_values
from features.read.locate import table_name
from features.read.log import time_column
from features.read.missing import without_nan
from features.read.resolution import PER_SECOND, tick_length
from features.read.time_column import TimeColumn
from features.read.times import check_range, read_times, whole_numbers
from features.spec import Spec

_STRIDE = 61  # one row of so many is looked at for the balance of the partitions
_HEAD = 1000  # first times of a table, by which `tick_length` tells chance from rounding


class Unsteady(Exception):
    """Times whose unit or form differs between pieces of a table: only a look at all of them can tell."""


def survey(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Look at times, users and items of a share of a table.

    Returns:
        rows, the units of the times, the greatest common divisor, the first times, and the types of the keys;
        `items.arrow` has the distinct items, `sample.arrow` some users and times.
    """
    job, domain = Preparation.of(arguments["job"]), arguments["domain"]
    role, time = job.role(domain), time_column(job.spec, job.role(domain))
    columns = [c for c in (role.user, role.item, role.time) if c is not None]
    look = _Look(job.spec, time)
    users, items, samples = [], [], []
    for batch in job.batches(domain, arguments["offset"], arguments["length"]):
        frame = batch.select(
            *without_nan(batch.schema, list(dict.fromkeys(columns))), pl.selectors.by_name("__row")
        )
        frame = frame if domain is None else frame.drop_nulls([role.user, role.time])
        if not frame.height:
            continue
        seconds = look.at(frame)
        what = table_name(job.spec.source, role.table)
        user = key_values(frame[role.user], what=f"{what}, user column {role.user!r}")
        users.append(str(user.dtype))
        samples.append(pl.DataFrame({"user": user.cast(pl.String), "time": seconds})[::_STRIDE])
        if role.item is not None:
            items.append(key_values(frame[role.item], what=f"{what}, item column {role.item!r}").unique())
            items = [all_keys(common_keys(items))] if len(items) > 16 else items
    write_frame(out / "items.arrow", all_keys(common_keys(items)).to_frame() if items else pl.DataFrame())
    write_frame(out / "sample.arrow", pl.concat(samples) if samples else pl.DataFrame())
    return {"domain": domain, "users": sorted(set(users)), "has_items": bool(items), **look.result()}


class _Look:
    """What the times of a share are, batch by batch."""

    def __init__(self, spec: Spec, time: TimeColumn) -> None:
        self.spec, self.time = spec, time
        self.rows, self.divisor = 0, 0
        self.forms: set[tuple[str, bool]] = set()
        self.head: list[int] = []

    def at(self, frame: pl.DataFrame) -> pl.Series:
        """The times of a batch in seconds."""
        moments = read_times(frame, self.time)
        values, unit = whole_numbers(frame, moments, self.time, self.spec.time_unit)
        self.forms.add((unit, moments.dtype == pl.Date))
        self.rows += frame.height
        self.head += values.head(_HEAD - len(self.head)).to_list()
        if self.divisor != 1:
            first = int(np.gcd.reduce(values.head(_HEAD).to_numpy(), initial=self.divisor))
            self.divisor = first if first == 1 else int(np.gcd.reduce(values.to_numpy(), initial=first))
        return values // PER_SECOND[unit]

    def result(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "forms": sorted(self.forms),
            "divisor": self.divisor,
            "head": self.head,
        }


def clock_facts(spec: Spec, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How times become clocks, as `features.read.clock.add_clocks` does for whole tables.

    Returns:
        per_second, shortest, and per table (`""` for the impressions) unit and length of its ticks.

    Raises:
        Unsteady: batches of one table were read in several units.
        DataError: a declared tick that does not fit.
    """
    tables: dict[str, dict[str, Any]] = {}
    for domain in (None, *spec.domains):
        own = [f for f in found if f["domain"] == domain]
        forms = {(unit, is_date) for f in own for unit, is_date in f["forms"]} or {("s", False)}
        if len(forms) > 1:
            raise Unsteady(f"times of {domain or 'the impressions'} are of several units or forms")
        ((unit, is_date),) = forms
        divisor = int(np.gcd.reduce([f["divisor"] for f in own], initial=0))
        head = [v for f in own for v in f["head"]][:_HEAD]
        role = spec.impressions if domain is None else spec.domains[domain]
        time = time_column(spec, role)
        tick = 86_400.0 if is_date and time.tick is None else time.tick
        length = tick_length(_times_like(head, divisor), unit, declared=tick, what=time.what)
        rows = sum(f["rows"] for f in own)
        tables[domain or ""] = {"unit": unit, "length": length, "rows": rows, "divisor": divisor}
    per_second = max(PER_SECOND[t["unit"]] for t in tables.values())
    for table in tables.values():
        table["scale"] = per_second // PER_SECOND[table["unit"]]
    shortest = min((t["length"] * t["scale"] for t in tables.values() if t["rows"]), default=1)
    even = all(t["divisor"] * t["scale"] % shortest == 0 for t in tables.values())
    return {"per_second": per_second, "shortest": shortest if even else 1, "tables": tables}


def _times_like(head: list[int], divisor: int) -> pl.Series:
    """The first times, and one more that all times share their divisors with."""
    return pl.Series([*head, divisor] if divisor else head, dtype=pl.Int64)


def with_clock(
    frame: pl.DataFrame, job: Preparation, domain: str | None, bounds: tuple[float, float] | None
) -> pl.DataFrame:
    """A batch with `__clock` and `__time`.

    Raises:
        DataError: a time that is missing, unreadable or out of bounds.
    """
    facts = job.facts["clock"]
    own, time = facts["tables"][domain or ""], time_column(job.spec, job.role(domain))
    values, unit = whole_numbers(frame, read_times(frame, time), time, job.spec.time_unit)
    if unit != own["unit"] and frame.height:
        raise DataError(f"{time.what}: times changed while they were read; run ctr prepare again")
    if bounds is not None:
        check_range(values, unit, frame, time, bounds)
    starts = values * own["scale"]
    late = own["length"] * own["scale"] - facts["shortest"] if time.is_event else 0
    return frame.with_columns((starts + late).alias(CLOCK), (starts // facts["per_second"]).alias(TIME))


def user_facts(work: Path, found: Sequence[dict[str, Any]], parts: int) -> tuple[dict[str, Any], list[int]]:
    """The type of user keys and the bounds of their partitions; those of the ranges of time, in seconds."""
    kind = "String" if any("String" in f["users"] for f in found) else "Int64"
    samples = [
        (f["domain"], read_frame(work / "survey" / f"{i:05}" / "sample.arrow")) for i, f in enumerate(found)
    ]
    users = pl.concat([s["user"] for _, s in samples if s.width] or [pl.Series(dtype=pl.String)])
    users = users.cast(getattr(pl, kind)).sort()
    times = pl.concat(
        [s["time"] for d, s in samples if s.width and d is None] or [pl.Series(dtype=pl.Int64)]
    ).sort()
    at = [len(users) * p // parts for p in range(1, parts)] if len(users) else []
    then = [len(times) * p // parts for p in range(1, parts)] if len(times) else []
    return {"type": kind, "bounds": users.gather(at).to_list()}, times.gather(then).to_list()


def all_items(work: Path, found: Sequence[dict[str, Any]]) -> pl.Series:
    """The raw key of every item code."""
    own = [
        read_frame(work / "survey" / f"{i:05}" / "items.arrow") for i, f in enumerate(found) if f["has_items"]
    ]
    return all_keys(common_keys([frame["key"] for frame in own]))
