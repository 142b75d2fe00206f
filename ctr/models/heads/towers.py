"""What all heads are made of: a small MLP, and the mean of experts that a gate weighs.

B candidates, F inputs, n experts, E width of an expert's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctr.blocks.linear import Linear


@dataclass(frozen=True)
class HeadSizes:
    """What a head must know of the model around it.

    Args:
        inputs: F, width of what it reads of a candidate.
        tasks: K.
        hidden: widths of a tower's hidden layers, `model.head_hidden`.
        dropout: behind every hidden layer.
    """

    inputs: int
    tasks: int
    hidden: tuple[int, ...]
    dropout: float

    def towers(self, inputs: int) -> nn.ModuleList:
        """K towers, each from `inputs` numbers to a logit."""
        return nn.ModuleList(
            make_mlp(inputs, self.hidden, dropout=self.dropout, outputs=1) for _ in range(self.tasks)
        )


def make_mlp(
    inputs: int, hidden: Sequence[int], *, dropout: float, outputs: int | None = None
) -> nn.Sequential:
    """GELU(W x + b) for each hidden width, and behind them a linear map to `outputs` numbers, if given."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [Linear(inputs, width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, *([] if outputs is None else [Linear(inputs, outputs)]))


def logits_of(towers: nn.ModuleList, inputs: Sequence[Tensor]) -> Tensor:
    """(B, K): each tower of its own input (B, ·)."""
    return torch.cat([tower(x) for tower, x in zip(towers, inputs, strict=True)], dim=-1)


class Gate(nn.Module):
    """Σ_i softmax(W x)_i f_i, a mean of experts that x weighs.

    Args:
        inputs: width of x.
        experts: n.
        dropout: probability with which an expert is left out of a row's mean in training, so that no gate
            settles on one expert; the others share its weight. A row keeps all of them where all would go.

    Source: Ma et al., MMoE (KDD 2018), section 4.2; the dropout of whole experts is Zhao et al.,
    Recommending What Video to Watch Next (RecSys 2019), section 5.2.2.
    """

    def __init__(self, inputs: int, experts: int, *, dropout: float) -> None:
        super().__init__()
        self.map = Linear(inputs, experts, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor, experts: Sequence[Tensor]) -> Tensor:
        """(B, E), from x (B, F) and what the experts say, n times (B, E)."""
        scores: Tensor = self.map(x)
        if self.training and self.dropout:
            gone = torch.rand_like(scores) < self.dropout
            scores = scores.masked_fill(gone & ~gone.all(dim=-1, keepdim=True), float("-inf"))
        weights = scores.softmax(dim=-1)
        return (weights[..., None] * torch.stack(list(experts), dim=1)).sum(dim=1)
