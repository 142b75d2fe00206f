"""Unique IDs of the columns that share a table: every value once, and inverse indices into these values.

U unique IDs; V values, over all columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.unique.cpu import make_unique

__all__ = ["IdArray", "unique_ids", "unique_ids_on_device"]

IdArray = np.ndarray | Tensor


def unique_ids(columns: Sequence[IdArray], *, rows: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the unique values of all columns together, in one pass: ``unique[inverse[j]] == columns[j]``.

    All columns given in one call share one ID space; columns of different tables go into different calls, so
    that IDs of two tables never mix. May be called from several threads at once.

    Args:
        columns: each (V_j,) integers, numpy or a CPU tensor; may be empty.
        rows: number of table rows, where known: values lie in [0, rows), which is checked.

    Returns:
        ``unique`` (U,) int64, ascending, and for every column ``inverse_indices`` (V_j,) int64 in [0, U).

    Raises:
        ValueError: a value outside [0, rows).

    Example:
        >>> unique, (item, history) = unique_ids([np.array([7, 2]), np.array([2, 2, 5])], rows=8)
        >>> unique.tolist(), item.tolist(), history.tolist()
        ([2, 5, 7], [2, 0], [0, 0, 1])
    """
    arrays = [column.numpy() if isinstance(column, Tensor) else np.asarray(column) for column in columns]
    values = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
    if not len(values):
        return np.empty(0, np.int64), [np.empty(0, np.int64) for _ in arrays]
    low, high = int(values.min()), int(values.max())
    if rows is not None:
        _check_range(low, high, rows)
    unique, inverse = make_unique(values, low=low, high=high)
    return unique, np.split(inverse, np.cumsum([len(a) for a in arrays])[:-1])


def unique_ids_on_device(columns: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """`unique_ids` for columns that are on a GPU already; the host waits there for U. Values are not checked.

    Args:
        columns: each (V_j,) integers, all on one device.

    Returns:
        ``unique`` (U,), ascending, and for every column ``inverse_indices`` (V_j,) int64.

    Raises:
        ValueError: no column, which has no device.

    Example:
        >>> unique, (item, history) = unique_ids_on_device([torch.tensor([7, 2]), torch.tensor([2, 2, 5])])
        >>> unique.tolist(), item.tolist(), history.tolist()
        ([2, 5, 7], [2, 0], [0, 0, 1])
    """
    if not columns:
        raise ValueError(
            "unique_ids_on_device needs at least one column, got none; skip tables without columns"
        )
    unique, inverse = torch.unique(torch.cat(list(columns)), return_inverse=True)
    return unique, list(inverse.split([len(column) for column in columns]))


def _check_range(low: int, high: int, rows: int) -> None:
    if low < 0 or high >= rows:
        raise ValueError(
            f"IDs must lie in [0, {rows}) (the number of table rows), got {low} to {high}; "
            "encode them with the vocabulary of this table"
        )
