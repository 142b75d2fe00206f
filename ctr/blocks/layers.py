"""Norms, residuals and the position-wise networks that every block is made of. D width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctr.blocks.linear import Linear

NormName = Literal["layer", "rms"]
Placement = Literal["pre", "post", "none"]


def build_norm(name: NormName, width: int) -> nn.Module:
    """LayerNorm (`layer`) or RMSNorm (`rms`) over the last axis."""
    if name == "layer":
        return nn.LayerNorm(width)
    if name == "rms":
        return nn.RMSNorm(width)
    raise ValueError(f"norm must be 'layer' or 'rms', got {name!r}")


class AddNorm(nn.Module):
    """A residual connection and where its norm stands.

    pre: x + f(norm(x));  post: norm(x + f(x));  none: x + f(x).

    A branch f of several inputs takes them through `before`, and its result through `after`.
    """

    def __init__(self, width: int, *, norm: NormName = "layer", placement: Placement = "pre") -> None:
        super().__init__()
        if placement not in ("pre", "post", "none"):
            raise ValueError(f"placement must be 'pre', 'post' or 'none', got {placement!r}")
        self.placement = placement
        self.norm = nn.Identity() if placement == "none" else build_norm(norm, width)

    def before(self, x: Tensor) -> Tensor:
        """What the branch reads."""
        return self.norm(x) if self.placement == "pre" else x

    def after(self, x: Tensor, update: Tensor) -> Tensor:
        """x joined with the branch's result."""
        return self.norm(x + update) if self.placement == "post" else x + update

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """The connection around `branch`; shape and dtype of x."""
        return self.after(x, branch(self.before(x)))


class FeedForward(nn.Module):
    """FFN(x) = W_2 GELU(W_1 x + b_1) + b_2 on the last axis, dropout on the output.

    Args:
        width: D.
        hidden: width between the two maps; 4 D unless given.
        dropout: probability in [0, 1).
    """

    def __init__(self, width: int, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = hidden or 4 * width
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.dropout(self.down(F.gelu(self.up(x))))


class SwiGLU(nn.Module):
    """SwiGLU(x) = W_d (silu(W_g x) ⊙ W_u x), without biases, dropout on the output.

    Args:
        width: D.
        hidden: width between the maps; 8 D / 3, rounded up to a multiple of 8, unless given: the size of a
            4 D feed-forward.
        dropout: probability in [0, 1).
    """

    def __init__(self, width: int, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = hidden or -(-width // 3) * 8
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.dropout(self.down(_Gate.apply(self.gate_up(x))))


class _Gate(torch.autograd.Function):
    """silu(g) ⊙ u of [g, u] (..., 2 h). Only the input is kept; its gradient is written once, in place."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        of_gate, of_up = result.chunk(2, dim=-1)
        opened = F.silu(gate)
        torch.mul(gradient, opened, out=of_up)
        torch.mul(gradient, up, out=opened)
        torch.ops.aten.silu_backward.grad_input(opened, gate, grad_input=of_gate)
        return result
