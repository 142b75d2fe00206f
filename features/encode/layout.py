"""The tables of a dataset directory, as features/dataset.py describes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from features.encode.encoded import Encoded
from features.encode.split import SplitRanges
from features.encode.targets import target_arrays, task_counts
from features.errors import DataError
from features.past.history import pointers
from features.read.clock import CLOCK, TIME
from features.read.log import Log
from features.spec import Spec
from features.store.manifest import DomainInfo, SplitInfo
from features.store.write import BATCH_ROWS

KNOWN_USER = "__known_user"  # a column of rows that stands for what `_known_users` finds


@dataclass(frozen=True)
class SplitTables:
    """One part: its requests, a slice at a time, its impressions and their counts."""

    requests: Iterator[pa.Table]
    impressions: pa.Table
    info: SplitInfo


def split_tables(
    name: str, log: Log, ranges: SplitRanges, encoded: Encoded, *, first_row: int = 0
) -> SplitTables:
    """The tables of one part.

    Args:
        name: train, valid or test.
        log: all rows and events.
        ranges: which rows belong to which part.
        encoded: the features of all rows.
        first_row: number of the first row, where they are a part of a log.
    """
    spec = encoded.spec
    low, high = ranges.of(name)
    rows = log.rows.slice(low, high - low)
    request = rows["__request"].to_numpy()
    first = np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]])[: len(request)])
    head = rows[first]
    seen = head[KNOWN_USER].to_numpy() if KNOWN_USER in head else _known_users(log.rows, head, ranges)
    requests = _request_keys(rows, first) | {"known_user": seen}
    requests |= _history(spec, log, requests, head)
    impressions = _impression_keys(rows, first_row + low, spec)
    own = {n: c.slice(low, high - low) for n, c in encoded.of_level("candidate").items()}
    info = SplitInfo(
        requests=len(first),
        impressions=rows.height,
        positives=int(rows["__label"].sum()),
        time_range=_range(rows[TIME]),
        clock_range=_range(rows[CLOCK]),
        tasks=task_counts(rows, {n for n, t in spec.impressions.tasks.items() if t.kind == "binary"}),
    )
    slices = _request_slices(requests, low + first, encoded)
    return SplitTables(slices, pa.table({**impressions, **own}), info)


def _request_slices(keys: dict[str, np.ndarray], first: np.ndarray, encoded: Encoded) -> Iterator[pa.Table]:
    """The keys beside the features of each request's first row, `first` (R,), which are gathered."""
    for low in range(0, max(len(first), 1), BATCH_ROWS):
        part = slice(low, low + BATCH_ROWS)
        at = pa.array(first[part])
        features = {n: c.take(at) for n, c in encoded.of_level("request").items()}
        yield pa.table({n: v[part] for n, v in keys.items()} | features)


def event_table(name: str, log: Log, encoded: Encoded) -> tuple[pa.Table, DomainInfo]:
    """The event store of one domain, and its counts."""
    events = log.events[name]
    columns = {"user_id": "__user", "time": TIME, "clock": CLOCK}
    keys = {column: events[source].to_arrow() for column, source in columns.items()}
    info = DomainInfo(
        events=events.height,
        max_len=encoded.spec.domains[name].max_len,
        side=encoded.side(name),
        time_range=_range(events[TIME]),
        tick=log.ticks.get(name) if log.ticks_differ else None,
        timed=encoded.spec.domains[name].from_list is None,
    )
    late = {f"known.{side}": clock for side, clock in encoded.known.get(name, {}).items()}
    return pa.table({**keys, **late, **encoded.of_domain(name)}), info


def _request_keys(rows: pl.DataFrame, first: np.ndarray) -> dict[str, np.ndarray]:
    """Who asked when for how many rows; `first` is the position of each request's first row."""
    columns = {"request_id": "__request", "user_id": "__user", "time": TIME, "clock": CLOCK}
    head = rows[first]
    keys = {column: head[source].to_numpy() for column, source in columns.items()}
    return keys | {"num_rows": np.diff(first, append=rows.height).astype(np.int64)}


def _known_users(rows: pl.DataFrame, head: pl.DataFrame, ranges: SplitRanges) -> np.ndarray:
    """Whether the user of each request has an earlier impression in the train part."""
    train = rows.slice(0, ranges.valid_start)
    seen = train.group_by("__user").agg(pl.col(CLOCK).min().alias("first"))
    first = head.join(seen, on="__user", how="left", maintain_order="left")["first"]
    return (first < head[CLOCK]).fill_null(False).to_numpy()


def _history(
    spec: Spec, log: Log, requests: dict[str, np.ndarray], head: pl.DataFrame
) -> dict[str, np.ndarray]:
    """The pointers of the requests into every event store."""
    columns = {}
    for name, domain in spec.domains.items():
        if f"__start.{name}" in head.columns:  # of lists, and where every row brings its own
            start, end = (head[f"__{part}.{name}"].to_numpy() for part in ("start", "end"))
            columns[f"start.{name}"] = np.maximum(start, end - domain.max_len)
            columns[f"end.{name}"] = end
            continue
        events = log.events[name]
        columns[f"start.{name}"], columns[f"end.{name}"] = pointers(
            events["__user"].to_numpy(),
            events[CLOCK].to_numpy(),
            at_user=requests["user_id"],
            at_clock=requests["clock"],
            max_len=domain.max_len,
        )
    return columns


def _impression_keys(rows: pl.DataFrame, first_row: int, spec: Spec) -> dict[str, np.ndarray | pa.Array]:
    """Row IDs, labels, items and evaluation slices."""
    columns: dict[str, np.ndarray | pa.Array] = {
        "row_id": first_row + np.arange(rows.height),
        "label": rows["__label"].to_numpy(),
        "item_id": rows["__item"].to_numpy(),
        **target_arrays(rows),
    }
    for name, column in spec.slices.items():
        if rows[column].dtype.is_nested():
            raise DataError(
                f"slice {name!r}: {column!r} must hold one value per row, got {rows[column].dtype}"
            )
        text = rows[column].cast(pl.String).fill_null("missing")
        columns[f"slice.{name}"] = text.to_arrow().cast(pa.string())
    return columns


def _range(values: pl.Series) -> tuple[int, int] | None:
    return (int(values.min()), int(values.max())) if values.count() else None  # type: ignore[arg-type]
