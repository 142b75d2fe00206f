"""The formulas of the papers, one request and one candidate at a time: loops, no packing, no sharing.

Every function reads the weights of the block under test, and nothing else of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    y = x @ layer.weight.T
    return y if layer.bias is None else y + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def softmax(scores: Tensor) -> Tensor:
    return torch.exp(scores) / torch.exp(scores).sum()


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def norm(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Identity):
        return x
    if isinstance(layer, nn.RMSNorm):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps) * layer.weight
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + layer.eps) * layer.weight + layer.bias


def before(around: nn.Module, x: Tensor) -> Tensor:
    return norm(around.norm, x) if around.placement == "pre" else x


def after(around: nn.Module, x: Tensor, update: Tensor) -> Tensor:
    return norm(around.norm, x + update) if around.placement == "post" else x + update


def ffn(layer: nn.Module, x: Tensor) -> Tensor:
    return linear(layer.down, gelu(linear(layer.up, x)))


def swiglu(layer: nn.Module, x: Tensor) -> Tensor:
    gate, up = layer.gate_up.weight.chunk(2)
    return linear(layer.down, silu(x @ gate.T) * (x @ up.T))


def attention(layer: nn.Module, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """Queries (n, D) over keys (L, D), head by head; mask (n, L) is True where a query sees a key.

    A sink is one more key, whose value is 0.
    """
    query = linear(layer.query, queries)
    key, value = linear(layer.key_value, keys).chunk(2, dim=-1)
    width = query.shape[1] // layer.heads
    out = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        rows = []
        for row in range(len(query)):
            seen = torch.ones(len(key), dtype=torch.bool) if mask is None else mask[row]
            logits = key[seen, part] @ query[row, part] / math.sqrt(width)
            total = torch.exp(logits).sum()
            if layer.sink is not None:
                total = total + torch.exp(layer.sink[part] @ query[row, part] / math.sqrt(width))
            weights = torch.exp(logits) / total
            rows.append(weights @ value[seen, part])
        out.append(torch.stack(rows) if rows else query[:, part])
    return linear(layer.output, torch.cat(out, dim=1))


def heads_attention(
    query: Tensor, keys: Tensor, values: Tensor, heads: int, bias: Tensor | None = None
) -> Tensor:
    """Query (D,) over keys and values (L, D); bias (L, H)."""
    width = len(query) // heads
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = keys[:, part] @ query[part] / math.sqrt(width)
        scores = scores if bias is None else scores + bias[:, head]
        out.append(softmax(scores) @ values[:, part] if len(keys) else torch.zeros(width, dtype=query.dtype))
    return torch.cat(out)


def encoder(block: Any, events: Tensor) -> Tensor:
    """H of one request: the newest `recent` events attend to all events."""
    kept = len(events) if block.recent is None else min(block.recent, len(events))
    short = events[len(events) - kept :]
    around = block.around_attention
    hidden = after(around, short, attention(block.attention, before(around, short), before(around, events)))
    return after(block.around_ffn, hidden, ffn(block.ffn, before(block.around_ffn, hidden)))


def swiglu_encoder(block: nn.Module, events: Tensor) -> Tensor:
    if block.around is None:
        return swiglu(block.swiglu, events)
    return after(block.around, events, swiglu(block.swiglu, before(block.around, events)))


def pool(events: Tensor) -> Tensor:
    return events.mean(0) if len(events) else events.new_zeros(events.shape[1])


def query_generation(block: nn.Module, tokens: Tensor, pools: list[Tensor], owners: list[int]) -> Tensor:
    """The queries of one candidate, tokens (M, D); owners: the sequence of each query."""
    read = tokens if block.target is None else tokens[block.target : block.target + 1]
    queries = []
    for i, owner in enumerate(owners):
        seen = {"all": pools, "own": [pools[owner]], "none": []}[block.pools]
        info = torch.cat([read.flatten(), *seen])
        weight = block.tokens_up.weight[i]
        if block.pools_up is not None:
            weight = torch.cat([weight, block.pools_up.weight[i]])
        hidden = gelu(info @ weight + block.tokens_up.bias[i, 0])
        queries.append(hidden @ block.down.weight[i] + block.down.bias[i, 0])
    return torch.stack(queries)


def query_decoding(block: nn.Module, queries: Tensor, events: Tensor) -> Tensor:
    """The queries (n, D) of one candidate and sequence; without events attention is its output bias."""
    asked, keys = before(block.around, queries), norm(block.event_norm, events)
    if len(events):
        read = attention(block.attention, asked, keys)
    else:
        read = block.attention.output.bias.expand_as(queries)
    return after(block.around, queries, read) if block.residual else read


def mix(tokens: Tensor) -> Tensor:
    """One candidate: the new token h is piece h of every token."""
    count = len(tokens)
    pieces = [token.chunk(count) for token in tokens]
    return torch.stack([torch.cat([pieces[t][h] for t in range(count)]) for h in range(count)])


def per_token_ffn(block: nn.Module, tokens: Tensor) -> Tensor:
    out = []
    for t, token in enumerate(tokens):
        hidden = gelu(token @ block.up.weight[t] + block.up.bias[t, 0])
        out.append(hidden @ block.down.weight[t] + block.down.bias[t, 0])
    return torch.stack(out)


def query_boosting(block: nn.Module, tokens: Tensor) -> Tensor:
    return after(block.around, tokens, per_token_ffn(block.ffn, mix(before(block.around, tokens))))


def rank_mixer(block: nn.Module, tokens: Tensor) -> Tensor:
    mixed = after(block.around_mixing, tokens, mix(before(block.around_mixing, tokens)))
    return after(block.around_ffn, mixed, per_token_ffn(block.ffn, before(block.around_ffn, mixed)))


def token_merge(block: nn.Module, events: Tensor) -> Tensor:
    """Cut groups from the end, run InnerTrans in each, put zeros in front of the oldest, concatenate."""
    merged: list[Tensor] = []
    for end in range(len(events), 0, -block.group):
        group = events[max(end - block.group, 0) : end]
        for layer in block.inner:
            group = encoder(layer, group)
        missing = group.new_zeros(block.group - len(group), group.shape[1])
        merged.insert(0, torch.cat([missing, group]).flatten())
    return torch.stack(merged) if merged else events.new_zeros(0, block.group * events.shape[1])
