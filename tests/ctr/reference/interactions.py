"""The interactions of the grid for one row, tokens (T, D); each reads the weights and options of a block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.ctr.reference import formulas
from tests.ctr.reference.formulas import gelu, heads_attention, linear, norm


def mlp(block: nn.Module, tokens: Tensor, _: Any) -> Tensor:
    maps = [layer for layer in block.layers if isinstance(layer, nn.Linear)]
    if not maps:
        return tokens
    x = tokens.flatten()
    for layer in maps:
        x = gelu(linear(layer, x))
    return x[None]


def dcn(block: nn.Module, tokens: Tensor, _: Any) -> Tensor:
    first = x = tokens.flatten()
    for layer in block.maps:
        mapped = (
            linear(layer[1], linear(layer[0], x)) if isinstance(layer, nn.Sequential) else linear(layer, x)
        )
        x = first * mapped + x
    return x[None]


def wukong(block: nn.Module, x: Tensor, _: Any) -> Tensor:
    for layer in block.layers:
        products = (x @ x.T) @ layer.compress
        first, last = layer.mlp[0], layer.mlp[2]
        crossed = linear(last, gelu(linear(first, norm(layer.fm_norm, products.flatten()))))
        new = torch.cat([crossed.view(layer.fm_tokens, -1), layer.linear.weight @ x])
        kept = x if isinstance(layer.skip, nn.Identity) else layer.skip.weight @ x
        x = norm(layer.norm, new + kept)
    return x


def rank_mixer(block: nn.Module, tokens: Tensor, _: Any) -> Tensor:
    for layer in block.blocks:
        tokens = formulas.rank_mixer(layer, tokens)
    return tokens


def transformer(block: nn.Module, x: Tensor, _: Any) -> Tensor:
    for layer in block.layers:
        q, k, v = linear(layer.mapped, norm(layer.around_attention.norm, x)).chunk(3, dim=1)
        read = torch.stack([heads_attention(one, k, v, layer.heads) for one in q])
        x = x + linear(layer.output, read)
        network: Any = formulas.per_token_ffn if layer.ffn.up.weight.dim() == 3 else formulas.ffn
        x = x + network(layer.ffn, norm(layer.around_ffn.norm, x))
    return x


def autoint(block: nn.Module, x: Tensor, config: Any) -> Tensor:
    for layer in block.layers:
        q, k, v = (x @ layer.mapped.weight.T).chunk(3, dim=1)
        unscaled = 1.0 if config.scaled else math.sqrt(q.shape[1] // layer.heads)
        read = torch.stack([heads_attention(one * unscaled, k, v, layer.heads) for one in q])
        x = torch.clamp(read + x @ layer.skip.weight.T, min=0)
    return x


INTERACTIONS: dict[str, Callable[[nn.Module, Tensor, Any], Tensor]] = {
    "mlp": mlp, "dcn": dcn, "wukong": wukong, "rank_mixer": rank_mixer, "transformer": transformer,
    "autoint": autoint,
}  # fmt: skip
