"""Row-wise Adagrad on the touched rows of a large table, on a CPU, in one pass (torch's operators: seven).

Without a compiler, or for tables that are not float32 on a CPU, `available` is False. n touched rows, E
width.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from kernels.native import load

__all__ = ["available", "rowwise_adagrad"]

_SOURCE = Path(__file__).parent / "table_rows.cpp"


def available(weight: Tensor) -> bool:
    """Whether `rowwise_adagrad` can update this table: contiguous float32 on a CPU, and GCC is there."""
    return _fits(weight) and load(_SOURCE) is not None


def _fits(table: Tensor) -> bool:
    return table.device.type == "cpu" and table.dtype == torch.float32 and table.is_contiguous()


def rowwise_adagrad(
    weight: Tensor, total: Tensor, ids: Tensor, gradient: Tensor, *, lr: float, eps: float, keep: float
) -> None:
    """h ← h + mean(g²); w ← keep · w − lr · g / (√h + eps), in place.

    Args:
        weight: (rows, E).
        total: (rows,) float32, h.
        ids: (n,) int64, each at most once.
        gradient: (n, E) float32.
        lr: learning rate.
        eps: added to √h.
        keep: 1 − lr · weight decay.

    Raises:
        ValueError: shapes, dtypes or IDs that do not fit; nothing is changed then.
    """
    right = _fits(weight) and _fits(total) and gradient.dtype == torch.float32
    if not right or gradient.shape != (len(ids), weight.shape[1]) or total.shape != weight.shape[:1]:
        raise ValueError(
            "weight (rows, E), total (rows,) and gradient (n, E) of n ids must be float32 on a CPU, the "
            f"first two in one piece, got {weight.dtype} {tuple(weight.shape)}, {total.dtype} "
            f"{tuple(total.shape)}, {gradient.dtype} {tuple(gradient.shape)} and {len(ids)} ids"
        )
    ids, gradient = _checked(ids, len(weight)), gradient.contiguous()
    numbers = (ctypes.c_float(value) for value in (lr, eps, keep))
    _call("rowwise_adagrad", weight, total, ids, gradient, *_sizes(gradient), *numbers)


def _checked(ids: Tensor, rows: int) -> Tensor:
    if ids.dtype != torch.int64 or ids.dim() != 1:
        raise ValueError(f"ids must be int64 (n,), got {ids.dtype} {tuple(ids.shape)}")
    low, high = (int(value) for value in ids.aminmax()) if len(ids) else (0, -1)
    if low < 0 or high >= rows:
        raise ValueError(f"ids must lie in [0, {rows}), the rows of the table, got {low} to {high}")
    return ids.contiguous()


def _sizes(rows: Tensor) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(size) for size in rows.shape]


def _call(name: str, *arguments: object) -> None:
    """Run a function of the library on tensors and C values, with torch's number of threads."""
    kernel = load(_SOURCE)
    assert kernel is not None  # available
    given = (ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments)
    getattr(kernel, name)(*given, ctypes.c_int(torch.get_num_threads()))
