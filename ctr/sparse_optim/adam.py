"""Adam for rows: moments that move only when their row is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ctr.sparse_optim import base


class AdamOptions(base.OptimizerOptions):
    """Of Adam."""

    eps: float = Field(default=1e-8, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)


class Adam(base.SparseOptimizer):
    """Adam whose moments move only when their row is looked up, but whose bias correction counts all steps.

    m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w − lr·(m̂ / (√v̂ + eps) + decay·w), where m̂ = m/(1−β₁ᵗ),
    v̂ = v/(1−β₂ᵗ) and t counts the steps of the job. The first step of a row met late in a job is therefore
    about lr·(1−β₁)/√(1−β₂), 3.2 lr with the default betas.

    Source: FBGEMM ADAM, which the CPU does not have.
    """

    RULE = (
        "moments m, v of touched rows alone, t of all steps; w ← w − lr·(m̂ / (√v̂ + `eps`) + `weight_decay`·w)"
    )
    STATE: ClassVar[dict[str, base.PerRow]] = {"exp_avg": "vector", "exp_avg_sq": "vector"}
    FBGEMM: ClassVar[base.Fbgemm | None] = base.Fbgemm("ADAM", ("cuda",))
    Options = AdamOptions

    def __init__(self, rows: int, width: int, options: AdamOptions, device: torch.device) -> None:
        super().__init__(rows, width, options, device)
        self.options = options
        self.exp_avg, self.exp_avg_sq = self._state["exp_avg"], self._state["exp_avg_sq"]

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """See `SparseOptimizer.update`."""
        gradient = torch.cat(list(gradients))
        first, second = self.options.betas
        mean = self.exp_avg.index_select(0, ids).lerp_(gradient, 1 - first)
        square = self.exp_avg_sq.index_select(0, ids).mul_(second)
        square.addcmul_(gradient, gradient, value=1 - second)
        move = (square / (1 - second**step)).sqrt_().add_(self.options.eps).reciprocal_()
        move.mul_(mean / (1 - first**step))
        rows = weight.index_select(0, ids).mul_(1 - lr * self.options.weight_decay).sub_(move, alpha=lr)
        self.exp_avg.index_copy_(0, ids, mean)
        self.exp_avg_sq.index_copy_(0, ids, square)
        weight.index_copy_(0, ids, rows)
