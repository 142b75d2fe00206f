"""Row-wise Adagrad for tables whose columns lie on several ranks, exactly as if a row lay on one.

U distinct IDs, E embedding width, G occurrences of IDs (a row that two ranks looked up occurs twice).

The rule needs the mean of squares of a row's whole gradient; FBGEMM's kernel would take that of each rank's
columns, a sum of its own for each. So the ranks add up their parts of the squares, every rank keeps the sums
of all rows (4 bytes a row), and FBGEMM gets gradients that are scaled already, for its plain SGD.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.world import World

EXACT_IN_COLUMNS = "rowwise_adagrad"  # the optimizer that this is


class ColumnwiseAdagrad:
    """The sums of squares of column-wise tables, and the scale they give to a step's gradients.

    Args:
        rows: table → number of rows; every rank holds columns of each.
        config: eps, width and weight decay.
        world: the ranks; a step sums one number for each distinct ID over them.
    """

    def __init__(self, rows: dict[str, int], config: EmbeddingConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.sums = {table: torch.zeros(count, device=world.device) for table, count in rows.items()}

    @torch.no_grad()
    def scale(self, segments: list[tuple[str, Tensor]], rows: Tensor, gradient: Tensor) -> Tensor:
        """Take a step's gradients into the sums: h ← h + Σ g² / E, g ← g / (√h + eps) + decay · w.

        Args:
            segments: the table and the IDs of each part of this rank that was looked up, in order.
            rows: (G, columns) the values that were looked up, for weight decay.
            gradient: (G, columns) of the occurrences, one segment after the other.

        Returns:
            (G, columns) what SGD is to subtract, times the learning rate; an ID's occurrences add up.
        """
        parts = gradient.split([len(ids) for _, ids in segments])
        distinct_ids = [ids.unique(return_inverse=True) for _, ids in segments]
        squares: dict[str, Tensor] = {}
        distinct: dict[str, Tensor] = {}
        for (table, _), (unique, inverse), part in zip(segments, distinct_ids, parts, strict=True):
            summed = part.new_zeros(len(unique), part.shape[1]).index_add_(0, inverse, part)
            own = summed.square().sum(1)
            squares[table] = squares[table] + own if table in squares else own
            distinct[table] = unique
        scales = self._add(distinct, squares)
        scaled = [
            part * scales[table][inverse, None]
            for (table, _), (_, inverse), part in zip(segments, distinct_ids, parts, strict=True)
        ]
        return torch.cat(scaled) + self._decay(distinct_ids, rows)

    def _add(self, distinct: dict[str, Tensor], squares: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add squares to the sums of the distinct IDs; returns 1 / (√h + eps) for each."""
        tables = sorted(self.sums)  # the same order and the same IDs on every rank
        total = self.world.sum_(torch.cat([squares[table] for table in tables]))
        scales = {}
        for table, part in zip(tables, total.split([len(distinct[t]) for t in tables]), strict=True):
            sums = self.sums[table].index_select(0, distinct[table]).add_(part / self.config.dim)
            self.sums[table].index_copy_(0, distinct[table], sums)
            scales[table] = sums.sqrt().add_(self.config.eps).reciprocal_()
        return scales

    def _decay(self, distinct_ids: list[tuple[Tensor, Tensor]], rows: Tensor) -> Tensor | float:
        """Weight decay of each distinct row, shared by its occurrences."""
        if not self.config.weight_decay:
            return 0.0
        shares = [torch.bincount(inverse, minlength=len(unique))[inverse] for unique, inverse in distinct_ids]
        return rows * (self.config.weight_decay / torch.cat(shares)[:, None])
