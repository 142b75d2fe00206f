"""From the columns of a window and the event stores to a Batch: take rows, cut histories, make IDs unique.

B candidates, R requests, L events of one request, U unique IDs of one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn, SequenceBatch
from ctr.loader.columns import Columns, WindowData, event_columns, hide_unknown, ranges
from ctr.loader.id_dropout import IdDropout
from ctr.loader.targets import OFFSET, make_targets
from ctr.tokens.ngram import NgramField, ngram_ids
from features.dataset import Column, EventStore, IdValues, Manifest
from features.errors import DataError
from kernels.unique import unique_ids

# The level of a column: one of the first two, or a domain's name behind the prefix.
REQUEST, CANDIDATE, EVENT = "request", "candidate", "event."

ColumnKey = tuple[str, str]  # (level, feature)


@dataclass(frozen=True)
class PackedHistory:
    """The events of the requests of a batch, in one domain."""

    offsets: np.ndarray  # int64 (R + 1,)
    time_gap: np.ndarray  # float32 (ΣL,)
    clock_gap: np.ndarray  # int64 (ΣL,)
    events: Columns


class Collator:
    """Makes batches of one data set.

    Args:
        manifest: of the data set.
        stores: event store of each domain.
        max_len: at most so many of the newest events, for each domain.
        ngrams: fields whose events also have IDs in n-gram tables.
        id_dropout: in training, which IDs become unknown.
        row_maps: of a data set that is read as another (`Dataset.read_as`).
    """

    def __init__(
        self,
        manifest: Manifest,
        stores: Mapping[str, EventStore],
        max_len: Mapping[str, int],
        ngrams: Sequence[NgramField] = (),
        *,
        id_dropout: IdDropout | None = None,
        row_maps: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        self.id_dropout = id_dropout
        self.row_maps = row_maps
        self.tasks = manifest.tasks
        self.table_of = column_tables(manifest, ngrams)
        self.rows = table_rows(manifest, ngrams)
        self.ngrams = ngrams
        self.events = {domain: event_columns(store) for domain, store in stores.items()}
        self.max_len = max_len
        self.timed = {domain: store.info.timed for domain, store in stores.items()}
        self.known_later = {d: [c for c in s.info.side if c.known_later] for d, s in stores.items()}

    def __call__(self, window: WindowData, picked: np.ndarray, epoch: int = 0) -> Batch:
        """The batch of the requests at the positions `picked` of a window; an epoch has its own ID dropout.

        Raises:
            DataError: an event after its request, a pointer outside the event store, an ID outside its table.
        """
        requests = window.requests.take(picked)
        starts = window.row_offsets[picked]
        rows, row_offsets = ranges(starts, window.row_offsets[picked + 1] - starts)
        candidates = window.impressions.take(rows)
        histories = {domain: self._history(domain, requests.plain) for domain in self.events}
        ids_of = {(REQUEST, name): ids for name, ids in requests.ids.items()}
        ids_of |= {(CANDIDATE, name): ids for name, ids in candidates.ids.items()}
        for domain, history in histories.items():
            ids_of |= {(EVENT + domain, name): ids for name, ids in history.events.ids.items()}
        ids_of = {key: self._mapped(key, ids) for key, ids in ids_of.items()} if self.row_maps else ids_of
        if self.id_dropout is not None:
            bags = {REQUEST: np.arange(len(picked) + 1), CANDIDATE: row_offsets}
            bags |= {EVENT + domain: history.offsets for domain, history in histories.items()}
            ids_of = self._dropped(self.id_dropout, ids_of, requests.plain["request_id"], bags, epoch)
        for field in self.ngrams:
            base = ids_of[EVENT + field.domain, field.column.name].values
            found = ngram_ids(base, histories[field.domain].offsets, field)
            ids_of |= {(EVENT + field.domain, name): IdValues(ids) for name, ids in found.items()}
        unique, columns = self._make_unique(ids_of)
        offset = candidates.plain.get(OFFSET)
        return Batch(
            unique_ids=unique,
            request_ids=_of_level(columns, REQUEST),
            request_dense=_tensors(requests.dense),
            candidate_ids=_of_level(columns, CANDIDATE),
            candidate_dense=_tensors(candidates.dense),
            sequences={d: _sequence(h, _of_level(columns, EVENT + d)) for d, h in histories.items()},
            request_index=torch.from_numpy(np.repeat(np.arange(len(picked)), np.diff(row_offsets))),
            targets=make_targets(self.tasks, candidates.plain),
            row_id=_tensor(candidates.plain["row_id"], np.int64),
            request_id=_tensor(requests.plain["request_id"], np.int64),
            user_id=_tensor(requests.plain["user_id"], np.int64),
            time=_tensor(requests.plain["time"], np.int64),
            offset=None if offset is None else _tensor(offset, np.float32),
        )

    def _mapped(self, key: ColumnKey, ids: IdValues) -> IdValues:
        """The rows of the model's table for those of the files.

        Raises:
            DataError: a row that the table of the files does not have.
        """
        rows, values = self.row_maps.get(self.table_of[key]), ids.values
        if rows is None or not len(values):
            return ids
        if values.min() < 0 or values.max() >= len(rows):
            raise DataError(
                f"IDs of {' '.join(key)} must lie in [0, {len(rows)}) (the rows of table "
                f"{self.table_of[key]!r}), got {values.min()} to {values.max()}; run ctr prepare again"
            )
        return replace(ids, values=rows[values])

    def _dropped(
        self,
        dropout: IdDropout,
        ids_of: dict[ColumnKey, IdValues],
        request_id: np.ndarray,
        offsets: dict[str, np.ndarray],
        epoch: int,
    ) -> dict[ColumnKey, IdValues]:
        """The IDs with some of them unknown; `offsets` (R + 1,) tell the bags of each request by level."""
        found = dict(ids_of)
        for (level, name), ids in ids_of.items():
            owner = np.repeat(request_id, np.diff(offsets[level]))
            owner = owner if ids.offsets is None else np.repeat(owner, np.diff(ids.offsets))
            values = dropout(self.table_of[level, name], ids.values, owner, epoch=epoch)
            found[level, name] = replace(ids, values=values)
        return found

    def _history(self, domain: str, requests: dict[str, np.ndarray]) -> PackedHistory:
        """The newest events of each request, at most `max_len`, up to the end of the request's pointer."""
        stop = requests[f"end.{domain}"].astype(np.int64)
        start = np.maximum(requests[f"start.{domain}"].astype(np.int64), stop - self.max_len[domain])
        stored = len(self.events[domain].plain["time"])
        bad = (start < 0) | (stop < start) | (stop > stored)
        if bad.any():
            i = int(bad.argmax())
            raise DataError(
                f"request {requests['request_id'][i]} must point into the {stored} events of domain "
                f"{domain!r}, got {start[i]} to {stop[i]}; run ctr prepare again"
            )
        rows, offsets = ranges(start, stop - start)
        events = self.events[domain].take(rows)
        if late := self.known_later[domain]:
            events = hide_unknown(events, late, np.repeat(requests["clock"], stop - start))
        clock_gap = _clock_gap(requests, stop - start, events.plain["clock"])
        if not self.timed[domain]:
            return PackedHistory(offsets, np.zeros(len(rows), dtype=np.float32), clock_gap, events)
        gap = np.repeat(requests["time"], stop - start) - events.plain["time"]
        if len(gap) and gap.min() < 0:
            _refuse_future_event(domain, requests, offsets, gap)
        return PackedHistory(offsets, gap.astype(np.float32), clock_gap, events)

    def _make_unique(
        self, ids_of: dict[ColumnKey, IdValues]
    ) -> tuple[dict[str, Tensor], dict[ColumnKey, IdColumn]]:
        """The unique IDs of every table, and every column as inverse indices into those of its table."""
        unique: dict[str, Tensor] = {}
        columns: dict[ColumnKey, IdColumn] = {}
        for table in dict.fromkeys(self.table_of.values()):
            members = [key for key in ids_of if self.table_of[key] == table]
            try:
                found, inverse = unique_ids([ids_of[key].values for key in members], rows=self.rows[table])
            except ValueError as error:
                names = ", ".join(f"{level} {name}" for level, name in members)
                raise DataError(
                    f"table {table!r} (used by {names}): {error}; run ctr prepare again"
                ) from None
            unique[table] = torch.from_numpy(found)
            columns |= {
                key: _id_column(ids_of[key], part) for key, part in zip(members, inverse, strict=True)
            }
        return unique, {key: columns[key] for key in ids_of}


