"""A gate for each column of features and events: a number that its vector is multiplied by.

    x_c ← g_c x_c            g_c = 16 θ_c, θ_c = 1/16 at the start, so that bits are those without gates

θ is pulled to 0 while training (`ctr.training.column_gates`), and a column whose gate is 0 is not read any
more: neither its values nor its embeddings change the logit. The 16, a power of two and so exact, is what
lets a gate close in a few hundred of an optimizer's steps, which change θ by no more than the learning rate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRETCH = 16.0


class ColumnGates(nn.Module):
    """The gates of some columns.

    Args:
        names: of the columns, as `drop` takes them: `feature`, or `domain.field`.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.theta = nn.Parameter(torch.full((len(names),), 1.0 / STRETCH))

    def values(self) -> Tensor:
        """g, (columns,)."""
        return STRETCH * self.theta


def gates_in(model: nn.Module) -> list[ColumnGates]:
    """All gates of a model."""
    return [module for module in model.modules() if isinstance(module, ColumnGates)]
