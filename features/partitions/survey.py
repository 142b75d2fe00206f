"""The first look at a log: what its clock, its keys and its balance are, before anything is moved.

A task reads times and keys of a share of one table; `facts_of` puts together what they found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.errors import DataError
from features.partitions.frames import read_frame, write_frame
from features.partitions.job import Preparation
from features.partitions.lists import items_of_lists, listed_domains
from features.read.clock import known_time, unit_of_nothing
from features.read.codes import all_keys
from features.read.columns import dense_columns
from features.read.explode import explode
from features.read.ids import common_keys, key_values
from features.read.listed import timed_domains
from features.read.lists import one_width, widths_of
from features.read.locate import FILE, LINE, ROW, table_name
from features.read.log import time_column
from features.read.missing import without_nan
from features.read.resolution import PER_SECOND, tick_length
from features.read.time_column import TimeColumn
from features.read.times import read_times, whole_numbers
from features.spec import Impressions, Spec

_STRIDE = 61  # one row of so many is looked at for the balance of the partitions
_HEAD = 1000  # first times of a table, by which `tick_length` tells chance from rounding


class Unsteady(Exception):
    """Times whose unit or form differs between pieces of a table: only a look at all of them can tell."""


def survey(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Look at times, users and items of a share of a table.

    Returns:
        what the times are, and those at which values are known (`known`); the types of the users, and the
        lengths of vectors; `items.arrow` has the distinct items, `sample.arrow` some users and times.
    """
    job, domain = Preparation.of(arguments["job"]), arguments["domain"]
    role, share = job.role(domain), _Share(job, domain)
    users, samples = [], []
    items: list[pl.Series] = []
    for frame, seconds in share.read(arguments["offset"], arguments["length"], items):
        what = table_name(job.spec.source, role.table)
        user = key_values(frame[role.user], what=f"{what}, user column {role.user!r}")
        users.append(str(user.dtype))
        samples.append(pl.DataFrame({"user": user.cast(pl.String), "time": seconds})[::_STRIDE])
        if role.item is not None:
            items.append(key_values(frame[role.item], what=f"{what}, item column {role.item!r}").unique())
            items = [all_keys(common_keys(items))] if len(items) > 16 else items
    write_frame(out / "items.arrow", all_keys(common_keys(items)).to_frame() if items else pl.DataFrame())
    write_frame(out / "sample.arrow", pl.concat(samples) if samples else pl.DataFrame())
    return {"domain": domain, "users": sorted(set(users)), "has_items": bool(items), **share.result()}


class _Share:
    """The keys and times of a share of one table, batch by batch."""

    def __init__(self, job: Preparation, domain: str | None) -> None:
        self._job, self._domain, self._role = job, domain, job.role(domain)
        self._schema = job.tables()[self._role.table].collect_schema()
        time = time_column(job.spec, self._role)
        told = {value: rule.known_at for value, rule in time.known.items() if rule.known_at is not None}
        self._time = _Look(job.spec, time, self._schema)
        self._known = {v: _Look(job.spec, known_time(time, c), self._schema) for v, c in told.items()}
        self._widths: dict[str, list[int]] = {c: [] for c in list_columns(job.spec, domain, self._schema)}

    def read(
        self, offset: int, length: int | None, items: list[pl.Series]
    ) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """The rows with their times in seconds; `items` gets those of lists."""
        for batch in self._job.batches(self._domain, offset, length):
            frame = self._rows(batch, items)
            if frame.height:
                seconds = self._time.at(frame)
                for look in self._known.values():
                    look.at(frame.filter(pl.col(look.time.column).is_not_null()))
                yield frame, seconds

    def result(self) -> dict[str, Any]:
        known = {value: look.result() for value, look in self._known.items()}
        return {**self._time.result(), "known": known, "widths": self._widths}

    def _rows(self, batch: pl.DataFrame, items: list[pl.Series]) -> pl.DataFrame:
        """What is looked at of a batch, as it is when it is read: packed rows are unpacked."""
        role, domain = self._role, self._domain
        packed = role.explode if isinstance(role, Impressions) else None
        read = [role.user, role.item, role.time, *(look.time.column for look in self._known.values())]
        if packed is not None:
            read = [c for c in (*read, packed.column, packed.clicked) if c != role.item]
        listed = listed_domains(self._job.spec).values() if domain is None else ()
        lists = [d.from_list.column for d in listed if d.from_list is not None]
        columns = list(dict.fromkeys(c for c in (*read, *self._widths, *lists) if c is not None))
        place = [c for c in (ROW, FILE, LINE) if c in batch.columns]
        frame = batch.select(*without_nan(batch.schema, columns), *place)
        for column, widths in self._widths.items():
            widths[:] = _ends([*widths, *widths_of(frame[column])])
        if lists:
            items += [key_values(v, what=w) for w, v in items_of_lists(self._job, frame).items()]
        if domain is not None:
            return frame.drop_nulls([role.user, role.time])
        what = table_name(self._job.spec.source, role.table)
        return frame if packed is None else explode(frame, self._job.spec, {}, what=what)


def list_columns(spec: Spec, domain: str | None, schema: Mapping[str, pl.DataType]) -> list[str]:
    """The columns of lists in a table that dense features read as vectors."""
    features = spec.features if domain is None else spec.domains[domain].side
    return [c for c in sorted(dense_columns(features.values(), "own")) if isinstance(schema.get(c), pl.List)]


def _ends(widths: list[int]) -> list[int]:
    return [min(widths), max(widths)] if widths else []


