"""Columns of requests, impressions or events as numpy arrays, and picking rows of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctr.loader.row_counts import Window, rows_of
from ctr.loader.targets import sampling_offset, target_columns
from features.dataset import Column, EventStore, IdValues, Manifest, SplitData, dense_values, id_values


@dataclass(frozen=True)
class Columns:
    """Plain values, IDs and dense features of the same rows: requests, impressions or events."""

    plain: dict[str, np.ndarray]
    ids: dict[str, IdValues]
    dense: dict[str, np.ndarray]  # float32 (rows, dim)

    def take(self, rows: np.ndarray) -> Columns:
        """The rows at these positions, copied."""
        return Columns(
            {name: values.take(rows) for name, values in self.plain.items()},
            {name: take_ids(values, rows) for name, values in self.ids.items()},
            {name: values.take(rows, axis=0) for name, values in self.dense.items()},
        )


@dataclass(frozen=True)
class WindowData:
    """The columns of one window: its requests and, request by request, their impressions."""

    requests: Columns
    impressions: Columns
    row_offsets: np.ndarray  # int64 (requests + 1,): rows of each request in `impressions`


def read_window(data: SplitData, window: Window, manifest: Manifest) -> WindowData:
    """Map the columns of a window; copies only those that cross record batches."""
    counts = rows_of(data.requests["num_rows"], window.start, window.stop)
    shown = data.impressions.slice(window.first_row, window.totals.rows)
    pointers = [f"{side}.{domain}" for domain in manifest.domains for side in ("start", "end")]
    impressions = read_columns(
        shown,
        [c for c in manifest.features if c.level == "candidate"],
        ["row_id", *target_columns(manifest.tasks)],
    )
    impressions.plain.update(sampling_offset(shown, manifest))
    return WindowData(
        read_columns(
            data.requests.slice(window.start, window.stop - window.start),
            [c for c in manifest.features if c.level == "request"],
            ["request_id", "user_id", "time", "clock", *pointers],
        ),
        impressions,
        np.concatenate([[0], np.cumsum(counts)]),
    )


def read_columns(table: pa.Table, features: Iterable[Column], plain: Iterable[str]) -> Columns:
    """The named plain columns and the given features of a table."""
    features = list(features)
    return Columns(
        {name: table[name].to_numpy() for name in plain},
        {c.name: id_values(table, c) for c in features if c.kind != "dense"},
        {c.name: dense_values(table, c) for c in features if c.kind == "dense"},
    )


def event_columns(store: EventStore) -> Columns:
    """The columns of all events of a domain."""
    known = {f"known.{side}": clock for side, clock in store.known.items()}
    return Columns({"time": store.time, "clock": store.clock, **known}, store.ids, store.dense)


def hide_unknown(events: Columns, side: Iterable[Column], clock: np.ndarray) -> Columns:
    """Fields that are known only later than the request become missing.

    Args:
        events: of histories, copied.
        side: the domain's fields.
        clock: int64 (events,) of the request that each event is in the history of.
    """
    ids, dense = dict(events.ids), dict(events.dense)
    for column in (c for c in side if c.known_later):
        seen = events.plain[f"known.{column.name}"] < clock
        if column.kind == "dense":
            missing = np.array([name.endswith(".missing") for name in column.fields], dtype=np.float32)
            dense[column.name] = np.where(seen[:, None], dense[column.name], missing)
        else:
            ids[column.name] = _only_seen(ids[column.name], seen)
    return Columns(events.plain, ids, dense)


def _only_seen(values: IdValues, seen: np.ndarray) -> IdValues:
    """The IDs of the owners that are seen, 0 or an empty list for the others."""
    if values.offsets is None:
        return IdValues(np.where(seen, values.values, values.values.dtype.type(0)))
    lengths = np.diff(values.offsets)
    kept = np.repeat(seen, lengths)
    _, offsets = ranges(np.zeros(len(seen), dtype=np.int64), np.where(seen, lengths, 0))
    weights = None if values.weights is None else values.weights[kept]
    return IdValues(values.values[kept], offsets, weights)


def take_ids(values: IdValues, rows: np.ndarray) -> IdValues:
    """The IDs of the rows at these positions, copied."""
    if values.offsets is None:
        return IdValues(values.values.take(rows))
    starts = values.offsets.take(rows)
    lengths = values.offsets.take(rows + 1) - starts
    entries, offsets = ranges(starts, lengths)
    weights = None if values.weights is None else values.weights.take(entries)
    return IdValues(values.values.take(entries), offsets, weights)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate the ranges starts[i] … starts[i] + lengths[i] − 1.

    Returns:
        The positions (Σ lengths,) int64, and where each range begins in them (ranges + 1,) int64.

    Example:
        >>> positions, offsets = ranges(np.array([7, 3]), np.array([2, 3]))
        >>> positions.tolist(), offsets.tolist()
        ([7, 8, 3, 4, 5], [0, 2, 5])
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    positions = np.repeat(starts - offsets[:-1], lengths)
    positions += np.arange(len(positions))
    return positions, offsets