def batch_columns(batch: Batch) -> dict[ColumnKey, IdColumn]:
    """All ID columns of a batch."""
    of_level = {REQUEST: batch.request_ids, CANDIDATE: batch.candidate_ids}
    of_level |= {EVENT + domain: sequence.ids for domain, sequence in batch.sequences.items()}
    return {(level, name): column for level, columns in of_level.items() for name, column in columns.items()}


def column_tables(manifest: Manifest, ngrams: Sequence[NgramField] = ()) -> dict[ColumnKey, str]:
    """The embedding table of every ID column; a column of n-grams is named as its table."""
    columns: list[tuple[str, Column]] = [(c.level, c) for c in manifest.features]
    columns += [(EVENT + domain, c) for domain, info in manifest.domains.items() for c in info.side]
    tables = {(level, c.name): c.table for level, c in columns if c.table is not None}
    return tables | {(EVENT + field.domain, t.name): t.name for field in ngrams for t in field.tables}


def table_rows(manifest: Manifest, ngrams: Sequence[NgramField] = ()) -> dict[str, int]:
    """The number of rows of every embedding table."""
    rows = {table: info.rows for table, info in manifest.tables.items()}
    return rows | {table.name: table.rows for field in ngrams for table in field.tables}


def _clock_gap(requests: dict[str, np.ndarray], lengths: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Ticks from each event to its request; to tick 0 where a request that is served live has no clock.

    Only the order of one request's events is read from it, which no moment of the request changes.
    """
    now = requests.get("clock")
    return -clock if now is None else np.repeat(now, lengths) - clock


def _refuse_future_event(
    domain: str, requests: dict[str, np.ndarray], offsets: np.ndarray, gap: np.ndarray
) -> None:
    event = int(gap.argmin())
    i = int(np.searchsorted(offsets, event, side="right")) - 1
    raise DataError(
        f"future event: every event must be before its request, but request {requests['request_id'][i]} at "
        f"{requests['time'][i]} s has an event of domain {domain!r} {-gap[event]} s later; "
        "run ctr doctor on the data set"
    )


def _sequence(history: PackedHistory, ids: dict[str, IdColumn]) -> SequenceBatch:
    lengths = np.diff(history.offsets)
    return SequenceBatch(
        offsets=torch.from_numpy(history.offsets),
        max_length=int(lengths.max()) if len(lengths) else 0,
        time_gap=torch.from_numpy(history.time_gap),
        clock_gap=torch.from_numpy(history.clock_gap),
        ids=ids,
        dense=_tensors(history.events.dense),
    )


def _id_column(ids: IdValues, inverse: np.ndarray) -> IdColumn:
    offsets = None if ids.offsets is None else torch.from_numpy(ids.offsets)
    weights = None if ids.weights is None else torch.from_numpy(ids.weights)
    return IdColumn(torch.from_numpy(inverse), offsets, weights)


def _of_level(columns: dict[ColumnKey, IdColumn], level: str) -> dict[str, IdColumn]:
    return {name: column for (own, name), column in columns.items() if own == level}


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _tensor(values: np.ndarray, dtype: type[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(dtype, copy=False))
