"""Attention of candidates over shared events and over their own tokens, merged by log-sum-exp.

    softmax over [events; own] = w softmax over events + (1 − w) softmax over own,   w = σ(lse_e − lse_o)

lse: log Σ exp of the scores over the events (e) or the candidate's own tokens (o). In a single call the
tokens of all C candidates would be keys, and a mask of (C m) × (L + C m) would hide those of the others: (C
m)² products; here there are C m². It needs kernels that return their lse: torch's on a CPU, which does not
differentiate it (inference), and `kernels.jagged_attention` (training).

R requests, L events of one, C candidates of one, m tokens of a candidate, n of them asked, H heads, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctr.blocks.key_values import PaddedKV


def can_split(query: Tensor, valid: Tensor | None) -> bool:
    """Whether torch's kernel can be used: on a CPU, without gradients and without padded events."""
    return valid is None and query.device.type == "cpu" and not torch.is_grad_enabled()


def attend_split(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    own: Tensor,
    *,
    heads: int,
    tokens: int,
    causal: bool = False,
) -> Tensor:
    """Attention of each candidate's tokens to the events of the request and to the candidate's own tokens.

    Args:
        query: (R, C n, D).
        key: (R, L, D), L at least 1.
        value: (R, L, D).
        own: (R, C m, 2 D): keys and values of the candidates' tokens.
        heads: H.
        tokens: n.
        causal: whether a query sees only the tokens of its candidate up to its own place.

    Returns:
        (R, C n, D).
    """
    shared, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    )
    shared = shared.transpose(1, 2).flatten(2)
    return merge_own(query, own, shared, lse, heads=heads, tokens=tokens, causal=causal)


def attend_masked(query: Tensor, kv: PaddedKV, *, heads: int) -> tuple[Tensor, Tensor]:
    """Attention to padded events by plain operators, with its lse: for graphs that leave this package.

    Args:
        query: (R, N, D).
        kv: one bucket of all R requests; an event of the padding has the value 0.
        heads: H.

    Returns:
        (R, N, D), 0 without any event, and the lse (R, H, N), −∞ there.
    """
    (key,), (value,), (valid,) = kv.key, kv.value, kv.valid
    assert valid is not None
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    scores = torch.where(valid[:, None, None], scores, torch.finfo(scores.dtype).min)
    shared = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    return shared, torch.where(valid.any(dim=1)[:, None, None], scores.logsumexp(dim=-1), -torch.inf)


def merge_own(
    query: Tensor,
    own: Tensor,
    shared: Tensor,
    lse: Tensor,
    *,
    heads: int,
    tokens: int,
    causal: bool = False,
) -> Tensor:
    """Merge the queries' attention to events with their attention to their own candidate's tokens.

    Args:
        query: (R, C n, D).
        own: (R, C m, 2 D): keys and values of the candidates' tokens.
        shared: (R, C n, D), the result of attention to the events.
        lse: (R, H, C n) of that attention; −∞ where there is no event.
        heads: H.
        tokens: n.
        causal: as of `attend_split`.

    Returns:
        (R, C n, D).
    """
    candidates = query.shape[1] // tokens
    query, own_key, own_value = (
        x.unflatten(-1, (heads, -1)).transpose(1, 2).unflatten(2, (candidates, -1))
        for x in (query, *own.chunk(2, dim=-1))
    )
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ own_key.transpose(-1, -2)).to(wide) * query.shape[-1] ** -0.5
    if causal:
        scores = torch.where(_earlier(scores.shape[-2], scores.shape[-1], scores.device), scores, -torch.inf)
    alone = (scores.softmax(dim=-1).to(own_value.dtype) @ own_value).flatten(2, 3)
    weight = torch.sigmoid(lse.to(wide) - scores.logsumexp(dim=-1).flatten(2)).transpose(1, 2)[..., None]
    alone, read = alone.transpose(1, 2).to(wide), shared.unflatten(-1, (heads, -1)).to(wide)
    return torch.lerp(alone, read, weight).to(shared.dtype).flatten(2)


def merge_sink(query: Tensor, sink: Tensor, shared: Tensor, lse: Tensor) -> Tensor:
    """Rescale the queries' attention to events as if they also saw a key `sink` (D,) whose value is 0.

    Args and returns: as of `merge_own`.
    """
    heads = lse.shape[1]
    own = (query * sink).unflatten(-1, (heads, -1)).sum(dim=-1, dtype=lse.dtype)
    own = own * (len(sink) // heads) ** -0.5
    weight = torch.sigmoid(lse.transpose(1, 2) - own)[..., None]
    return (shared.unflatten(-1, (heads, -1)) * weight).to(shared.dtype).flatten(2)


def same_candidate(query: Tensor, own: Tensor, tokens: int, *, causal: bool) -> Tensor:
    """(C n, C m) bool: whether queries (R, C n, D) see tokens (R, C m, 2 D), those of their own candidate.

    Args: as of `attend_split`, for one call over all tokens.
    """
    candidates = torch.arange(query.shape[1] // tokens, device=query.device)
    each = own.shape[1] // max(1, len(candidates))
    same = candidates.repeat_interleave(tokens)[:, None] == candidates.repeat_interleave(each)
    if not causal:
        return same
    return same & _earlier(tokens, each, query.device).repeat(len(candidates), len(candidates))


def _earlier(asked: int, tokens: int, device: torch.device) -> Tensor:
    """(n, m) bool: whether the i-th of n queries sees the j-th of its candidate's m tokens, j ≤ i."""
    return torch.ones(asked, tokens, dtype=torch.bool, device=device).tril()
