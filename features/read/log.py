"""The log in memory: impressions in time order, and the events of every domain.

Reserved columns: `__user`, `__item` (dense codes, −1 = none), `__clock`, `__time` (s); of rows `__request`
(dense code), `__label` and those of `features.read.targets`; of events `__outcome`, if their domain has one;
and `__known.COLUMN`, the clock at which a value is known, of columns with a rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from features.errors import DataError
from features.read.clock import CLOCK, ClockScale, add_clocks, time_bounds
from features.read.codes import all_keys, code_of
from features.read.columns import (
    Read,
    dense_columns,
    event_reads,
    event_rules,
    impression_reads,
    input_reads,
    made_columns,
    origin,
    raw_reads,
    row_rules,
    side_reads,
)
from features.read.entities import join_entity, read_entity
from features.read.event_labels import labels_of_whole_log
from features.read.explode import PLACE, explode, of_line
from features.read.ids import common_keys, key_values
from features.read.known_clock import OUTCOME
from features.read.labels import label_of
from features.read.listed import Lists, check_direction, store_lists, take_lists, timed_domains
from features.read.locate import FILE, LINE, ROW, locate, table_name
from features.read.moments import Side, moment_columns
from features.read.origin import Origin, file_starts
from features.read.requests import number_requests
from features.read.rows import read_columns
from features.read.targets import with_labels
from features.read.time_column import TimeColumn, as_declared
from features.read.zones import warn_of_zones
from features.spec import Domain, Impressions, Label, Spec

Tables = dict[str, pl.LazyFrame]


@dataclass
class Log:
    """Impressions and events.

    Attributes:
        rows: impressions of all splits, sorted by (clock, user, request, position or item).
        events: per domain, sorted by (user, clock); equal ones in an order that depends on their values only.
        users: the raw key of every user code.
        items: the raw key of every item code.
        origin: where each row stood in the raw impressions table.
        ticks: seconds that one logged time stands for, of each domain and (None) of the impressions.
        counters: what was dropped, repaired or merged.
        scale: what the clock is counted in without an `order`; None where the tables were not read whole.
    """

    rows: pl.DataFrame
    events: dict[str, pl.DataFrame]
    users: pl.Series
    items: pl.Series
    origin: Origin
    ticks: dict[str | None, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    scale: ClockScale | None = None

    @property
    def ticks_differ(self) -> bool:
        """Whether some table logs its times more coarsely than another."""
        return len(set(self.ticks.values())) > 1

    def frame(self, domain: str | None) -> pl.DataFrame:
        """The events of a domain, or, for None, the impressions."""
        return self.rows if domain is None else self.events[domain]

    def drop_unread(self, rest: Spec) -> None:
        """Let go of the columns that nothing in `rest`, what is left of the spec to be done, reads."""
        self.rows = only_read(self.rows, input_reads(rest))
        for name, events in self.events.items():
            self.events[name] = only_read(events, side_reads(rest, name))


def read_log(spec: Spec, tables: Tables) -> Log:
    """Read impressions and events, number users, items and requests, and join the entities.

    Args:
        spec: without patterns.
        tables: the raw tables as lazy frames.

    Raises:
        DataError: missing keys or times, bad labels, inconsistent requests, duplicate rows or entities.
    """
    counters: dict[str, int] = {}
    rows, lists = read_rows(spec, tables, counters)
    files = file_starts(rows)
    events = {name: read_events(spec, name, tables, counters) for name in timed_domains(spec)}
    rows, events, ticks, scale = _with_clocks(spec, rows, events)
    events = {name: lists[name].values if name in lists else events[name] for name in spec.domains}
    rows, events, users, items = _coded(spec, rows, events)
    rows = labels_of_whole_log(rows, events, spec, ticks=ticks, scale=scale, counters=counters)
    rows, counters["impressions.duplicates"] = number_requests(rows, of_line(spec.impressions))
    for name, own in lists.items():
        rows, events[name], found = store_lists(rows, name, own, events[name], counters)
        check_direction(found, spec, name)
    origin = Origin.of(rows, files)
    rows = only_read(rows.drop(ROW, LINE, PLACE, strict=False), input_reads(spec))
    log = Log(rows, events, users, items, origin, ticks, counters, scale)
    for name, domain in spec.domains.items():
        if domain.from_list is None:
            log.events[name] = sorted_events(log.events[name], [*key_columns(domain), *spec.order])
        log.events[name] = only_read(log.events[name], side_reads(spec, name))
    _join_entities(spec, log, tables)
    return log


def read_names(reads: Iterable[Read], kind: str) -> list[str]:
    """The names of one kind among what is read, each once."""
    return list(dict.fromkeys(name for k, name in (origin(c) for c, _ in reads) if k == kind))


def read_rows(spec: Spec, tables: Tables, counters: dict[str, int]) -> tuple[pl.DataFrame, dict[str, Lists]]:
    shown = spec.impressions
    what = table_name(spec.source, shown.table)
    keys = [shown.user, shown.item, *([shown.request] if shown.request else [])]
    table = tables[shown.table]
    rows = read_columns(
        table.with_row_index(ROW) if shown.where and ROW not in table.collect_schema() else table,
        read_names(raw_reads(spec), "own"),
        counters,
        where=shown.where,
        keys=[c for c in keys if c not in made_columns(shown)],
        times=[shown.time],
        dense=dense_columns(spec.features.values(), "own"),
        name="impressions",
        what=what,
    )
    rows = rows if ROW in rows.columns else rows.with_row_index(ROW)
    rows, lists = take_lists(rows, spec, what=what)
    rows = rows if shown.explode is None else explode(rows, spec, counters, what=what)
    for column in keys:
        if (missing := rows[column].is_null()).any():
            where = locate(rows, missing)
            raise DataError(
                f"{what}: {column!r} must not be missing in an impression, {where} lack it; drop them"
            )
    return narrow(with_labels(rows, shown, counters, what=what), keep=shown.time), lists


def read_events(spec: Spec, name: str, tables: Tables, counters: dict[str, int]) -> pl.DataFrame:
    domain = spec.domains[name]
    events = read_columns(
        tables[domain.table],
        read_names(event_reads(spec, name), "own"),
        counters,
        where=domain.where,
        keys=[c for c in (domain.user, domain.item) if c is not None],
        times=[domain.time],
        dense=dense_columns(domain.side.values(), "own"),
        name=f"events.{name}",
        what=f"{table_name(spec.source, domain.table)}, domain {name!r}",
    )
    whole = events.drop_nulls([domain.user, domain.time])
    if dropped := events.height - whole.height:
        counters[f"events.{name}.without_user_or_time"] = dropped
    outcome = [] if domain.outcome is None else [_outcome(whole, domain.outcome, name)]
    return narrow(whole, keep=domain.time).with_columns(outcome)


def _outcome(events: pl.DataFrame, outcome: Label, domain: str) -> pl.Series:
    """1, 0 or missing, as int8: the rule of a label, but an event may lack its outcome."""
    values = events[outcome.column]
    known = (values.fill_nan(None) if values.dtype.is_float() else values).is_not_null()
    labels = np.zeros(events.height, dtype=np.int8)
    labels[known.to_numpy()] = label_of(events.filter(known), outcome, what=f"domain {domain!r}").to_numpy()
    return pl.select(pl.when(known).then(pl.Series(labels)).alias(OUTCOME)).to_series()


def _with_clocks(
    spec: Spec, rows: pl.DataFrame, events: dict[str, pl.DataFrame]
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], dict[str | None, float], ClockScale]:
    roles: dict[str | None, Impressions | Domain] = {None: spec.impressions}
    roles.update(timed_domains(spec))
    times = {name: time_column(spec, role) for name, role in roles.items()}
    bounds = time_bounds(spec.time_range)
    warn_of_zones({None: rows, **events}, times)
    clocked, ticks, scale = add_clocks(
        {None: rows, **events}, times, unit=spec.time_unit, order=spec.order, bounds=bounds
    )
    rows, *rest = clocked.values()
    rest = [frame.drop(FILE, LINE, strict=False) for frame in rest]
    return rows.drop(FILE, strict=False), dict(zip(events, rest, strict=True)), ticks, scale


def time_column(spec: Spec, role: Impressions | Domain) -> TimeColumn:
    return replace(
        as_declared(spec.source, role.table, role.time, tick=role.tick),
        is_event=isinstance(role, Domain),
        known=event_rules(role) if isinstance(role, Domain) else row_rules(spec),
    )


def _coded(
    spec: Spec, rows: pl.DataFrame, events: dict[str, pl.DataFrame]
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], pl.Series, pl.Series]:
    """Rows and events with `__user` and `__item`, and the raw keys of users and items."""
    frames = [rows, *events.values()]
    roles: list[Impressions | Domain] = [spec.impressions, *spec.domains.values()]
    keys: dict[str, pl.Series] = {}
    for what in ("user", "item"):
        columns = [
            key_column(frame, _key_of(role, what), f"{table_name(spec.source, role.table)}, {what} column")
            for frame, role in zip(frames, roles, strict=True)
        ]
        keys[what] = all_keys(common_keys([c for c in columns if c is not None]))
        for i, column in enumerate(columns):
            codes = np.full(frames[i].height, -1) if column is None else code_of(column, keys[what])
            frames[i] = frames[i].with_columns(pl.Series(f"__{what}", codes))
    return frames[0], dict(zip(events, frames[1:], strict=True)), keys["user"], keys["item"]


def _key_of(role: Impressions | Domain, what: str) -> str | None:
    """The column of users or items; of lists, the users are those of the rows."""
    listed = isinstance(role, Domain) and role.from_list is not None
    return None if listed and what == "user" else getattr(role, what)


def key_column(frame: pl.DataFrame, column: str | None, what: str) -> pl.Series | None:
    return None if column is None else key_values(frame[column], what=f"{what} {column!r}")


def narrow(frame: pl.DataFrame, *, keep: str | None = None) -> pl.DataFrame:
    """Integers in the smallest type that holds them, but for `keep`: the same values in less memory."""
    wide = [c for c in frame.columns if frame[c].dtype.is_integer() and c != keep and not c.startswith("__")]
    return frame.with_columns(frame[c].shrink_dtype() for c in wide)


def only_read(frame: pl.DataFrame, reads: Iterable[Read]) -> pl.DataFrame:
    """The reserved columns and those that are read."""
    wanted = {column for column, _ in reads}
    return frame.select(c for c in frame.columns if c.startswith("__") or c in wanted)


def key_columns(role: Impressions | Domain) -> list[str]:
    return [c for c in (role.user, role.item, role.time) if c is not None]


def sorted_events(events: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Sort by (user, clock), then by the values, so that the order of the input does not matter.

    `keys` are the columns that user, item and clock were made of: they cannot differ where those agree.
    """
    own = [c for c in sorted(events.columns) if not c.startswith("__") and c not in keys]
    values = [pl.col(c).hash() if events[c].dtype.is_nested() else pl.col(c) for c in own]
    return events.sort("__user", CLOCK, "__item", *values)


