"""The plain definitions of `expand` and `expand_sum`, for tests: autograd derives their backward.

U unique rows, V uses, n owners, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def expand_reference(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Gather every use's row (V, E) and, for lists, average them owner by owner (n, E); see `expand`."""
    tokens = rows[inverse_indices]
    if offsets is None:
        return tokens
    share = torch.ones_like(inverse_indices, dtype=rows.dtype) if weights is None else weights.to(rows.dtype)
    owners = [
        _mean(tokens[start:end], share[start:end])
        for start, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False)
    ]
    return torch.stack(owners) if owners else rows.new_zeros(0, rows.shape[1])


def expand_sum_reference(rows: Sequence[Tensor], inverse_indices: Sequence[Tensor]) -> Tensor:
    """Gather every column's rows (V, E) and add them up, column by column; see `expand_sum`."""
    columns = [table[inverse] for table, inverse in zip(rows, inverse_indices, strict=True)]
    return torch.stack(columns).sum(0)


def _mean(tokens: Tensor, share: Tensor) -> Tensor:
    total = share.abs().sum()
    return (share[:, None] * tokens).sum(0) / (total if total > 0 else 1)
