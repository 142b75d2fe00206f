"""The log in memory: impressions in time order and the events of every domain, with codes, clocks and entities.

Reserved columns: `__user`, `__item` (dense codes, −1 = none), `__request` (dense code, rows only), `__clock`, `__time` (s),
`__label` (rows only), `__outcome` (events of a domain that has one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.clock import CLOCK, TimeColumn, add_clocks
from features.columns import Read, event_reads, feature_columns, impression_reads, origin
from features.errors import DataError
from features.codes import all_keys, code_of, common_type, key_values
from features.labels import ROW, drop_duplicates, label_of
from features.scan import collect
from features.spec import Domain, Entity, Spec

Tables = dict[str, pl.LazyFrame]


@dataclass
class Log:
    """Impressions and events.

    Attributes:
        rows: impressions of all splits, sorted by (clock, user, request, position or item).
        events: per domain, sorted by (user, clock); equal ones in an order that depends on their values only.
        users: the raw key of every user code.
        items: the raw key of every item code.
        counters: what was dropped, repaired or merged.
    """

    rows: pl.DataFrame
    events: dict[str, pl.DataFrame]
    users: pl.Series
    items: pl.Series
    counters: dict[str, int] = field(default_factory=dict)


def read_log(spec: Spec, tables: Tables) -> Log:
    """Read impressions and events, number users, items and requests, and join the entities.

    Args:
        spec: without patterns.
        tables: the raw tables as lazy frames.

    Raises:
        DataError: missing keys or times, bad labels, inconsistent requests, duplicate rows or entities.
    """
    counters: dict[str, int] = {}
    rows = _read_rows(spec, tables)
    events = {name: _read_events(spec, name, tables, counters) for name in spec.domains}
    rows, events = _with_clocks(spec, rows, events)
    log = _coded(spec, rows, events, counters)
    log.rows = _number_requests(spec, log.rows, counters)
    log.events = {name: _sorted_events(frame) for name, frame in log.events.items()}
    _join_entities(spec, log, tables)
    return log


def _own(reads: Iterable[Read]) -> list[str]:
    """The own columns among what is read, each once."""
    return list(dict.fromkeys(name for kind, name in (origin(c) for c, _ in reads) if kind == "own"))


def _read_rows(spec: Spec, tables: Tables) -> pl.DataFrame:
    shown = spec.impressions
    what = f"table {shown.table!r}"
    rows = collect(tables[shown.table].select(_own(impression_reads(spec))), what=what)
    for column in (shown.user, shown.item, *([shown.request] if shown.request else [])):
        if count := rows[column].null_count():
            first = rows[column].is_null().arg_true().head(5).to_list()
            raise DataError(
                f"{what}: column {column!r} must not be missing in an impression, {count} rows lack it, "
                f"the first are rows {first}; drop these rows"
            )
    label = label_of(rows[shown.label.column], shown.label, what=what)
    return rows.with_columns(label.alias("__label")).with_row_index(ROW)


def _read_events(spec: Spec, name: str, tables: Tables, counters: dict[str, int]) -> pl.DataFrame:
    domain = spec.domains[name]
    frame = tables[domain.table].select(_own(event_reads(spec, name)))
    for column, values in domain.where.items():
        frame = frame.filter(pl.col(column).is_in(values))
    events = collect(frame, what=f"table {domain.table!r} (domain {name!r})")
    whole = events.drop_nulls([domain.user, domain.time])
    if dropped := events.height - whole.height:
        counters[f"events.{name}.without_user_or_time"] = dropped
    if domain.outcome is None:
        return whole
    return whole.with_columns(_outcome(whole[domain.outcome], f"domain {name!r}"))


def _outcome(values: pl.Series, what: str) -> pl.Series:
    """0, 1 or missing, as int8."""
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise DataError(
            f"{what}: outcome {values.name!r} must be 0 or 1, got {values.dtype}; convert the column"
        )
    numbers = values.cast(pl.Float64).fill_nan(None)
    if len(wrong := numbers.drop_nulls().filter((n := numbers.drop_nulls()).ne(0) & n.ne(1))):
        raise DataError(
            f"{what}: outcome {values.name!r} must be 0, 1 or missing, {len(wrong)} values are not, such as "
            f"{wrong.head(3).to_list()}; make a 0/1 column"
        )
    return numbers.cast(pl.Int8).alias("__outcome")


def _with_clocks(
    spec: Spec, rows: pl.DataFrame, events: dict[str, pl.DataFrame]
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    shown = spec.impressions
    times = {"rows": TimeColumn(shown.time, f"table {shown.table!r}, column {shown.time!r}")}
    frames = {"rows": rows}
    for name, domain in spec.domains.items():
        frames[f"events.{name}"] = events[name]
        times[f"events.{name}"] = TimeColumn(domain.time, f"table {domain.table!r}, column {domain.time!r}")
    frames = add_clocks(frames, times, unit=spec.time_unit, order=spec.order)
    return frames["rows"], {name: frames[f"events.{name}"] for name in spec.domains}


def _coded(spec: Spec, rows: pl.DataFrame, events: dict[str, pl.DataFrame], counters: dict[str, int]) -> Log:
    """Give rows and events `__user` and `__item`."""
    frames = [rows, *events.values()]
    roles: list[Domain] = [spec.impressions, *spec.domains.values()]  # type: ignore[list-item]
    keys: dict[str, pl.Series] = {}
    for what in ("user", "item"):
        columns = [_key_column(f, getattr(role, what), what) for f, role in zip(frames, roles, strict=True)]
        present = [c for c in columns if c is not None]
        keys[what] = all_keys(common_type(present))
        for i, column in enumerate(columns):
            codes = code_of(column, keys[what]) if column is not None else np.full(frames[i].height, -1)
            frames[i] = frames[i].with_columns(pl.Series(f"__{what}", codes))
    return Log(frames[0], dict(zip(events, frames[1:], strict=True)), keys["user"], keys["item"], counters)


def _key_column(frame: pl.DataFrame, column: str | None, what: str) -> pl.Series | None:
    return key_values(frame[column], what=f"{what} {column!r}") if column is not None else None


def _number_requests(spec: Spec, rows: pl.DataFrame, counters: dict[str, int]) -> pl.DataFrame:
    """Sort the rows, check the requests, drop duplicates and number the requests in time order."""
    shown = spec.impressions
    request = [pl.col("__user"), pl.col(CLOCK)]
    if shown.request is not None:
        rows = rows.with_columns(
            key_values(rows[shown.request], what=f"request {shown.request!r}").alias("__request")
        )
        _check_requests(rows, shown.request)
        request = [pl.col("__request")]
    by = [
        CLOCK,
        "__user",
        *(["__request"] if shown.request else []),
        *([shown.position] if shown.position else []),
    ]
    rows = rows.sort([*by, "__item", ROW])
    same = ["__user", "__item", CLOCK, *(["__request"] if shown.request else [])]
    rows, counters["impressions.duplicates"] = drop_duplicates(
        rows, same, shown.dedup, what=f"table {shown.table!r}"
    )
    changed = pl.any_horizontal(c != c.shift(1) for c in request).fill_null(False)
    rows = rows.with_columns(changed.cum_sum().cast(pl.Int64).alias("__request"))
    _check_context(rows, spec)
    return rows


def _check_requests(rows: pl.DataFrame, column: str) -> None:
    """All rows of a request must be of one user and one clock."""
    for part, what in (("__user", "user"), (CLOCK, "time (or order)")):
        spread = rows.group_by("__request").agg((pl.col(part).min() != pl.col(part).max()).alias("wrong"))
        wrong = spread.filter("wrong")["__request"].sort()
        if len(wrong):
            raise DataError(
                f"all rows of a request must have one {what}, but {len(wrong)} requests ({column!r}) have several: "
                f"{wrong.head(5).to_list()}; correct the IDs, or leave impressions.request out"
            )


def _check_context(rows: pl.DataFrame, spec: Spec) -> None:
    """Columns that are declared to belong to the request must not change inside one."""
    inside = pl.col("__request") == pl.col("__request").shift(1)
    for column in spec.impressions.context:
        wrong = rows.filter(inside & pl.col(column).ne_missing(pl.col(column).shift(1)))
        if wrong.height:
            first = wrong["__request"][0]
            name = spec.impressions.request
            shown = rows.filter(pl.col("__request") == first)
            which = f"{name} {shown[name][0]!r}" if name else f"user {shown[spec.impressions.user][0]!r}"
            raise DataError(
                f"context column {column!r} must be the same in all rows of a request, but differs in "
                f"{wrong['__request'].n_unique()}; the first is {which} with {shown[column].head(5).to_list()}; "
                "take it out of impressions.context"
            )


def _sorted_events(events: pl.DataFrame) -> pl.DataFrame:
    """Sort by (user, clock), then by the values, so that the order of the input does not matter."""
    scalars = sorted(c for c in events.columns if not c.startswith("__") and not events[c].dtype.is_nested())
    nested = [pl.col(c).hash() for c in sorted(events.columns) if events[c].dtype.is_nested()]
    return events.sort("__user", CLOCK, "__item", *scalars, *nested)


def _join_entities(spec: Spec, log: Log, tables: Tables) -> None:
    """Add the `user.*` and `item.*` columns that are read."""
    for what, entity, keys in (("user", spec.user, log.users), ("item", spec.item, log.items)):
        if entity is None:
            continue
        reads = list(impression_reads(spec))
        log.rows = _joined(log, log.rows, what, entity, keys, reads, tables, "impressions")
        for name, domain in spec.domains.items():
            if what == "item" and domain.item is not None:
                reads = list(event_reads(spec, name))
                log.events[name] = _joined(
                    log, log.events[name], what, entity, keys, reads, tables, f"events.{name}"
                )


def _joined(
    log: Log,
    frame: pl.DataFrame,
    what: str,
    entity: Entity,
    keys: pl.Series,
    reads: list[Read],
    tables: Tables,
    counter: str,
) -> pl.DataFrame:
    """Left join of one entity by code; rows of unknown entities are counted."""
    columns = list(dict.fromkeys(n for kind, n in (origin(c) for c, _ in reads) if kind == what))
    side = _entity_frame(entity, columns, what, keys, tables)
    code = f"__{what}"
    unknown = frame.filter((pl.col(code) >= 0) & ~pl.col(code).is_in(side[code].implode())).height
    if unknown:
        log.counters[f"{counter}.unknown_{what}"] = unknown
    return frame.join(side, on=code, how="left", maintain_order="left")


def _entity_frame(
    entity: Entity, columns: list[str], what: str, keys: pl.Series, tables: Tables
) -> pl.DataFrame:
    """The entity's columns under their full names, by code; entities that never occur are left out."""
    name = f"table {entity.table!r} ({what})"
    side = collect(tables[entity.table].select(list(dict.fromkeys([entity.key, *columns]))), what=name)
    side = side.drop_nulls(entity.key)
    repeated = side[entity.key].filter(side[entity.key].is_duplicated()).unique().sort()
    if len(repeated):
        raise DataError(
            f"{name} must have one row per {entity.key!r}, but {len(repeated)} have several: "
            f"{repeated.head(5).to_list()}; keep one row each"
        )
    codes = code_of(key_values(side[entity.key], what=f"{name}, {entity.key!r}"), keys)
    named = side.select(pl.col(c).alias(f"{what}.{c}") for c in columns)
    return named.with_columns(pl.Series(f"__{what}", codes)).filter(pl.col(f"__{what}") >= 0)


__all__ = ["Log", "feature_columns", "read_log"]
