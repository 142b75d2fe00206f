"""Row-wise Adagrad: one sum of squares for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ctr.sparse_optim import base
from kernels import table_rows


class AdagradOptions(base.OptimizerOptions):
    """Of row-wise Adagrad."""

    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class RowwiseAdagrad(base.SparseOptimizer):
    """Adagrad with one sum per row: h ← h + mean(g²); w ← w·(1 − lr·decay) − lr·g / (√h + eps).

    Source: FBGEMM EXACT_ROWWISE_ADAGRAD with decoupled weight decay, which only looked-up rows undergo.
    """

    RULE = "h ← h + mean(g²); w ← w·(1 − lr·`weight_decay`) − lr·g / (√h + `eps`)"
    STATE: ClassVar[dict[str, base.PerRow]] = {"sum": "scalar"}
    FBGEMM: ClassVar[base.Fbgemm | None] = base.Fbgemm("EXACT_ROWWISE_ADAGRAD", ("cpu", "cuda"))
    Options = AdagradOptions

    def __init__(self, rows: int, width: int, options: AdagradOptions, device: torch.device) -> None:
        super().__init__(rows, width, options, device)
        self.options = options
        self.sum = self._state["sum"]

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """See `SparseOptimizer.update`; `step` is not needed."""
        eps, keep = self.options.eps, 1 - lr * self.options.weight_decay
        if table_rows.available(weight):
            pieces = zip(ids.split([len(g) for g in gradients]), gradients, strict=True)
            for part, gradient in pieces:
                table_rows.rowwise_adagrad(weight, self.sum, part, gradient, lr=lr, eps=eps, keep=keep)
            return
        gradient = torch.cat(list(gradients))
        square = torch.linalg.vector_norm(gradient, dim=1).square_()  # one pass, nothing of its size is made
        total = self.sum.index_select(0, ids).add_(square, alpha=1 / gradient.shape[1])
        scale = lr / total.sqrt().add_(eps)
        rows = weight.index_select(0, ids)
        if self.options.weight_decay:
            rows.mul_(keep)
        rows.addcmul_(gradient, scale[:, None], value=-1)
        self.sum.index_copy_(0, ids, total)
        weight.index_copy_(0, ids, rows)
