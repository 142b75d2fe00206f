"""The batches of batches.py with n-grams: IDs made unique, embeddings, and the hash in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn
from ctr.tokens.config import NgramConfig
from ctr.tokens.ngram import NgramField, NgramTable, ngram_fields, ngram_ids
from features.dataset import Column
from tests.ctr import batches

ITEM = Column(name="item", level="event", kind="id", table="item")


def fields_of(**options: Any) -> list[NgramField]:
    """Trigrams of views and purchases, two tables per order."""
    config = {"fields": ["view.item", "buy.item"], "rows": 90, "dim": 3, **options}
    return ngram_fields(batches.manifest(), NgramConfig(**config), dim=batches.DIM)


def field_of(base: int, tables: list[tuple[int, int]]) -> NgramField:
    made = tuple(NgramTable(f"{n}.{i}", n, rows) for i, (n, rows) in enumerate(tables))
    return NgramField("view", ITEM, base, made, 1)


def slow_ids(values: list[int], offsets: list[int], base: int, order: int, rows: int) -> list[int]:
    """Python's unbounded integers, one event after the other; 0 before the history."""
    found = []
    for start, stop in pairwise(offsets):
        for event in range(start, stop):
            window = [values[event - j] if event - j >= start else 0 for j in range(order)]
            found.append(sum(t * base**j for j, t in enumerate(window)) % rows)
    return found


def base_ids(batch: Batch, field: NgramField) -> Tensor:
    """The base-table row of every event of the field."""
    use = batch.sequences[field.domain].ids[field.column.name]
    return batch.unique_ids[str(field.column.table)][use.inverse_indices]


def add_ngrams(batch: Batch, fields: Sequence[NgramField]) -> Batch:
    """The batch as a loader with these n-grams would make it."""
    unique, sequences = dict(batch.unique_ids), dict(batch.sequences)
    for field in fields:
        events = sequences[field.domain]
        uses = dict(events.ids)
        found = ngram_ids(base_ids(batch, field).numpy(), events.offsets.numpy(), field)
        for name, ids in found.items():
            unique[name], inverse = torch.from_numpy(ids).long().unique(return_inverse=True)
            uses[name] = IdColumn(inverse)
        sequences[field.domain] = replace(events, ids=uses)
    return replace(batch, unique_ids=unique, sequences=sequences)


def ngram_rows(batch: Batch, fields: Sequence[NgramField]) -> dict[str, Tensor]:
    """Embeddings of every row that the batch uses of the sub-tables, as leaves that take gradients.

    A row's values depend on its number, so that another hash gives another result.
    """
    return {
        table.name: torch.stack(
            [
                torch.randn(field.dim, generator=torch.Generator().manual_seed(row), dtype=torch.float64)
                for row in batch.unique_ids[table.name].tolist()
            ]
        ).requires_grad_()
        for field in fields
        for table in field.tables
    }
