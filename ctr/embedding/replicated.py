"""Whole tables on every rank, kept equal: for tables so small that sharding them is not worth its traffic.

P looked-up rows of this rank, U rows looked up on any rank, E embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ctr.distributed.world import World
from ctr.embedding.torch_engine import TorchTables, gradients_of


class ReplicatedTables(TorchTables):
    """Torch tables that exchange row gradients: each rank looks up in its own copy, all apply all updates.

    A rank hands in the gradient of its share of the loss; a row's shares are summed in the order of ranks, so
    that all copies stay equal bit by bit. What travels in a step is U rows and IDs at most per rank.

    Args:
        world: the ranks.
        others: see `make_tables`.
    """

    def __init__(self, *others: Any, world: World, **named: Any) -> None:
        super().__init__(*others, **named)
        self._world = world

    @torch.no_grad()
    def apply_gradients(self) -> None:
        """Update with the one lookup of this step, on every rank alike."""
        pending, self._pending = self._pending, []
        for index, leaves in pending:
            ids, total = sum_rows(index, torch.cat(gradients_of(leaves)), self._world)
            self._update(ids, [total])


def sum_rows(index: Tensor, gradient: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """Sum row gradients over the ranks.

    Args:
        index: (P,) int64, row indices, each at most once.
        gradient: (P, E) of these rows.
        world: the ranks; each may hold another P, also 0.

    Returns:
        (U,) the rows that any rank holds, ascending, and (U, E) the sums of their gradients.
    """
    lengths = torch.zeros(world.size, dtype=torch.int64)
    lengths[world.rank] = len(index)
    counts = world.sum_(lengths).tolist()
    everyone = _gather(index, counts, world)
    ids, inverse = torch.unique(torch.cat(everyone), return_inverse=True)
    total = gradient.new_zeros(len(ids), gradient.shape[1])
    parts = zip(inverse.split(counts), _gather(gradient, counts, world), strict=True)
    for where, part in parts:  # each row once in a part: the order of additions is that of the ranks
        total.index_add_(0, where, part)
    return ids, total


def _gather(values: Tensor, counts: list[int], world: World) -> list[Tensor]:
    """The first dimension's `counts` entries of every rank; padded to the longest while they travel."""
    padded = values.new_zeros(max(counts), *values.shape[1:])
    padded[: len(values)] = values
    found = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(found, padded, group=world.data)
    return [part[:count] for part, count in zip(found, counts, strict=True)]
