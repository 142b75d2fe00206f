"""The plain definitions of `gather_bags` and `gather_sum`, for tests: autograd derives their backward.

U unique rows, V inverse indices, n bags, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_bags_reference(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Gather the rows of all indices (V, E) and average them bag by bag (n, E); see `gather_bags`."""
    tokens = rows[inverse_indices]
    if offsets is None:
        return tokens
    share = torch.ones_like(inverse_indices, dtype=rows.dtype) if weights is None else weights.to(rows.dtype)
    means = [
        _mean(tokens[start:end], share[start:end])
        for start, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False)
    ]
    return torch.stack(means) if means else rows.new_zeros(0, rows.shape[1])


def gather_sum_reference(rows: Sequence[Tensor], inverse_indices: Sequence[Tensor]) -> Tensor:
    """Gather every column's rows (V, E) and add them up, column by column; see `gather_sum`."""
    columns = [table[inverse] for table, inverse in zip(rows, inverse_indices, strict=True)]
    return torch.stack(columns).sum(0)


def _mean(tokens: Tensor, share: Tensor) -> Tensor:
    total = share.abs().sum()
    return (share[:, None] * tokens).sum(0) / (total if total > 0 else 1)
