"""The plain path: what a graph that leaves this package is made of, torch's own operators alone.

A graph that `torch.export` makes is run where this package is not installed. So while one is being made, the
operators of `kernels` stand aside for the definitions that are registered nowhere; they compute the same,
slower (tests/kernels/test_plain.py).

U unique rows, V inverse indices, n bags, J columns, E width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def exporting() -> bool:
    """Whether a graph is being made that must run without this package."""
    return torch.compiler.is_exporting()


def gather_bags(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None, weights: Tensor | None
) -> Tensor:
    """See `kernels.unique_pooling.gather_bags`."""
    if offsets is None:
        return rows.index_select(0, inverse_indices)
    weights = (
        torch.ones_like(inverse_indices, dtype=rows.dtype) if weights is None else weights.to(rows.dtype)
    )
    total = _bag_sums(weights.abs()[:, None], torch.arange(weights.shape[0], device=rows.device), offsets)
    sums = _bag_sums(rows, inverse_indices, offsets, weights)
    return sums / torch.where(total > 0, total, 1.0)


def gather_sum(rows: Sequence[Tensor], inverse_indices: Sequence[Tensor]) -> Tensor:
    """See `kernels.unique_pooling.gather_sum`."""
    columns = [table.index_select(0, inverse) for table, inverse in zip(rows, inverse_indices, strict=True)]
    return torch.stack(columns).sum(dim=0) if len(columns) > 1 else columns[0]


def _bag_sums(rows: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """(n, E): the (weighted) sum of the rows of each bag."""
    return F.embedding_bag(
        indices, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
