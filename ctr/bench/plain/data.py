"""A batch as plain code takes it: one row per candidate, histories padded behind, IDs as rows of tables.

B candidates, L the longest history of a domain, k the longest list of a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn, SequenceBatch
from ctr.bench.rewrite import unshare
from features.dataset import Column, Manifest


class PlainIds(NamedTuple):
    """rows: (…,) of a table, or (…, k) of lists.  shares: (…, k), how much each counts in a weighted list."""

    rows: Tensor
    shares: Tensor | None = None


@dataclass(frozen=True)
class PlainEvents:
    """The events of one domain, the oldest of each row first.

    mask: (B, L) bool, whether there is an event.  gap: (B, L) seconds.  clock: (B, L) int64.
    ids: field → (B, L), or (B, L, k) of lists.  dense: field → (B, L, dim).
    """

    mask: Tensor
    gap: Tensor
    clock: Tensor
    ids: dict[str, PlainIds]
    dense: dict[str, Tensor]


@dataclass(frozen=True)
class PlainBatch:
    """ids: feature → (B,), or (B, k) of lists.  dense: feature → (B, dim).  label: (B,)."""

    ids: dict[str, PlainIds]
    dense: dict[str, Tensor]
    events: dict[str, PlainEvents]
    label: Tensor


def plain_batch(batch: Batch, manifest: Manifest) -> PlainBatch:
    """Everything once per row. A place of a list without an ID holds the row behind the last of its table."""
    batch = unshare(batch)
    given = {**batch.request_ids, **batch.candidate_ids}
    ids = {c.name: _ids(batch, c, given[c.name], manifest) for c in manifest.features if c.kind != "dense"}
    events = {
        name: _events(batch, batch.sequences[name], info.side, manifest)
        for name, info in manifest.domains.items()
    }
    return PlainBatch(ids, {**batch.request_dense, **batch.candidate_dense}, events, batch.label)


def _events(batch: Batch, events: SequenceBatch, side: list[Column], manifest: Manifest) -> PlainEvents:
    mask = _filled(events.offsets)
    index = torch.where(mask, events.offsets[:-1, None] + torch.arange(mask.shape[1]), 0)

    def padded(values: Tensor) -> Tensor:
        if not len(values):
            return values.new_zeros(*mask.shape, *values.shape[1:])
        return torch.where(mask.view(*mask.shape, *[1] * (values.dim() - 1)), values[index], 0)

    given = {c.name: _ids(batch, c, events.ids[c.name], manifest) for c in side if c.kind != "dense"}
    ids = {
        name: PlainIds(padded(each.rows), None if each.shares is None else padded(each.shares))
        for name, each in given.items()
    }
    dense = {c.name: padded(events.dense[c.name]) for c in side if c.kind == "dense"}
    return PlainEvents(mask, padded(events.time_gap), padded(events.clock_gap), ids, dense)


def _filled(offsets: Tensor) -> Tensor:
    """Which places (n, L) of lists that begin at offsets (n + 1,) hold a value; L is 1 at least."""
    lengths = offsets.diff()
    return torch.arange(int(lengths.max().clamp(min=1)) if len(lengths) else 1) < lengths[:, None]


def _ids(batch: Batch, column: Column, use: IdColumn, manifest: Manifest) -> PlainIds:
    """Of all bags of a column."""
    table = str(column.table)
    rows = batch.unique_ids[table][use.inverse_indices]
    if use.offsets is None:
        return PlainIds(rows)
    mask = _filled(use.offsets)
    lists = torch.full(mask.shape, manifest.tables[table].rows)
    lists[mask] = rows
    if use.weights is None:
        return PlainIds(lists)
    weights = use.weights.new_zeros(mask.shape)
    weights[mask] = use.weights
    return PlainIds(lists, weights / weights.abs().sum(dim=1, keepdim=True).clamp(min=1e-30))
