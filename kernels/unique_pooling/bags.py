"""Bags of rows as a sparse matrix A (n, U): sorted by bag for the forward A R, by row for the backward Aᵀ G.

U unique rows, K entries of the matrix, n bags.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


class Bags(NamedTuple):
    """The entries of A in compressed rows: bag i holds the entries starts[i] to starts[i + 1] - 1."""

    indices: Tensor  # (K,), or (n, J) where every bag has J entries and starts is None
    starts: Tensor | None = None  # (n + 1,), the dtype of indices
    weights: Tensor | None = None  # (K,); None: all 1

    @property
    def num_bags(self) -> int:
        """n."""
        return self.indices.shape[0] if self.starts is None else self.starts.shape[0] - 1


def transpose(bags: Bags, num_rows: int) -> Bags:
    """Sort the entries by row; entries of one row stay in the order of their bags.

    The order is unique, so sums over it are the same on every run and with any number of threads. On the
    CPU it takes one counting sort, on a GPU a stable radix sort for which the host does not wait.

    Args:
        bags: entries sorted by bag, indices in [0, num_rows).
        num_rows: U.

    Returns:
        Aᵀ: the bag of each entry (K,) as indices, starts (U + 1,); int32 on the CPU, where K is below 2³¹.

    Example:
        >>> order, starts, _ = transpose(Bags(torch.tensor([2, 0, 2])), 3)
        >>> order.tolist(), starts.tolist()
        ([1, 0, 2], [0, 1, 1, 3])
    """
    if bags.indices.is_cuda:
        return _by_radix_sort(bags, num_rows)
    return _by_counting(bags, num_rows)


def _by_counting(bags: Bags, num_rows: int) -> Bags:
    # scipy moves the values along with the entries; without weights they are one unread byte each.
    if bags.weights is None:
        values = np.empty(bags.indices.numel(), np.int8)
    else:
        values = bags.weights.to(torch.promote_types(bags.weights.dtype, torch.float32)).numpy()
    indices = bags.indices.reshape(-1).numpy().astype(np.int32)
    by_bag = (values, indices, _starts(bags).astype(np.int32))
    by_row = sparse.csr_matrix(by_bag, shape=(bags.num_bags, num_rows), copy=False).tocsc()
    bag_of, starts = torch.from_numpy(by_row.indices), torch.from_numpy(by_row.indptr)
    if bags.weights is None:
        return Bags(bag_of, starts)
    return Bags(bag_of, starts, torch.from_numpy(by_row.data).to(bags.weights.dtype))


def _starts(bags: Bags) -> np.ndarray:
    if bags.starts is not None:
        starts: np.ndarray = bags.starts.numpy()
        return starts
    each = bags.indices.numel() // max(1, bags.num_bags)
    return np.arange(bags.num_bags + 1, dtype=np.int32) * np.int32(each)


def _by_radix_sort(bags: Bags, num_rows: int) -> Bags:
    sorted_rows, order = bags.indices.reshape(-1).sort(stable=True)
    bounds = torch.arange(num_rows + 1, device=order.device, dtype=sorted_rows.dtype)
    starts = torch.searchsorted(sorted_rows, bounds)
    weights = None if bags.weights is None else bags.weights[order]
    return Bags(bag_of_entry(bags)[order], starts, weights)


def bag_of_entry(bags: Bags) -> Tensor:
    """The bag of each of the K entries, (K,)."""
    if bags.starts is not None:
        return torch.repeat_interleave(bags.starts.diff(), output_size=bags.indices.numel())
    bag = torch.arange(bags.num_bags, device=bags.indices.device)
    return bag[:, None].expand(-1, bags.indices.numel() // max(1, bags.num_bags)).reshape(-1)
