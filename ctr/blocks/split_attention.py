"""Attention of candidates over shared events and over their own tokens, merged by log-sum-exp.

    softmax over [events; own] = w softmax over events + (1 − w) softmax over own,   w = σ(lse_e − lse_o)

lse: log Σ exp of the scores over the events (e) or the own tokens (o). In one call every candidate's tokens
are keys, which a mask hides from the others: C candidates of m tokens cost (C m)² products and a mask of
(C m) × (L + C m); here they cost C m². For kernels that give their lse: torch's on a CPU, which does not
differentiate it (inference), and `kernels.jagged_attention` (training).

R requests, L events of one, C candidates of one, m tokens of a candidate, H heads, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def can_split(query: Tensor, valid: Tensor | None) -> bool:
    """Whether the kernel is there, no gradient is asked for, and no event is padding."""
    return valid is None and query.device.type == "cpu" and not torch.is_grad_enabled()


def attend_split(
    query: Tensor, key: Tensor, value: Tensor, own: Tensor, *, heads: int, tokens: int
) -> Tensor:
    """Each candidate's tokens ask the events of the request and their own candidate's tokens.

    Args:
        query: (R, C m, D).
        key: (R, L, D), L at least 1.
        value: (R, L, D).
        own: (R, C m, 2 D): keys and values of the tokens themselves.
        heads: H.
        tokens: m.

    Returns:
        (R, C m, D).
    """
    shared, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    )
    return merge_own(query, own, shared.transpose(1, 2).flatten(2), lse, heads=heads, tokens=tokens)


def merge_own(query: Tensor, own: Tensor, shared: Tensor, lse: Tensor, *, heads: int, tokens: int) -> Tensor:
    """What queries read of the events, merged with what they read of their own candidate's tokens.

    Args:
        query: (R, C m, D).
        own: (R, C m, 2 D): keys and values of the tokens themselves.
        shared: (R, C m, D), read of the events.
        lse: (R, H, C m), of the events; −∞ where there is none.
        heads: H.
        tokens: m.

    Returns:
        (R, C m, D).
    """
    query, own_key, own_value = (
        x.unflatten(-1, (heads, -1)).transpose(1, 2).unflatten(2, (-1, tokens))
        for x in (query, *own.chunk(2, dim=-1))
    )
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ own_key.transpose(-1, -2)).to(wide) * query.shape[-1] ** -0.5
    alone = (scores.softmax(dim=-1).to(own_value.dtype) @ own_value).flatten(2, 3)
    weight = torch.sigmoid(lse.to(wide) - scores.logsumexp(dim=-1).flatten(2)).transpose(1, 2)[..., None]
    alone, read = alone.transpose(1, 2).to(wide), shared.unflatten(-1, (heads, -1)).to(wide)
    return torch.lerp(alone, read, weight).to(shared.dtype).flatten(2)


def merge_sink(query: Tensor, sink: Tensor, shared: Tensor, lse: Tensor) -> Tensor:
    """What queries read of the events, once they also see a key `sink` (D,) whose value is 0.

    Args and returns: as of `merge_own`.
    """
    heads = lse.shape[1]
    own = (query * sink).unflatten(-1, (heads, -1)).sum(dim=-1, dtype=lse.dtype)
    own = own * (len(sink) // heads) ** -0.5
    weight = torch.sigmoid(lse.transpose(1, 2) - own)[..., None]
    return (shared.unflatten(-1, (heads, -1)) * weight).to(shared.dtype).flatten(2)
