"""One training batch: R requests with their B candidates, IDs as positions among the batch's unique IDs.

B candidates, R requests, L events of one request, U unique IDs of one table.

    requests          r0            r1      r2
    request_index     0  0  0       1       2  2          (B,) non-decreasing
    sequence "view"   a b c | (none) | d e               events packed (ΣL,), OLDEST FIRST inside a request
    offsets           0     3        3     5             (R + 1,)

An ID travels once per batch: `unique_ids[table]` (U,) holds table rows, every use holds `inverse_indices`
into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class IdColumn:
    """One use of an embedding table: for each owner (request, candidate or event) one ID or a list of IDs."""

    inverse_indices: Tensor  # int64 (V,): positions in unique_ids of the column's table
    offsets: Tensor | None = None  # int64 (owners + 1,) for lists; None: exactly one ID per owner
    weights: Tensor | None = None  # float32 (V,) of a weighted list


@dataclass(frozen=True)
class SequenceBatch:
    """The events of one domain for all requests, packed, oldest first."""

    offsets: Tensor  # int64 (R + 1,)
    max_length: int
    time_gap: Tensor  # float32 (ΣL,): seconds from the event to its request, ≥ 0
    ids: dict[str, IdColumn] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)  # float32 (ΣL, dim)


@dataclass(frozen=True)
class Batch:
    """R requests and their B candidates."""

    unique_ids: dict[str, Tensor]  # table → int64 (U,) table rows, each once, ascending
    request_ids: dict[str, IdColumn]
    request_dense: dict[str, Tensor]  # float32 (R, dim)
    candidate_ids: dict[str, IdColumn]
    candidate_dense: dict[str, Tensor]  # float32 (B, dim)
    sequences: dict[str, SequenceBatch]
    request_index: Tensor  # int64 (B,), non-decreasing
    label: Tensor  # float32 (B,)
    row_id: Tensor  # int64 (B,)
    request_id: Tensor  # int64 (R,)
    user_id: Tensor  # int64 (R,)
    time: Tensor  # int64 (R,) seconds
    total_rows: int | None = None  # of the whole batch where this is a share or a part of it, may be empty
    parts: tuple[Batch, ...] = ()  # the same requests for a step that computes them part by part

    @property
    def num_rows(self) -> int:
        """B."""
        return int(self.request_index.shape[0])

    @property
    def num_requests(self) -> int:
        """R."""
        return int(self.request_id.shape[0])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return map_tensors(self, lambda t: t.pin_memory())


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Apply a function to every tensor inside nested dataclasses, dicts and tuples."""
    mapped: Any = value
    if isinstance(value, Tensor):
        mapped = function(value)
    elif isinstance(value, dict):
        mapped = {k: map_tensors(v, function) for k, v in value.items()}
    elif isinstance(value, tuple):
        mapped = tuple(map_tensors(v, function) for v in value)
    elif is_dataclass(value) and not isinstance(value, type):
        mapped = replace(
            value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)}
        )
    return mapped


def take_candidates(batch: Batch, picked: Tensor) -> Batch:
    """The candidates at positions `picked` (B',), in this order, on all requests of the batch."""
    return replace(
        batch,
        candidate_ids={name: take_ids(use, picked) for name, use in batch.candidate_ids.items()},
        candidate_dense={name: values[picked] for name, values in batch.candidate_dense.items()},
        request_index=batch.request_index[picked],
        label=batch.label[picked],
        row_id=batch.row_id[picked],
    )


def take_ids(use: IdColumn, owners: Tensor) -> IdColumn:
    """The IDs of the owners at these positions."""
    if use.offsets is None:
        return replace(use, inverse_indices=use.inverse_indices[owners])
    index, offsets = positions(use.offsets, owners)
    weights = None if use.weights is None else use.weights[index]
    return replace(use, inverse_indices=use.inverse_indices[index], offsets=offsets, weights=weights)


def positions(offsets: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Where the entries of some owners lie, and the offsets of a list of them alone.

    Example:
        >>> positions(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0]))
        (tensor([2, 3, 4, 0, 1]), tensor([0, 3, 5]))
    """
    lengths = offsets.diff()[owners]
    fresh = F.pad(lengths.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(offsets[owners] - fresh[:-1], lengths)
    return torch.arange(int(fresh[-1]), device=offsets.device) + shift, fresh
