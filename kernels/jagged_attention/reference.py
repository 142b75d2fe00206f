"""The plain definition of attention of packed queries to packed keys, request by request; for tests."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_offsets: Tensor,
    key_offsets: Tensor,
    *,
    heads: int,
    visible: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √d) V and log Σ exp(Q Kᵀ / √d) of each request and head; 0 and −∞ where no key is seen.

    Shapes as in `kernels.jagged_attention.attend`, with keys and values as two tensors (ΣL, D).
    """
    outs, sums = [], []
    for r in range(len(query_offsets) - 1):
        asks = slice(int(query_offsets[r]), int(query_offsets[r + 1]))
        holds = slice(int(key_offsets[r]), int(key_offsets[r + 1]))
        q, k, v = (
            x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query[asks], key[holds], value[holds])
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if visible is not None:
            unseen = torch.arange(k.shape[1]) >= visible[asks, None]
            scores = scores.masked_fill(unseen, -torch.inf)
        total = scores.logsumexp(dim=-1)
        blind = torch.isinf(total)[..., None]
        weights = torch.where(blind, 0.0, (scores - torch.where(blind, 0.0, total[..., None])).exp())
        outs.append((weights @ v).transpose(0, 1).flatten(1))
        sums.append(total.transpose(0, 1))
    return torch.cat(outs), torch.cat(sums)
