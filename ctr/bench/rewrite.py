"""Batches rewritten as they would be without an optimisation; models compute the same from them.

B candidates, R requests, L events of one request, U unique IDs of one table, V IDs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn, SequenceBatch, take_bags, take_events, take_histories
from ctr.blocks.jagged import offsets_of
from ctr.loader.collate import CANDIDATE, EVENT, REQUEST, column_tables
from features.dataset import Manifest


def unshare(batch: Batch) -> Batch:
    """Every candidate as a request of its own (R = B): user, context and histories once per row."""
    index = batch.request_index
    return take_requests(batch, index, request_index=torch.arange(batch.num_rows, device=index.device))


def take_requests(batch: Batch, picked: Tensor, *, request_index: Tensor) -> Batch:
    """The requests `picked` (R',) with the same candidates; `request_index` (B,) is the request of each."""
    return replace(
        batch,
        request_ids={name: take_bags(column, picked) for name, column in batch.request_ids.items()},
        request_dense={name: values[picked] for name, values in batch.request_dense.items()},
        sequences={name: take_histories(events, picked) for name, events in batch.sequences.items()},
        request_index=request_index,
        request_id=batch.request_id[picked],
        user_id=batch.user_id[picked],
        time=batch.time[picked],
    )


def pad_events(batch: Batch) -> Batch:
    """As many events as if every history were padded to the longest of its domain.

    The padding stands in requests without candidates, behind the others, so that the loss is that of the
    packed batch to the last rounding. Projections, feed-forward parts, norms, time features and embeddings
    meet R · max L events, as in a padded implementation; attention meets no more than there.
    """
    missing = {
        name: batch.num_requests * events.max_length - len(events.time_gap)
        for name, events in batch.sequences.items()
    }
    extra = max(-(-lack // max(1, batch.sequences[name].max_length)) for name, lack in missing.items())
    if extra == 0:
        return batch
    requests = torch.arange(batch.num_requests)
    picked = torch.cat([requests, torch.zeros(extra, dtype=torch.int64)])
    padded = take_requests(batch, picked, request_index=batch.request_index)
    sequences = {name: _padded(batch.sequences[name], lack, extra) for name, lack in missing.items()}
    return replace(padded, sequences=sequences)


def _padded(events: SequenceBatch, lack: int, extra: int) -> SequenceBatch:
    """`lack` more events in `extra` more requests: copies of the first event."""
    full, rest = divmod(lack, max(1, events.max_length))
    lengths = torch.zeros(extra, dtype=torch.int64)
    lengths[:full] = events.max_length
    if rest:
        lengths[full] = rest
    kept = torch.arange(len(events.time_gap))
    index = torch.cat([kept, torch.zeros(lack, dtype=torch.int64)])
    return take_events(events, index, offsets_of(torch.cat([events.offsets.diff(), lengths])))


def unpool(batch: Batch, manifest: Manifest) -> Batch:
    """IDs are not made unique: `unique_ids` becomes (V,), with a row of its own for every ID of a column."""
    table_of = column_tables(manifest)
    travelling: dict[str, list[Tensor]] = {table: [] for table in batch.unique_ids}
    used = dict.fromkeys(batch.unique_ids, 0)

    def spread(level: str, columns: dict[str, IdColumn]) -> dict[str, IdColumn]:
        changed = {}
        for name, column in columns.items():
            table = table_of.get((level, name), name)  # n-grams are named as their table
            count = len(column.inverse_indices)
            travelling[table].append(batch.unique_ids[table][column.inverse_indices])
            changed[name] = replace(column, inverse_indices=torch.arange(used[table], used[table] + count))
            used[table] += count
        return changed

    sequences = {
        name: replace(events, ids=spread(EVENT + name, events.ids))
        for name, events in batch.sequences.items()
    }
    return replace(
        batch,
        request_ids=spread(REQUEST, batch.request_ids),
        candidate_ids=spread(CANDIDATE, batch.candidate_ids),
        sequences=sequences,
        unique_ids={t: torch.cat(ids) if ids else batch.unique_ids[t] for t, ids in travelling.items()},
    )