def _join_entities(spec: Spec, log: Log, tables: Tables) -> None:
    """Add the `user.*` and `item.*` columns that are read to the rows, and `item.*` to the events."""
    shown = list(impression_reads(spec))

    def read(what: Side, keys: pl.Series, reads: list[Read]) -> pl.DataFrame:
        return read_entity(spec, what, read_names(reads, what), log.counters, keys=keys, tables=tables)

    if spec.user is not None:
        users = read("user", log.users, shown)
        log.rows = join_entity(log.rows, users, "user", log.counters, keys=log.users, what="impressions")
    if spec.item is None:
        return
    reads = {name: list(event_reads(spec, name)) for name, domain in spec.domains.items() if domain.item}
    items = narrow(read("item", log.items, [*shown, *(r for domain in reads.values() for r in domain)]))
    side = only_columns(items, shown).with_columns(items.select(moment_columns(spec, "item")))
    log.rows = join_entity(log.rows, side, "item", log.counters, keys=log.items, what="impressions")
    for name, own in reads.items():
        side, what = only_columns(items, own), f"events.{name}"
        events = join_entity(log.events[name], side, "item", log.counters, keys=log.items, what=what)
        log.events[name] = events.drop("__item")


def only_columns(items: pl.DataFrame, reads: list[Read]) -> pl.DataFrame:
    """The item columns that one side reads."""
    return items.select("__item", *(f"item.{c}" for c in read_names(reads, "item")))
