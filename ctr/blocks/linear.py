"""Linear maps that are fast on a CPU: compiled in float32, with padded row counts in bfloat16.

oneDNN, which multiplies bfloat16 on a CPU, generates a kernel for every new shape. That takes 2 to 10 ms,
many times the product itself, and every batch has another number of packed events. Rows of zeros therefore
pad the number of rows to one of few values (eight between a power of two and the next), so that after some
steps every kernel exists.

n rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctr.blocks.fused import compiled_norm, fits, hooked
from kernels import position_wise


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, norm: nn.Module | None = None) -> Tensor:
    """norm(x) Wᵀ + b in the precision that autocast asks for; like `torch.nn.functional.linear`.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,).
        norm: over the last axis of x, before the map; none unless given.

    Returns:
        (..., O).

    Example:
        >>> linear(torch.ones(2, 3), torch.full((1, 3), 2.0)).tolist()
        [[6.0], [6.0]]
    """
    if fits(x, len(weight), weight, bias):
        known, parts = compiled_norm(norm)
        rows = x.flatten(0, -2)
        made = position_wise.linear(rows if known or norm is None else norm(rows), weight, bias, norm=parts)
        return made.unflatten(0, x.shape[:-1])
    x = x if norm is None else norm(x)
    if not x.numel() or not _pads_rows(x):
        return F.linear(x, weight, bias)
    flat: Tensor = _PaddedLinear.apply(x.flatten(0, -2), weight, bias)
    return flat.unflatten(0, x.shape[:-1])


class Linear(nn.Linear):
    """`torch.nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """norm(x), (..., I), to (..., O)."""
        return linear(x, self.weight, self.bias, norm=norm)


def normed_linear(layer: nn.Module, x: Tensor, norm: nn.Module | None) -> Tensor:
    """layer(norm(x)) of a linear layer, in one pass where there is compiled code for it."""
    if type(layer) is Linear:
        mapped: Tensor = layer(x, norm)
        return mapped
    adapted: Tensor = layer(x if norm is None else norm(x))
    return adapted


def join_mapped(
    tables: Sequence[Tensor], inputs: Sequence[Tensor], maps: Sequence[nn.Module]
) -> tuple[Tensor, list[int]]:
    """Concatenate tables and products x_j W_jᵀ along the rows; every product is written in place.

    Args:
        tables: (n_i, O) as they are.
        inputs: (n_j, I) of each map.
        maps: linear maps without bias, from I to O.

    Returns:
        (Σ n, O), in the order given, and the n of each part.
    """
    sizes = [len(part) for part in (*tables, *inputs)]
    plain = all(type(linear) is Linear and not hooked(linear) for linear in maps)  # no adapter inside
    if not inputs or not plain or torch.is_autocast_enabled(inputs[0].device.type):
        mapped = [linear(x) for x, linear in zip(inputs, maps, strict=True)]
        return torch.cat([*tables, *mapped]), sizes
    weights = [linear.get_parameter("weight") for linear in maps]
    joined: Tensor = _JoinMapped.apply(len(tables), len(inputs), *tables, *inputs, *weights)
    return joined, sizes


class _JoinMapped(torch.autograd.Function):
    """See `join_mapped`; the gradients of the tables are slices of the incoming one."""

    @staticmethod
    def forward(ctx: Any, tables: int, count: int, *tensors: Tensor) -> Tensor:
        plain, inputs, weights = tensors[:tables], tensors[tables : tables + count], tensors[tables + count :]
        ctx.save_for_backward(*inputs, *weights)
        ctx.sizes, ctx.tables = [len(part) for part in (*plain, *inputs)], tables
        out = inputs[0].new_empty(sum(ctx.sizes), weights[0].shape[0])
        parts = out.split(ctx.sizes)
        for part, table in zip(parts, plain, strict=False):
            part.copy_(table)
        for part, x, weight in zip(parts[tables:], inputs, weights, strict=True):
            torch.mm(x, weight.t(), out=part)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, tables = ctx.saved_tensors, ctx.tables
        inputs, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        parts = gradient.contiguous().split(ctx.sizes)
        needed = ctx.needs_input_grad[2:]
        given = [part if need else None for part, need in zip(parts[:tables], needed, strict=False)]
        pairs = list(zip(parts[tables:], inputs, weights, strict=True))
        of_inputs = [
            torch.mm(part, weight) if need else None
            for (part, _, weight), need in zip(pairs, needed[tables:], strict=False)
        ]
        of_weights = [
            torch.mm(part.t(), x) if need else None
            for (part, x, _), need in zip(pairs, needed[tables + len(pairs) :], strict=True)
        ]
        return None, None, *given, *of_inputs, *of_weights


def _pads_rows(x: Tensor) -> bool:
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def padded_rows(n: int) -> int:
    """The count that n ≥ 1 rows are padded to: at most an eighth more, and at least 64.

    Example:
        >>> [padded_rows(n) for n in (1, 64, 1000, 1024, 1025)]
        [64, 64, 1024, 1024, 1152]
    """
    step = max(64, 1 << max(0, n.bit_length() - 4))
    return -(-n // step) * step


def _pad_rows(x: Tensor, rows: int) -> Tensor:
    """x (n, …) in bfloat16 with rows of zeros behind it, (rows, …)."""
    if len(x) == rows:
        return x.to(torch.bfloat16)
    out = torch.empty(rows, *x.shape[1:], dtype=torch.bfloat16)
    out[: len(x)] = x
    out[len(x) :] = 0
    return out


class _PaddedLinear(torch.autograd.Function):
    """x Wᵀ + b for x (n, I): the three products in bfloat16, each over `padded_rows(n)` rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, kernel = _pad_rows(x, padded_rows(len(x))), weight.to(torch.bfloat16)
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
        filled = _pad_rows(gradient, len(rows))
        back = torch.mm(filled, kernel)[: len(gradient)].to(of_x) if ctx.needs_input_grad[0] else None
        bias = None if of_bias is None else gradient.sum(0, dtype=torch.float32).to(of_bias)
        return back, torch.mm(filled.t(), rows).to(of_weight), bias
