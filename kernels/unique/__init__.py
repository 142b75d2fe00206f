"""Unique IDs: the values of many columns that share a table, each once, and where every use finds its value.

U unique IDs; V uses, over all columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Marking rows takes one pass over the table; sorting costs about as much as 16 such passes over the uses.
_ROWS_PER_USE = 16

Column = np.ndarray | Tensor


def unique_ids(columns: Sequence[Column], *, rows: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the unique values of all columns together, in one pass: ``unique[inverse[j]] == columns[j]``.

    All columns given in one call share one ID space; columns of different tables go into different calls, so
    that IDs of two tables never mix.

    Args:
        columns: each (V_j,) integers, numpy or a CPU tensor; may be empty.
        rows: number of table rows, where known: values lie in [0, rows), which is checked, and small tables
            are served without sorting.

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
    uses = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
    if rows is not None:
        _check_range(uses, rows)
    if rows is not None and rows <= _ROWS_PER_USE * len(uses):
        unique, inverse = _by_marks(uses, rows)
    else:
        unique, inverse = _by_sorting(uses)
    return unique, np.split(inverse, np.cumsum([len(a) for a in arrays])[:-1]) if arrays else []


def _by_marks(uses: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    marked = np.zeros(rows, dtype=bool)
    marked[uses] = True
    unique = np.flatnonzero(marked)
    position = np.empty(rows, dtype=np.int64)  # read only where it is written in the next line
    position[unique] = np.arange(len(unique))
    return unique, position.take(uses)


def _by_sorting(uses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, inverse = torch.unique(torch.from_numpy(uses.astype(np.int64)), return_inverse=True)
    return unique.numpy(), inverse.numpy()


def _check_range(uses: np.ndarray, rows: int) -> None:
    low, high = (int(uses.min()), int(uses.max())) if len(uses) else (0, -1)
    if low < 0 or high >= rows:
        raise ValueError(
            f"IDs must lie in [0, {rows}) (the number of table rows), got {low} to {high}; "
            "encode them with the vocabulary of this table"
        )
