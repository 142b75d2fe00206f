"""Tokens as sums over columns, each with rows of a table of its own; compiled code on a CPU (scatter.cpp).

Elsewhere one `bag_sum` over the indices of all columns, shifted to where their tables begin.

n tokens, J columns, U_j rows of a table, E width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from kernels.native import load
from kernels.unique_pooling.ops import bag_sum, segment_sum_op
from kernels.unique_pooling.scatter import MOST, SOURCE


def sum_columns(rows: Tensor, sizes: Sequence[int], columns: Sequence[Tensor]) -> Tensor:
    """Σ_j of the row of column j, each from its own table.

    Args:
        rows: (Σ U_j, E), the tables one below the other.
        sizes: U_j of each of the J tables.
        columns: J tensors (n,) int64, the j-th in [0, U_j).

    Returns:
        (n, E) in the dtype of rows.
    """
    starts = list(accumulate(sizes, initial=0))
    if compiled(rows, columns):
        summed: Tensor = _SumColumns.apply(rows, starts, *columns)
        return summed
    return bag_sum(rows, _stacked(starts, columns), None, None)


def compiled(rows: Tensor, columns: Sequence[Tensor]) -> bool:
    """Whether there is compiled code for these: float32 on a CPU, outside compiled graphs, where GCC is."""
    if rows.device.type != "cpu" or rows.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    indices = sum(len(column) for column in columns)
    return 0 < indices <= MOST and rows.shape[1] > 0 and load(SOURCE) is not None


def _stacked(starts: Sequence[int], columns: Sequence[Tensor]) -> Tensor:
    """(n, J) int64: the columns as indices of all rows."""
    shifted = [column + start for column, start in zip(columns, starts, strict=False)]
    return torch.stack(shifted, dim=1)


class _SumColumns(torch.autograd.Function):
    """The columns are read where they lie, and sorted side by side for the backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, starts: list[int], *columns: Tensor) -> Tensor:
        ctx.save_for_backward(*columns)
        ctx.starts = starts
        return _over_columns("gather_columns", rows, starts, columns, len(columns[0]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), columns, starts = gradients, ctx.saved_tensors, ctx.starts
        if torch.is_grad_enabled():  # a gradient of this gradient is asked for
            of_rows = segment_sum_op(gradient, _stacked(starts, columns), None, None, starts[-1])
        else:
            of_rows = _over_columns("scatter_columns", gradient, starts, columns, starts[-1])
        return of_rows, None, *(None for _ in columns)


def _over_columns(
    name: str, given: Tensor, starts: Sequence[int], columns: Sequence[Tensor], made: int
) -> Tensor:
    """Run a function of the compiled library that makes `made` rows out of the rows `given`."""
    kernel = load(SOURCE)
    assert kernel is not None  # compiled
    given, held = given.contiguous(), [column.contiguous() for column in columns]
    out = given.new_empty(made, given.shape[1])
    getattr(kernel, name)(
        ctypes.c_void_p(given.data_ptr()),
        (ctypes.c_void_p * len(held))(*(column.data_ptr() for column in held)),
        (ctypes.c_int64 * len(starts))(*starts),
        *map(ctypes.c_int64, (len(held), len(held[0]), given.shape[1])),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out
