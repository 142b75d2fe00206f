"""Decay that grows with the time since a row was last touched: rare rows forget, frequent ones hardly.

A row that is met every I steps loses the share `decay`·I of itself each time. All rows decay alike by step,
so a rare one by much more for each gradient that it gets: what it has learned of one impression's label is
mostly gone when the next comes, in a second epoch too. Tables drawn anew at each epoch (`embedding.restart`)
are the special case of rows that decay wholly at the border of epochs.

U touched rows, E embedding width; I the steps since a row's last update, without this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ctr.sparse_optim import base
from ctr.sparse_optim.adam import Adam, AdamOptions
from ctr.sparse_optim.rowwise_adagrad import AdagradOptions, RowwiseAdagrad

_DECAY = "w ← w·(1 − min(1, `decay`·I)), I the steps since the row's last update; then as `{}`"
# The step of a row's last update: a whole number, exact up to 2^24 steps.
_LAST: dict[str, base.PerRow] = {"last_step": "scalar"}


class AdaptiveAdamOptions(AdamOptions):
    """Of Adam with decay by idle steps."""

    decay: float = Field(default=1e-4, gt=0, le=1)  # of a row for each step without an update


class AdaptiveAdagradOptions(AdagradOptions):
    """Of row-wise Adagrad with decay by idle steps."""

    decay: float = Field(default=1e-4, gt=0, le=1)  # of a row for each step without an update


@torch.no_grad()
def decay_idle(weight: Tensor, last: Tensor, ids: Tensor, *, step: int, decay: float) -> None:
    """Decay rows by the steps since their last update, and note this one; in place.

    Args:
        weight: (rows, E).
        last: float32 (rows,) the step of each row's last update, 0 before the first.
        ids: (U,) int64, each once.
        step: of this update, from 1.
        decay: share of a row that a step without an update takes.
    """
    idle = (step - 1 - last.index_select(0, ids)).clamp_(min=0)
    keep = 1 - (decay * idle).clamp_(max=1)
    weight.index_copy_(0, ids, weight.index_select(0, ids).mul_(keep[:, None]))
    last.index_fill_(0, ids, float(step))


class AdaptiveAdam(Adam):
    """Adam whose rows decay by the steps since their last update.

    Source: frequency-adaptive regularisation (AdamAR, 2026): its bound on the error grows with Σ‖e‖², and is
    least with a decay inverse to a row's frequency, which idle steps measure as training goes.
    """

    RULE = _DECAY.format("adam")
    STATE: ClassVar[dict[str, base.PerRow]] = {**Adam.STATE, **_LAST}
    FBGEMM = None
    Options = AdaptiveAdamOptions
    options: AdaptiveAdamOptions

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """See `SparseOptimizer.update`."""
        decay_idle(weight, self._state["last_step"], ids, step=step, decay=self.options.decay)
        super().update(weight, ids, gradients, lr=lr, step=step)


class AdaptiveAdagrad(RowwiseAdagrad):
    """Row-wise Adagrad whose rows decay by the steps since their last update; see `AdaptiveAdam`."""

    RULE = _DECAY.format("rowwise_adagrad")
    STATE: ClassVar[dict[str, base.PerRow]] = {**RowwiseAdagrad.STATE, **_LAST}
    FBGEMM = None
    Options = AdaptiveAdagradOptions
    options: AdaptiveAdagradOptions

    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """See `SparseOptimizer.update`."""
        decay_idle(weight, self._state["last_step"], ids, step=step, decay=self.options.decay)
        super().update(weight, ids, gradients, lr=lr, step=step)
