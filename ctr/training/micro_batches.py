"""A batch that a step computes in parts, one after the other: memory holds the activations of one at a time.

lookup            rows of all unique IDs of the batch, once
for each part     its rows among them ─► forward ─► loss, a share of the batch's mean ─► backward
update            of rows and dense weights with the sums of the parts' gradients, once
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctr.batch import Batch


@dataclass
class PartialLoss:
    """The loss of the parts that are computed so far, and whether all of it is finite."""

    loss: float = 0.0
    finite: bool = True
    tasks: dict[str, float] = field(default_factory=dict)  # of a run that learns several

    def add_tasks(self, losses: Mapping[str, Tensor]) -> None:
        """Count the losses of the tasks of a part."""
        for name, loss in losses.items():
            self.tasks[name] = self.tasks.get(name, 0.0) + loss.item()


def parts_of(batch: Batch) -> tuple[Batch, ...]:
    """What is computed one after the other: parts, or the batch itself; nothing of a batch without rows."""
    return batch.parts or (batch,) * bool(batch.num_rows)


def rows_of(part: Batch, batch: Batch, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of a part's unique IDs.

    Args:
        part: of the batch, or the batch itself.
        batch: whose unique IDs were looked up.
        rows: table → (U, E) what was found.

    Returns:
        table → (U', E), part by part of the same leaf: their gradients add up there.
    """
    if part is batch:
        return rows
    return {
        table: rows[table].index_select(0, torch.searchsorted(batch.unique_ids[table], ids))
        for table, ids in part.unique_ids.items()
    }
