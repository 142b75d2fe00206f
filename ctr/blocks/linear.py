"""Linear maps; in bfloat16 on a CPU with row counts that come back.

oneDNN, which multiplies bfloat16 on a CPU, prepares a kernel for every shape that it meets: 2 to 10 ms, many
times the product itself, and packed events come in another number with every batch. Rows of zeros fill each
count up to one of few, eight to an octave, so that after some steps every kernel is there.

n rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b in the precision that autocast asks for; like `torch.nn.functional.linear`.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,).

    Returns:
        (..., O).

    Example:
        >>> linear(torch.ones(2, 3), torch.full((1, 3), 2.0)).tolist()
        [[6.0], [6.0]]
    """
    if not x.numel() or not _pays(x):
        return F.linear(x, weight, bias)
    flat: Tensor = _FilledLinear.apply(x.flatten(0, -2), weight, bias)
    return flat.unflatten(0, x.shape[:-1])


class Linear(nn.Linear):
    """`torch.nn.Linear` by way of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return linear(x, self.weight, self.bias)


def _pays(x: Tensor) -> bool:
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def filled_rows(n: int) -> int:
    """The count that n ≥ 1 rows are filled up to: at most an eighth more (64 for the fewest).

    Example:
        >>> [filled_rows(n) for n in (1, 64, 1000, 1024, 1025)]
        [64, 64, 1024, 1024, 1152]
    """
    step = max(64, 1 << max(0, n.bit_length() - 4))
    return -(-n // step) * step


def _filled(x: Tensor, rows: int) -> Tensor:
    """x (n, …) in bfloat16 with rows of zeros behind it, (rows, …)."""
    if len(x) == rows:
        return x.to(torch.bfloat16)
    out = torch.empty(rows, *x.shape[1:], dtype=torch.bfloat16)
    out[: len(x)] = x
    out[len(x) :] = 0
    return out


class _FilledLinear(torch.autograd.Function):
    """x Wᵀ + b for x (n, I): the three products in bfloat16, each over `filled_rows(n)` rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, kernel = _filled(x, filled_rows(len(x))), weight.to(torch.bfloat16)
        ctx.save_for_backward(rows, kernel)
        ctx.like = x.dtype, weight.dtype, None if bias is None else bias.dtype
        if bias is None:
            return torch.mm(rows, kernel.t())[: len(x)]
        return torch.addmm(bias.to(torch.bfloat16), rows, kernel.t())[: len(x)]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        rows, kernel = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.like
        filled = _filled(gradient, len(rows))
        back = torch.mm(filled, kernel)[: len(gradient)].to(of_x) if ctx.needs_input_grad[0] else None
        bias = None if of_bias is None else gradient.sum(0, dtype=torch.float32).to(of_bias)
        return back, torch.mm(filled.t(), rows).to(of_weight), bias
