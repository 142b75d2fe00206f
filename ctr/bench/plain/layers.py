"""Parts of plain models: functions of the weights of a block, without a kernel of this project.

B candidates, N queries, L keys, D width, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """W x + b; an identity gives x."""
    if isinstance(layer, nn.Identity):
        return x
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight, layer.bias)


def stack(layers: nn.Module, x: Tensor) -> Tensor:
    """Linear maps, and what stands between them, one after another."""
    for layer in layers.children():
        x = linear(layer, x) if isinstance(layer, nn.Linear) else layer(x)
    return x


def ffn(layer: Any, x: Tensor) -> Tensor:
    """W_2 GELU(W_1 x + b_1) + b_2."""
    return linear(layer.down, F.gelu(linear(layer.up, x)))


def swiglu(layer: Any, x: Tensor) -> Tensor:
    """W_d (silu(W_g x) ⊙ W_u x)."""
    gate, up = linear(layer.gate_up, x).chunk(2, dim=-1)
    return linear(layer.down, F.silu(gate) * up)


def per_token(layer: Any, x: Tensor) -> Tensor:
    """(B, T, I) to (B, T, O), a map of its own for each token."""
    mapped = torch.einsum("bti,tio->bto", x, layer.weight)
    return mapped if layer.bias is None else mapped + layer.bias[:, 0]


def per_token_ffn(layer: Any, x: Tensor) -> Tensor:
    """(B, T, D) to (B, T, D)."""
    return per_token(layer.down, F.gelu(per_token(layer.up, x)))


def mix(x: Tensor) -> Tensor:
    """Token h of the result is piece h of every token, (B, T, D)."""
    tokens = x.shape[1]
    return x.unflatten(2, (tokens, -1)).transpose(1, 2).flatten(2)


def before(around: Any, x: Tensor) -> Tensor:
    """x as the branch of a residual connection reads it."""
    normed: Tensor = around.norm(x) if around.placement == "pre" else x
    return normed


def after(around: Any, x: Tensor, update: Tensor) -> Tensor:
    """x and what the branch made of it."""
    joined: Tensor = around.norm(x + update) if around.placement == "post" else x + update
    return joined


def heads_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ / √d) V of each head; mask (B or 1, N or 1, L) bool; 0 where nothing is seen."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    seen = None if mask is None else mask[:, None]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)


def attention(layer: Any, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """Queries (B, N, D) over keys (B, L, D), with all four projections; (B, N, D)."""
    key, value = linear(layer.key_value, keys).chunk(2, dim=-1)
    mixed = heads_attention(linear(layer.query, queries), key, value, layer.heads, mask)
    return linear(layer.output, mixed)


def transformer_layer(layer: Any, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """A Transformer layer in which `queries` (B, N, D), some of the `keys` (B, L, D), ask."""
    around = layer.around_attention
    update = attention(layer.attention, before(around, queries), before(around, keys), mask)
    hidden = after(around, queries, update)
    return after(layer.around_ffn, hidden, ffn(layer.ffn, before(layer.around_ffn, hidden)))


def softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Over the L events (B, L, …) that there are; zeros where there is none."""
    mask = mask.view(*mask.shape, *[1] * (scores.dim() - 2))
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1) * mask


def lengths(mask: Tensor) -> Tensor:
    """(B,): the events of each row."""
    return mask.sum(dim=1)


def at(values: Tensor, index: Tensor) -> Tensor:
    """(B, L, …) and (B, K) to (B, K, …); an index below 0 takes place 0, to be masked."""
    spread = index.clamp(min=0).view(*index.shape, *[1] * (values.dim() - 2))
    return values.gather(1, spread.expand(*index.shape, *values.shape[2:]))


def newest_first(mask: Tensor, count: int) -> Tensor:
    """(B, K) places of the newest K events, the newest first; negative where there is none."""
    return lengths(mask)[:, None] - 1 - torch.arange(min(count, mask.shape[1]), device=mask.device)


def behind_padding(mask: Tensor, count: int | None = None) -> Tensor:
    """(B, K) places of the newest K events, all if None, the oldest first and the padding in front."""
    return newest_first(mask, mask.shape[1] if count is None else count).flip(1)