class _Look:
    """What the times of one column are, batch by batch.

    Args:
        spec: without patterns.
        time: the column.
        schema: of its table.
    """

    def __init__(self, spec: Spec, time: TimeColumn, schema: Mapping[str, pl.DataType]) -> None:
        self.spec, self.time = spec, time
        self.rows, self.divisor = 0, 0
        self.latest: int | None = None
        self.forms: set[tuple[str, bool]] = set()
        self.head: list[int] = []
        self._schema = {time.column: schema[time.column]}

    def at(self, frame: pl.DataFrame) -> pl.Series:
        """The times of a batch in seconds."""
        values, form = self._form(frame)
        if frame.height:
            self.forms.add(form)
        self.rows += frame.height
        if frame.height:
            last = int(values.to_numpy().max())
            self.latest = last if self.latest is None else max(self.latest, last)
        self.head += values.head(_HEAD - len(self.head)).to_list()
        if self.divisor != 1:
            first = int(np.gcd.reduce(values.head(_HEAD).to_numpy(), initial=self.divisor))
            self.divisor = first if first == 1 else int(np.gcd.reduce(values.to_numpy(), initial=first))
        return values // PER_SECOND[form[0]]

    def result(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "forms": sorted(self.forms),
            "empty": None if self.rows else self._form_of_nothing(),
            "divisor": self.divisor,
            "latest": self.latest,
            "head": self.head,
        }

    def _form_of_nothing(self) -> tuple[str, bool] | None:
        """Where no value tells the unit, the type of the column may."""
        try:
            return self._form(pl.DataFrame(schema=self._schema))[1]
        except DataError:
            return None

    def _form(self, frame: pl.DataFrame) -> tuple[pl.Series, tuple[str, bool]]:
        """Times in their unit; this, and whether they are dates."""
        moments = read_times(frame, self.time)
        values, unit = whole_numbers(frame, moments, self.time, self.spec.time_unit)
        return values, (unit, moments.dtype == pl.Date)


def clock_facts(spec: Spec, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How times become clocks, as `features.read.clock.add_clocks` does for whole tables.

    Returns:
        per_second, shortest, the last second of an impression, and per table (`""` for the impressions) unit
        and length of its ticks, and of those at which values are known.

    Raises:
        Unsteady: batches of one table were read in several units.
        DataError: a declared tick that does not fit.
    """
    tables: dict[str, dict[str, Any]] = {}
    for domain in (None, *timed_domains(spec)):
        own = [f for f in found if f["domain"] == domain]
        time = time_column(spec, spec.impressions if domain is None else spec.domains[domain])
        known = {
            value: _ticks_of([f["known"][value] for f in own], known_time(time, rule.known_at))
            for value, rule in time.known.items()
            if rule.known_at is not None
        }
        tables[domain or ""] = {**_ticks_of(own, time), "known": known}
    every = [column for table in tables.values() for column in (table, *table["known"].values())]
    per_second = max(PER_SECOND[column["unit"]] for column in every)
    for column in every:
        column["scale"] = per_second // PER_SECOND[column["unit"]]
    shortest = min((t["length"] * t["scale"] for t in tables.values() if t["rows"]), default=1)
    even = all(t["divisor"] * t["scale"] % shortest == 0 for t in tables.values())
    shown, facts = tables[""], {"per_second": per_second, "shortest": shortest if even else 1}
    last = 0 if shown["latest"] is None else shown["latest"] * shown["scale"] // per_second
    return {**facts, "last": last, "tables": tables}


def _ticks_of(found: Sequence[dict[str, Any]], time: TimeColumn) -> dict[str, Any]:
    """Unit and length of the ticks of one column, of all shares."""
    rows = sum(f["rows"] for f in found)
    forms = {(unit, is_date) for f in found for unit, is_date in f["forms"]}
    if len(forms) > 1:
        raise Unsteady(f"{time.what}: times are of several units or forms")
    unit, is_date = forms.pop() if forms else found[0]["empty"] or ("s", False)
    tick = 86_400.0 if is_date and time.tick is None else time.tick
    unit = unit if rows else unit_of_nothing(unit, tick)
    divisor = int(np.gcd.reduce([f["divisor"] for f in found], initial=0))
    head = [v for f in found for v in f["head"]][:_HEAD]
    length = tick_length(_times_like(head, divisor), unit, declared=tick, what=time.what)
    latest = max((f["latest"] for f in found if f["latest"] is not None), default=None)
    return {"unit": unit, "length": length, "rows": rows, "divisor": divisor, "latest": latest}


def width_facts(spec: Spec, found: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The length of each vector of the impressions (`""`) and of every domain.

    Raises:
        DataError: lists of several lengths.
    """
    domains = dict.fromkeys(share["domain"] for share in found)
    return {
        domain or "": one_widths(
            [share["widths"] for share in found if share["domain"] == domain], what=_named(spec, domain)
        )
        for domain in domains
    }


def one_widths(found: Sequence[dict[str, list[int]]], *, what: str) -> dict[str, int]:
    """Column → the one length of its vectors, where there are some.

    Args:
        found: of each share of the table, the smallest and largest lengths.
        what: the table, for messages.
    """
    columns = dict.fromkeys(column for share in found for column in share)
    every = {c: [width for share in found for width in share[c]] for c in columns}
    return {c: one_width(widths, what=f"{what}: column {c!r}") for c, widths in every.items()}


def _named(spec: Spec, domain: str | None) -> str:
    if domain is None:
        return table_name(spec.source, spec.impressions.table)
    return f"{table_name(spec.source, spec.domains[domain].table)}, domain {domain!r}"


def _times_like(head: list[int], divisor: int) -> pl.Series:
    """The first times, and, where there are more, one that shares its divisors with all of them."""
    return pl.Series([*head, divisor] if divisor and len(head) == _HEAD else head, dtype=pl.Int64)


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
