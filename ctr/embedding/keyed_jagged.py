"""The IDs of a batch as TorchRec's KeyedJaggedTensor, and back: for models and tables from elsewhere.

    feature        bags                     KeyedJaggedTensor
    user           [7] [9]                  keys     user   interests
    interests      [1 2] []                 values   7 9    1 2
                                            lengths  1 1    2 0

The bags of a key are the rows of one level: the requests (R), the candidates (B), or the requests again with
the events of each as one bag, oldest first. Values are rows of the embedding tables.

U unique IDs of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn

if TYPE_CHECKING:
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


def to_keyed_jagged(
    batch: Batch, tables: Mapping[str, str], *, level: str = "candidate"
) -> KeyedJaggedTensor:
    """The ID features of a level.

    Args:
        batch: any.
        tables: feature, or field of the domain's events → its table; others are left out.
        level: request, candidate, or the name of a domain.

    Returns:
        Keys in the order of `tables`. It has weights where a feature has some; the IDs of others weigh 1.

    Raises:
        ValueError: the level lacks a feature, or a field of events has lists, which do not fit in a bag of
            their request.

    Source: torchrec.sparse.jagged_tensor.KeyedJaggedTensor.
    """
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    columns, events = _columns(batch, level)
    if missing := [name for name in tables if name not in columns]:
        raise ValueError(f"tables must name features of level {level!r} {sorted(columns)}, got {missing}")
    lists = [name for name in tables if events is not None and columns[name].offsets is not None]
    if lists:
        raise ValueError(f"an event must have one ID in each field of a KeyedJaggedTensor, {lists} has lists")
    found = {name: columns[name] for name in tables}
    offsets = {n: c.offsets if events is None else events for n, c in found.items()}
    ids = [batch.unique_ids[tables[name]][column.inverse_indices] for name, column in found.items()]
    lengths = [
        torch.ones_like(own) if (cuts := offsets[name]) is None else cuts.diff()
        for name, own in zip(found, ids, strict=True)
    ]
    weights = None
    if any(column.weights is not None for column in found.values()):
        parts = [
            torch.ones(len(c.inverse_indices)) if c.weights is None else c.weights for c in found.values()
        ]
        weights = torch.cat([part.to(ids[0].device) for part in parts])
    return KeyedJaggedTensor(
        keys=list(found), values=torch.cat(ids), lengths=torch.cat(lengths), weights=weights
    )


def from_keyed_jagged(
    features: KeyedJaggedTensor, tables: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, IdColumn]]:
    """The inverse of `to_keyed_jagged`: unique IDs of each table, and each key as a column of bags.

    Args:
        features: values are rows of the tables.
        tables: key → its table.

    Returns:
        Table → int64 (U,) ascending, and key → column. A key whose bags have one ID each has no offsets.
    """
    keys = features.keys()
    parts = {key: features[key] for key in keys}
    unique: dict[str, Tensor] = {}
    columns: dict[str, IdColumn] = {}
    for table in dict.fromkeys(tables[key] for key in parts):
        members = {key: part.values().long() for key, part in parts.items() if tables[key] == table}
        unique[table], inverse = torch.unique(torch.cat(list(members.values())), return_inverse=True)
        for key, own in zip(members, inverse.split([len(ids) for ids in members.values()]), strict=True):
            single = bool((parts[key].lengths() == 1).all())
            offsets = None if single else parts[key].offsets().long()
            columns[key] = IdColumn(own, offsets, parts[key].weights_or_none())
    return unique, columns


def _columns(batch: Batch, level: str) -> tuple[dict[str, IdColumn], Tensor | None]:
    """The ID columns of a level and, of a domain, where the events of each request begin and end."""
    if level in batch.sequences:
        return batch.sequences[level].ids, batch.sequences[level].offsets
    of_level = {"request": batch.request_ids, "candidate": batch.candidate_ids}
    if level not in of_level:
        raise ValueError(f"level must be one of {[*of_level, *batch.sequences]}, got {level!r}")
    return of_level[level], None
