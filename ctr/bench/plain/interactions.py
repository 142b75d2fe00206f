"""Interactions of the grid in plain torch, (B, T, D) to (B, T', W).

B candidates, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.bench.plain.layers import (
    after,
    before,
    ffn,
    heads_attention,
    linear,
    mix,
    per_token_ffn,
    stack,
)  # fmt: skip


def mlp(block: Any, x: Tensor) -> Tensor:
    """GELU(W x + b), or nothing."""
    return stack(block.layers, x.flatten(1))[:, None] if len(block.layers) else x


def dcn(block: Any, tokens: Tensor) -> Tensor:
    """x_0 ⊙ (W x + b) + x."""
    x = first = tokens.flatten(1)
    for layer in block.maps:
        x = first * (linear(layer, x) if hasattr(layer, "weight") else stack(layer, x)) + x
    return x[:, None]


def wukong(block: Any, x: Tensor) -> Tensor:
    """All products of tokens, then compressed."""
    for layer in block.layers:
        products = (x @ x.transpose(1, 2)) @ layer.compress
        crossed = stack(layer.mlp, layer.fm_norm(products.flatten(1))).unflatten(1, (layer.fm_tokens, -1))
        by_token = x.transpose(1, 2)
        new = torch.cat([crossed, linear(layer.linear, by_token).transpose(1, 2)], dim=1)
        x = layer.norm(new + linear(layer.skip, by_token).transpose(1, 2))
    return x


def rank_mixer(block: Any, x: Tensor) -> Tensor:
    """The blocks one after another."""
    for layer in block.blocks:
        x = rank_mixer_layer(layer, x)
    return x


def rank_mixer_layer(layer: Any, x: Tensor) -> Tensor:
    """Mixing, then a network for each token."""
    mixed = after(layer.around_mixing, x, mix(before(layer.around_mixing, x)))
    return after(layer.around_ffn, mixed, per_token_ffn(layer.ffn, before(layer.around_ffn, mixed)))


def transformer(block: Any, x: Tensor) -> Tensor:
    """Attention of all tokens to all."""
    for layer in block.layers:
        query, key, value = linear(layer.mapped, before(layer.around_attention, x)).chunk(3, dim=-1)
        read = linear(layer.output, heads_attention(query, key, value, layer.heads, None))
        x = after(layer.around_attention, x, read)
        network = per_token_ffn if layer.ffn.up.weight.dim() == 3 else ffn
        x = after(layer.around_ffn, x, network(layer.ffn, before(layer.around_ffn, x)))
    return x


def autoint(block: Any, x: Tensor) -> Tensor:
    """Attention, and a mapped residual."""
    for layer in block.layers:
        query, key, value = linear(layer.mapped, x).chunk(3, dim=-1)
        read = heads_attention(query * layer.scale, key, value, layer.heads, None)
        x = F.relu(read + linear(layer.skip, x))
    return x


INTERACTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "mlp": mlp, "dcn": dcn, "wukong": wukong, "rank_mixer": rank_mixer, "transformer": transformer,
    "autoint": autoint,
}  # fmt: skip
