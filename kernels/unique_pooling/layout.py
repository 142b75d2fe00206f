"""Which token adds which row: a sparse matrix A (n, U), kept by tokens for `expand` and by rows for `reduce`.

U unique rows, K entries of the matrix, n owners (tokens, or lists of them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


class Layout(NamedTuple):
    """The entries of A in compressed rows: owner i holds the entries starts[i] to starts[i + 1] - 1."""

    indices: Tensor  # (K,), or (n, J) where every owner has J entries and starts is None
    starts: Tensor | None = None  # (n + 1,), the dtype of indices
    weights: Tensor | None = None  # (K,); None: all 1

    @property
    def owners(self) -> int:
        """n."""
        return self.indices.shape[0] if self.starts is None else self.starts.shape[0] - 1


def transpose(layout: Layout, num_rows: int) -> Layout:
    """Sort the entries by the row they use; entries of one row stay in the order of their owners.

    The order is unique, so sums over it are the same on every run and with any number of threads. On the
    CPU it takes one counting sort, on a GPU a stable radix sort that nothing waits for.

    Args:
        layout: entries by owner, indices in [0, num_rows).
        num_rows: U.

    Returns:
        Aᵀ: owners (K,) as indices, starts (U + 1,); int32 on the CPU, where K is below 2³¹.

    Example:
        >>> order, starts, _ = transpose(Layout(torch.tensor([2, 0, 2])), 3)
        >>> order.tolist(), starts.tolist()
        ([1, 0, 2], [0, 1, 1, 3])
    """
    if layout.indices.is_cuda:
        return _by_radix_sort(layout, num_rows)
    return _by_counting(layout, num_rows)


def _by_counting(layout: Layout, num_rows: int) -> Layout:
    # scipy moves the values along with the entries; without weights they are one unread byte each.
    if layout.weights is None:
        values = np.empty(layout.indices.numel(), np.int8)
    else:
        values = layout.weights.to(torch.promote_types(layout.weights.dtype, torch.float32)).numpy()
    indices = layout.indices.reshape(-1).numpy().astype(np.int32)
    by_owner = (values, indices, _starts(layout).astype(np.int32))
    by_row = sparse.csr_matrix(by_owner, shape=(layout.owners, num_rows), copy=False).tocsc()
    owners, starts = torch.from_numpy(by_row.indices), torch.from_numpy(by_row.indptr)
    if layout.weights is None:
        return Layout(owners, starts)
    return Layout(owners, starts, torch.from_numpy(by_row.data).to(layout.weights.dtype))


def _starts(layout: Layout) -> np.ndarray:
    if layout.starts is not None:
        starts: np.ndarray = layout.starts.numpy()
        return starts
    each = layout.indices.numel() // max(1, layout.owners)
    return np.arange(layout.owners + 1, dtype=np.int32) * np.int32(each)


def _by_radix_sort(layout: Layout, num_rows: int) -> Layout:
    sorted_rows, order = layout.indices.reshape(-1).sort(stable=True)
    bounds = torch.arange(num_rows + 1, device=order.device, dtype=sorted_rows.dtype)
    starts = torch.searchsorted(sorted_rows, bounds)
    weights = None if layout.weights is None else layout.weights[order]
    return Layout(owner_of_entry(layout)[order], starts, weights)


def owner_of_entry(layout: Layout) -> Tensor:
    """The owner of each of the K entries, (K,)."""
    if layout.starts is not None:
        return torch.repeat_interleave(layout.starts.diff(), output_size=layout.indices.numel())
    owners = torch.arange(layout.owners, device=layout.indices.device)
    return owners[:, None].expand(-1, layout.indices.numel() // max(1, layout.owners)).reshape(-1)
