"""NormOptions, residuals and the position-wise networks that every block is made of. D width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctr.blocks.fused import compiled_norm, fits, hooked
from ctr.blocks.linear import Linear
from kernels.position_wise import Activation, feed_forward

NormName = Literal["layer", "rms"]
Placement = Literal["pre", "post", "none"]


class NormOptions(TypedDict, total=False):
    """Which norm the residual connections of a block have, and where; defaults as of `Residual`.

    Every block spells out its further options, though `hidden` and `dropout` recur: a signature says what it
    has.
    """

    norm: NormName
    placement: Placement


def build_norm(name: NormName, width: int, *, affine: bool = True) -> nn.Module:
    """LayerNorm (`layer`) or RMSNorm (`rms`) over the last axis; `affine`: with a scale, and a shift."""
    if name == "layer":
        return nn.LayerNorm(width, elementwise_affine=affine)
    if name == "rms":
        return nn.RMSNorm(width, elementwise_affine=affine)
    raise ValueError(f"norm must be 'layer' or 'rms', got {name!r}")


class Residual(nn.Module):
    """A residual connection around a branch f, with its norm.

    pre: x + f(norm(x));  post: norm(x + f(x));  none: x + f(x).

    A branch of several inputs is computed by the caller: its inputs go through `pre`, its result through
    `join`.

    Args:
        width: D.
        norm: `layer` or `rms`.
        placement: `pre`, `post` or `none`.
    """

    def __init__(self, width: int, *, norm: NormName = "layer", placement: Placement = "pre") -> None:
        super().__init__()
        if placement not in ("pre", "post", "none"):
            raise ValueError(f"placement must be 'pre', 'post' or 'none', got {placement!r}")
        self.placement = placement
        self.norm = nn.Identity() if placement == "none" else build_norm(norm, width)

    @property
    def pre_norm(self) -> nn.Module | None:
        """The norm through which the branch reads x."""
        return self.norm if self.placement == "pre" else None

    def pre(self, x: Tensor) -> Tensor:
        """x as the branch reads it."""
        return x if self.pre_norm is None else self.pre_norm(x)

    def join(self, x: Tensor, update: Tensor) -> Tensor:
        """x and the branch's result, added, and normed with placement `post`."""
        return self.norm(x + update) if self.placement == "post" else x + update

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """x with the result of `branch` on it; shape and dtype of x."""
        if isinstance(branch, PositionWise) and self.placement != "post":
            joined: Tensor = branch(x, self.pre_norm, residual=True)
            return joined
        return self.join(x, branch(self.pre(x)))


class PositionWise(nn.Module):
    """A network on each row by itself: a first linear map, an activation, a second map (`down`), dropout.

    Where compiled code is used (see `ctr.blocks.fused`), the norm before the network and the residual around
    it are computed in the same pass.
    """

    activation: ClassVar[Activation]
    down: Linear

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def first_map(self) -> nn.Module:
        """The first linear map."""
        raise NotImplementedError

    def activate(self, inner: Tensor) -> Tensor:
        """The activation of the first map's result."""
        raise NotImplementedError

    def forward(self, x: Tensor, norm: nn.Module | None = None, *, residual: bool = False) -> Tensor:
        """[x +] network(norm(x)), shape (..., D) as x; `norm` works on the last axis."""
        drops = self.training and self.dropout.p > 0
        joined = self._compiled(x, norm, residual=residual and not drops)
        if joined is not None and not drops:
            return joined
        if joined is None:
            joined = self.down(self.activate(self.first_map()(x if norm is None else norm(x))))
        update = self.dropout(joined)
        return x + update if residual else update

    def _compiled(self, x: Tensor, norm: nn.Module | None, *, residual: bool) -> Tensor | None:
        first, second = self.first_map(), self.down
        if type(first) is not Linear or type(second) is not Linear:  # e.g. a LoRA adapter around it
            return None
        if hooked(first) or hooked(second):
            return None
        weights = first.weight, first.bias, second.weight, second.bias
        known, parts = compiled_norm(norm)
        if not known or not fits(x, len(second.weight), *weights):
            return None
        rows = x.flatten(0, -2)
        made = feed_forward(rows, *weights, activation=self.activation, norm=parts, residual=residual)
        return made.unflatten(0, x.shape[:-1])


class FeedForward(PositionWise):
    """FFN(x) = W_2 GELU(W_1 x + b_1) + b_2 on the last axis, dropout on the output.

    Args:
        width: D.
        hidden: width between the two maps; 4 D unless given.
        dropout: probability in [0, 1).
    """

    activation = "gelu"

    def __init__(self, width: int, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        hidden = hidden or 4 * width
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def first_map(self) -> nn.Module:
        """W_1 and b_1."""
        return self.up

    def activate(self, inner: Tensor) -> Tensor:
        """GELU."""
        return F.gelu(inner)


class SwiGLU(PositionWise):
    """SwiGLU(x) = W_d (silu(W_g x) ⊙ W_u x), without biases, dropout on the output.

    Args:
        width: D.
        hidden: width between the maps; 8 D / 3, rounded up to a multiple of 8, unless given: the size of a
            4 D feed-forward.
        dropout: probability in [0, 1).
    """

    activation = "swiglu"

    def __init__(self, width: int, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        hidden = hidden or -(-width // 3) * 8
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def first_map(self) -> nn.Module:
        """W_g and W_u."""
        return self.gate_up

    def activate(self, inner: Tensor) -> Tensor:
        """silu of the first half times the second."""
        opened: Tensor = _Gate.apply(inner)
        return opened


class _Gate(torch.autograd.Function):
    """silu(g) ⊙ u of [g, u] (..., 2 h); only the input is kept, and backward writes into one tensor."""

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
