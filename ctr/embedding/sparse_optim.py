"""Optimizers that update the looked-up rows of a table and no others, by FBGEMM's rules.

U touched rows, E embedding width; w, g (E,) one row and its gradient. Cost follows U, not the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from kernels import table_rows


class SparseOptimizer(Protocol):
    """The update rule of one table."""

    def state(self) -> dict[str, Tensor]:
        """Return the state by name, one row of each tensor per table row."""

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """Change the rows `ids` (U,) of `weight` in place; the gradients (U, E) come in pieces."""


class RowwiseAdagrad:
    """Adagrad with one sum per row: h ← h + mean(g²); w ← w·(1 − lr·decay) − lr·g / (√h + eps).

    Source: FBGEMM EXACT_ROWWISE_ADAGRAD with decoupled weight decay, which only looked-up rows undergo.
    """

    def __init__(self, rows: int, config: EmbeddingConfig, device: torch.device) -> None:
        self.config = config
        self.sum = torch.zeros(rows, device=device)

    def state(self) -> dict[str, Tensor]:
        """Return the sum of squares, (rows,)."""
        return {"sum": self.sum}

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """Change the rows `ids`; step is not needed."""
        keep = 1 - lr * self.config.weight_decay
        if table_rows.available(weight):
            pieces = zip(ids.split([len(g) for g in gradients]), gradients, strict=True)
            for part, gradient in pieces:
                table_rows.rowwise_adagrad(
                    weight, self.sum, part, gradient, lr=lr, eps=self.config.eps, keep=keep
                )
            return
        gradient = torch.cat(list(gradients))
        square = torch.linalg.vector_norm(gradient, dim=1).square_()  # one pass, nothing of its size is made
        total = self.sum.index_select(0, ids).add_(square, alpha=1 / gradient.shape[1])
        scale = lr / total.sqrt().add_(self.config.eps)
        rows = weight.index_select(0, ids)
        if self.config.weight_decay:
            rows.mul_(keep)
        rows.addcmul_(gradient, scale[:, None], value=-1)
        self.sum.index_copy_(0, ids, total)
        weight.index_copy_(0, ids, rows)


class Adam:
    """Adam whose moments move only when their row is looked up, but whose bias correction counts all steps.

    m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w − lr·(m̂ / (√v̂ + eps) + decay·w), where m̂ = m/(1−β₁ᵗ),
    v̂ = v/(1−β₂ᵗ) and t counts the steps of the job. The first step of a row met late in a job is therefore
    about lr·(1−β₁)/√(1−β₂), 3.2 lr with the default betas.

    Source: FBGEMM ADAM.
    """

    def __init__(self, rows: int, config: EmbeddingConfig, device: torch.device) -> None:
        self.config = config
        self.exp_avg = torch.zeros(rows, config.dim, device=device)
        self.exp_avg_sq = torch.zeros(rows, config.dim, device=device)

    def state(self) -> dict[str, Tensor]:
        """Return both moments, (rows, E)."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """Change the rows `ids`; step is counted from 1."""
        gradient = torch.cat(list(gradients))
        first, second = self.config.betas
        mean = self.exp_avg.index_select(0, ids).lerp_(gradient, 1 - first)
        square = self.exp_avg_sq.index_select(0, ids).mul_(second)
        square.addcmul_(gradient, gradient, value=1 - second)
        move = (square / (1 - second**step)).sqrt_().add_(self.config.eps).reciprocal_()
        move.mul_(mean / (1 - first**step))
        rows = weight.index_select(0, ids).mul_(1 - lr * self.config.weight_decay).sub_(move, alpha=lr)
        self.exp_avg.index_copy_(0, ids, mean)
        self.exp_avg_sq.index_copy_(0, ids, square)
        weight.index_copy_(0, ids, rows)


OPTIMIZERS: dict[str, Callable[[int, EmbeddingConfig, torch.device], SparseOptimizer]] = {
    "rowwise_adagrad": RowwiseAdagrad,
    "adam": Adam,
}
