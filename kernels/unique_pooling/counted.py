"""Rows summed into tokens, and token gradients into their rows, by compiled code: scatter.cpp.

n tokens, J uses of each, U rows, E width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.native import load

_SOURCE = Path(__file__).parent / "scatter.cpp"
_MOST = 2**31 - 1  # tokens and uses that its indices can count


def counted_sum(gradients: Tensor, indices: Tensor, num_rows: int) -> Tensor | None:
    """Each token's gradient into each row that it used; None where there is no compiled code for these.

    Args:
        gradients: (n, E).
        indices: (n,) or (n, J) int64 in [0, U).
        num_rows: U.

    Returns:
        (U, E) float32, from float32 on a CPU.
    """
    if gradients.device.type != "cpu" or gradients.dtype != torch.float32 or indices.numel() > _MOST:
        return None
    if not indices.numel() or (kernel := load(_SOURCE)) is None:
        return None
    gradients, indices = gradients.contiguous(), indices.contiguous()
    out = gradients.new_empty(num_rows, gradients.shape[1])
    sizes = len(indices), indices.numel() // len(indices), num_rows, gradients.shape[1]
    kernel.scatter_sum(
        *(ctypes.c_void_p(t.data_ptr()) for t in (gradients, indices)),
        *map(ctypes.c_int64, sizes),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out


def sum_columns(rows: Tensor, sizes: Sequence[int], columns: Sequence[Tensor]) -> Tensor | None:
    """Σ_j of the rows that column j uses of its own table; None where there is no compiled code for these.

    Args:
        rows: (Σ U_j, E), the tables one below the other.
        sizes: U_j of each of the J tables.
        columns: J tensors (n,) int64, the j-th in [0, U_j).

    Returns:
        (n, E) float32, from float32 on a CPU.
    """
    if rows.device.type != "cpu" or rows.dtype != torch.float32 or torch.compiler.is_compiling():
        return None
    uses = sum(len(column) for column in columns)
    if not uses or uses > _MOST or not rows.shape[1] or load(_SOURCE) is None:
        return None
    summed: Tensor = _SumColumns.apply(rows, list(accumulate(sizes, initial=0)), *columns)
    return summed


class _SumColumns(torch.autograd.Function):
    """See `sum_columns`; the columns are read where they lie, and sorted side by side for the backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, starts: list[int], *columns: Tensor) -> Tensor:
        ctx.save_for_backward(*columns)
        ctx.starts = starts
        out = rows.new_empty(len(columns[0]), rows.shape[1])
        _over_columns("gather_columns", rows, starts, columns, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        out = gradient.new_empty(ctx.starts[-1], gradient.shape[1])
        _over_columns("scatter_columns", gradient, ctx.starts, ctx.saved_tensors, out)
        return out, None, *(None for _ in ctx.saved_tensors)


def _over_columns(
    name: str, given: Tensor, starts: Sequence[int], columns: Sequence[Tensor], out: Tensor
) -> None:
    kernel = load(_SOURCE)
    assert kernel is not None  # sum_columns
    given, held = given.contiguous(), [column.contiguous() for column in columns]
    getattr(kernel, name)(
        ctypes.c_void_p(given.data_ptr()),
        (ctypes.c_void_p * len(held))(*(column.data_ptr() for column in held)),
        (ctypes.c_int64 * len(starts))(*starts),
        *map(ctypes.c_int64, (len(held), len(held[0]), given.shape[1])),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
