"""The plain definition of `expand`, for tests: autograd derives its backward.

U unique rows, V uses, n owners, E embedding width.
"""

from __future__ import annotations

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


def _mean(tokens: Tensor, share: Tensor) -> Tensor:
    total = share.abs().sum()
    return (share[:, None] * tokens).sum(0) / (total if total > 0 else 1)
