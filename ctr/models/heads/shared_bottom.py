"""Shared bottom: the tasks share all of the model, and each has a tower of its own.

    logit_k = h_k(f(x))        x what is read of a candidate, f an MLP that may be empty, h_k an MLP

With one task, and nothing in `bottom_hidden`, it is the head of a model that knows of no tasks.

Source: Caruana, Multitask Learning, Machine Learning 28 (1997).

B candidates, F inputs, K tasks.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ctr.models.heads.config import TasksConfig
from ctr.models.heads.towers import HeadSizes, logits_of, make_mlp
from ctr.options.knobs import Positive


class SharedBottomConfig(TasksConfig):
    """Hidden layers that the tasks share, before the towers of `model.head_hidden`."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    bottom_hidden: list[Positive] = []

    def build(self, sizes: HeadSizes) -> nn.Module:
        """A new head; of one task that of a model without tasks, weight by weight."""
        if sizes.tasks == 1 and not self.bottom_hidden:
            return make_mlp(sizes.inputs, sizes.hidden, dropout=sizes.dropout, outputs=1)
        return SharedBottom(sizes, self.bottom_hidden)


class SharedBottom(nn.Module):
    """See the module."""

    def __init__(self, sizes: HeadSizes, bottom_hidden: list[int]) -> None:
        super().__init__()
        self.bottom = make_mlp(sizes.inputs, bottom_hidden, dropout=sizes.dropout)
        self.towers = sizes.towers([sizes.inputs, *bottom_hidden][-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) → logits (B, K)."""
        shared = self.bottom(x)
        return logits_of(self.towers, [shared] * len(self.towers))
