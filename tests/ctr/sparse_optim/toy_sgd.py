"""An optimizer as a stranger adds one: this file, and one line in `ctr.sparse_optim`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ctr.sparse_optim import base


class SgdOptions(base.OptimizerOptions):
    """Of SGD."""

    weight_decay: float = Field(default=0.0, ge=0)
    max_norm: float = Field(default=1.0, gt=0)


class Sgd(base.SparseOptimizer):
    """w ← w·(1 − lr·decay) − lr·g, g no longer than `max_norm`; counts how often a row was updated."""

    RULE = "w ← w·(1 − lr·`weight_decay`) − lr·g·min(1, `max_norm` / ‖g‖)"
    STATE: ClassVar[dict[str, base.PerRow]] = {"updates": "scalar"}
    Options = SgdOptions

    def __init__(self, rows: int, width: int, options: SgdOptions, device: torch.device) -> None:
        super().__init__(rows, width, options, device)
        self.options = options

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """See `SparseOptimizer.update`."""
        gradient = torch.cat(list(gradients))
        norm = gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
        move = gradient * (self.options.max_norm / norm).clamp(max=1)
        rows = weight.index_select(0, ids) * (1 - lr * self.options.weight_decay)
        weight.index_copy_(0, ids, rows - lr * move)
        self.state()["updates"].index_add_(0, ids, torch.ones(len(ids)))
