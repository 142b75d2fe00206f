"""One training batch: R requests with their B candidates, IDs as positions among the batch's unique IDs.

B candidates, R requests, L events of one request, U unique IDs of one table.

    requests          r0            r1      r2
    request_index     0  0  0       1       2  2          (B,) non-decreasing
    sequence "view"   a b c | (none) | d e               events packed (ΣL,), OLDEST FIRST inside a request
    offsets           0     3        3     5             (R + 1,)

An ID travels once per batch: `unique_ids[table]` (U,) holds the table rows that the batch needs, and a column
of IDs holds `inverse_indices` into them.
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
    """The IDs of one feature: a bag (one ID, or a list of IDs) for each request, candidate or event."""

    inverse_indices: Tensor  # int64 (V,): positions in unique_ids of the column's table
    offsets: Tensor | None = None  # int64 (bags + 1,) for lists; None: exactly one ID per bag
    weights: Tensor | None = None  # float32 (V,) of a weighted list


@dataclass(frozen=True)
class SequenceBatch:
    """The events of one domain for all requests, packed, oldest first."""

    offsets: Tensor  # int64 (R + 1,)
    max_length: int
    time_gap: Tensor  # float32 (ΣL,): seconds from the event to its request, ≥ 0; 0 without times
    clock_gap: Tensor  # int64 (ΣL,): ticks of the data set's clock back from a moment of the request's own
    ids: dict[str, IdColumn] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)  # float32 (ΣL, dim)


@dataclass(frozen=True)
class Target:
    """What one task learns from, of every candidate of a batch."""

    label: Tensor  # float32 (B,); of a regression scaled; 0 where it is not known
    known: Tensor  # bool (B,): the rows of this task's loss and metrics
    weight: Tensor | None = None  # float32 (B,), ≥ 0; None: every row weighs 1
    everywhere: bool = False  # whether it is known in every row, so that nobody need look
    total: float | None = None  # weight of the known rows of the whole batch, where this is a part of it
    teacher: Tensor | None = None  # float32 (B,): logits that it learns from beside the label, of each row

    @property
    def loss_weight(self) -> Tensor:
        """How much each row counts in the loss, float32 (B,): 0 where the label is not known."""
        return self.known.float() if self.weight is None else torch.where(self.known, self.weight, 0.0)

    def sums(self) -> tuple[float, float]:
        """What the known rows weigh, and those of them with label 1."""
        if self.everywhere and self.weight is None:
            return len(self.label), float(self.label.sum())
        weight = self.loss_weight
        return float(weight.sum()), float((weight * self.label).sum())

    @classmethod
    def of(cls, label: Tensor) -> Target:
        """A label (B,) that is known in every row."""
        return cls(label, torch.ones_like(label, dtype=torch.bool), everywhere=True)

    @property
    def known_weight(self) -> float:
        """What the known rows weigh."""
        return self.sums()[0]

    @property
    def whole(self) -> float:
        """What the known rows of the whole batch weigh."""
        return self.known_weight if self.total is None else self.total

    def take(self, picked: Tensor) -> Target:
        """The rows at positions `picked`, in this order."""
        weight, teacher = (None if own is None else own[picked] for own in (self.weight, self.teacher))
        label, known = self.label[picked], self.known[picked]
        return replace(self, label=label, known=known, weight=weight, teacher=teacher)


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
    targets: dict[str, Target]  # task → what it learns from, in the manifest's order, never empty
    row_id: Tensor  # int64 (B,)
    request_id: Tensor  # int64 (R,)
    user_id: Tensor  # int64 (R,)
    time: Tensor  # int64 (R,) seconds
    # float32 (B,): −ln of the rate at which negatives of the first task were kept. Its loss is of logits +
    # offset, as sampling raised the odds of a click; predictions are of the logits. None: all were kept.
    offset: Tensor | None = None
    total_rows: int | None = None  # B of the whole batch, where this is a part of it (which may be empty)
    parts: tuple[Batch, ...] = ()  # the same requests in micro-batches, whose gradients a step sums

    @property
    def label(self) -> Tensor:
        """The label of the first task, float32 (B,)."""
        return next(iter(self.targets.values())).label

    def metric_weight(self, task: str) -> Tensor | None:
        """How much each row counts in the metrics of a task, float32 (B,): 0 where its label is not known.

        A kept negative of the first task stands for as many as were dropped. None: each row counts once.
        """
        target, first = self.targets[task], next(iter(self.targets))
        if target.everywhere and target.weight is None and self.offset is None:
            return None
        weight = target.loss_weight
        if task == first and self.offset is not None:
            weight = torch.where(target.label > 0, weight, weight * self.offset.exp())
        return weight

    @property
    def num_rows(self) -> int:
        """B."""
        return self.request_index.shape[0]

    @property
    def num_requests(self) -> int:
        """R."""
        return self.request_id.shape[0]

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
        candidate_ids={name: take_bags(column, picked) for name, column in batch.candidate_ids.items()},
        candidate_dense={name: values[picked] for name, values in batch.candidate_dense.items()},
        request_index=batch.request_index[picked],
        targets={task: target.take(picked) for task, target in batch.targets.items()},
        row_id=batch.row_id[picked],
        offset=None if batch.offset is None else batch.offset[picked],
    )


def take_histories(events: SequenceBatch, picked: Tensor) -> SequenceBatch:
    """The histories of the requests at positions `picked`, in this order."""
    index, offsets = bag_entries(events.offsets, picked)
    return take_events(events, index, offsets)


def take_events(events: SequenceBatch, index: Tensor, offsets: Tensor) -> SequenceBatch:
    """Histories with `offsets` (R + 1,) of the events at positions `index` (ΣL,)."""
    lengths = offsets.diff()
    return replace(
        events,
        offsets=offsets,
        max_length=int(lengths.max()) if lengths.numel() else 0,
        time_gap=events.time_gap[index],
        clock_gap=events.clock_gap[index],
        ids={name: take_bags(column, index) for name, column in events.ids.items()},
        dense={name: values[index] for name, values in events.dense.items()},
    )


def take_bags(column: IdColumn, bags: Tensor) -> IdColumn:
    """The bags at these positions, in this order."""
    if column.offsets is None:
        return replace(column, inverse_indices=column.inverse_indices[bags])
    entries, offsets = bag_entries(column.offsets, bags)
    weights = None if column.weights is None else column.weights[entries]
    return replace(column, inverse_indices=column.inverse_indices[entries], offsets=offsets, weights=weights)


def bag_entries(offsets: Tensor, bags: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the entries of some bags, one bag after the other, and the offsets of these bags alone.

    Example:
        >>> bag_entries(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0]))
        (tensor([2, 3, 4, 0, 1]), tensor([0, 3, 5]))
    """
    lengths = offsets.diff()[bags]
    fresh = F.pad(lengths.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(offsets[bags] - fresh[:-1], lengths)
    return torch.arange(int(fresh[-1]), device=offsets.device) + shift, fresh
